"""Pictures or clips to vectors in the processes of a Ray cluster of this machine, against this process.

    pip install -e ".[ray]"
    python -m benchmarks.ray_embedding FOLDER [--clips] [--files 400] [--rounds 3]

``FOLDER`` holds pictures, or clips, which are read by their default streams. Ways take turns, each from an empty store;
the cluster is up and its encoders are loaded before the clock starts, since that takes the same seconds however many
files there are. Scaling counts encoders: with two of them, the reader and this process, which writes, share what cores
there are.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.core.layout import Layout
    from pipeline.encoders.engine import Engine
    from pipeline.params import Params

WAYS = {"local, 1 thread": (1, 0), "local, 2 threads": (2, 0), "ray, 1 encoder": (1, 1), "ray, 2 encoders": (1, 2)}
"""Threads of this process, and encoders of a cluster with one reader."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--clips", action="store_true", help="the files are clips")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    paths = sorted(path for path in arguments.folder.iterdir() if path.is_file())[: arguments.files]
    files = [path.name for path in paths]
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(arguments.rounds):
        for way, (threads, encoders) in WAYS.items():
            seconds[way].append(measured(files, arguments.folder, threads, encoders, arguments.clips))
    print("| way | seconds, median [min, max] | files a second |\n|---|---|---|")
    for way, of in seconds.items():
        middle = statistics.median(of)
        print(f"| {way} | {middle:.1f} [{min(of):.1f}, {max(of):.1f}] | {len(files) / middle:.1f} |")


def measured(files: Sequence[str], folder: Path, threads: int, encoders: int, clips: bool) -> float:
    """Seconds of what `embed` does with pictures, or with clips, from an empty store."""
    import torch

    from benchmarks.repeating import posts_of
    from pipeline.encoders import engine
    from pipeline.params import EmbedParams, Params, PostsParams, RayParams

    torch.set_num_threads(threads)
    ray = RayParams(encoders=max(encoders, 1), readers=1)
    embed = EmbedParams(workers=1, engine="ray" if encoders else "local", ray=ray)
    params = Params(embed=embed, posts=PostsParams(media=str(folder.resolve())), device="cpu")
    column = "video_path" if clips else "image_path"
    with tempfile.TemporaryDirectory() as scratch, engine.opened(params, folder) as here:
        embed_them = _clips(here, folder, params) if clips else _pictures(here, folder, params)

        def run(some: Sequence[str], root: Path) -> None:
            os.environ["EMOCARE_CACHE"] = str(root / "cache")
            embed_them(posts_of(some, root, column))

        run(files[: params.embed.image.batch * max(encoders, 1) * 2], Path(scratch, "warm"))
        return _seconds(lambda: run(files, Path(scratch, "all")))


def _pictures(here: "Engine", folder: Path, params: "Params") -> Callable[["Layout"], Any]:
    from pipeline.encoders import image
    from pipeline.encoders.embedding import embed_posts
    from pipeline.encoders.sources import picture_files

    source = here.source("image", picture_files(image.load(params.embed.image), folder, here.device, params.embed))
    return lambda layout: embed_posts("image", "image_path", source, params, layout)


def _clips(here: "Engine", folder: Path, params: "Params") -> Callable[["Layout"], Any]:
    from pipeline.encoders import streams
    from pipeline.encoders.clip_rows import embed_streams
    from pipeline.encoders.clip_streams import ClipContents

    encoder = streams.load(params.embed)
    contents = ClipContents.of(encoder, folder, here.device, params.embed)
    source = here.clips("video", contents)
    return lambda layout: embed_streams("video", "video_path", contents, source, params, layout)


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
