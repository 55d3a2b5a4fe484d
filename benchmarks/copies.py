"""How surely copies are found: the pictures of a real corpus, altered as people alter them, and how long it takes.

python -m benchmarks.copies ../shared/data/posts_mvsa            # recall and precision for each kind
python -m benchmarks.copies --sizes 10000 100000                 # seconds for so many made thumbnails

Precision is judged among all pairs of the corpus and the altered pictures: a link is right if both ends come from one
picture, or from two that are linked in the corpus itself. Links within the corpus are listed, to be looked at.
"""

import argparse
import resource
import time
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline import media
from pipeline.corpora.duplicates import Edges, components
from pipeline.corpora.looks import SIDE, look, same_looks
from pipeline.params import SplitParams
from tests.altered import ALTERED, jpeg

MAX_PIXELS = 50_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="a folder with pictures below it")
    parser.add_argument("--sample", type=int, default=200, help="how many of the pictures are altered in each way")
    parser.add_argument("--sizes", type=int, nargs="*", default=[], help="numbers of made thumbnails to time")
    arguments = parser.parse_args()
    if arguments.folder:
        measure(arguments.folder, arguments.sample)
    for size in arguments.sizes:
        print(scaling(size))


def measure(folder: Path, sample: int) -> None:
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))
    read = partial(media.read_picture, max_pixels=MAX_PIXELS)
    reading = looking = 0.0
    looks = []
    for path in paths:
        start = time.perf_counter()
        picture = read(path, at_least=64)
        between = time.perf_counter()
        looks.append(look(picture))
        reading, looking = reading + between - start, looking + time.perf_counter() - between
    print(
        f"{len(paths)} pictures: {1e3 * reading / len(paths):.2f} ms to read, {1e3 * looking / len(paths):.2f} to look"
    )
    agreement = SplitParams().picture_agreement
    pairs = same_looks(np.stack(looks), agreement)
    print("links within the corpus:", ", ".join(f"{paths[a].name} = {paths[b].name}" for a, b in pairs))
    whole = components(pairs, len(paths))
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(paths), min(sample, len(paths)), replace=False)
    print("| kind | recall | precision | links |\n|---|---|---|---|")
    for kind, alter in ALTERED.items():
        made = [jpeg(alter(Image.fromarray(read(paths[at])), rng), kind) for at in chosen]
        altered = [look(read(file, at_least=64)) for file in made]
        print(row(kind, same_looks(np.stack(looks + altered), agreement), whole, chosen))


def row(kind: str, pairs: Edges, whole: np.ndarray, chosen: np.ndarray) -> str:
    """Recall: altered pictures that are in one group with their original; precision: right ones of their links."""
    count = len(whole)
    source = np.concatenate([np.arange(count), chosen])
    of_altered = [(a, b) for a, b in pairs if b >= count]
    right = [(a, b) for a, b in of_altered if whole[source[a]] == whole[source[b]]]
    member = components([(a, b) for a, b in pairs if b < count] + right, len(source))
    recall = np.mean([member[count + at] == member[of] for at, of in enumerate(chosen)])
    precision = len(right) / len(of_altered) if of_altered else float("nan")
    return f"| {kind} | {recall:.3f} | {precision:.3f} | {len(of_altered)} |"


def scaling(size: int) -> str:
    """Made pictures whose shades fall off with the frequency as those of photographs do; a hundredth are copies."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE)))
    frequency[0, 0] = 1
    made = []
    for at in range(0, size, 10_000):
        noise = rng.normal(size=(min(10_000, size - at), SIDE, SIDE))
        values = np.fft.ifft2(np.fft.fft2(noise) / frequency).real
        values = 128 + 50 * (values - values.mean(axis=(1, 2), keepdims=True)) / values.std(axis=(1, 2), keepdims=True)
        made.append(values.clip(0, 255).astype(np.uint8))
    thumbnails = np.concatenate(made)
    copies = size // 100
    thumbnails[-copies:] = thumbnails[:copies, :, ::-1]
    start = time.perf_counter()
    pairs = same_looks(np.stack([thumbnails, thumbnails], axis=1), SplitParams().picture_agreement)
    seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return f"{size} thumbnails: {seconds:.0f} s, {len(pairs)} pairs of {copies} copies, {memory:.1f} GiB at most"


if __name__ == "__main__":
    main()
