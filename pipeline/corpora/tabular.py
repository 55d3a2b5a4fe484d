"""Tables of a user, CSV, JSON Lines or Parquet → their cells as texts, so many rows at a time.

Cells are texts from the first byte on: an id of nineteen digits keeps them, whether or not another row lacks its own.
A table that says something else than it seems to is refused with the row: one with too many or too few cells, a column
or a key that stands twice, text that is no UTF-8, whole numbers that were rounded when they were stored.
"""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader, TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core import json_text
from pipeline.core.errors import InputError
from pipeline.core.files import NOT_FOUND, MediaError, reading

EXACT = 2**53
"""Floating point holds every whole number below this, and not every one above."""

NO_TEXT = "is not UTF-8, or holds half a character; correct it, or leave the row out"

AT_ONCE = 1024
"""Rows read together where the caller wants all of them."""


@dataclass(frozen=True)
class TextRows:
    """Some rows of a table.

    Attributes:
        columns: the names of all columns that the table was seen to have.
        cells: the wanted ones among them: trimmed texts, and None for blank or missing cells.
    """

    columns: tuple[str, ...]
    cells: pd.DataFrame


def read_texts(path: Path, requested: Sequence[str], rows: int | None, hint: str = "") -> Iterator[TextRows]:
    """A table whose format its ending names, ``rows`` at a time (None: all at once); at least one part.

    What ends in .parquet may be a folder: its Parquet files are read one after another, by their names.

    Args:
        hint: what to do about a file that is not there.

    Raises InputError, which names the file and the row: it cannot be read, or is no regular table of texts.
    """
    readers = {".csv": csv_texts, ".jsonl": _jsonl_texts, ".ndjson": _jsonl_texts, ".parquet": _parquet_texts}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: a manifest ends in .csv, .jsonl or .parquet")
    return reader(path, requested, rows, hint)


@contextmanager
def opened(path: Path, hint: str = "") -> Iterator[BufferedReader]:
    """A table's bytes. What cannot be read of it while it is open raises InputError, too."""
    try:
        with reading(path) as handle:
            yield handle
    except MediaError as error:
        what = "not found" if str(error) == NOT_FOUND else str(error)
        raise InputError(f"{path}: {what}{hint}") from None
    except (ValueError, csv.Error, pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not readable as {path.suffix[1:]}: {' '.join(str(error).split())}") from None


def _refuse_other_kind(handle: BufferedReader) -> None:
    """Raises ValueError where what is named as a text begins as a kind of file that is none."""
    begins = handle.peek(4)[:4]
    for magic, what in OTHER_KINDS.items():
        if begins.startswith(magic):
            raise ValueError(what)


OTHER_KINDS = {
    b"PK\x03\x04": "it is an Excel workbook or another zip file; save the table as CSV",
    b"\x1f\x8b": "it is compressed with gzip; unpack it",
    b"PAR1": "it is a Parquet file; let its name end in .parquet",
}
"""First bytes → what a file is."""


# --- CSV -------------------------------------------------------------------------------------------------------------


def csv_texts(path: Path, requested: Sequence[str], rows: int | None, hint: str = "") -> Iterator[TextRows]:
    """A CSV file, as ``read_texts``; blank lines are skipped."""
    csv.field_size_limit(2**31 - 1)  # a cell may hold a sequence of vectors; the file is as large as its user wants
    with opened(path, hint) as handle:
        _refuse_other_kind(handle)
        # What is no UTF-8 becomes half a character, which the checks of the cells name the row of.
        text = TextIOWrapper(handle, "utf-8-sig", errors="surrogateescape", newline="")
        records = _records(csv.reader(text, strict=True))
        _, header = next(records, (0, None))
        if header is None:
            raise InputError(f"{path}: is empty")
        if not all(map(is_text, header)):
            raise ValueError("the header is not UTF-8; save the file as UTF-8")
        names = [name or f"column {number}" for number, name in enumerate(header, start=1)]
        refuse_twice(names)
        at = {name: names.index(name) for name in requested if name in names}
        yield from _parts(path, _regular(records, len(names)), names, at, rows)


def _records(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Each record that is not blank, and the line it begins in."""
    line = 1
    while True:
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            end = str(error) == "unexpected end of data"
            raise ValueError(f"line {line}: {'a quote is never closed' if end else error}") from None
        if record:
            yield line, record
        line = reader.line_num + 1


def _regular(records: Iterable[tuple[int, list[str]]], width: int) -> Iterator[list[str]]:
    """The records. Raises ValueError for one of another width than the header: its cells would be of other columns."""
    for row, (line, record) in enumerate(records, start=1):
        if len(record) != width:
            raise ValueError(
                f"row {row} (line {line}) has {len(record)} cells, the header has {width}; "
                'put texts that hold commas in "quotes", and leave no comma at an end'
            )
        yield record


def listed(columns: Sequence[str]) -> str:
    """The columns of a table as a message lists them, and what to do where its cells are not divided by commas."""
    shown = ", ".join(repr(name) if name != name.strip() else name for name in columns) or "none"
    other = next((mark for mark in (";", "\t", "|") if len(columns) == 1 and mark in columns[0]), None)
    return shown if other is None else f"{shown!r}; its cells are divided by {other!r}: save it with commas"


def refuse_twice(names: Sequence[str]) -> None:
    """Raises ValueError where a name stands twice: which column it means would be a guess."""
    seen: set[str] = set()
    twice = next((name for name in names if name in seen or seen.add(name)), None)
    if twice is not None:
        raise ValueError(f"the column {twice!r} stands there twice; rename one")


def _parts(
    path: Path, records: Iterator[list[str]], names: list[str], at: Mapping[str, int], rows: int | None
) -> Iterator[TextRows]:
    done, some = 0, list(islice(records, rows))
    while True:
        cells = {name: texts([record[place] for record in some], f"{path}: {name}", done) for name, place in at.items()}
        yield TextRows(tuple(names), pd.DataFrame(cells, index=range(len(some)), dtype=object))
        done, some = done + len(some), list(islice(records, rows))
        if not some:
            return


# --- JSON Lines ------------------------------------------------------------------------------------------------------


def _jsonl_texts(path: Path, requested: Sequence[str], rows: int | None, hint: str) -> Iterator[TextRows]:
    """Blank lines are skipped; a key that a row lacks is a missing cell."""
    seen: dict[str, None] = {}
    with opened(path, hint) as handle:
        _refuse_other_kind(handle)
        objects, done = _objects(handle, seen), 0
        some = list(islice(objects, rows))
        while True:
            cells = {
                name: texts([row.get(name) for row in some], f"{path}: {name}", done)
                for name in requested
                if name in seen
            }
            yield TextRows(tuple(seen), pd.DataFrame(cells, index=range(len(some)), dtype=object))
            done, some = done + len(some), list(islice(objects, rows))
            if not some:
                return


def _objects(handle: BufferedReader, seen: dict[str, None]) -> Iterator[dict[str, Any]]:
    """The object of each line; their keys are added to ``seen``. Raises ValueError, which names the line."""
    for number, line in enumerate(handle, start=1):
        line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if not line.strip():
            continue
        try:
            row = json_text.parse(line.decode("utf-8").rstrip("\r\n"), numbers_as_text=True)
        except UnicodeDecodeError:
            raise ValueError(f"line {number} is not UTF-8; save the file as UTF-8") from None
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is no object; each line holds one post as {{...}}")
        for name in row:
            if not is_text(name):
                raise ValueError(f"line {number}: a key holds half a character")
        seen.update(dict.fromkeys(row))
        yield row


# --- Parquet ---------------------------------------------------------------------------------------------------------


def _parquet_texts(path: Path, requested: Sequence[str], rows: int | None, hint: str) -> Iterator[TextRows]:
    columns: dict[str, None] = {}
    cells: list[pd.DataFrame] = []
    for file in table_files(path):
        partition_values = _partition_values(path, file) if file != path else {}
        for part in _parquet_file_texts(file, requested, rows, hint):
            columns.update(dict.fromkeys([*part.columns, *partition_values]))
            for name in set(requested) & partition_values.keys() - set(part.columns):
                part.cells[name] = pd.Series(partition_values[name], part.cells.index, dtype=object)
            if rows is None:
                cells.append(part.cells)
            else:
                yield TextRows(tuple(columns), part.cells)
    if rows is None:
        whole = pd.concat(cells, ignore_index=True)
        yield TextRows(tuple(columns), whole.astype(object).where(whole.notna(), None))


def _partition_values(path: Path, file: Path) -> dict[str, str | None]:
    """Columns that folder names give for all rows of a part of ``path``, as in `label=Joy/part-0.parquet` (Hive's way).

    Raises InputError where a name is no UTF-8, or two folders say something of the same column.
    """
    partition_values: dict[str, str | None] = {}
    for folder in file.relative_to(path).parent.parts:
        if "=" not in folder:
            continue
        # A character that stands for bytes that are none of UTF-8, as in names of files that are not.
        name, _, value = unquote(folder, errors="surrogateescape").partition("=")
        if not is_text(name + value):
            raise InputError(f"{file}: the name of its folder {folder} is not UTF-8; rename the folder")
        if name in partition_values:
            raise InputError(f"{file}: two of its folders say {name}=; rename one")
        partition_values[name] = None if value == "__HIVE_DEFAULT_PARTITION__" else value.strip() or None
    return partition_values


def table_files(path: Path) -> list[Path]:
    """The files of a table: itself, or the Parquet files in a folder by their names, but for `_…` and `.…`.

    Raises InputError where a folder has none.
    """
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.rglob("*.parquet") if not file.name.startswith(("_", ".")))
    if not files:
        raise InputError(f"{path}: is a folder without Parquet files")
    return files


def _parquet_file_texts(path: Path, requested: Sequence[str], rows: int | None, hint: str) -> Iterator[TextRows]:
    with opened(path, hint) as handle, pq.ParquetFile(handle) as file:
        names = file.schema_arrow.names
        refuse_twice(names)
        kept, done = [name for name in requested if name in names], 0
        for table in _tables(file, kept, rows):
            cells = {name: arrow_texts(table[name], f"{path}: {name}", done) for name in kept}
            yield TextRows(tuple(names), pd.DataFrame(cells, index=range(len(table)), dtype=object))
            done += len(table)


def _tables(file: pq.ParquetFile, names: list[str], rows: int | None) -> Iterator[pa.Table]:
    """So many rows at a time, but for the last; one without rows where the file has none."""
    schema = pa.schema([file.schema_arrow.field(name) for name in names])
    rest: list[pa.RecordBatch] = []
    batches = 0
    for batch in file.iter_batches(batch_size=rows or AT_ONCE, columns=names):
        rest.append(batch)  # row groups end where they like, so batches are joined to whole parts
        if rows and sum(map(len, rest)) >= rows:
            table = pa.Table.from_batches(rest)
            yield table.slice(0, rows)
            rest, batches = table.slice(rows).to_batches(), batches + 1
    if sum(map(len, rest)) or not batches:
        yield pa.Table.from_batches(rest) if rest else schema.empty_table()


def arrow_texts(column: pa.ChunkedArray, where: str, done: int = 0) -> list[str | None]:
    """A column of Parquet as ``texts``, whose errors it raises; also for a date or time that no text stands for."""
    if pa.types.is_nested(column.type) and len(column) > column.null_count:
        row = next(at for at, cell in enumerate(column, start=done + 1) if cell.is_valid)
        raise InputError(f"{where}: row {row} holds a {column.type}, where one text or number is needed")
    try:
        cells = column.to_pylist()
    except (ArithmeticError, LookupError, ValueError, pa.ArrowException):
        raise InputError(f"{where}: {_first_unreadable(column, done)}") from None
    return texts(cells, where, done)


def _first_unreadable(column: pa.ChunkedArray, done: int) -> str:
    """The first row whose value Python has nothing for, and why."""
    for row, cell in enumerate(column, start=done + 1):
        try:
            cell.as_py()
        except UnicodeDecodeError:
            return f"row {row} {NO_TEXT}"
        except (ArithmeticError, LookupError, ValueError, pa.ArrowException):
            return f"row {row} holds a {column.type} out of range, or of an unknown time zone; store it as text"
    return f"its {column.type} cannot be read; store it as text"


# --- cells -----------------------------------------------------------------------------------------------------------


def texts(cells: Sequence[Any], where: str, done: int = 0) -> list[str | None]:
    """Cells as trimmed texts; blank and missing ones as None. A number 7.0 is ``7``.

    Args:
        where: file and column, for messages.
        done: rows that stand before these.

    Raises InputError, which names the row: a cell holds a list or the like, bytes, half a character, or a whole number
    so large that it was rounded when it became floating point.
    """
    values: list[str | None] = [None] * len(cells)
    for at, cell in enumerate(cells):
        if cell is not None:
            try:
                values[at] = _text(cell)
            except ValueError as error:
                raise InputError(f"{where}: row {done + at + 1} {error}") from None
    return values


def _text(cell: Any) -> str | None:
    if isinstance(cell, str):
        if not is_text(cell):
            raise ValueError(NO_TEXT)
        return cell.strip() or None
    if isinstance(cell, list | tuple | dict | set | np.ndarray | bytes):
        kind = "list" if isinstance(cell, list | tuple | np.ndarray) else type(cell).__name__
        raise ValueError(f"holds a {kind}, where one text or number is needed")
    if cell is None or pd.isna(cell):
        return None
    if isinstance(cell, float | np.floating) and float(cell).is_integer():
        if math.fabs(cell) >= EXACT:
            raise ValueError(f"holds {cell!r}, a floating-point number whose last digits are lost; store it as text")
        return str(int(cell))
    return str(cell).strip() or None


def is_text(value: str) -> bool:
    """Whether it is a text that can be written: no surrogate without its other half."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
