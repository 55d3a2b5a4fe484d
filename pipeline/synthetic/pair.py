"""Renders the built-in pair of feature corpora: a large source, a small target, the same people seen by other eyes.

Both corpora tell one story. A row has eight latent factors:

- *sentiment*, 1 factor, which the score reports on [-3, 3] with the error of its raters. Part of it belongs to the row,
  part to its video. The target's is lower on average and less spread out, and its raters are more careful.
- *topic*, 3 factors a row: one of five subjects of unequal frequency, and where in its subject the row lies.
- *speaker*, 2 skewed factors, and *recording*, one of two kinds of room and one skewed factor, all the same in a whole
  video.

Each modality perceives the sentiment with a doubt of its own (`Senses.doubt`) and the other factors as they are, each
as loudly as `SENSES` says; then an extractor turns what is perceived into columns: linear, tanh, linear, a unit and an
offset a column, noise. The two corpora share factors and senses, and nothing of the extractors: those of the target
are other random maps to other widths. Text tells the sentiment best, then visual, then audio.

What follows from this, and what the tests hold:

- Other factors are louder than the sentiment and every column is noisy, so that 93 labelled rows are few for 482
  columns: ridge on them stays far below ridge on thousands of rows of the same kind.
- Topic, speaker and recording have the same lopsided distributions in both corpora. Matching distributions without
  labels, to which unlabelled rows add, can therefore find them, and by that what they are not.
- The sentiment is symmetric about its mean. Nothing but a label says which of its ends is the good one.

Two audio columns of each corpus are of no use, as in the files that the field passes around, and must be dropped:
`CONSTANT_COLUMN` never changes and `BROKEN_COLUMN` is mostly no number. Some rows lack audio or visual (`ABSENT`).

Every draw comes from `default_rng([seed, corpus, part])`, so that the extractors do not depend on the number of rows.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.core import artifacts
from pipeline.core.schemas import FEATURES, Feature

CONSTANT_COLUMN = 7
"""The audio column that has one value in all rows."""
BROKEN_COLUMN = 19
"""The audio column that is NaN in `BROKEN_SHARE` of the rows."""
BROKEN_SHARE = 0.6
ABSENT: dict[Feature, float] = {"text": 0.0, "audio": 0.05, "visual": 0.08}
"""Share of the rows that lack a modality."""
SPLIT_SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}

VIDEO_SHARE = 0.3
"""Share of the sentiment's variance that a whole video has in common."""
TOPIC_SHARES = (0.34, 0.27, 0.19, 0.13, 0.07)
TOPICS = np.array([[1.5, 0.3, -0.4], [-1.2, 1.1, 0.2], [-0.3, -1.6, 1.0], [0.6, 0.9, 2.0], [-0.8, -0.6, -2.2]])
HIDDEN = 48
"""Width of an extractor's hidden layer."""
BEND = 0.35
"""How far an extractor is from a linear map: the weight of what is perceived in its hidden layer."""
DECIMALS = 3
"""Features are rounded to this, which hides the last bits, in which processors differ, and makes for a small file."""


@dataclass(frozen=True, slots=True)
class Senses:
    """How loudly a modality perceives each kind of factor, its doubt about the sentiment, its noise a column."""

    sentiment: float
    topic: float
    speaker: float
    recording: float
    doubt: float
    noise: float


@dataclass(frozen=True, slots=True)
class CorpusShape:
    """One side of the pair.

    Attributes:
        stream: tells its random draws from those of the other side.
        mean, spread: of the sentiment.
        rater_error: standard deviation of a score about the sentiment that it reports.
        steps: how finely scores are given, in steps a unit.
    """

    name: str
    stream: int
    columns: dict[Feature, int]
    mean: float
    spread: float
    rater_error: float
    steps: int


SENSES: dict[Feature, Senses] = {
    "text": Senses(sentiment=0.5, topic=0.9, speaker=0.4, recording=0.0, doubt=0.6, noise=2.3),
    "audio": Senses(sentiment=0.3, topic=0.0, speaker=0.9, recording=0.7, doubt=1.5, noise=1.4),
    "visual": Senses(sentiment=0.4, topic=0.3, speaker=0.7, recording=0.9, doubt=1.0, noise=2.0),
}
SOURCE = CorpusShape(
    "source", 0, {"text": 768, "audio": 74, "visual": 713}, mean=0.3, spread=1.2, rater_error=1.1, steps=3
)
TARGET = CorpusShape(
    "target", 1, {"text": 384, "audio": 33, "visual": 65}, mean=-0.3, spread=0.9, rater_error=0.5, steps=5
)


def render_pair(
    source: Path, target: Path, *, source_rows: int, target_rows: int, unlabelled_rows: int, seed: int
) -> None:
    """Writes both corpora as Parquet: `id group score split text audio visual`, the target without `split`.

    A modality is a list of float32, null where the row lacks it. A source video (`group`) has 2 to 6 rows and one
    split; a target video has one row. `target_rows` target rows have a score, `unlabelled_rows` have a null. The same
    arguments give the same bytes.
    """
    videos = _videos(source_rows, seed)
    artifacts.write_parquet(source, _table(SOURCE, videos, scored=source_rows, seed=seed, split=_split(videos, seed)))
    videos = np.arange(target_rows + unlabelled_rows)
    artifacts.write_parquet(target, _table(TARGET, videos, scored=target_rows, seed=seed))


def _videos(rows: int, seed: int) -> np.ndarray:
    """int64 [rows]: the video of each source row, 2 to 6 rows a video; the last may be cut short."""
    sizes = np.random.default_rng([seed, SOURCE.stream, 0]).integers(2, 7, size=rows)
    return np.repeat(np.arange(rows), sizes)[:rows]


def _split(videos: np.ndarray, seed: int) -> list[str]:
    """The split of each row: whole videos in random order, shared out by `SPLIT_SHARES`."""
    order = np.random.default_rng([seed, SOURCE.stream, 1]).permutation(videos[-1] + 1)
    sizes = np.bincount(videos)[order]
    before = np.empty(len(order))
    before[order] = (np.cumsum(sizes) - sizes) / len(videos)
    bounds = np.cumsum(list(SPLIT_SHARES.values()))[:-1]
    names = list(SPLIT_SHARES)
    return [names[position] for position in np.searchsorted(bounds, before, side="right")[videos]]


def _table(
    corpus: CorpusShape, videos: np.ndarray, *, scored: int, seed: int, split: list[str] | None = None
) -> pa.Table:
    """One corpus as a table; the first `scored` rows have a score."""
    rng = np.random.default_rng([seed, corpus.stream, 2])
    sentiment = _sentiment(corpus, videos, rng)
    scores = _scores(corpus, sentiment, rng)
    factors = {"topic": _topic(len(videos), rng), **_video_factors(videos, rng)}
    columns = {
        "id": pa.array([f"{corpus.name}_{row:05d}" for row in range(len(videos))]),
        "group": pa.array([f"{corpus.name}_video_{video:05d}" for video in videos]),
        "score": pa.array(scores, mask=np.arange(len(videos)) >= scored),
    }
    if split is not None:
        columns["split"] = pa.array(split)
    for part, modality in enumerate(FEATURES, start=3):
        features = _features(corpus, modality, sentiment, factors, np.random.default_rng([seed, corpus.stream, part]))
        columns[modality] = _lists(features, absent=_some(len(videos), ABSENT[modality], rng))
    return pa.table(columns)


# --- what happens --------------------------------------------------------------------------------------------------


def _sentiment(corpus: CorpusShape, videos: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """float64 [N]: the sentiment, part of it common to a video."""
    of_video = rng.standard_normal(videos[-1] + 1)[videos]
    of_row = rng.standard_normal(len(videos))
    return corpus.mean + corpus.spread * (np.sqrt(VIDEO_SHARE) * of_video + np.sqrt(1 - VIDEO_SHARE) * of_row)


def _scores(corpus: CorpusShape, sentiment: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """float64 [N] in [-3, 3]: what raters report, in steps of 1 / `corpus.steps`."""
    reported = sentiment + corpus.rater_error * rng.standard_normal(len(sentiment))
    return np.clip(np.round(reported * corpus.steps) / corpus.steps, -3.0, 3.0)


def _topic(rows: int, rng: np.random.Generator) -> np.ndarray:
    """float64 [N, 3]: clusters of unequal sizes."""
    subject = rng.choice(len(TOPIC_SHARES), size=rows, p=TOPIC_SHARES)
    return TOPICS[subject] + 0.35 * rng.standard_normal((rows, TOPICS.shape[1]))


def _video_factors(videos: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """`speaker` and `recording`, float64 [N, 2] each: equal within a video; mean 0, spread about 1."""
    count = videos[-1] + 1
    speaker = rng.exponential(size=(count, 2)) - 1
    outdoors = np.where(rng.random(count) < 0.3, 1.5, -0.64) + 0.25 * rng.standard_normal(count)
    recording = np.stack([outdoors, 1 - rng.exponential(size=count)], axis=1)
    return {"speaker": speaker[videos], "recording": recording[videos]}


# --- what is seen of it --------------------------------------------------------------------------------------------


def _features(
    corpus: CorpusShape,
    modality: Feature,
    sentiment: np.ndarray,
    factors: dict[str, np.ndarray],
    rng: np.random.Generator,
) -> np.ndarray:
    """float32 [N, columns]: what the corpus's extractor of a modality makes of the factors."""
    senses, width = SENSES[modality], corpus.columns[modality]
    loudness = [(name, getattr(senses, name)) for name in factors]
    inputs = 1 + sum(factors[name].shape[1] for name, _ in loudness)
    inward = BEND * rng.standard_normal((inputs, HIDDEN))
    bias = rng.uniform(-1, 1, size=HIDDEN)
    outward = rng.standard_normal((HIDDEN, width)) / (BEND * np.sqrt(HIDDEN))
    unit, offset = np.exp(rng.standard_normal(width)), 2 * rng.standard_normal(width)

    felt = sentiment + senses.doubt * rng.standard_normal(len(sentiment))
    perceived = np.column_stack([senses.sentiment * felt, *(gain * factors[name] for name, gain in loudness)])
    shown = np.tanh(perceived @ inward + bias) @ outward
    features = offset + unit * (shown + senses.noise * rng.standard_normal(shown.shape))
    if modality == "audio":
        features[:, CONSTANT_COLUMN] = offset[CONSTANT_COLUMN]
        features[_some(len(features), BROKEN_SHARE, rng), BROKEN_COLUMN] = np.nan
    return np.round(features, DECIMALS).astype(np.float32)


def _some(rows: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """bool [N]: true for this share of the rows, chosen at random."""
    chosen = np.zeros(rows, dtype=bool)
    chosen[rng.permutation(rows)[: round(share * rows)]] = True
    return chosen


def _lists(features: np.ndarray, absent: np.ndarray) -> pa.Array:
    """The rows of a matrix as lists of float32, null where absent."""
    return pa.array([None if gone else row for row, gone in zip(features, absent, strict=True)], pa.list_(pa.float32()))
