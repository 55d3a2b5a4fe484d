"""Rows of text kept in a file without a name, so that memory does not grow with them; and numbers for texts."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.core.artifacts import naming

IN_MEMORY_BYTES = 2**26
"""Only what is larger than this goes to the disk."""

AT_ONCE = 2**14
"""Rows that are in memory together."""

SORTED_TOGETHER = 2**18
"""Rows that are sorted in memory."""

FILES = 16
"""Among so many files numbers are divided, each of which must fit into memory."""


def _file(folder: Path | None, room: int) -> IO[bytes]:
    """A file that is gone when this process is, however it ends."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    return tempfile.SpooledTemporaryFile(room, dir=None if folder is None else str(folder))


class StoredRows:
    """A table of texts, of which some rows at a time are in memory.

    Args:
        columns: their names.
        folder: where the file lies, once it is larger than ``room``; None: where the system has such files.
    """

    def __init__(self, columns: Sequence[str], folder: Path | None = None, room: int = IN_MEMORY_BYTES) -> None:
        self.schema = pa.schema([(name, pa.large_string()) for name in columns])
        self.folder = folder
        self._file = _file(folder, room)
        self._places: list[tuple[int, int]] = []
        self._rows: list[int] = []

    @classmethod
    def of(cls, frame: pd.DataFrame) -> "StoredRows":
        """The rows of a table that is in memory."""
        rows = cls([str(name) for name in frame])
        rows.add(frame)
        return rows

    def __len__(self) -> int:
        return sum(self._rows)

    def add(self, cells: Mapping[str, Sequence[str | None]] | pd.DataFrame) -> None:
        """Adds rows; a column that is not given has no cells. Raises OSError, which names the folder, without room."""
        count = len(next(iter(cells.values()))) if isinstance(cells, Mapping) else len(cells)
        columns = [
            pa.array(cells[name], field.type, from_pandas=True) if name in cells else pa.nulls(count, field.type)
            for name, field in zip(self.schema.names, self.schema, strict=True)
        ]
        for batch in pa.Table.from_arrays(columns, schema=self.schema).to_batches(AT_ONCE):
            self.add_batch(batch)

    def add_batch(self, batch: pa.RecordBatch) -> None:
        written = batch.serialize()
        with naming(self.folder or Path(tempfile.gettempdir())):
            place = self._file.seek(0, 2)
            self._file.write(written)
            self._file.flush()  # or it is when it is read that there is no room
        self._places.append((place, written.size))
        self._rows.append(len(batch))

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows, in the order in which they were added."""
        for place, size in self._places:
            self._file.seek(place)
            yield pa.ipc.read_record_batch(pa.py_buffer(self._file.read(size)), self.schema)

    def where(self, kept: np.ndarray) -> "StoredRows":
        """Those of the rows that ``kept``, bool [N], says."""
        if kept.all():
            return self
        kept_rows, done = StoredRows(self.schema.names, self.folder), 0
        for batch in self.batches():
            kept_rows.add_batch(batch.filter(pa.array(kept[done : done + len(batch)])))
            done += len(batch)
        return kept_rows

    def parts(self) -> Iterator[pd.DataFrame]:
        """All rows, some at a time, as texts and None."""
        for batch in self.batches():
            yield pd.DataFrame({name: batch[name].to_pylist() for name in self.schema.names}, dtype=object)

    def texts(self, name: str) -> Iterator[list[str | None]]:
        """One column, some rows at a time."""
        for batch in self.batches():
            yield batch[name].to_pylist()

    def column(self, name: str) -> pa.ChunkedArray:
        """One column, whole, as Arrow holds it: the bytes of the texts and eight more for each."""
        copies = [batch[name].take(pa.array(np.arange(len(batch)))) for batch in self.batches()]  # or all is held
        return pa.chunked_array(copies, pa.large_string())

    def in_order(self, rank: np.ndarray) -> Iterator[tuple[np.ndarray, pa.Table]]:
        """All rows in the order of ``rank``, a permutation [N], some at a time: their numbers, and what they hold."""
        count = -(-len(rank) // SORTED_TOGETHER) or 1
        sorted_apart = [StoredRows(self.schema.names, self.folder, IN_MEMORY_BYTES // count) for _ in range(count)]
        members: list[list[np.ndarray]] = [[] for _ in range(count)]
        done = 0
        for batch in self.batches():
            rows = np.arange(done, done + len(batch))
            bucket = rank[rows] // SORTED_TOGETHER
            for number in np.unique(bucket):
                sorted_apart[number].add_batch(batch.filter(pa.array(bucket == number)))
                members[number].append(rows[bucket == number])
            done += len(batch)
        for stored, some in zip(sorted_apart, members, strict=True):
            rows = np.concatenate(some) if some else np.zeros(0, dtype=int)
            order = np.argsort(rank[rows])
            yield rows[order], pa.Table.from_batches(stored.batches(), self.schema).take(pa.array(order))


class Numbered:
    """Rows and numbers that they have, divided by the number among files, so that one file at a time is in memory."""

    def __init__(self, folder: Path | None = None) -> None:
        self._files = [_file(folder, IN_MEMORY_BYTES // FILES) for _ in range(FILES)]
        self._folder = folder

    def add(self, numbers: np.ndarray, rows: np.ndarray) -> None:
        """int64 [n] each: numbers, and rows that have them."""
        file_of = numbers % FILES
        order = np.argsort(file_of, kind="stable")
        ends = np.cumsum(np.bincount(file_of, minlength=FILES))
        pairs = np.stack([numbers, rows], axis=1)[order]
        with naming(self._folder or Path(tempfile.gettempdir())):
            for file, some in zip(self._files, np.split(pairs, ends[:-1]), strict=True):
                file.write(some.tobytes())
                file.flush()

    def parts(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Numbers and rows, int64, of one file after another, in the order in which they were added."""
        for file in self._files:
            file.seek(0)
            pairs = np.frombuffer(file.read(), np.int64).reshape(-1, 2)
            file.seek(0, 2)
            yield pairs[:, 0], pairs[:, 1]

    def together(self) -> Iterator[np.ndarray]:
        """The rows that have one number in common, where they are several, in the order in which they were added."""
        for numbers, rows in self.parts():
            order, starts, sizes = runs(numbers)
            for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
                yield rows[order[start : start + size]]


def runs(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The order, stable, in which equal numbers stand together; where each run of them begins in it, and its length.

    Args:
        numbers: int64 [N].
    """
    order = np.argsort(numbers, kind="stable")
    starts = np.flatnonzero(np.diff(numbers[order], prepend=numbers[order[:1]] - 1))
    return order, starts, np.diff(starts, append=len(order))


def digests(texts: Iterable[str | None]) -> np.ndarray:
    """uint64 [N, 2]: equal for equal texts, and zeros for None; two texts have one by chance in 2 ** 128."""
    none = bytes(16)
    some = iter(texts)
    parts = [np.zeros((0, 2), dtype=np.uint64)]
    while part := list(islice(some, AT_ONCE)):
        joined = b"".join(
            none if text is None else blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
            for text in part
        )
        parts.append(np.frombuffer(joined, np.uint64).reshape(-1, 2))
    return np.concatenate(parts)


def firsts(row_digests: np.ndarray) -> np.ndarray:
    """int64 [N]: the first row with the same digest; -1 where there is none. Of ``digests``."""
    order = np.lexsort((row_digests[:, 1], row_digests[:, 0]))
    ordered = row_digests[order]
    new = np.ones(len(row_digests), dtype=bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    starts = np.flatnonzero(new)
    first = np.empty(len(row_digests), dtype=np.int64)
    first[order] = np.repeat(order[starts], np.diff(starts, append=len(row_digests)))
    first[~row_digests.any(axis=1)] = -1
    return first
