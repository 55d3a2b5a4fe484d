"""A table of ready-made features, Parquet or CSV → its raw rows and vectors."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.core import json_text
from pipeline.core.errors import InputError
from pipeline.core.schemas import FEATURES, Feature
from pipeline.corpora import named_columns
from pipeline.corpora.raw_features import (
    NO_NUMBERS,
    SCALARS,
    RawFeatures,
    RawVectors,
    concatenate_cells,
    feature_name,
    stack_vectors,
)
from pipeline.corpora.sequences import pooled
from pipeline.corpora.tabular import TextRows, arrow_texts, csv_texts, listed, opened, refuse_twice

OTHER_NAMES = {"vision": "visual"}
BATCH_ROWS = 4096
"""Rows of a Parquet column that are unpacked at once."""


def read_parquet_table(path: Path, where: str) -> RawFeatures:
    with opened(path) as handle, pq.ParquetFile(handle) as file:
        return _read_parquet(path, file, ("id", "score"))


def parquet_parts(path: Path, rows: int) -> Iterator[RawFeatures]:
    """A table that need not have scores or ids, so many rows at a time."""
    with opened(path) as handle, pq.ParquetFile(handle) as file:
        if not file.metadata.num_rows:
            raise InputError(f"{path}: holds no rows")
        done = 0
        for batch in file.iter_batches(rows):
            buffer = pa.BufferOutputStream()
            with pq.ParquetWriter(buffer, file.schema_arrow) as writer:
                writer.write_batch(batch)
            yield _read_parquet(path, pq.ParquetFile(pa.BufferReader(buffer.getvalue())), (), done)
            done += len(batch)


def _read_parquet(path: Path, file: pq.ParquetFile, required: Sequence[str], done: int = 0) -> RawFeatures:
    schema = file.schema_arrow
    refuse_twice(schema.names)
    lists, ignored = _modalities(path, schema.names, required)
    named: dict[Feature, list[str]] = {
        name: columns for name, columns in named_columns.blocks(schema.names).items() if name not in lists
    }
    words = "text" in schema.names and _is_text(schema.field("text").type)
    if words:
        lists.pop("text")
    scalars = [name for name in SCALARS if name in schema.names] + ["text"] * words
    rows = _scalars(path, _cells(path, file.read(columns=scalars), done))
    vectors: dict[Feature, RawVectors] = {
        name: stack_vectors(len(rows), _column(path, file, column))
        for name, column in lists.items()
        if not pa.types.is_null(schema.field(column).type)
    }
    for name, columns in named.items():
        vectors[name] = named_columns.read_block(path, file, columns, BATCH_ROWS)
    used = {column for columns in named.values() for column in columns}
    made_by = named_columns.extractors(path, schema)
    return RawFeatures(
        rows,
        vectors,
        tuple(name for name in ignored if name not in used),
        {name: extractor for name, extractor in made_by.items() if name in named},
    )


def _is_text(kind: pa.DataType) -> bool:
    value = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
    return pa.types.is_string(value) or pa.types.is_large_string(value)


def _modalities(
    path: Path, columns: Sequence[str], required: Sequence[str]
) -> tuple[dict[Feature, str], tuple[str, ...]]:
    """The column of each modality, and the columns that mean nothing here."""
    missing = " and ".join(name for name in required if name not in columns)
    if missing:
        raise InputError(f"{path}: lacks the column {missing} (has: {listed(columns)})")
    column_of: dict[Feature, str] = {name: name for name in FEATURES if name in columns}
    for other, name in OTHER_NAMES.items():
        if other in columns:
            column_of.setdefault(feature_name(name), other)
    return column_of, tuple(name for name in columns if name not in (*SCALARS, *column_of.values()))


def _cells(path: Path, table: pa.Table, done: int) -> pd.DataFrame:
    """Texts, but for scores that are numbers; ``done`` rows stand before, for messages."""
    cells: dict[str, Any] = {}
    for name in table.column_names:
        column = table[name]
        number = pa.types.is_floating(column.type) or pa.types.is_integer(column.type)
        cells[name] = (
            column.cast(pa.float64(), safe=False).to_numpy()
            if name == "score" and number
            else pd.Series(arrow_texts(column, f"{path}: {name}", done), dtype=object)
        )
    return pd.DataFrame(cells, index=range(len(table)))


def _scalars(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    if not len(frame):
        raise InputError(f"{path}: holds no rows")
    names = ("id", "group", "split", "text", "score")
    return pd.DataFrame({name: frame.get(name) for name in names}, index=range(len(frame)))


def _column(path: Path, file: pq.ParquetFile, name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    kind = file.schema_arrow.field(name).type
    depth = 0
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind, depth = kind.value_type, depth + 1
    number = pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)
    if depth not in (1, 2) or not number:
        holds = file.schema_arrow.field(name).type
        raise InputError(f"{path}: column {name} holds {holds}; lists of numbers, or of lists of numbers, are needed")
    for batch in file.iter_batches(BATCH_ROWS, columns=[name]):
        cells = batch.column(0)
        if depth == 1:
            yield _numbers(cells.flatten()), _lengths(cells)
        else:
            yield concatenate_cells(_pooled_cell(cell.values) if cell.is_valid else None for cell in cells)


def _lengths(lists: Any) -> np.ndarray:
    return pc.call_function("list_value_length", [lists]).fill_null(0).to_numpy(zero_copy_only=False)


def _numbers(array: pa.Array) -> np.ndarray:
    return array.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)


def _pooled_cell(steps: Any) -> np.ndarray | Sequence[str] | None:
    """The pooled vector of a list of lists; not numeric when the steps have different widths."""
    widths = _lengths(steps)
    if not len(widths):
        return None
    if not widths[0] or (widths != widths[0]).any():
        return NO_NUMBERS
    return pooled(_numbers(steps.flatten()).reshape(len(widths), -1))


def read_csv_table(path: Path, where: str) -> RawFeatures:
    (table,) = csv_texts(path, CSV_COLUMNS, None)
    return _read_csv(path, table, ("id", "score"))


def csv_parts(path: Path, rows: int) -> Iterator[RawFeatures]:
    """A table that need not have scores or ids, so many rows at a time."""
    for table in csv_texts(path, CSV_COLUMNS, rows):
        yield _read_csv(path, table, ())


def _read_csv(path: Path, table: TextRows, required: Sequence[str]) -> RawFeatures:
    lists, ignored = _modalities(path, table.columns, required)
    for name, columns in named_columns.blocks(table.columns).items():
        if name not in lists:
            raise InputError(
                f"{path}: columns such as {columns[0]} are read from Parquet only; save the table as Parquet"
            )
    rows = _scalars(path, table.cells)
    texts = rows["text"].dropna().astype(str)
    if len(texts) and texts.str.fullmatch(LIKE_NUMBERS).mean() > 0.5:
        rows["text"] = None
    else:
        lists.pop("text", None)
    cells: Mapping[Feature, pd.Series] = {name: table.cells[column] for name, column in lists.items()}
    vectors: dict[Feature, RawVectors] = {
        name: stack_vectors(len(rows), [concatenate_cells(_cell(value) for value in column)])
        for name, column in cells.items()
        if column.notna().any()
    }
    return RawFeatures(rows, vectors, ignored)


CSV_COLUMNS = (*SCALARS, *FEATURES, *OTHER_NAMES)
LIKE_NUMBERS = r"\[[\[\]\d\s.,eE+-]*(?:(?:nan|null|[Ii]nf(?:inity)?)[\[\]\d\s.,eE+-]*)*\]"
"""A cell of numbers in brackets, readable or not; words are no such thing."""


def _cell(value: str | None) -> np.ndarray | Sequence[str] | None:
    """JSON text → the vector, or the pooled vector of a sequence."""
    if value is None:
        return None
    try:
        return vector_of(json_text.parse(value))
    except ValueError:
        return NO_NUMBERS


def vector_of(value: Any) -> np.ndarray | Sequence[str] | None:
    """A list of numbers, or of such lists of one width (pooled), as a vector; not numeric when it is neither."""
    try:
        numbers = np.array(value, dtype=np.float64)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return NO_NUMBERS
    if numbers.size == 0:
        return None
    if numbers.ndim not in (1, 2):
        return NO_NUMBERS
    with np.errstate(over="ignore"):  # too large for float32 is infinite, and so no finite number
        return pooled(numbers) if numbers.ndim == 2 else numbers.astype(np.float32)
