"""Whether altered views of training rows help a logistic regression on frozen vectors.

    python -m benchmarks.augmentation pictures FOLDER [--sample 1500] [--cache DIR]
    python -m benchmarks.augmentation clips FOLDER [--cache DIR]

FOLDER holds ``manifest.parquet`` (``id label group``, and ``image`` or ``video``) and its media. Each is encoded once
as it is and once for each view, by the packaged encoder and the stream ``sound``. Then a logistic regression with
balanced classes is fitted without and with the views of its training rows, on the first 256 principal components of
these, and asked about unseen groups as they are: pictures in five folds of groups, each group of clips left out in
turn. Its strength is chosen on a fifth of the training groups. Groups never cross folds, inner or outer. Prints
macro-F1 without, with, and the difference with its interval over groups, of five draws together; a draw has other folds
and, of sound, other random views.

Views of sound: noise of 20 dB below it, louder or softer by up to 9 dB, and faster or slower by 4 %, which moves its
pitch too (after Ko et al., "Audio augmentation for speech recognition", 2015). ``augment`` is the random part, mirrored
at times, in another light, that a picture encoder is tuned on (``pipeline.encoders.image.augment``).
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import load_file, save_file
from scipy.signal import resample_poly
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from pipeline.encoders import image, sound_features, video
from pipeline.encoders.image import augment
from pipeline.media.clips import read_clip
from pipeline.media.pictures import read_picture
from pipeline.params import EmbedImageParams, EmbedVideoParams
from pipeline.scoring import emotion, intervals
from pipeline.scoring.standardisation import standardisation, standardised

STRENGTHS = (0.0003, 0.001, 0.003, 0.01)
"""scikit-learn's C, of training rows without views; with k views of each it is divided by 1 + k."""

FOLDS, DRAWS, COMPONENTS, MAX_PIXELS, SECONDS = 5, 5, 256, 50_000_000, 30.0
CPU = torch.device("cpu")

Vectors = Mapping[str, np.ndarray]
"""View → float32 [rows, width]; ``plain`` is what the rows are as they are."""


# --- views -----------------------------------------------------------------------------------------------------------


def mirrored(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8 [H, W, 3] → the same."""
    return np.ascontiguousarray(picture[:, ::-1])


def cropped(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A part with 90 % of each side, uint8 [H, W, 3] → uint8 [0.9 H, 0.9 W, 3]."""
    height, width = (max(int(0.9 * side), 1) for side in picture.shape[:2])
    top, left = (int(rng.integers(side - own + 1)) for side, own in zip(picture.shape, (height, width), strict=False))
    return picture[top : top + height, left : left + width]


def coloured(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each channel up to a quarter brighter or darker, the contrast too, uint8 [H, W, 3] → the same."""
    middle = picture.mean()
    levels = (picture - middle) * rng.uniform(0.75, 1.25) + middle
    return np.clip(levels * rng.uniform(0.75, 1.25, size=3), 0, 255).astype(np.uint8)


PICTURE_VIEWS: Mapping[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "mirrored": mirrored,
    "cropped": cropped,
    "coloured": coloured,
    "augment": augment,
}


def noisy(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """With white noise of 20 dB below its level, float32 [n] → the same."""
    level = float(np.sqrt(np.square(samples, dtype=np.float64).mean()))
    return (samples + 0.1 * level * rng.normal(size=len(samples))).astype(np.float32)


def louder(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Up to 9 dB louder or softer; full scale is not cut."""
    return (samples * 10 ** (rng.uniform(-9, 9) / 20)).astype(np.float32)


def faster(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """4 % faster and higher, or slower and lower."""
    up, down = ((25, 26), (25, 24))[int(rng.integers(2))]
    return resample_poly(samples, up, down).astype(np.float32)


SOUND_VIEWS: Mapping[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "noise": noisy,
    "gain": louder,
    "speed": faster,
}


# --- vectors ---------------------------------------------------------------------------------------------------------


def picture_vectors(paths: Sequence[Path]) -> Vectors:
    """Every picture as it is and in every view."""
    encoder = image.load(EmbedImageParams())
    made: dict[str, list[np.ndarray]] = {"plain": [], **{name: [] for name in PICTURE_VIEWS}}
    for at, path in enumerate(paths):
        picture = read_picture(path, max_pixels=MAX_PIXELS, at_least=encoder.at_least)
        rng = np.random.default_rng(at)
        views = {"plain": picture} | {name: alter(picture, rng) for name, alter in PICTURE_VIEWS.items()}
        pixels = np.stack([encoder.preprocess(view) for view in views.values()])
        for name, vector in zip(views, encoder.encode(pixels, CPU), strict=True):
            made[name].append(vector)
    return {name: np.stack(rows) for name, rows in made.items()}


def frame_vectors(paths: Sequence[Path]) -> Vectors:
    """Every clip's frames as they are and mirrored, all of a clip alike."""
    encoder = video.load(EmbedVideoParams())
    made: dict[str, list[np.ndarray]] = {"plain": [], "mirrored": []}
    for path in paths:
        frames = read_clip(path, frames=[encoder.frame_request], max_pixels=MAX_PIXELS).frames(*encoder.frame_request)
        for name, view in (("plain", frames), ("mirrored", [frame[:, ::-1] for frame in frames])):
            made[name].append(encoder.encode([np.stack([encoder.preprocess(of) for of in view])], CPU)[0])
    return {name: np.stack(rows) for name, rows in made.items()}


def sound_vectors(paths: Sequence[Path], draw: int) -> Vectors:
    """Every clip's sound as it is and in every view."""
    made: dict[str, list[np.ndarray]] = {"plain": [], **{name: [] for name in SOUND_VIEWS}}
    for at, path in enumerate(paths):
        samples = read_clip(path, sound_seconds=SECONDS, max_pixels=MAX_PIXELS).sound()
        rng = np.random.default_rng([draw, at])
        made["plain"].append(sound_features.features(samples))
        for name, alter in SOUND_VIEWS.items():
            made[name].append(sound_features.features(alter(samples, rng)))
    return {name: np.stack(rows) for name, rows in made.items()}


def cached(path: Path, make: Callable[[], Vectors]) -> Vectors:
    """What ``make`` gives, made once."""
    if not path.is_file():
        vectors = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(vectors), path)
    return load_file(path)


# --- with and without ------------------------------------------------------------------------------------------------


def principal(rows: np.ndarray, most: int) -> np.ndarray:
    """The first ``most`` principal directions of centred rows [n, width], as columns; fewer where n or width is."""
    if len(rows) < rows.shape[1]:
        return np.linalg.svd(rows, full_matrices=False)[2][:most].T
    return np.linalg.eigh(rows.T @ rows)[1][:, -most:]


def predicted(
    vectors: Vectors,
    views: Sequence[str],
    codes: np.ndarray,
    train: np.ndarray,
    unseen: np.ndarray,
    strengths: Sequence[float],
    components: int = COMPONENTS,
) -> list[np.ndarray]:
    """Classes of the rows ``unseen`` as they are, by models of the rows ``train`` as they are and in ``views``."""
    mean, scale = standardisation(vectors["plain"][train])
    rows = np.concatenate([standardised(vectors[name][train], mean, scale) for name in ("plain", *views)])
    directions = principal(rows, components)
    models = []
    for strength in strengths:
        model = LogisticRegression(C=strength / (1 + len(views)), class_weight="balanced", max_iter=500)
        models.append(model.fit(rows @ directions, np.tile(codes[train], 1 + len(views))))
    asked = standardised(vectors["plain"][unseen], mean, scale) @ directions
    return [model.predict(asked) for model in models]


def out_of_fold(
    vectors: Vectors,
    views: Sequence[str],
    codes: np.ndarray,
    groups: np.ndarray,
    folds: Sequence[np.ndarray],
    draw: int,
    components: int = COMPONENTS,
) -> np.ndarray:
    """A class for every row; ``folds`` hold the rows that each leaves out. The strength is chosen anew in each."""
    given = np.empty_like(codes)
    classes = int(codes.max()) + 1
    for unseen in folds:
        train = np.setdiff1d(np.arange(len(codes)), unseen)
        inner = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=draw)
        known, held = (train[part] for part in next(inner.split(train, codes[train], groups[train])))
        tried = predicted(vectors, views, codes, known, held, STRENGTHS, components)
        best = int(np.argmax([emotion.macro_f1(codes[held], said, classes) for said in tried]))
        (given[unseen],) = predicted(vectors, views, codes, train, unseen, STRENGTHS[best : best + 1], components)
    return given


def compare(
    name: str,
    of_draw: Callable[[int], Vectors],
    view_sets: Sequence[Sequence[str]],
    rows: pd.DataFrame,
    folds_of: Callable[[int], list[np.ndarray]],
) -> Iterator[str]:
    """A line of Markdown for each set of views."""
    codes, groups = pd.factorize(rows["label"], sort=True)[0], rows["group"].to_numpy()
    classes = int(codes.max()) + 1
    known = [(of_draw(draw), folds_of(draw), draw) for draw in range(DRAWS)]
    plain = [out_of_fold(vectors, (), codes, groups, folds, draw) for vectors, folds, draw in known]
    actual, group = np.tile(codes, DRAWS), np.tile(groups, DRAWS)
    before = np.concatenate(plain)
    for views in view_sets:
        said = [out_of_fold(vectors, views, codes, groups, folds, draw) for vectors, folds, draw in known]
        after = np.concatenate(said)
        pairs = zip(said, plain, strict=True)
        each = [emotion.macro_f1(codes, a, classes) - emotion.macro_f1(codes, b, classes) for a, b in pairs]
        cells = before_and_after(actual, before, after, group, classes)
        yield f"| {name} | {', '.join(views)} | {cells} | {min(each):+.3f} to {max(each):+.3f} |"


def before_and_after(
    actual: np.ndarray, before: np.ndarray, after: np.ndarray, groups: np.ndarray, classes: int
) -> str:
    """Three cells: macro-F1 of both, and the difference with its interval over whole groups; classes are int [rows]."""
    drawn = intervals.resampled_macro_f1_difference(actual, after, before, groups, classes, 2000, 42)
    ends = intervals.interval_metrics(drawn, 0.95)
    first, second = (emotion.macro_f1(actual, of, classes) for of in (before, after))
    return f"{first:.3f} | {second:.3f} | {drawn.value:+.3f} [{ends['ci_low']:+.3f}, {ends['ci_high']:+.3f}]"


def pictures(folder: Path, sample: int, cache: Path) -> Iterator[str]:
    rows = pd.read_parquet(folder / "manifest.parquet").dropna(subset=["image"])
    rows = rows.sample(min(sample, len(rows)), random_state=0).sort_values("id").reset_index(drop=True)
    paths = [folder / name for name in rows["image"]]
    vectors = cached(cache / f"pictures-{len(rows)}.safetensors", lambda: picture_vectors(paths))
    codes = pd.factorize(rows["label"], sort=True)[0]

    def folds_of(draw: int) -> list[np.ndarray]:
        split = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=draw)
        return [unseen for _, unseen in split.split(codes, codes, rows["group"])]

    sets = (*((name,) for name in PICTURE_VIEWS), tuple(PICTURE_VIEWS))
    yield from compare("pictures", lambda draw: vectors, sets, rows, folds_of)


def clips(folder: Path, cache: Path) -> Iterator[str]:
    rows = pd.read_parquet(folder / "manifest.parquet")
    paths = [folder / name for name in rows["video"]]
    frames = cached(cache / f"frames-{len(rows)}.safetensors", lambda: frame_vectors(paths))

    def sounds_of(draw: int) -> Vectors:
        return cached(cache / f"sound-{len(rows)}-{draw}.safetensors", lambda: sound_vectors(paths, draw))

    folds = [np.flatnonzero(rows["group"] == group) for group in sorted(set(rows["group"]))]
    yield from compare("frames", lambda draw: frames, [("mirrored",)], rows, lambda draw: folds)
    sets = (*((name,) for name in SOUND_VIEWS), tuple(SOUND_VIEWS))
    yield from compare("sound", sounds_of, sets, rows, lambda draw: folds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pictures", "clips"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sample", type=int, default=1500, help="pictures, at most")
    parser.add_argument("--cache", type=Path, default=Path("augmentation-cache"), help="keeps the vectors")
    given = parser.parse_args()
    print("| what | views | without | with | difference | of each draw |\n|---|---|---|---|---|---|")
    if given.what == "pictures":
        lines = pictures(given.folder, given.sample, given.cache)
    else:
        lines = clips(given.folder, given.cache)
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    main()
