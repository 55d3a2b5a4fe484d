"""Works of ``benchmarks.run``: the whole of `embed` on pictures beside its encoder alone, and runs that find vectors.

The killed run is killed for real, once, by SIGKILL; what it left is what every measured run begins with.
"""

import multiprocessing
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from benchmarks.encoding import CPU
from benchmarks.measuring import OURS, Work
from pipeline.core import artifacts, schemas
from pipeline.core.layout import Layout
from pipeline.encoders import image
from pipeline.encoders.embedding import embed_posts
from pipeline.encoders.image import ImageEncoder
from pipeline.encoders.sources import picture_files
from pipeline.media.pictures import read_picture
from pipeline.params import EmbedParams, Params

NEW = 0.01
KILLED_AT = 0.6


def embed(files: Sequence[str], folder: Path, root: Path, workers: int, encoder: ImageEncoder | None = None) -> None:
    """What the stage does with pictures: digests, stored vectors, encoding, the table. The store lies in ``root``."""
    os.environ["EMOCARE_CACHE"] = str(root / "cache")
    encoder, params = encoder or image.load(EmbedParams().image), Params(embed=EmbedParams(workers=workers))
    source = picture_files(encoder, folder, CPU, params.embed)
    embed_posts("image", "image_path", source, params, posts_of(files, root))


def posts_of(files: Sequence[str], root: Path, column: str = "image_path") -> Layout:
    """A project whose posts are these pictures, or clips (``video_path``)."""
    layout, absent = Layout(root), [None] * len(files)
    of = {"sample_id": list(files), "image_path": absent, "text": absent, "video_path": absent, column: list(files)}
    posts = pd.DataFrame(of).assign(split="train", label="Joy", group_id=list(files))
    table = pa.Table.from_pandas(posts, schema=schemas.POSTS_TABLE, preserve_index=False)
    artifacts.write_parquet(layout.table("posts"), table)
    return layout


def works(paths: Sequence[Path], scratch: Path, workers: int) -> Iterator[Work]:
    """``paths`` are pictures of one folder."""
    folder, files = paths[0].parent, [path.name for path in paths]
    encoder = image.load(EmbedParams().image)

    def fresh(some: Sequence[str], begun: Path | None = None) -> None:
        with tempfile.TemporaryDirectory(dir=scratch) as root:
            if begun is not None:
                shutil.copytree(begun, Path(root, "cache"))
            embed(some, folder, Path(root), workers, encoder)

    full, everything = {"everything new": lambda: fresh(files)}, f"{len(files):,} pictures of posts_mvsa"
    decoded = _decoded(paths, encoder)
    alone = {"the encoder alone, on decoded batches": lambda: [encoder.encode(batch, CPU) for batch in decoded]}
    yield Work(f"whole `embed`, {everything}", "pictures", len(files), {OURS: lambda: fresh(files), **alone}, 0.9)
    old = files[: len(files) - max(round(NEW * len(files)), 1)]
    embed(old, folder, scratch / "old", workers, encoder)
    grown = {OURS: lambda: fresh(files, scratch / "old" / "cache"), **full}
    name = f"`embed` again, {len(files) - len(old)} of {everything} new"
    yield Work(name, "pictures", len(files), grown, 1 / 0.03)
    stored = _killed(files, folder, scratch / "killed", workers)
    again = {OURS: lambda: fresh(files, scratch / "killed" / "cache"), **full}
    name = f"`embed` again after SIGKILL at {stored / len(files):.0%}, {everything}"
    yield Work(name, "pictures", len(files), again, 1 / 0.45)


def _decoded(paths: Sequence[Path], encoder: ImageEncoder) -> list[np.ndarray]:
    def one(path: Path) -> np.ndarray:
        return encoder.preprocess(read_picture(path, max_pixels=50_000_000, at_least=encoder.at_least))

    return [np.stack([one(path) for path in paths[at : at + 32]]) for at in range(0, len(paths), 32)]


def _killed(files: Sequence[str], folder: Path, root: Path, workers: int) -> int:
    """Kills a process that embeds as soon as enough is stored; returns how many vectors it left."""
    process = multiprocessing.get_context("spawn").Process(target=embed, args=(files, folder, root, workers))
    process.start()
    while process.is_alive() and _stored(root) < KILLED_AT * len(files):
        time.sleep(0.05)
    process.kill()
    process.join()
    return _stored(root)


def _stored(root: Path) -> int:
    for path in (root / "cache" / "embeddings").glob("*.sqlite"):
        try:
            with sqlite3.connect(path, timeout=60) as store:
                return store.execute("SELECT count(*) FROM checked").fetchone()[0]
        except sqlite3.OperationalError:  # the table is not there yet
            return 0
    return 0
