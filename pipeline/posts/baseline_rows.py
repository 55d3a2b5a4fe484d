"""What the baselines of `evaluate` learn from and predict, read some thousand posts at a time.

They learn from all training and validation posts, or from a sample of as many as fit in memory, and predict the test
posts part by part: what is held does not grow with the corpus.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.core import artifacts
from pipeline.core.artifacts import EmbeddingsPart
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.core.schemas import Modality
from pipeline.scoring.standardisation import standardisation

CELLS = 2**28
"""Numbers in the matrix that the baseline on vectors learns from, at most: 1 GB."""

ROWS = 200_000
"""Posts to learn from, at most: TF-IDF counts every pair of words in them before it leaves the rare ones out."""

AT_ONCE = 8192
"""Posts that are read and predicted together."""


@dataclass(frozen=True)
class TrainingVectors:
    """The vectors of all modalities side by side, each with an indicator column of its presence.

    Attributes:
        rows: float32 [training posts, then validation posts; width]; an absent vector is the ``usual`` one.
        usual: modality → float32 [its width], the mean of the training posts that have it.
        present: modality → bool [test posts].
    """

    rows: np.ndarray
    usual: dict[Modality, np.ndarray]
    present: dict[Modality, np.ndarray]


@dataclass(frozen=True)
class BaselineRows:
    """``posts`` is the sample table, ``train`` and ``val``, int64 and ascending, those of its rows to learn from."""

    posts: pd.DataFrame
    train: np.ndarray
    val: np.ndarray
    modalities: tuple[Modality, ...]
    widths: tuple[int, ...]
    layout: Layout

    def training_texts(self) -> list[str]:
        """Those of the training posts, then of the validation posts, a missing one as an empty one."""
        text_of: dict[int, str] = {}
        requested = np.zeros(len(self.posts), dtype=bool)
        requested[self.train] = requested[self.val] = True
        for at, texts in self._texts(requested):
            text_of.update(zip(at.tolist(), texts, strict=True))
        return [text_of[at] for at in [*self.train.tolist(), *self.val.tolist()]]

    def test_texts(self) -> Iterator[list[str]]:
        for _, texts in self._texts(self._test()):
            yield texts

    def _test(self) -> np.ndarray:
        return (self.posts["split"] == "test").to_numpy()

    def _texts(self, requested: np.ndarray) -> Iterator[tuple[np.ndarray, list[str]]]:
        """Positions and texts of the posts that are ``requested``, bool [posts], in parts."""
        start = 0
        for part in artifacts.read_posts_in_parts(self.layout.table("posts"), ["text"], AT_ONCE):
            at = np.flatnonzero(requested[start : start + len(part)])
            if len(at):
                yield start + at, [text or "" for text in part["text"].to_numpy()[at]]
            start += len(part)

    def training_vectors(self) -> TrainingVectors:
        """Raises InputError when the vectors are of other posts, or cannot be read."""
        learned = np.empty((len(self.train) + len(self.val), sum(self.widths) + len(self.widths)), dtype=np.float32)
        place = np.full(len(self.posts), -1)
        place[np.concatenate([self.train, self.val])] = np.arange(len(learned))
        present: dict[Modality, list[np.ndarray]] = {name: [] for name in self.modalities}
        test = self._test()
        for part, embeddings in self._parts():
            to = place[part]
            for name, source in embeddings.items():
                present[name].append(source.present[test[part]])
            learned[to[to >= 0]] = self._side_by_side(embeddings, to >= 0)
        usual: dict[Modality, np.ndarray] = {
            name: standardisation(learned[: len(self.train), columns], np.float64)[0].astype(np.float32)
            for name, columns in self._columns().items()
        }
        self._fill(learned, usual)
        return TrainingVectors(learned, usual, {name: np.concatenate(here) for name, here in present.items()})

    def test_vectors(self, usual: dict[Modality, np.ndarray]) -> Iterator[np.ndarray]:
        """Those of the test posts in parts, float32 [rows, width], as ``TrainingVectors.rows``."""
        test = self._test()
        for part, embeddings in self._parts():
            rows = self._side_by_side(embeddings, test[part])
            self._fill(rows, usual)
            yield rows

    def _fill(self, rows: np.ndarray, usual: dict[Modality, np.ndarray]) -> None:
        """Puts the usual value where there is none, in place."""
        for name, columns in self._columns().items():
            block = rows[:, columns]
            np.copyto(block, usual[name], where=np.isnan(block))

    def _columns(self) -> dict[Modality, slice]:
        """Where the vector of each modality stands; the column after it indicates its presence."""
        ends = np.cumsum(np.array(self.widths) + 1) - 1
        return {
            name: slice(int(end) - width, int(end))
            for name, width, end in zip(self.modalities, self.widths, ends, strict=True)
        }

    def _side_by_side(self, embeddings: dict[Modality, EmbeddingsPart], at: np.ndarray) -> np.ndarray:
        """float32 [rows ``at``, width]: NaN where a vector is absent."""
        rows = np.full((int(at.sum()), sum(self.widths) + len(self.widths)), np.nan, dtype=np.float32)
        for name, columns in self._columns().items():
            here = embeddings[name].present[at]
            rows[here, columns] = embeddings[name].vectors[at[embeddings[name].present]]
            rows[:, columns.stop] = here
        return rows

    def _parts(self) -> Iterator[tuple[slice, dict[Modality, EmbeddingsPart]]]:
        """The vectors of all posts, and of which: parts that follow one another."""
        ids = self.posts["sample_id"].to_numpy()
        paths = {name: self.layout.embeddings("posts", name) for name in self.modalities}
        with ExitStack() as files:
            readers = {name: files.enter_context(artifacts.reading_embeddings(path)) for name, path in paths.items()}
            sources = {name: reader.parts(AT_ONCE) for name, reader in readers.items()}
            for start in range(0, len(ids), AT_ONCE):
                part = slice(start, start + AT_ONCE)
                embeddings: dict[Modality, EmbeddingsPart] = {name: next(sources[name]) for name in self.modalities}
                for name, rows in embeddings.items():
                    if not np.array_equal(rows.sample_ids, ids[part]):
                        raise InputError(f"{paths[name]}: rows differ from data/split; run `dvc repro`")
                yield part, embeddings


def _some(at: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A share of them, ascending; where there are any, one at least."""
    return np.sort(rng.choice(at, size=max(int(len(at) * share), min(1, len(at))), replace=False))


def baseline_rows(posts: pd.DataFrame, modalities: list[Modality], seed: int, layout: Layout) -> BaselineRows:
    """``posts`` has the columns ``sample_id, split``. Of many posts a sample is learned from, drawn by ``seed``.

    Raises InputError when the vectors cannot be read, or are not as many as there are posts.
    """
    widths = []
    for name in modalities:
        with artifacts.reading_embeddings(layout.embeddings("posts", name)) as reader:
            if reader.shape[0] != len(posts):
                raise InputError(f"{reader.path}: rows differ from data/split; run `dvc repro`")
            widths.append(reader.shape[1])
    split = posts["split"].to_numpy()
    train, val = (np.flatnonzero(split == name) for name in ("train", "val"))
    share = min(ROWS, CELLS // (sum(widths) + len(widths))) / max(len(train) + len(val), 1)
    if share < 1:
        rng = np.random.default_rng(seed)
        train, val = (_some(at, share, rng) for at in (train, val))
    return BaselineRows(posts, train, val, tuple(modalities), tuple(widths), layout)
