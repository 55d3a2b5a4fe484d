"""A manifest without some of its rows; all else of the file stays as it was, byte by byte where it is text."""

import csv
import io
from collections.abc import Callable, Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core import artifacts, json_text
from pipeline.corpora.tabular import arrow_texts, table_files


def drop_rows(path: Path, ids: Collection[str]) -> None:
    """Writes the manifest again without the rows of these ids; ``tabular.read_texts`` must have read it before."""
    writers: dict[str, Callable[[Path, Collection[str]], bytes]] = {".csv": _csv, ".parquet": _parquet}
    for file in table_files(path):
        kept = writers.get(file.suffix.lower(), _jsonl)(file, ids)
        with artifacts.replacing(file) as aside:
            aside.write_bytes(kept)


def _csv(path: Path, ids: Collection[str]) -> bytes:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as handle:
        lines = list(handle)
    reader = csv.reader(lines, strict=True)
    kept: list[str] = []
    column: int | None = None
    begin = 0
    for record in reader:
        if column is None and record:
            column = [name.removeprefix("\ufeff").strip() for name in record].index("id")
            forgotten = False
        else:
            forgotten = bool(record) and column is not None and record[column].strip() in ids
        if not forgotten:
            kept += lines[begin : reader.line_num]
        begin = reader.line_num
    return "".join(kept).encode("utf-8", "surrogateescape")


def _jsonl(path: Path, ids: Collection[str]) -> bytes:
    def forgotten(line: bytes) -> bool:
        text = line.decode("utf-8-sig").strip()
        return bool(text) and str(json_text.parse(text, numbers_as_text=True).get("id")).strip() in ids

    with path.open("rb") as handle:
        return b"".join(line for line in handle if not forgotten(line))


def _parquet(path: Path, ids: Collection[str]) -> bytes:
    with pq.ParquetFile(path) as file:
        table = file.read()
    keep = [cell not in ids for cell in arrow_texts(table["id"], f"{path}: id")]
    sink = io.BytesIO()
    pq.write_table(table.filter(pa.array(keep, type=pa.bool_())), sink, compression="zstd")
    return sink.getvalue()
