"""Typed read and write of every file that stages hand to each other.

Writes go to a hidden neighbour first, ``.<name>.<process>.tmp``, and take the final name with ``os.replace``: a
killed stage leaves no half-written file, and a file that DVC hard-linked into its cache is never written through. What
a killed process leaves is removed by whoever writes the same file or folder next.
"""

import csv
import errno
import glob
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core import json_text, schemas
from pipeline.core.errors import InputError
from pipeline.core.processes import is_alive
from pipeline.core.sheets import escape_formulas, unescape_formula

IN_MEMORY_BYTES = 512 * 2**20
"""Vectors of more bytes than this are read into a memory-mapped scratch file instead of memory."""

AT_ONCE_BYTES = 2**26
"""Vectors of so many bytes are read together."""

DECIMALS = 6
"""Metrics are rounded to this: enough to compare runs, few enough to read."""

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What the system says when nothing more can be written: the disk or the quota is full, the file is too large."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path to write to; on success it takes the name ``path``, on an exception it is removed."""
    aside = _aside(path)
    try:
        with naming(path):
            yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder to fill; on success it takes the place of ``path``, whatever stood there before.

    What stood there is moved out of the way whole, and only then removed: who reads ``path`` meanwhile, or is killed,
    has the old folder or the new one, and nothing between them but the moment of two renames. Raises InputError where
    ``path`` is a link.
    """
    if path.is_symlink():
        raise InputError(f"{path}: is a link; give the folder that it leads to")
    aside = _aside(path)
    made, old = aside / "new", aside / "old"
    made.mkdir(parents=True)
    try:
        with naming(path):
            yield made
        if path.exists():
            path.replace(old)
        made.replace(path)
    finally:
        _put_back(aside, path)
        shutil.rmtree(aside, ignore_errors=True)


def _put_back(aside: Path, path: Path) -> None:
    """Gives a folder that was moved out of the way its place again, where its successor never took it."""
    old = aside / "old"
    if old.exists() and not path.exists():
        old.replace(path)


def _aside(path: Path) -> Path:
    """Where this process writes ``path``; nothing is there, nor what processes left there that are no more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        owner = left.name.removeprefix(f".{path.name}.").removesuffix(".tmp")
        if owner.isdecimal() and (int(owner) == os.getpid() or not is_alive(int(owner))):
            if left.is_dir():
                _put_back(left, path)
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Names the file in errors that a library raises without one.

    Raises InputError in their place; an OSError that names a file passes, unless there was no room: then it names
    ``path`` in place of the hidden file that was written to.
    """
    try:
        yield
    except pa.ArrowException as error:
        raise InputError(f"{path}: cannot be written: {' '.join(str(error).split())}") from None
    except OSError as error:
        if error.filename is not None and error.errno not in NO_ROOM:
            raise
        why = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(error.errno, why, str(path)) from None


def write_json(path: Path, value: dict[str, Any], *, exact: bool = False) -> None:
    """Writes readable JSON with a final newline, numbers to ``DECIMALS`` or, for what computes on, ``exact``.

    Raises ValueError for NaN and infinity, which are not JSON and break ``dvc metrics show``: leave an undefined metric
    out and name it among ``warnings`` instead.
    """
    with replacing(path) as aside:
        text = json.dumps(value if exact else rounded(value), indent=2, ensure_ascii=False, allow_nan=False)
        aside.write_text(text + "\n", encoding="utf-8", newline="\n")


def rounded(value: Any) -> Any:
    """What JSON holds of a value: numbers to ``DECIMALS``, numpy's as Python's, keys as texts."""
    if isinstance(value, dict):
        return {str(key): rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    if isinstance(value, float | np.floating):
        return round(float(value), DECIMALS) if math.isfinite(value) else float(value)
    return value.item() if isinstance(value, np.generic) else value


def read_json(path: Path) -> dict[str, Any]:
    """Raises InputError when the file is missing or is not a JSON object."""
    try:
        value = json_text.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: not found; run the stage that makes it, or `dvc repro`") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}); delete it and run `dvc repro`") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object; delete it and run `dvc repro`")
    return value


def write_csv(path: Path, rows: pd.DataFrame) -> None:
    """Writes a table, its texts such that no spreadsheet runs them; see ``sheets``."""
    harmless = escape_formulas(rows)
    # Python's writer does not quote a lone carriage return, at which every reader would end the row.
    returns = any(isinstance(cell, str) and "\r" in cell for name in harmless for cell in (name, *harmless[name]))
    quoting = csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL
    with replacing(path) as aside:
        harmless.to_csv(aside, index=False, lineterminator="\n", quoting=quoting)


def read_csv(path: Path) -> pd.DataFrame:
    """The table that ``write_csv`` wrote, all cells as the texts that they were: an id such as 007, a label NA."""
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    return rows.map(unescape_formula).rename(columns=unescape_formula)  # pyright: ignore[reportArgumentType]


def read_parquet(path: Path, schema: pa.Schema | None = None) -> pa.Table:
    """Reads a table and, given a schema, checks column names and types against it.

    Raises InputError when the file is missing, is not Parquet or has another shape than the schema.
    """
    with _reading_parquet(path, "delete it and run `dvc repro`"):
        table = pq.read_table(path)
        table.validate(full=True)  # that texts are UTF-8 would be noticed only where they are looked at
    if schema is not None:
        _check_schema(path, table.schema, schema)
    # What pandas noted beside the columns may contradict them, if not by our hand.
    return table.replace_schema_metadata(None)


def _check_schema(path: Path, actual: pa.Schema, expected: pa.Schema) -> None:
    if actual.names != expected.names:
        raise InputError(f"{path}: has columns {actual.names}, expected {expected.names}; run `dvc repro`")
    if actual.types != expected.types:
        raise InputError(f"{path}: has column types {actual.types}, expected {expected.types}; run `dvc repro`")


@contextmanager
def _reading_parquet(path: Path, remedy: str) -> Iterator[None]:
    """What a missing or damaged table raises, whichever byte is wrong, as InputError."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: not found; run the stage that makes it, or `dvc repro`") from None
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, MemoryError, OverflowError) as error:
        why = " ".join(str(error).split())
        raise InputError(f"{path}: not a readable Parquet file ({why}); {remedy}") from None


def count_rows(path: Path) -> int:
    """How many rows a table has, without reading them. Raises InputError as ``read_parquet``."""
    with _reading_parquet(path, "delete it and run `dvc repro`"):
        return pq.read_metadata(path).num_rows


def write_parquet(path: Path, table: pa.Table) -> None:
    with replacing(path) as aside:
        pq.write_table(table, aside, compression="zstd")


def write_parquet_parts(path: Path, schema: pa.Schema, parts: Iterable[pa.Table]) -> None:
    """A table that comes in parts."""
    with replacing(path) as aside, pq.ParquetWriter(aside, schema, compression="zstd") as writer:
        for part in parts:
            writer.write_table(part)


def read_posts(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The sample table of the posts: columns of ``schemas.POSTS_TABLE``, or some of them; absent media as None.

    Raises InputError as ``read_parquet``.
    """
    with _reading_parquet(path, "delete it and run `dvc repro`"), pq.ParquetFile(path) as file:
        _check_schema(path, file.schema_arrow, schemas.POSTS_TABLE)
        return _with_none(file.read(None if columns is None else list(columns)))


def read_posts_in_parts(path: Path, columns: Sequence[str], rows: int) -> Iterator[pd.DataFrame]:
    """Some columns of the sample table of the posts, as ``read_posts``, at most so many rows at a time.

    Raises InputError as ``read_parquet``.
    """
    with _reading_parquet(path, "delete it and run `dvc repro`"), pq.ParquetFile(path) as file:
        _check_schema(path, file.schema_arrow, schemas.POSTS_TABLE)
        for batch in file.iter_batches(rows, columns=list(columns)):
            yield _with_none(pa.Table.from_batches([batch]))


def _with_none(table: pa.Table) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(table[name].to_numpy(), dtype=object) for name in table.column_names})


def read_scored(path: Path) -> pd.DataFrame:
    """A sample table with scores: columns of ``schemas.SCORED_TABLE``; absent cells are None, absent scores NaN."""
    frame = read_parquet(path, schemas.SCORED_TABLE).to_pandas()
    scores = frame["score"].astype(np.float64)
    return frame.astype(object).where(frame.notna(), None).assign(score=scores)


def digest(values: Iterable[str]) -> str:
    """sha256 over the sorted values, each ended by a newline: one set of ids, one digest."""
    hasher = hashlib.sha256()
    for value in sorted(values):
        hasher.update(value.encode() + b"\n")
    return hasher.hexdigest()


# --- embeddings ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Embeddings:
    """One modality of one corpus, in the order of its sample table.

    Attributes:
        sample_ids: N strings.
        vectors: float32 [N, width]; zeros where absent, NaN in the columns of a stream that a clip lacks.
            Memory-mapped when large.
        present: bool [N].
        content: N digests of the encoded bytes, None where absent.
        encoder: what made the vectors: name, revision, weight hash, preprocessing.
    """

    sample_ids: np.ndarray
    vectors: np.ndarray
    present: np.ndarray
    content: np.ndarray
    encoder: dict[str, Any]

    @property
    def width(self) -> int:
        return self.vectors.shape[1]


@contextmanager
def embeddings_writer(path: Path, width: int, encoder: dict[str, Any]) -> Iterator["EmbeddingsWriter"]:
    """Streams embeddings to ``path``; the file appears only when every batch was written."""
    schema = schemas.embeddings_table(width).with_metadata({"encoder": json.dumps(encoder, sort_keys=True)})
    # No dictionaries: numbers of encoders hardly stand twice, and to look for such takes half the time.
    with replacing(path) as aside, pq.ParquetWriter(aside, schema, compression="zstd", use_dictionary=False) as writer:
        yield EmbeddingsWriter(writer, schema)


@dataclass(frozen=True)
class EmbeddingsWriter:
    writer: pq.ParquetWriter
    schema: pa.Schema

    def write(
        self,
        sample_ids: Sequence[str],
        vectors: np.ndarray,
        reasons: Sequence[str | None],
        content: Sequence[str | None],
    ) -> None:
        """Appends rows; one with a reason is absent, with a vector of zeros. ``vectors`` is float32 [n, width]."""
        columns = [
            pa.array(sample_ids, pa.string()),
            _fixed_lists(vectors),
            pa.array([reason is None for reason in reasons], pa.bool_()),
            pa.array(reasons, pa.string()),
            pa.array(content, pa.string()),
        ]
        self.writer.write_table(pa.Table.from_arrays(columns, schema=self.schema))


def _fixed_lists(matrix: np.ndarray) -> pa.FixedSizeListArray:
    flat = np.ascontiguousarray(matrix, dtype=np.float32).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), matrix.shape[1])


@contextmanager
def reading_embeddings(path: Path) -> Iterator["EmbeddingsReader"]:
    """Opens embeddings to read them in parts.

    Raises InputError when the file is missing, or has another shape than ``schemas.embeddings_table``; while it is
    read, also when it is damaged.
    """
    with _reading_parquet(path, "run `dvc repro embed`"), pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        kind = schema.field("vector").type if "vector" in schema.names else pa.null()
        width = kind.list_size if pa.types.is_fixed_size_list(kind) else 0
        if width < 1:
            raise InputError(f"{path}: has no fixed-size `vector` column; run `dvc repro embed`")
        if not schema.equals(schemas.embeddings_table(width)):
            raise InputError(f"{path}: has other columns than `dvc repro embed` writes; run that")
        encoder = json.loads((schema.metadata or {}).get(b"encoder", b"{}"))
        yield EmbeddingsReader(path, file, (file.metadata.num_rows, width), encoder)


class EmbeddingsPart(NamedTuple):
    """Some rows that follow one another: ``sample_ids`` [n], ``present``, bool [n], and the ``vectors`` of those that
    are, float32 [m, width], which may not be written to.
    """

    sample_ids: np.ndarray
    present: np.ndarray
    vectors: np.ndarray


@dataclass(frozen=True)
class EmbeddingsReader:
    """``shape`` is rows and width."""

    path: Path
    file: pq.ParquetFile
    shape: tuple[int, int]
    encoder: dict[str, Any]

    def parts(self, rows: int) -> Iterator[EmbeddingsPart]:
        """All of it, at most so many rows at a time. Raises InputError when a value is not finite."""
        # In the columns of a stream that a clip lacks stands NaN.
        refused = np.isinf if "streams" in self.encoder else lambda values: ~np.isfinite(values)
        batches, left = self.file.iter_batches(rows, columns=["sample_id", "vector", "present"]), self.shape[0]
        while True:
            with _reading_parquet(self.path, "run `dvc repro embed`"):
                batch = next(batches, None)
                left -= 0 if batch is None else len(batch)
                if left < 0 or (batch is None and left):
                    raise ValueError("it has not as many rows as it says")
            if batch is None:
                return
            present = batch["present"].to_numpy(zero_copy_only=False)
            values = batch["vector"].filter(batch["present"]).flatten().to_numpy().reshape(-1, self.shape[1])
            if refused(values).any():
                raise InputError(f"{self.path}: holds values that are not finite; run `dvc repro embed`")
            yield EmbeddingsPart(batch["sample_id"].to_numpy(zero_copy_only=False), present, values)


def read_embeddings(path: Path) -> Embeddings:
    """Raises InputError as ``reading_embeddings``."""
    with reading_embeddings(path) as reader:
        vectors, at = _room(reader.shape), 0
        for part in reader.parts(max(1, AT_ONCE_BYTES // (4 * reader.shape[1]))):
            # Zeros of absent rows are never written: memory that nothing was written to takes no room.
            vectors[at + np.flatnonzero(part.present)] = part.vectors
            at += len(part.present)
        rest = reader.file.read(columns=["sample_id", "present", "content"])
        return Embeddings(
            sample_ids=rest["sample_id"].to_numpy(),
            vectors=vectors,
            present=rest["present"].to_numpy(),
            content=rest["content"].to_numpy(),
            encoder=reader.encoder,
        )


def read_embeddings_of(table: pd.DataFrame, path: Path) -> Embeddings:
    """The embeddings of a sample table. Raises InputError also when they are of other rows, or in another order."""
    embeddings = read_embeddings(path)
    if not np.array_equal(embeddings.sample_ids, table["sample_id"].to_numpy()):
        raise InputError(f"{path}: rows differ from data/split; run `dvc repro`")
    return embeddings


def _room(shape: tuple[int, int]) -> np.ndarray:
    """An array of zeros in memory, or backed by an unnamed scratch file when it would be large."""
    if 4 * shape[0] * shape[1] <= IN_MEMORY_BYTES:
        return np.zeros(shape, dtype=np.float32)
    with tempfile.TemporaryFile() as scratch:
        return np.memmap(scratch, dtype=np.float32, mode="w+", shape=shape)


# --- predictions -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Predictions:
    """``rows`` has the columns ``sample_id, split, fold, kind, subset``; ``logits`` is float32 [N, classes]."""

    rows: pd.DataFrame
    logits: np.ndarray

    def where(self, mask: np.ndarray) -> "Predictions":
        """The rows for which ``mask``, bool [N], is true."""
        return Predictions(self.rows.loc[mask].reset_index(drop=True), self.logits[mask])


def write_predictions(path: Path, predictions: Predictions) -> None:
    schema = schemas.predictions_table(predictions.logits.shape[1])
    columns = [pa.array(predictions.rows[name], pa.string()) for name in schema.names if name != "logits"]
    write_parquet(path, pa.Table.from_arrays([*columns, _fixed_lists(predictions.logits)], schema=schema))


def read_predictions(path: Path, classes: int) -> Predictions:
    """Raises InputError when the file is missing, was made for another number of classes, or is not finite."""
    table = read_parquet(path, schemas.predictions_table(classes))
    logits = table["logits"].combine_chunks().flatten().to_numpy().reshape(len(table), classes)
    if not np.isfinite(logits).all():
        raise InputError(f"{path}: holds logits that are not finite; run the stage that makes it, or `dvc repro`")
    return Predictions(table.drop(["logits"]).to_pandas(), logits)


def write_scores(path: Path, rows: pd.DataFrame) -> None:
    """Writes predicted scores: the columns of ``schemas.SCORES_TABLE``."""
    write_parquet(path, pa.Table.from_pandas(rows, schema=schemas.SCORES_TABLE, preserve_index=False))


def read_scores(path: Path) -> pd.DataFrame:
    """Raises InputError when the file is missing, has another shape, or holds a score that is not finite."""
    rows = read_parquet(path, schemas.SCORES_TABLE).to_pandas()
    if not np.isfinite(rows["score"]).all():
        raise InputError(f"{path}: holds scores that are not finite; train again, with a smaller learning rate")
    return rows
