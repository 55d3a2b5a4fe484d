"""Vectors kept between runs: one SQLite file for each encoder identity, keyed by the digest of what was encoded.

It lies outside the outputs of DVC, which deletes those before a stage runs. Every batch is committed as it comes, so a
killed run goes on where it was, and new posts cost only themselves. Two processes may use one file at once. Each vector
has a checksum: one that was damaged is not there, and so is made again.
"""

import json
import sqlite3
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from pipeline.core.errors import InputError
from pipeline.encoders import weights

WAIT_S = 60.0
"""How long to wait for another process that is writing."""

KEYS_AT_ONCE = 500
"""Keys in one query; SQLite takes at least 999 parameters."""

TABLES = """
CREATE TABLE IF NOT EXISTS identity (json TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS checked (key TEXT PRIMARY KEY, vector BLOB NOT NULL, crc INTEGER NOT NULL);
DROP TABLE IF EXISTS vectors;
"""


class Store:
    """A map from content digests to vectors, float32 [width]; a context manager, for one thread.

    Args:
        folder: where the files of all encoders lie; created when missing.
        identity: the encoder's identity; its ``width`` is the length of every vector.

    Raises:
        InputError: the file is damaged or not ours, the disk is full, the folder cannot be written. Any method may.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.path = folder / f"{weights.digest(identity)[:32]}.sqlite"
        self.width = int(identity["width"])
        with self._explained():
            folder.mkdir(parents=True, exist_ok=True)
            self.connection = sqlite3.connect(self.path, timeout=WAIT_S)
        try:
            self._prepare(json.dumps(identity, sort_keys=True, ensure_ascii=False))
        except InputError:
            self.connection.close()
            raise

    def _prepare(self, identity: str) -> None:
        with self._explained():
            # Readers and a writer do not block each other; after a power failure the last batches may be missing.
            self.connection.execute("PRAGMA journal_mode=WAL")
            self.connection.execute("PRAGMA synchronous=NORMAL")
            with self.connection:
                self.connection.execute("BEGIN IMMEDIATE")
                for statement in TABLES.strip().split("\n"):
                    self.connection.execute(statement)
                stored = self.connection.execute("SELECT json FROM identity").fetchone()
                if stored is None:
                    self.connection.execute("INSERT INTO identity VALUES (?)", (identity,))
            if stored is not None and stored[0] != identity:
                raise InputError(f"{self.path}: holds the vectors of another encoder; delete this file and run again")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise InputError(
                f"{self.path}: cannot be used as the store of embeddings ({error}); free the disk, or delete this file "
                "and run again, or name another folder in the environment variable EMOCARE_CACHE"
            ) from None
        except OSError as error:
            raise InputError(
                f"{self.path.parent}: cannot be written ({error.strerror}); name another folder in the environment "
                "variable EMOCARE_CACHE"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.connection.close()

    def get(self, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """The vectors of those keys that are there, undamaged; they are read-only."""
        vectors: dict[str, np.ndarray] = {}
        damaged: list[str] = []
        for at in range(0, len(keys), KEYS_AT_ONCE):
            some = list(keys[at : at + KEYS_AT_ONCE])
            marks = ",".join("?" * len(some))
            with self._explained():
                rows = self.connection.execute(f"SELECT key, vector, crc FROM checked WHERE key IN ({marks})", some)
                for key, blob, crc in rows:
                    if len(blob) == 4 * self.width and crc == checksum(key, blob):
                        vectors[key] = np.frombuffer(blob, dtype="<f4")
                    else:
                        damaged.append(key)
        if damaged:
            print(f"{self.path}: {len(damaged)} vectors were damaged, and are made again", file=sys.stderr)
            with self._explained(), self.connection:
                self.connection.executemany("DELETE FROM checked WHERE key = ?", [(key,) for key in damaged])
        return vectors

    def put(self, vectors: Mapping[str, np.ndarray]) -> None:
        """Keeps the vectors, all or none; a key that another process put meanwhile stays as it is.

        Raises InputError also where one is not finite.
        """
        if not all(np.isfinite(vector).all() for vector in vectors.values()):
            raise InputError(
                "the encoder made a vector with a value that is not finite; choose another in params embed"
            )
        blobs = {key: np.ascontiguousarray(vector, dtype="<f4").tobytes() for key, vector in vectors.items()}
        rows = [(key, blob, checksum(key, blob)) for key, blob in blobs.items()]
        with self._explained(), self.connection:
            self.connection.executemany("INSERT OR IGNORE INTO checked VALUES (?, ?, ?)", rows)


def forget(path: Path, keys: Sequence[str], *, count_only: bool = False) -> int:
    """Removes vectors from a store's file, so that none of their bytes are left in it; returns how many were there.

    Raises InputError when the file is damaged, or another process is at work on it.
    """
    with closing(sqlite3.connect(path, timeout=WAIT_S, isolation_level=None)) as connection:
        try:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'checked'").fetchone():
                return 0  # a file of an earlier release, which ``Store`` empties
            connection.execute("CREATE TEMP TABLE forgotten (key TEXT PRIMARY KEY)")
            connection.executemany("INSERT OR IGNORE INTO forgotten VALUES (?)", [(key,) for key in keys])
            where = "WHERE key IN (SELECT key FROM forgotten)"
            (there,) = connection.execute(f"SELECT count(*) FROM checked {where}").fetchone()
            if there and not count_only:
                connection.execute(f"DELETE FROM checked {where}")
            if not count_only:
                # What is deleted stays in free pages and in the log until both are written anew; an earlier attempt may
                # have been cut off in between, so this is done though nothing was there.
                connection.execute("VACUUM")
                (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                if busy:
                    raise InputError(f"{path}: another process is at work on it; wait until it has ended")
        except sqlite3.Error as error:
            raise InputError(f"{path}: cannot be cleaned ({error}); delete this file, and run again") from None
    return int(there)


def checksum(key: str, blob: bytes) -> int:
    """CRC-32 of key and vector: one that stands under another's key is damaged, too."""
    return zlib.crc32(blob, zlib.crc32(key.encode()))
