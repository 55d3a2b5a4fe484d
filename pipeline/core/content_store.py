"""What was made of contents, kept between runs: one SQLite file for each way of making it, keyed by content digest.

It lies outside the outputs of DVC, which deletes those before a stage runs. Every batch is committed as it comes, so a
killed run goes on where it was, and new contents cost only themselves. Two processes may use one file at once. Each
entry has a checksum: one that was damaged is not there, and so is made again.
"""

import hashlib
import json
import sqlite3
import sys
import time
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline.core.errors import InputError

WAIT_S = 60.0
"""How long to wait for another process that is writing."""

KEYS_AT_ONCE = 500
"""Keys in one query; SQLite takes at least 999 parameters."""

TABLES = """
CREATE TABLE IF NOT EXISTS identity (json TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS checked (key TEXT PRIMARY KEY, vector BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS absent (key TEXT PRIMARY KEY, reason BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS words (key TEXT PRIMARY KEY, words BLOB NOT NULL, crc INTEGER NOT NULL);
DROP TABLE IF EXISTS vectors;
"""

MADE, ABSENT, WORDS = "checked", "absent", "words"
"""The tables that hold what was made of contents, why nothing was, and what is said in them, by their keys."""


def identity_digest(identity: Mapping[str, Any]) -> str:
    """sha256 of an identity's canonical JSON, in hex."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class ContentStore:
    """A map from content digests to bytes; a context manager, for one thread.

    Args:
        folder: where the files of all of its kind lie; created when missing.
        identity: all that what is made of a content depends on, beside the content.
        what: what is made, for messages.

    Raises:
        InputError: the file is damaged or not ours, the disk is full, the folder cannot be written. Any method may.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], what: str) -> None:
        self.path = folder / f"{identity_digest(identity)[:32]}.sqlite"
        self.what = what
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
            self._write_ahead()
            self.connection.execute("PRAGMA synchronous=NORMAL")
            with self.connection:
                self.connection.execute("BEGIN IMMEDIATE")
                for statement in TABLES.strip().split("\n"):
                    self.connection.execute(statement)
                stored = self.connection.execute("SELECT json FROM identity").fetchone()
                if stored is None:
                    self.connection.execute("INSERT INTO identity VALUES (?)", (identity,))
            if stored is not None and stored[0] != identity:
                raise InputError(
                    f"{self.path}: holds {self.what} that were made otherwise; delete this file and run again"
                )

    def _write_ahead(self) -> None:
        """Gives a new file its write-ahead log: here SQLite does not wait for another who has begun to write."""
        until = time.monotonic() + WAIT_S
        while True:
            try:
                self.connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
                time.sleep(0.01)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise InputError(
                f"{self.path}: cannot be used as the store of {self.what} ({error}); free the disk, or delete this "
                "file and run again, or name another folder in the environment variable EMOCARE_CACHE"
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

    def blobs(self, keys: Sequence[str], table: str = MADE) -> dict[str, bytes]:
        """What stands under the keys, undamaged."""
        blobs: dict[str, bytes] = {}
        damaged: list[str] = []
        for at in range(0, len(keys), KEYS_AT_ONCE):
            some = list(keys[at : at + KEYS_AT_ONCE])
            marks = ",".join("?" * len(some))
            with self._explained():
                for key, blob, crc in self.connection.execute(f"SELECT * FROM {table} WHERE key IN ({marks})", some):
                    if crc == checksum(key, blob):
                        blobs[key] = blob
                    else:
                        damaged.append(key)
        self.remove(damaged, table)
        return blobs

    def remove(self, damaged: Collection[str], table: str = MADE) -> None:
        if damaged:
            print(f"{self.path}: {len(damaged)} entries were damaged, and are made again", file=sys.stderr)
            with self._explained(), self.connection:
                self.connection.executemany(f"DELETE FROM {table} WHERE key = ?", [(key,) for key in damaged])

    def keep(self, blobs: Mapping[str, bytes], table: str = MADE) -> None:
        """Keeps what was made, all or none; a key that another process put meanwhile stays as it is."""
        rows = [(key, blob, checksum(key, blob)) for key, blob in blobs.items()]
        with self._explained(), self.connection:
            self.connection.executemany(f"INSERT OR IGNORE INTO {table} VALUES (?, ?, ?)", rows)


def forget(path: Path, keys: Sequence[str], *, count_only: bool = False) -> int:
    """Removes what a store's file holds of the keys, so that no byte of it is left; returns how many entries it had.

    Raises InputError when the file is damaged, or another process is at work on it.
    """
    with closing(sqlite3.connect(path, timeout=WAIT_S, isolation_level=None)) as connection:
        try:
            named = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            tables = [name for name in (MADE, ABSENT, WORDS) if (name,) in named]
            if not tables:
                return 0  # a file of an earlier release, which ``ContentStore`` empties
            connection.execute("CREATE TEMP TABLE forgotten (key TEXT PRIMARY KEY)")
            connection.executemany("INSERT OR IGNORE INTO forgotten VALUES (?)", [(key,) for key in keys])
            entries = sum(_forget_of(table, connection, count_only) for table in tables)
            if not count_only:
                # What is deleted stays in free pages and in the log until both are written anew; an earlier attempt may
                # have been cut off in between, so this is done though nothing was there.
                connection.execute("VACUUM")
                (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                if busy:
                    raise InputError(f"{path}: another process is at work on it; wait until it has ended")
        except sqlite3.Error as error:
            raise InputError(f"{path}: cannot be cleaned ({error}); delete this file, and run again") from None
    return entries


def _forget_of(table: str, connection: sqlite3.Connection, count_only: bool) -> int:
    where = "WHERE key IN (SELECT key FROM forgotten)"
    (entries,) = connection.execute(f"SELECT count(*) FROM {table} {where}").fetchone()
    if entries and not count_only:
        connection.execute(f"DELETE FROM {table} {where}")
    return int(entries)


def checksum(key: str, blob: bytes) -> int:
    """CRC-32 of key and content: one that stands under another's key is damaged, too."""
    return zlib.crc32(blob, zlib.crc32(key.encode()))
