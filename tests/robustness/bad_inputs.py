"""Inputs that are wrong in one way each, and what must be said of them.

    python -m tests.robustness.bad_inputs          # tries every case, and prints how many held, by kind

A case writes its files into a folder and names the reader; the reader must raise one line that holds the message.
"""

import io
import json
import os
import pickle
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline import params
from pipeline.core import artifacts, schemas
from pipeline.core.descriptions import read_description
from pipeline.core.errors import InputError
from pipeline.core.files import MediaError
from pipeline.corpora.features import read_corpus, read_unscored
from pipeline.corpora.manifest import read_manifest
from pipeline.media.clips import read_frames
from pipeline.media.pictures import read_picture
from pipeline.posts.descriptions import FusionDescription

ROWS = 7
"""Of every table; the fault goes from row to row."""


@dataclass(frozen=True)
class Case:
    """``write`` makes the input in an empty folder and returns its path; ``read`` is asked for it."""

    kind: str
    name: str
    write: Callable[[Path], Path]
    read: Callable[[Path], object]
    message: str

    def __str__(self) -> str:
        return f"{self.kind}-{self.name}"


def outcome(case: Case, folder: Path) -> str | None:
    """What is wrong with how a case was met; None where it was refused as it should be."""
    path = case.write(folder)
    before = sorted(folder.rglob("*"))
    try:
        case.read(path)
    except (InputError, MediaError) as error:
        said = str(error)
        if case.message not in said:
            return f"said {said[:300]!r} instead of {case.message!r}"
        if case.kind != "params" and "\n" in said:
            return f"said more than a line: {said[:300]!r}"
        return None if sorted(folder.rglob("*")) == before else "left files behind"
    except Exception as error:  # whatever else comes out is what is looked for here
        return f"{type(error).__name__}: {str(error)[:300]}"
    return "was read"


def cases() -> Iterator[Case]:
    for made in (manifests, features, pickles, sequences, pictures, clips, knobs, made_by_stages):
        yield from made()


def bytes_at(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


# --- tables ----------------------------------------------------------------------------------------------------------


def manifest(path: Path) -> object:
    return read_manifest(path, path.parent)


def corpus(path: Path) -> object:
    return read_corpus(path, "target.corpus")


def unscored(path: Path) -> object:
    return list(read_unscored(path, 3))


def csv_lines(header: str, cells: str) -> list[bytes]:
    return [header.encode(), *(cells.format(row=row).encode() for row in range(1, ROWS + 1))]


def faulty_csv(header: str, cells: str) -> Iterator[tuple[str, bytes, str]]:
    width = len(header.split(","))
    lines = csv_lines(header, cells)
    for row in range(1, ROWS + 1):
        here = lines[row]
        where = f"row {row} (line {row + 1})"

        def changed(line: bytes, row: int = row) -> bytes:
            return b"\n".join([*lines[:row], line, *lines[row + 1 :]]) + b"\n"

        yield f"comma-{row}", changed(here + b","), f"{where} has {width + 1} cells, the header has {width}"
        yield f"short-{row}", changed(here.rpartition(b",")[0]), f"{where} has {width - 1} cells"
        yield f"quote-{row}", changed(b'"open' + here), f"line {row + 1}: a quote is never closed"
        yield f"latin1-{row}", changed(here.replace(b"r", b"\xe9", 1)), f"row {row} is not UTF-8"
    yield "twice", b"\n".join([b"id," + lines[0], *lines[1:]]), "the column 'id' stands there twice"
    yield "empty", b"", "is empty"
    yield "utf16", b"\n".join(lines).decode().encode("utf-16"), "the header is not UTF-8"


def faulty_jsonl() -> Iterator[tuple[str, bytes, str]]:
    lines = [json.dumps({"id": f"r{row}", "label": "a", "text": "x"}).encode() for row in range(1, ROWS + 1)]
    faults: dict[str, tuple[bytes, str]] = {
        "number": (b"5", "line {row} is no object"),
        "text": (b'"a"', "line {row} is no object"),
        "cut": (b'{"id": "a", "label', "line {row}: Unterminated string"),
        "twice": (b'{"id": 1, "id": 2}', "line {row}: the key 'id' stands twice"),
        "deep": (b'{"id": ' + b"[" * 5000 + b"]" * 5000 + b"}", "line {row}: nested more than 100 deep"),
        "latin1": (b'{"id": "\xe9"}', "line {row} is not UTF-8"),
        "half": (b'{"id": "a", "label": "a", "text": "\\ud83d"}', "text: row {row} is not UTF-8, or holds half"),
        "list": (b'{"id": ["a"], "label": "a"}', "id: row {row} holds a list"),
        "dict": (b'{"id": "a", "label": {}}', "label: row {row} holds a dict"),
    }
    for name, (line, message) in faults.items():
        for row in range(1, ROWS + 1):
            content = b"\n".join([*lines[: row - 1], line, *lines[row:]])
            yield f"{name}-{row}", content, message.format(row=row)


def manifests() -> Iterator[Case]:
    for name, content, message in faulty_csv("id,label,text", "r{row},a,words of {row}"):
        yield Case("manifest", f"csv-{name}", bytes_at("m.csv", content), manifest, message)
    for name, content, message in faulty_jsonl():
        yield Case("manifest", f"jsonl-{name}", bytes_at("m.jsonl", content), manifest, message)
    for ending in ("csv", "jsonl", "parquet"):
        yield Case("manifest", f"{ending}-fifo", partial(fifo, name=f"m.{ending}"), manifest, "not a file")
        yield Case("manifest", f"{ending}-loop", partial(loop, name=f"m.{ending}"), manifest, "cannot be opened")
        yield Case("manifest", f"{ending}-nothing", lambda folder, of=ending: folder / f"m.{of}", manifest, "not found")
    yield from cut_parquet("manifest", {"id": ["1"], "label": ["a"], "text": ["x"]}, manifest)
    for row in range(1, ROWS + 1):
        ids = [float(at) for at in range(1, ROWS + 1)]
        ids[row - 1] = 1e17
        columns = {"id": ids, "label": ["a"] * ROWS, "text": ["x"] * ROWS}
        write = partial(parquet, columns=columns)
        yield Case("manifest", f"rounded-{row}", write, manifest, f"id: row {row} holds 1e+17, a floating-point")


def fifo(folder: Path, name: str) -> Path:
    os.mkfifo(folder / name)
    return folder / name


def loop(folder: Path, name: str) -> Path:
    (folder / name).symlink_to(folder / name)
    return folder / name


def parquet(folder: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), folder / "m.parquet")
    return folder / "m.parquet"


def zeroed_parquet(folder: Path, share: int) -> Path:
    """Its footer, or the end of it, is zeros, as after a power failure."""
    path = parquet(folder, {"sample_id": ["a"]})
    whole = path.read_bytes()
    (size,) = struct.unpack("<I", whole[-8:-4])
    start = len(whole) - 8 - size + size * (share - 1) // 16
    path.write_bytes(whole[:start] + bytes(len(whole) - 8 - start) + whole[-8:])
    return path


def cut_parquet(kind: str, columns: dict[str, Any], read: Callable[[Path], object]) -> Iterator[Case]:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    whole = buffer.getvalue()
    for share in range(8):
        write = bytes_at("m.parquet", whole[: len(whole) * share // 8])
        yield Case(kind, f"parquet-cut-{share}", write, read, "m.parquet: not readable as parquet")


def features() -> Iterator[Case]:
    for reader in (corpus, unscored):
        kind = f"features-{reader.__name__}"
        for name, content, message in faulty_csv("id,score,text", "r{row},1,words of {row}"):
            yield Case(kind, f"csv-{name}", bytes_at("m.csv", content), reader, message)
        yield from cut_parquet(kind, {"id": ["1"], "score": [1.0], "audio": [[1.0]]}, reader)
        wrong = {"id": ["1"], "score": [1.0], "audio": ["loud"]}
        message = "column audio holds string; lists of numbers"
        yield Case(kind, "words-as-audio", partial(parquet, columns=wrong), reader, message)


def pickles() -> Iterator[Case]:
    part = {"id": ["a", "b"], "regression_labels": [1.0, 2.0], "audio": np.ones((2, 3, 2))}
    whole = pickle.dumps({"train": part})
    for share in range(1, 10):
        write = bytes_at("c.pkl", whole[: len(whole) * share // 10])
        yield Case("pickle", f"cut-{share}", write, corpus, "c.pkl: not a readable pickle")
    nested: list = ["a"] * 10
    for _ in range(9):
        nested = [nested] * 10
    wrong: dict[str, tuple[Any, str]] = {
        "bomb": ({"train": {**part, "id": nested}}, "stand for more than"),
        "no-dict": ([1], "not an MMSA pickle"),
        "half": ({"train": {**part, "id": ["a", "\ud83d"]}}, "train: id: row 2 is not UTF-8"),
        "list": ({"train": {**part, "id": ["a", ["b", "c"]]}}, "train: id: row 2 holds a list"),
        "number": ({"train": {**part, "id": 7}}, "train: id is no list"),
        "lengths": ({"train": {**part, "audio_lengths": [1, -1]}}, "audio_lengths is no list of 2 whole numbers"),
        "shape": ({"train": {**part, "audio": np.ones(2)}}, "train: audio has the shape [2]"),
        "names": (os.system, "could run code"),
    }
    for name, (value, message) in wrong.items():
        yield Case("pickle", name, bytes_at("c.pkl", pickle.dumps(value)), corpus, message)


def sequences() -> Iterator[Case]:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["labels/data/vid/features"], file["labels/data/vid/intervals"] = np.ones((1, 1)), np.ones((1, 2))
    whole = buffer.getvalue()
    for share in range(1, 8):

        def write(folder: Path, share: int = share) -> Path:
            (folder / "labels.csd").write_bytes(whole[: len(whole) * share // 16])
            return folder

        yield Case("csd", f"cut-{share}", write, corpus, "labels.csd: not a readable HDF5 file")
    for number, at in enumerate(places(whole, b"SNOD")):  # the nodes that list what a group holds
        damaged = bytes_at("labels.csd", whole[:at] + b"xxxx" + whole[at + 4 :])
        yield Case("csd", f"node-{number}", lambda folder, of=damaged: of(folder).parent, corpus, "labels.csd: ")


def places(whole: bytes, part: bytes) -> list[int]:
    return [at for at in range(len(whole)) if whole.startswith(part, at)]


# --- media -----------------------------------------------------------------------------------------------------------


def picture(path: Path) -> object:
    return read_picture(path, max_pixels=10**6)


def clip(path: Path) -> object:
    return read_frames(path, frames=3, max_pixels=10**6, at_least=8)


def pictures() -> Iterator[Case]:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for form in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"):
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, form)
        whole = buffer.getvalue()
        for share in range(4):
            yield Case("picture", f"{form}-cut-{share}", bytes_at("p", whole[: len(whole) * share // 8]), picture, "")
        write = bytes_at("p", b"\xff" + whole[1:] if form != "JPEG" else b"\0" + whole[1:])
        yield Case("picture", f"{form}-head", write, picture, "not a picture")
    for name, content in {"svg": b"<svg/>", "html": b"<html>", "zip": b"PK\3\4" + bytes(99), "eps": b"%!PS"}.items():
        yield Case("picture", name, bytes_at("p", content), picture, "not a picture")
    yield Case("picture", "fifo", partial(fifo, name="p"), picture, "not a file")
    yield Case("picture", "loop", partial(loop, name="p"), picture, "cannot be opened: Too many levels")
    large = io.BytesIO()
    Image.new("1", (5000, 5000)).save(large, "PNG")
    yield Case("picture", "large", bytes_at("p", large.getvalue()), picture, "too large: 5000x5000 px")


def clips() -> Iterator[Case]:
    for name, content in {"empty": b"", "text": b"hello", "list": b"#EXTM3U\nhttp://x/\n", "zeros": bytes(999)}.items():
        yield Case("clip", name, bytes_at("c.mp4", content), clip, "0 bytes" if not content else "")
    yield Case("clip", "fifo", partial(fifo, name="c.mp4"), clip, "not a file")


# --- params, and what stages hand to each other ----------------------------------------------------------------------


def knobs() -> Iterator[Case]:
    """Every knob with a value of no type that any knob has, and those with a range beyond both of its ends."""
    for key, field, default in params.knobs():
        block = [f"{'  ' * depth}{part}:" for depth, part in enumerate(key.split("."))]

        def yaml(value: str, block: list[str] = block) -> bytes:
            return ("\n".join(block) + f" {value}\n").encode()

        message = f"params.yaml: {key}: {{'no': 'value'}} is not allowed; give "
        yield Case("params", key, bytes_at("params.yaml", yaml("{no: value}")), params.load, message)
        if isinstance(default, int | float) and not isinstance(default, bool) and field.metadata:
            write = bytes_at("params.yaml", yaml("-1"))
            yield Case("params", f"{key}-low", write, params.load, f"{key}: -1 is not allowed")
    for name, content, message in (
        ("deep", b"a: " + b"[" * 5000, "nested too deep"),
        ("bytes", b"\xff\xfe", "not valid YAML"),
        ("unknown", b"sed: 1", "sed: unknown key; the top level knows tracks, seed"),
        ("labels", b"posts: {labels: [A, B, A]}", "posts.labels: A stands there twice"),
    ):
        yield Case("params", name, bytes_at("params.yaml", content), params.load, message)


def made_by_stages() -> Iterator[Case]:
    def described(path: Path) -> object:
        return read_description(path.parent, FusionDescription)

    for name, content, message in (
        ("empty", b"", "model.json: not JSON: Expecting value"),
        ("list", b"[]", "model.json: not a JSON object"),
        ("deep", b"[" * 5000, "nested more than 100 deep"),
        ("format", b'{"format": 1}', "format 1, this version reads"),
        ("bytes", b"\xff", "model.json: not JSON: not UTF-8"),
        ("kind", b'{"format": 3, "stage": "fuse"}', "model.json"),
    ):
        yield Case("checkpoint", f"json-{name}", bytes_at("model.json", content), described, message)

    def posts(path: Path) -> object:
        return artifacts.read_parquet(path, schemas.POSTS_TABLE)

    def vectors(path: Path) -> object:
        return artifacts.read_embeddings(path)

    columns = {"columns": {"sample_id": ["a"]}}
    yield Case("outputs", "posts-columns", partial(parquet, **columns), posts, "has columns ['sample_id'], expected")
    yield Case("outputs", "embeddings-columns", partial(parquet, **columns), vectors, "has no fixed-size `vector`")
    fixed = pa.FixedSizeListArray.from_arrays(pa.array([1.0], pa.float32()), 1)
    write = partial(parquet, columns={"sample_id": ["a"], "vector": fixed})
    yield Case("outputs", "embeddings-lacks-present", write, vectors, "has other columns than `dvc repro embed` writes")
    for name, reader in (("posts", posts), ("embeddings", vectors)):
        for share in range(1, 7):
            write = partial(zeroed_parquet, share=share)
            yield Case("outputs", f"{name}-zeroed-{share}", write, reader, "m.parquet: not a readable Parquet file")
    for share in range(4):
        write = bytes_at("m.parquet", b"PAR1" + bytes(share))
        yield Case("outputs", f"posts-cut-{share}", write, posts, "not a readable Parquet file")
        yield Case("outputs", f"embeddings-cut-{share}", write, vectors, "not a readable Parquet file")


def main() -> None:
    held: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    for case in cases():
        with tempfile.TemporaryDirectory() as folder:
            wrong = outcome(case, Path(folder))
        tried[case.kind] += 1
        held[case.kind] += wrong is None
        if wrong is not None:
            print(f"{case}: {wrong}", flush=True)
    for kind, count in tried.items():
        print(f"{kind:20}{held[kind]:5} of {count}")
    print(f"{'all':20}{held.total():5} of {tried.total()}")
    sys.exit(held != tried)


if __name__ == "__main__":
    main()
