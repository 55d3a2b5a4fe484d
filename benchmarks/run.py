"""This pipeline against its peers, in one run: who does the same work how fast.

    pip install -e ".[bench]"
    python -m benchmarks.run --data FOLDER [--only texts clips] [--texts 20000] [--rounds 5] [--out FOLDER]

``FOLDER`` of the data holds ``goemotions/manifest.parquet``, ``posts_mvsa/`` and ``video_javanese/``; a work whose data
is absent is left out, and said so. Ways of one work take turns. Writes ``benchmarks.md`` and ``benchmarks.json``.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

WORKS = ("texts", "pictures", "large-pictures", "clips", "real-clips", "repeating", "tuned", "head")
PACKAGES = (
    "torch",
    "transformers",
    "openvino",
    "sentence-transformers",
    "av",
    "decord",
    "opencv-python-headless",
    "pillow",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=WORKS, default=WORKS)
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--pictures", type=int, default=3200)
    parser.add_argument("--large-pictures", type=int, default=2000)
    parser.add_argument("--real-clips", type=int, default=192)
    parser.add_argument("--tuned-texts", type=int, default=2800)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2, help="threads that decode, as params embed.workers")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # before torch is there

    import torch

    from benchmarks.measuring import machine, markdown, measure

    torch.set_num_threads(arguments.threads)
    about, results = machine(PACKAGES), []
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for work in works(arguments, Path(scratch)):
            results.append(measure(work, arguments.rounds))
            page = markdown(results, about, arguments.threads)
            (arguments.out / "benchmarks.md").write_text(page, encoding="utf-8")
            data = {"machine": about, "threads": arguments.threads, "results": [of.as_json() for of in results]}
            (arguments.out / "benchmarks.json").write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
            print(f"{work.name}: done", file=sys.stderr, flush=True)
    print((arguments.out / "benchmarks.md").read_text(encoding="utf-8"))


def works(arguments: argparse.Namespace, scratch: Path) -> Iterator:
    """The works that were asked for and whose data is here, one at a time."""
    from benchmarks import clip_reading, encoding, repeating, training_speed

    goemotions = arguments.data / "goemotions" / "manifest.parquet"
    mvsa, acted = arguments.data / "posts_mvsa" / "images", arguments.data / "video_javanese" / "videos"
    if _has("texts", goemotions, arguments):
        for runtime, precision, target in encoding.TEXT_WAYS:
            yield encoding.texts(goemotions, arguments.texts, runtime, precision, target)
    if _has("pictures", mvsa, arguments):
        files = sorted(mvsa.iterdir())[: arguments.pictures]
        yield encoding.pictures(files, "posts_mvsa (256 px)", 1.2, arguments.workers)
    if "large-pictures" in arguments.only:
        files = encoding.make_pictures(scratch / "pictures", arguments.large_pictures)
        yield encoding.pictures(files, "made (2,000 px)", 2.0, arguments.workers)
    if "clips" in arguments.only:
        for name, path in clip_reading.make_clips(scratch / "clips").items():
            yield clip_reading.clips([path], name)
    if _has("real-clips", acted, arguments):
        yield clip_reading.clips(sorted(acted.iterdir())[: arguments.real_clips], "acted clips (270p, 2-8 s)")
    if _has("repeating", mvsa, arguments):
        yield from repeating.works(sorted(mvsa.iterdir())[: arguments.pictures], scratch, arguments.workers)
    if _has("tuned", goemotions, arguments):
        yield training_speed.tuned(goemotions, arguments.tuned_texts)
    if "head" in arguments.only:
        yield training_speed.head()


def _has(name: str, path: Path, arguments: argparse.Namespace) -> bool:
    if name in arguments.only and not path.exists():
        print(f"{name}: left out, {path} is not there", file=sys.stderr)
    return name in arguments.only and path.exists()


if __name__ == "__main__":
    main()
