"""A long table, written shard by shard: a killed run goes on where it was, and the output appears only when whole.

Finished shards lie in a hidden folder beside the output.
"""

import json
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from pipeline.core import artifacts
from pipeline.core.locks import exclusive
from pipeline.core.sheets import escape_formula
from pipeline.core.terminal import printable

Chunk = TypeVar("Chunk")


def only_writer(out: Path) -> AbstractContextManager[None]:
    """Two runs would take up each other's shards. Raises InputError when another run is writing ``out``."""
    return exclusive(out.with_name(f".{out.name}.lock"), str(out), "wait for that, or give another --out")


@dataclass(frozen=True)
class Finish:
    """What is still to be done to shards when they are joined, where it takes all of them.

    Attributes:
        schema: of the shards.
        process: what reads them all, as often as it is called → the tables of the output, one a shard.
    """

    schema: pa.Schema
    process: Callable[[Callable[[], Iterator[pa.Table]]], Iterator[pa.Table]]


def write_table(
    out: Path,
    identity: str,
    chunks: Iterable[Chunk],
    tables: Callable[[Iterable[Chunk]], Iterator[pa.Table]],
    schema: pa.Schema,
    finish: Finish | None = None,
    state: Callable[[Chunk], str] = lambda _: "",
) -> int:
    """Makes a table of each chunk and joins them to ``out``; returns how many rows have a ``reason``.

    Args:
        out: ``.parquet`` or ``.csv``.
        identity: what a run that was cut off must have in common with this one to be its beginning.
        tables: makes them one after another, of those chunks whose shards are not there already.
        schema: of the output.
        state: letters for what a chunk hangs on that it does not hold itself, such as its media: a shard that was made
            in another state is made again.
    """
    folder = _folder(out, identity)
    shards: list[Path] = []
    pending: deque[Path] = deque()

    def missing() -> Iterator[Chunk]:
        for number, chunk in enumerate(chunks):
            shards.append(folder / f"{number:08d}{state(chunk)}.parquet")
            if not shards[-1].exists():
                pending.append(shards[-1])
                yield chunk

    for number, table in enumerate(tables(missing())):
        if number == 0:  # not before: a table that is refused at once leaves nothing behind
            artifacts.write_json(folder / NOTE, {"identity": identity})
        artifacts.write_parquet(pending.popleft(), table)
    finish = finish or Finish(schema, lambda read: read())
    joined = finish.process(lambda: (artifacts.read_parquet(shard, finish.schema) for shard in shards))
    unusable = _join(joined, out, schema)
    shutil.rmtree(folder)
    return unusable


NOTE = "made_from.json"
"""Of what the shards beside it were made."""


def _folder(out: Path, identity: str) -> Path:
    """The folder of finished shards: as an earlier run of the same left it, otherwise not there."""
    folder = out.with_name(f".{out.name}.parts")
    note = folder / NOTE
    if note.exists() and artifacts.read_json(note) != {"identity": identity}:
        message = f"{out}: another table, model or option than the run that was cut off: from the start"
        print(printable(message), file=sys.stderr)
        shutil.rmtree(folder)
    if not note.exists():
        shutil.rmtree(folder, ignore_errors=True)
    return folder


def _join(tables: Iterable[pa.Table], out: Path, schema: pa.Schema) -> int:
    """Tables → the output; returns how many rows have a reason."""
    unusable = 0
    with artifacts.replacing(out) as temporary:
        if out.suffix == ".parquet":
            writer = pq.ParquetWriter(temporary, schema, compression="zstd")
        else:
            writer = pa_csv.CSVWriter(temporary, for_csv(schema.empty_table()).schema)
        with writer:
            for table in tables:
                unusable += len(table) - table["reason"].null_count
                writer.write_table(table if out.suffix == ".parquet" else for_csv(table))
    return unusable


def for_csv(table: pa.Table) -> pa.Table:
    """Lists as JSON, since a cell of CSV holds none; texts such that no spreadsheet runs them."""
    columns = {}
    for field in table.schema:
        cells = table[field.name]
        if pa.types.is_list(field.type):
            cells = pa.array([_as_json(value) for value in cells.to_pylist()], pa.string())
        if pa.types.is_string(cells.type):
            cells = pa.array(
                [None if value is None else escape_formula(value) for value in cells.to_pylist()], pa.string()
            )
        columns[escape_formula(field.name)] = cells
    return pa.table(columns)


def _as_json(value: list[str] | None) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)
