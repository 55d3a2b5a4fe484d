"""A table of posts → a table of predictions: any number of rows, in constant memory, resumed after a kill.

See ``shards`` for how.
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.core import artifacts
from pipeline.core.errors import InputError
from pipeline.core.files import MediaError, content_digest, inside
from pipeline.core.progress import progress
from pipeline.core.schemas import MODALITIES
from pipeline.corpora.tabular import listed, read_texts, table_files
from pipeline.serving.posts import Post, Prediction
from pipeline.serving.predictor import Predictor
from pipeline.serving.ray_tables import RayWorkers, made
from pipeline.serving.shards import only_writer, write_table
from pipeline.serving.spelling import misspelt

CHUNK = 256
"""Rows predicted and kept together: a killed run loses at most so many, and memory holds so many."""

COLUMNS = ("id", *MODALITIES)

Row = dict[str, str | None]
"""What a manifest says of a post, by ``COLUMNS``."""


def predict_manifest(
    predictor: Predictor,
    manifest: Path,
    out: Path,
    folder: Path,
    coverage: float | None,
    *,
    explain: bool,
    ray_workers: RayWorkers | None = None,
) -> int:
    """Writes one row for each row of ``manifest``, in order; returns how many have media that cannot be used.

    Args:
        manifest: CSV, JSON Lines or Parquet with any of ``text image video``, and ``id`` (or the row's number).
        out: ``.parquet`` or ``.csv``.
        folder: what media paths are relative to, and must not lead out of.
        coverage: for the column ``set``.
        explain: fills the column ``explanation`` with JSON.
        ray_workers: the processes that predict, if not this one; what is written is the same.

    Raises InputError when the manifest cannot be read, another run is writing ``out``, or a cluster fails.
    """
    make = partial(_table, folder=folder.resolve(), coverage=coverage, explain=explain)
    schema = predictions_schema(predictor, explain)
    with only_writer(out), made(predictor, make, ray_workers) as tables:
        total = sum(len(rows) for rows in _chunks(manifest))
        with progress("predicting", total) as advance:

            def counted() -> Iterator[list[Row]]:
                for rows in _chunks(manifest):
                    yield rows
                    advance(len(rows))

            identity = _identity(predictor, manifest, coverage, explain)
            return write_table(out, identity, counted(), tables, schema, state=partial(_media_state, folder=folder))


def _table(predictor: Predictor, rows: list[Row], *, folder: Path, coverage: float | None, explain: bool) -> pa.Table:
    predicted = _predict(predictor, rows, folder, coverage, explain=explain)
    return pa.Table.from_pylist(predicted, schema=predictions_schema(predictor, explain))


def predictions_schema(predictor: Predictor, explain: bool) -> pa.Schema:
    """Columns of the output.

    ``set`` is null without a coverage, ``reason`` where all that was given could be used; where nothing could be,
    ``label``, probabilities and ``set`` are.
    """
    columns = [pa.field("id", pa.string(), nullable=False), pa.field("label", pa.string())]
    columns += [pa.field(f"prob_{label}", pa.float64()) for label in predictor.labels]
    columns += [pa.field("set", pa.list_(pa.string()))]
    for name in MODALITIES:
        columns += [pa.field(f"{name}_state", pa.string(), nullable=False), pa.field(f"{name}_share", pa.float64())]
    columns += [pa.field("reason", pa.string())]
    return pa.schema([*columns, pa.field("explanation", pa.string())] if explain else columns)


def _predict(
    predictor: Predictor, rows: list[Row], folder: Path, coverage: float | None, *, explain: bool
) -> list[dict[str, Any]]:
    """Output rows for a chunk."""
    posts, table = [_post(row, folder) for row in rows], []
    for row, post, prediction in zip(rows, posts, predictor.predict(posts, coverage), strict=True):
        output = {"id": row["id"], **_row(prediction)}
        if explain and prediction.refusal is None:
            output["explanation"] = json.dumps(predictor.explain(post).as_json())
        table.append(output)
    return table


def _post(row: Row, folder: Path) -> Post:
    def file(value: str | None) -> Path | MediaError | None:
        try:
            return None if value is None else inside(folder, value, name="the media folder")
        except MediaError as error:
            return error

    return Post(row["text"], file(row["image"]), file(row["video"]))


def _media_state(rows: list[Row], folder: Path) -> str:
    """Changes with each picture or clip of the rows that is changed, comes or goes, and with where they are sought."""

    def state(value: str) -> str:
        try:
            status = inside(folder, value).stat()
        except (MediaError, OSError, ValueError):
            return f"{value}: none"
        return f"{value}: {status.st_size} {status.st_mtime_ns} {status.st_ino}"

    paths = [value for row in rows for name in ("image", "video") if (value := row[name]) is not None]
    return f"-{artifacts.digest(map(state, paths))[:16]}"


def _row(prediction: Prediction) -> dict[str, Any]:
    row: dict[str, Any] = {"reason": prediction.reasons}
    if prediction.refusal is None:
        row |= {"label": prediction.label, "set": prediction.labels_in_set}
        row |= {f"prob_{label}": value for label, value in prediction.probabilities.items()}
    for name, part in prediction.parts.items():
        row |= {f"{name}_state": part.state, f"{name}_share": part.share}
    return row


# --- the manifest ----------------------------------------------------------------------------------------------------


def _chunks(path: Path) -> Iterator[list[Row]]:
    """``CHUNK`` rows at a time, but for the last: ``id text image video`` as trimmed strings, absent cells None.

    A row's number is its id in a table without ids; in one with ids it might be another row's, so it is ``row 7``.
    """
    done = 0
    for part in read_texts(path, COLUMNS, CHUNK):
        if not set(part.columns) & set(MODALITIES) and len(part.cells):
            raise InputError(f"{path}: has none of the columns {', '.join(MODALITIES)} (has: {listed(part.columns)})")
        if (other := misspelt(part.columns, MODALITIES, ("id",))) is not None:
            raise InputError(f"{path}: unknown column {other} Rename it, or leave it out")
        absent = [None] * len(part.cells)
        columns = [part.cells.get(name, absent) for name in COLUMNS]
        rows: list[Row] = [dict(zip(COLUMNS, row, strict=True)) for row in zip(*columns, strict=True)]
        for number, row in enumerate(rows, start=done + 1):
            row["id"] = row["id"] or (f"row {number}" if "id" in part.columns else str(number))
        done += len(rows)
        yield rows


def _identity(predictor: Predictor, manifest: Path, coverage: float | None, explain: bool) -> str:
    """What the shards of an earlier run must have in common with this one to be its beginning."""
    settings = [*map(str, predictor.labels), str(coverage), str(explain), str(CHUNK)]
    files = map(content_digest, table_files(manifest))
    return artifacts.digest(f"{at} {part}" for at, part in enumerate([predictor.model.identity, *settings, *files]))
