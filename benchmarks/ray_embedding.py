"""Pictures to vectors in the processes of a Ray cluster of this machine, against this process: overhead and scaling.

    pip install -e ".[ray]"
    python -m benchmarks.ray_embedding FOLDER [--pictures 400] [--rounds 3]

``FOLDER`` holds pictures. Ways take turns, each from an empty store; the cluster is up and its encoders are loaded
before the clock starts, since that takes the same seconds however many pictures there are. Scaling counts encoders:
with two of them, the reader and this process, which writes, share what cores there are.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

WAYS = {"local, 1 thread": (1, 0), "local, 2 threads": (2, 0), "ray, 1 encoder": (1, 1), "ray, 2 encoders": (1, 2)}
"""Threads of this process, and encoders of a cluster with one reader."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    paths = sorted(path for path in arguments.folder.iterdir() if path.is_file())[: arguments.pictures]
    files = [path.name for path in paths]
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(arguments.rounds):
        for way, (threads, encoders) in WAYS.items():
            seconds[way].append(measured(files, arguments.folder, threads, encoders))
    print("| way | seconds, median [min, max] | pictures a second |\n|---|---|---|")
    for way, of in seconds.items():
        middle = statistics.median(of)
        print(f"| {way} | {middle:.1f} [{min(of):.1f}, {max(of):.1f}] | {len(files) / middle:.1f} |")


def measured(files: Sequence[str], folder: Path, threads: int, encoders: int) -> float:
    """Seconds of what `embed` does with pictures, from an empty store."""
    import torch

    from benchmarks.repeating import posts_of
    from pipeline.encoders import engine, image
    from pipeline.encoders.embedding import embed_posts
    from pipeline.encoders.sources import picture_files
    from pipeline.params import EmbedParams, Params, PostsParams, RayParams

    torch.set_num_threads(threads)
    ray = RayParams(encoders=max(encoders, 1), readers=1)
    embed = EmbedParams(workers=1, engine="ray" if encoders else "local", ray=ray)
    params = Params(embed=embed, posts=PostsParams(media=str(folder.resolve())), device="cpu")
    with tempfile.TemporaryDirectory() as scratch, engine.opened(params, posts_of(files, Path(scratch))) as here:
        source = here.source("image", picture_files(image.load(embed.image), folder, here.device, embed))

        def run(some: Sequence[str], root: Path) -> None:
            os.environ["EMOCARE_CACHE"] = str(root / "cache")
            embed_posts("image", "image_path", source, params, posts_of(some, root))

        run(files[: 32 * max(encoders, 1) * 2], Path(scratch, "warm"))
        return _seconds(lambda: run(files, Path(scratch, "all")))


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
