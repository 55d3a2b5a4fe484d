"""Files of strangers, changed at random, for every reader: each is read, or refused in one line.

    python -m tests.robustness.fuzz [--minutes 5] [--reader picture ...] [--seed 0] [--keep build/fuzz]

Each reader gets so many minutes in a process of its own, which changes valid files byte by byte, by number, by piece
and by word. An exception that is no refusal, a refusal of several lines, more than ``SECONDS`` or ``MEGABYTES`` for a
file, and a process that dies are faults; the file that did it is kept, and the same seed makes it again.
"""

import argparse
import io
import json
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from torch import nn

from pipeline.core import artifacts
from pipeline.core.descriptions import FittedRows, ModelDescription, read_description
from pipeline.core.errors import InputError
from pipeline.core.files import MediaError
from pipeline.corpora.features import read_corpus, read_unscored
from pipeline.corpora.manifest import read_manifest
from pipeline.media.clips import read_clip, read_frames
from pipeline.media.footage import read_footage
from pipeline.media.pictures import read_picture
from pipeline.training.checkpoint import load_weights, write_model
from tests.imports import ROOT

SECONDS, MEGABYTES = 30, 2048
"""That one file may take; HDF5 arrays may have 1 GB, and twice that while they are turned into other numbers."""

MOST_BYTES = 12 * 2**30
"""That a process may ask for, so that a fault in a reader is none of the machine."""

EDGE = 512
"""Bytes at either end of a file, where formats keep what the rest is read by: half of the changes are made there."""

NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
WORDS = (
    *(b'"', b",", b"\n", b"\r", b"\0", b"{", b"}", b"[", b"]", b":", b"\\", b"\\ud83d", b"\xef\xbb\xbf", b"\xff\xfe"),
    *(
        b"NaN",
        b"1e999",
        b"-1",
        b"9007199254740993",
        b"null",
        b"../../etc",
        b"[[[[[[[[",
        b"0" * 400,
        b"\xc3\xa9",
        b"=1+1",
    ),
)


@dataclass(frozen=True)
class Reader:
    """``seeds`` gives valid files, name → content; ``read`` is asked for one that was changed."""

    seeds: Callable[[], dict[str, bytes]]
    read: Callable[[Path], object]


# --- changes ---------------------------------------------------------------------------------------------------------


def changed(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """The content with one change to eight."""
    made = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        rng.choice((_flip, _number, _cut, _repeat, _insert, _word, _splice))(made, others, rng)
    return bytes(made)


def _place(made: bytearray, rng: random.Random) -> int:
    """Where to change it: at either end as often as anywhere."""
    size = len(made)
    edge = min(EDGE, size)
    return rng.choice((rng.randrange(edge + 1), size - rng.randrange(edge + 1), *[rng.randrange(size + 1)] * 2))


def _flip(made: bytearray, others: list[bytes], rng: random.Random) -> None:
    at = _place(made, rng)
    if at < len(made):
        made[at] ^= 1 << rng.randrange(8)


def _number(made: bytearray, others: list[bytes], rng: random.Random) -> None:
    at, width = _place(made, rng), rng.choice((1, 2, 4, 8))
    value = rng.choice(NUMBERS) % 2 ** (8 * width)
    made[at : at + width] = value.to_bytes(width, rng.choice(("little", "big")))


def _cut(made: bytearray, others: list[bytes], rng: random.Random) -> None:
    at = _place(made, rng)
    del made[at : at + rng.choice((1, 2, 8, 64, len(made)))]


def _repeat(made: bytearray, others: list[bytes], rng: random.Random) -> None:
    at = _place(made, rng)
    made[at:at] = made[at : at + rng.choice((1, 8, 64))] * rng.choice((1, 2, 50))


def _insert(made: bytearray, others: list[bytes], rng: random.Random) -> None:
    at = _place(made, rng)
    made[at:at] = rng.randbytes(rng.choice((1, 4, 32)))


def _word(made: bytearray, others: list[bytes], rng: random.Random) -> None:
    at, word = _place(made, rng), rng.choice(WORDS)
    made[at : at + rng.choice((0, len(word)))] = word


def _splice(made: bytearray, others: list[bytes], rng: random.Random) -> None:
    other = rng.choice(others)
    at, start = _place(made, rng), rng.randrange(len(other) + 1)
    made[at : at + 64] = other[start : start + 64]


# --- readers ---------------------------------------------------------------------------------------------------------


def pictures() -> dict[str, bytes]:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8))
    made = {}
    for form in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"):
        for mode in ("RGB", "L", "P"):
            buffer = io.BytesIO()
            noise.convert(mode if form != "WEBP" else "RGB").convert("RGB" if form == "JPEG" else mode).save(
                buffer, form
            )
            made[f"{form}-{mode}"] = buffer.getvalue()
    return made


def clips() -> dict[str, bytes]:
    made = {}
    for form, codec, sound in (("mp4", "mpeg4", "aac"), ("matroska", "mpeg4", "pcm_s16le"), ("avi", "mjpeg", None)):
        buffer = io.BytesIO()
        with av.open(buffer, "w", format=form) as container:
            stream: Any = container.add_stream(codec, rate=10)
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuvj420p" if codec == "mjpeg" else "yuv420p"
            heard: Any = container.add_stream(sound, rate=16_000) if sound else None
            for at in range(6):
                frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 40 * at, dtype=np.uint8), format="rgb24")
                container.mux(stream.encode(frame))
                if heard is not None:
                    tone = (1000 * np.sin(np.arange(1600) / 9)).astype(np.int16)[None]
                    piece = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
                    piece.sample_rate = 16_000
                    container.mux(heard.encode(piece))
            container.mux(stream.encode())
            if heard is not None:
                container.mux(heard.encode())
        made[form] = buffer.getvalue()
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (20, 20), (at * 50, 0, 0)) for at in range(4)]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=100)
    return {**made, "gif": buffer.getvalue()}


def read_whole_clip(path: Path) -> None:
    read_frames(path, frames=3, max_pixels=10**6, at_least=8)
    read_footage(path, side=32, seconds=60.0, max_pixels=10**6)
    read_clip(path, sound_seconds=2.0, max_pixels=10**6).sound()


def pickles() -> dict[str, bytes]:
    numbers = np.random.default_rng(0).normal(size=(2, 3, 2))
    part = {"id": ["a$_$0", "b$_$1"], "regression_labels": [1.0, -2.0], "audio": numbers, "raw_text": ["x", "y z"]}
    part |= {
        "audio_lengths": np.array([2, 3]),
        "text": numbers.astype(np.float32),
        "vision": np.asfortranarray(numbers),
    }
    objects = {**part, "id": np.array(["a", "b"], dtype=object), "regression_labels": np.array([1, 2])}
    return {
        f"{name}-{protocol}": pickle.dumps({"train": value, "test": value}, protocol)
        for name, value in (("plain", part), ("objects", objects))
        for protocol in (0, 2, 4, 5)
    }


def tables(kind: str) -> dict[str, bytes]:
    rows = [{"id": f"r{at}", "label": "ab"[at % 2], "text": f"words, of {at}", "score": at / 2} for at in range(5)]
    if kind == "csv":
        lines = [f'{row["id"]},{row["label"]},"{row["text"]}",{row["score"]}' for row in rows]
        return {"csv": "\r\n".join(["id,label,text,score", *lines]).encode()}
    if kind == "jsonl":
        return {"jsonl": "\n".join(map(json.dumps, rows)).encode()}
    made = {}
    features = [[0.5, 1.5], [2.5, 3.5]]
    for codec in ("none", "zstd", "snappy"):
        for name, audio in (("flat", [features[0]] * 5), ("steps", [features] * 5)):
            buffer = io.BytesIO()
            pq.write_table(
                pa.Table.from_pylist(rows).append_column("audio", pa.array(audio)), buffer, compression=codec
            )
            made[f"{codec}-{name}"] = buffer.getvalue()
    return made


def read_table(path: Path) -> None:
    """As a manifest, and as a corpus of features; a refusal of the one is no reason not to try the other."""
    refused: list[InputError] = []
    for read in (
        lambda: read_manifest(path, path.parent),
        lambda: read_corpus(path, "target.corpus"),
        lambda: list(read_unscored(path, 2)),
    ):
        try:
            read()
        except InputError as error:
            refused.append(error)
    for error in refused:
        if "\n" in str(error):
            raise error


def sequences() -> dict[str, bytes]:
    made = {}
    for packing in ({}, {"compression": "gzip", "shuffle": True, "fletcher32": True, "chunks": True}):
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            for video in ("a", "b"):
                group = file.create_group(f"opinion labels/data/{video}")
                group.create_dataset("features", data=np.ones((2, 1)), **packing)
                group.create_dataset("intervals", data=np.array([[0.0, 1.0], [1.0, 2.0]]), **packing)
        made[f"gzip-{bool(packing)}"] = buffer.getvalue()
    return made


def read_sequences(path: Path) -> None:
    """The file as the labels, and as the sound, of a corpus whose other file is whole."""
    for name, other in (("labels.csd", "covarep.csd"), ("covarep.csd", "labels.csd")):
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            shutil.copy(path, Path(folder, name))
            Path(folder, other).write_bytes(next(iter(sequences().values())))
            try:
                read_corpus(Path(folder), "target.corpus")
            except InputError as error:
                if "\n" in str(error):
                    raise


def checkpoints() -> dict[str, bytes]:
    """Weights and description of a model in one file, one after the other; ``read_checkpoint`` takes them apart."""
    with tempfile.TemporaryDirectory() as folder:
        fitted = FittedRows(rows=5, digest="d")
        description = ModelDescription(stage="fuse", seed=3, best_epoch=2, fitted=fitted, parents=("a",))
        write_model(Path(folder), nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)), description)
        return {name: Path(folder, name).read_bytes() for name in ("model.safetensors", "model.json")}


def read_checkpoint(path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        for name, content in checkpoints().items():
            Path(folder, name).write_bytes(content)
        json_file = path.read_bytes()[:1] in (b"{", b"\n", b" ")
        shutil.copy(path, Path(folder, "model.json" if json_file else "model.safetensors"))
        read_description(Path(folder), ModelDescription)
        load_weights(Path(folder), nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)))


def embeddings() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "text.parquet")
        with artifacts.embeddings_writer(path, 3, {"name": "tiny", "width": 3}) as writer:
            writer.write(["a", "b"], np.ones((2, 3), dtype=np.float32), [None, "x"], ["c", None])
        return {"embeddings": path.read_bytes()}


READERS = {
    "picture": Reader(pictures, lambda path: read_picture(path, max_pixels=10**6)),
    "clip": Reader(clips, read_whole_clip),
    "pickle": Reader(pickles, lambda path: read_corpus(path, "target.corpus")),
    "csv": Reader(lambda: tables("csv"), read_table),
    "jsonl": Reader(lambda: tables("jsonl"), read_table),
    "parquet": Reader(lambda: tables("parquet"), read_table),
    "hdf5": Reader(sequences, read_sequences),
    "checkpoint": Reader(checkpoints, read_checkpoint),
    "embeddings": Reader(embeddings, artifacts.read_embeddings),
}
ENDINGS = {"pickle": ".pkl", "csv": ".csv", "jsonl": ".jsonl", "parquet": ".parquet", "embeddings": ".parquet"}


# --- the run ---------------------------------------------------------------------------------------------------------


def fault(read: Callable[[Path], object], path: Path) -> str | None:
    """What is wrong with how a file was met; None where it was read, or refused in one line."""

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        read(path)
    except (InputError, MediaError) as error:
        if "\n" in str(error):
            return f"more than a line: {error}"
    except Exception as error:  # whatever else comes out is what is looked for
        return f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    return f"{grown} MB" if grown > MEGABYTES else None


def fuzz(name: str, seconds: float, seed: int, keep: Path) -> tuple[int, list[str]]:
    """Tries a reader for so long; returns how many files it was given, and the faults. Faulty files go to ``keep``."""
    reader, rng = READERS[name], random.Random(f"{name} {seed}")
    seeds = list(reader.seeds().values())
    tried, faults, end = 0, [], time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end:
            path = Path(folder, f"case{ENDINGS.get(name, '')}")
            content = changed(rng.choice(seeds), seeds, rng)
            (keep / name).write_bytes(content)  # should this process die of it
            path.write_bytes(content)
            tried += 1
            wrong = fault(reader.read, path)
            if wrong is not None:
                faults.append(f"{keep / f'{name}-{seed}-{tried}'}: {wrong[:300]}")
                shutil.copy(path, keep / f"{name}-{seed}-{tried}")
    (keep / name).unlink(missing_ok=True)
    return tried, faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="for each reader")
    parser.add_argument("--reader", action="append", choices=READERS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=ROOT / "build" / "fuzz", help="where faulty files go")
    arguments = parser.parse_args()
    arguments.keep.mkdir(parents=True, exist_ok=True)
    names, seconds, held = arguments.reader or list(READERS), 60 * arguments.minutes, True
    if len(names) == 1:
        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
        tried, faults = fuzz(names[0], seconds, arguments.seed, arguments.keep)
        print(*faults, f"{names[0]:12}{tried - len(faults):8} of {tried}", sep="\n", flush=True)
        sys.exit(bool(faults))
    for name in names:
        words = ["--minutes", arguments.minutes, "--reader", name, "--seed", arguments.seed, "--keep", arguments.keep]
        command = [sys.executable, "-m", "tests.robustness.fuzz", *map(str, words)]
        try:
            status = subprocess.run(command, timeout=seconds + 300, check=False).returncode
        except subprocess.TimeoutExpired:
            status = signal.SIGKILL
        if status not in (0, 1):
            print(f"{name}: ended with status {status}, by the file {arguments.keep / name}", flush=True)
        held &= status == 0
    sys.exit(not held)


if __name__ == "__main__":
    main()
