"""Whether written words are read right, and whether they help.

    python -m benchmarks.reading drawn FOLDER
    python -m benchmarks.reading posts FOLDER [--minutes 25] [--cache DIR]

FOLDER holds ``manifest.parquet`` (``id label group split text image``) and its pictures. With ``pip install
"emocare-pipeline[ocr]"``, whose nets read them as the stream ``words`` of pictures does.

``drawn`` writes twenty English sentences in each of three layouts, black or white on a plain ground, the same on a
photograph, and white with a black rim in capitals, half above and half below, as in a meme; in three fonts, 18 to 60
pixels high, on 640 by 480 pixels, kept as JPEG. Photographs are pictures of FOLDER in which nothing is read beforehand.
The character error rate is the fewest letters to be put in, left out or changed, over those that were written; a word
counts as read where it stands among those read. Case does not count, nor does punctuation for words.

``posts`` reads training pictures for so many minutes, in an order drawn by seed, and goes on where it was. Then a
logistic regression with balanced classes learns from frozen vectors, by five folds of groups and two draws of them;
its strength is chosen on a fifth of the training groups. A picture without words has the mean there. Prints macro-F1
with and without the words, and their difference with its interval over groups.
"""

import argparse
import io
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont
from sklearn.model_selection import StratifiedGroupKFold

from benchmarks.augmentation import CPU, MAX_PIXELS, before_and_after, cached, out_of_fold
from benchmarks.transcription import SENTENCES, errors, words
from pipeline.core import artifacts
from pipeline.core.files import MediaError
from pipeline.encoders import image, streams, text
from pipeline.encoders.streams import ClipEncoder
from pipeline.encoders.text import TextEncoder
from pipeline.params import EmbedImageParams, EmbedTextParams
from pipeline.scoring import emotion

FONTS = ("DejaVuSans-Bold.ttf", "DejaVuSansMono.ttf", "STIXGeneral.ttf")
"""Of matplotlib; the last is like Times."""

FOLDER = Path(matplotlib.get_data_path()) / "fonts" / "ttf"

SIZES = np.linspace(18, 60, len(SENTENCES)).round().astype(int)
WIDTH, HEIGHT, MARGIN = 640, 480, 16
FOLDS, DRAWS = 5, 2

Row = Mapping[str, np.ndarray]


def load() -> tuple[ClipEncoder, TextEncoder]:
    """What reads pictures and their words, and the encoder of texts."""
    params, texts = EmbedImageParams(streams=("pixels", "words")), text.load(EmbedTextParams())
    encoder = streams.of_pictures(params, image.load(params), texts)
    assert isinstance(encoder, ClipEncoder)
    return encoder, texts


def read(encoder: ClipEncoder, source: Path | bytes) -> str | None:
    """The words in a picture; None where there are none."""
    clip = encoder.read(source, MAX_PIXELS)
    try:
        return encoder.recognisers["words"].recognise(clip).text
    except MediaError:
        return None


# --- drawn -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawn:
    """A picture with a known sentence, and what was read in it."""

    layout: str
    size: int
    written: str
    read: str

    @property
    def wrong(self) -> int:
        """Letters to put in, leave out or change."""
        return errors(self.written.casefold(), self.read.casefold())

    @property
    def right_words(self) -> int:
        return sum((Counter(words(self.written)) & Counter(words(self.read))).values())


def plain(rng: np.random.Generator, photographs: Iterator[Image.Image]) -> Image.Image:
    dark, light = rng.integers(0, 80, 3), rng.integers(190, 256, 3)
    return Image.new("RGB", (WIDTH, HEIGHT), tuple((dark, light)[int(rng.integers(2))].tolist()))


def on_photograph(rng: np.random.Generator, photographs: Iterator[Image.Image]) -> Image.Image:
    return next(photographs)


def from_the_top(picture: Image.Image, sentence: str, face: ImageFont.FreeTypeFont) -> None:
    fill = "black" if np.asarray(picture.convert("L")).mean() > 128 else "white"
    ImageDraw.Draw(picture).multiline_text((MARGIN, MARGIN), wrapped(sentence, face), fill, face)


def above_and_below(picture: Image.Image, sentence: str, face: ImageFont.FreeTypeFont) -> None:
    parts = sentence.upper().split()
    half, rim = len(parts) // 2, max(int(face.size) // 16, 1)
    for anchor, at, some in (("ma", MARGIN, parts[:half]), ("md", HEIGHT - MARGIN, parts[half:])):
        lines = wrapped(" ".join(some), face)
        place = (WIDTH // 2, at)
        drawer = ImageDraw.Draw(picture)
        drawer.multiline_text(
            place, lines, "white", face, anchor, align="center", stroke_width=rim, stroke_fill="black"
        )


def wrapped(words: str, face: ImageFont.FreeTypeFont) -> str:
    """In lines that fit the width."""
    each = (WIDTH - 2 * MARGIN) / face.getlength(words) * len(words)
    return textwrap.fill(words, max(int(0.9 * each), 1))


LAYOUTS: Mapping[str, tuple[Callable[..., Image.Image], Callable[..., None]]] = {
    "plain ground": (plain, from_the_top),
    "on a photograph": (on_photograph, from_the_top),
    "meme": (on_photograph, above_and_below),
}
"""What is written on, and how."""


def as_jpeg(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=90)
    return out.getvalue()


def photographs(encoder: ClipEncoder, paths: Sequence[Path]) -> Iterator[Image.Image]:
    """Those in which nothing is read, cut to the size that is written on."""
    for path in paths:
        if read(encoder, path) is None:
            with Image.open(path) as opened:
                picture = opened.convert("RGB")
            scale = max(WIDTH / picture.width, HEIGHT / picture.height)
            grown = picture.resize(
                (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC
            )
            yield grown.crop((0, 0, WIDTH, HEIGHT))


def drawn(folder: Path) -> Iterator[str]:
    """Lines of Markdown."""
    encoder, _ = load()
    grounds = photographs(encoder, [folder / name for name in shuffled(folder)["image"]])
    made: list[Drawn] = []
    for number, (layout, (ground, write)) in enumerate(LAYOUTS.items()):
        rng = np.random.default_rng(number)
        for at, (sentence, size) in enumerate(zip(SENTENCES, rng.permutation(SIZES).tolist(), strict=True)):
            picture = ground(rng, grounds)
            write(picture, sentence, ImageFont.truetype(FOLDER / FONTS[at % len(FONTS)], size))
            made.append(Drawn(layout, size, sentence, read(encoder, as_jpeg(picture)) or ""))
    yield "| pictures | character error rate | words read | without a fault | nothing read |\n|---|---|---|---|---|"
    for layout in LAYOUTS:
        yield line(layout, [of for of in made if of.layout == layout])
    for low, high in ((18, 31), (32, 45), (46, 60)):
        yield line(f"letters of {low} to {high} px", [of for of in made if low <= of.size <= high])
    yield line("all", made)


def line(name: str, some: Sequence[Drawn]) -> str:
    letters, total = sum(len(of.written) for of in some), sum(len(words(of.written)) for of in some)
    rate, share = sum(of.wrong for of in some) / letters, sum(of.right_words for of in some) / total
    whole, none = sum(of.wrong == 0 for of in some), sum(not of.read for of in some)
    return f"| {name} | {rate:.3f} | {share:.3f} | {whole} of {len(some)} | {none} |"


# --- posts -----------------------------------------------------------------------------------------------------------


def shuffled(folder: Path) -> pd.DataFrame:
    """The training rows that have a picture, in an order drawn by seed."""
    rows = pd.read_parquet(folder / "manifest.parquet").dropna(subset=["image"])
    return rows[rows["split"] == "train"].sample(frac=1, random_state=0)


def read_for(encoder: ClipEncoder, folder: Path, minutes: float, path: Path) -> dict[str, str | None]:
    """What is written in each picture, by id, as kept in ``path`` and read for so many minutes more."""
    known: dict[str, str | None] = artifacts.read_json(path) if path.is_file() else {}
    until = time.monotonic() + 60 * minutes
    for at, (key, name) in enumerate(shuffled(folder)[["id", "image"]].itertuples(index=False)):
        if time.monotonic() > until:
            break
        if key not in known:
            known[key] = read(encoder, folder / name)
            if at % 20 == 0:
                artifacts.write_json(path, known)
    artifacts.write_json(path, known)
    return known


def vectors(
    encoder: ClipEncoder, texts: TextEncoder, paths: Sequence[Path], posts: Sequence[str], said: Sequence
) -> Row:
    """Stream → float32 [rows, width], NaN where a row has none of it."""
    pixels = encoder.streams["pixels"]
    pictures = [pixels.encode([pixels.prepare(encoder.read(path, MAX_PIXELS))], CPU)[0] for path in paths]
    written = np.full((len(paths), texts.width), np.nan, np.float32)
    have = [at for at, of in enumerate(said) if of is not None]
    written[have] = encoder.streams["words"].encode([said[at] for at in have], CPU)
    return {"pixels": np.stack(pictures), "words": written, "text": texts.encode(posts, CPU)}


COMPARED = (("pixels",), ("pixels", "words"), ("text", "pixels"), ("text", "pixels", "words"))
"""Those with words follow those without."""


def posts(folder: Path, minutes: float, cache: Path) -> Iterator[str]:
    """Lines of Markdown."""
    encoder, texts = load()
    cache.mkdir(parents=True, exist_ok=True)
    said = read_for(encoder, folder, minutes, cache / "words.json")
    rows = shuffled(folder).set_index("id", drop=False).loc[list(said)]
    paths, shown = [folder / name for name in rows["image"]], rows["text"].tolist()
    made = cached(
        cache / f"vectors-{len(rows)}.safetensors", lambda: vectors(encoder, texts, paths, shown, list(said.values()))
    )
    codes, groups = pd.factorize(rows["label"], sort=True)[0], rows["group"].to_numpy()
    have = np.array([of is not None for of in said.values()])
    lengths = [len(of.split()) for of in said.values() if of is not None]
    yield f"{len(rows)} pictures, of {have.sum()} words are read, {np.median(lengths):.0f} of them in the median\n"
    yield "| vectors | macro-F1 | with words | difference | of pictures with words |\n|---|---|---|---|---|"
    given = {names: folded([made[name] for name in names], codes, groups) for names in COMPARED}
    for without, names in zip(COMPARED[::2], COMPARED[1::2], strict=True):
        yield compared(", ".join(without), given[without], given[names], codes, groups, have)


def folded(blocks: Sequence[np.ndarray], codes: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """A class of every row in every draw, int [DRAWS, rows], by models that saw nothing of its group."""
    rows = np.concatenate(blocks, axis=1)
    said = []
    for draw in range(DRAWS):
        split = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=draw)
        folds = [unseen for _, unseen in split.split(codes, codes, groups)]
        # All directions: a penalty on squares is the same in any, and there are as many as rows at most.
        said.append(out_of_fold({"plain": rows}, (), codes, groups, folds, draw, rows.shape[1]))
    return np.stack(said)


def compared(
    name: str, before: np.ndarray, after: np.ndarray, codes: np.ndarray, groups: np.ndarray, have: np.ndarray
) -> str:
    classes = int(codes.max()) + 1
    actual, group = np.tile(codes, DRAWS), np.tile(groups, DRAWS)
    cells = before_and_after(actual, before.ravel(), after.ravel(), group, classes)
    among = [emotion.macro_f1(np.tile(codes[have], DRAWS), of[:, have].ravel(), classes) for of in (before, after)]
    return f"| {name} | {cells} | {among[0]:.3f} → {among[1]:.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("drawn", "posts"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=25.0, help="to read pictures for")
    parser.add_argument("--cache", type=Path, default=Path("reading-cache"), help="keeps words and vectors")
    given = parser.parse_args()
    lines = drawn(given.folder) if given.what == "drawn" else posts(given.folder, given.minutes, given.cache)
    for said in lines:
        print(said, flush=True)


if __name__ == "__main__":
    main()
