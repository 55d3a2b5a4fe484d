"""How surely copies are found: the pictures and clips of a real corpus, altered as people do, and how long it takes.

python -m benchmarks.copies FOLDER                  # pictures: recall and precision for each kind
python -m benchmarks.copies FOLDER --sample 32      # the same for clips
python -m benchmarks.copies --sizes 10000 100000    # seconds for so many made thumbnails

Precision is judged among all pairs of the corpus and the altered ones: a link is right if both ends come from one
picture or clip, or from two that are linked in the corpus itself. Links within the corpus are listed, to be looked at.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measuring import most_memory
from pipeline.corpora.duplicates import Edges, components
from pipeline.corpora.looks import SIDE, look, same_looks
from pipeline.corpora.motion import (
    SECONDS,
    SILENT,
    SOUNDS_ALIKE,
    ClipPrint,
    Likeness,
    clip_print,
    likenesses,
    same_clips,
)
from pipeline.media.footage import Footage, read_footage
from pipeline.media.pictures import read_picture
from pipeline.params import SplitParams
from tests.altered import ALTERED, jpeg
from tests.altered_clips import ALTERED_CLIPS, alter_clip

MAX_PIXELS = 50_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="a folder with pictures, or with clips, below it")
    parser.add_argument("--sample", type=int, default=200, help="how many of them are altered in each way")
    parser.add_argument("--sizes", type=int, nargs="*", default=[], help="numbers of made thumbnails to time")
    arguments = parser.parse_args()
    if arguments.folder:
        files = sorted(path for path in arguments.folder.rglob("*") if path.is_file())
        for measure, endings in ((measure_pictures, (".jpg", ".png")), (measure_clips, (".mp4", ".mkv", ".webm"))):
            if paths := [path for path in files if path.suffix in endings]:
                measure(paths, arguments.sample)
    for size in arguments.sizes:
        print(scaling(size))


def measure_pictures(paths: Sequence[Path], sample: int) -> None:
    rng = np.random.default_rng(0)
    read = partial(read_picture, max_pixels=MAX_PIXELS)
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
    whole = of_corpus(same_looks(np.stack(looks), agreement), paths)
    chosen = rng.choice(len(paths), min(sample, len(paths)), replace=False)
    print("| kind | recall | precision | links |\n|---|---|---|---|")
    for kind, alter in ALTERED.items():
        made = [jpeg(alter(Image.fromarray(read(paths[at])), rng), kind) for at in chosen]
        altered = [look(read(file, at_least=64)) for file in made]
        print(row(kind, same_looks(np.stack(looks + altered), agreement), whole, chosen))


def of_corpus(pairs: Edges, paths: Sequence[Path]) -> np.ndarray:
    print("links within the corpus:", ", ".join(f"{paths[a].name} = {paths[b].name}" for a, b in pairs) or "none")
    return components(pairs, len(paths))


def measure_clips(paths: Sequence[Path], sample: int) -> None:
    """By all evidence, and by the pictures and by the sound alone, each at its threshold."""
    split = SplitParams()
    agreements = split.clip_agreement, split.picture_agreement
    start = time.process_time()
    footage = [_footage(path) for path in paths]
    between = time.process_time()
    prints = [clip_print(of) for of in footage]
    after = time.process_time()
    whole = of_corpus(same_clips(prints, *agreements), paths)
    seconds = np.array([between - start, after - between, time.process_time() - after])
    print(f"{len(paths)} clips: {np.array2string(1e3 * seconds / len(paths), precision=1)} ms to read, print, compare")
    chosen = np.arange(0, len(paths), max(len(paths) // sample, 1))
    print("| kind | recall | precision | links | pictures alone | sound alone |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for kind, how in ALTERED_CLIPS.items():
            altered: list[ClipPrint] = []
            for at in chosen.tolist():
                alter_clip(paths[at], Path(folder) / "altered.mp4", how)
                altered.append(clip_print(_footage(Path(folder) / "altered.mp4")))
            found = list(likenesses(prints + altered))
            alone = [
                row(kind, sorted({(a, b) for a, b, of in found if says(of)}), whole, chosen).split(" | ")[1:3]
                for says in (lambda of: Likeness.same(silenced(of), *agreements), lambda of: of.sound >= SOUNDS_ALIKE)
            ]
            together = row(kind, same_clips(prints + altered, *agreements), whole, chosen)
            print(together, *(" / ".join(of) + " |" for of in alone), flush=True)


def _footage(path: Path) -> Footage:
    return read_footage(path, side=SIDE, seconds=SECONDS, max_pixels=MAX_PIXELS)


def silenced(of: Likeness) -> Likeness:
    return replace(of, sound=SILENT)


def row(kind: str, pairs: Edges, whole: np.ndarray, chosen: np.ndarray) -> str:
    """Recall: altered ones that are in one group with their original; precision: right ones of their links."""
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
    memory = most_memory() / 2**10
    return f"{size} thumbnails: {seconds:.0f} s, {len(pairs)} pairs of {copies} copies, {memory:.1f} GiB at most"


if __name__ == "__main__":
    main()
