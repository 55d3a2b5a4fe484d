"""What every reader of a feature corpus hands over: rows and vectors as the file gives them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from pipeline.core.schemas import FEATURES, Feature

SCALARS = ("id", "group", "score", "split")


@dataclass(frozen=True)
class RawVectors:
    """A modality as the file gives it: float32 [N, width], and how many values each row has.

    ``lengths`` is 0 for an absent row and -1 for one that is no list of numbers; ``values`` is zeros for these, and for
    rows whose length is not the width.
    """

    values: np.ndarray
    lengths: np.ndarray


@dataclass(frozen=True)
class Extractor:
    """What made a modality's columns, where a file says so.

    Attributes:
        name: the streams that were read.
        version: of the code that computes the numbers, or of the net.
        digest: of all that the numbers hang on: settings, weights, versions.
        columns: their names, without the modality.
    """

    name: str
    version: str
    digest: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class RawFeatures:
    """A file before its rows are checked; ``rows`` has the columns ``id, group, score, split, text`` as found."""

    rows: pd.DataFrame
    vectors: dict[Feature, RawVectors]
    ignored: tuple[str, ...]
    extractors: Mapping[Feature, Extractor] = field(default_factory=dict)

    @property
    def words(self) -> bool:
        return "text" not in self.vectors and bool(self.rows["text"].notna().any())


def feature_name(name: str) -> Feature:
    return next(feature for feature in FEATURES if feature == name)


MAX_VALUE = 1e15
"""A larger number is no measurement, and counts as none: sums of squares would leave the range of float32."""

NO_NUMBERS: tuple[str, ...] = ()
"""Stands for a cell that is no list of numbers, nor a list of such lists of one width."""


def concatenate_cells(cells: Iterable[np.ndarray | Sequence[str] | None]) -> tuple[np.ndarray, np.ndarray]:
    """Vectors one after another, and how many values each has: 0 for None, -1 for ``NO_NUMBERS``."""
    listed = list(cells)
    lengths = [0 if cell is None else len(cell) if isinstance(cell, np.ndarray) else -1 for cell in listed]
    parts = [np.asarray(cell, dtype=np.float32) for cell in listed if isinstance(cell, np.ndarray)]
    return np.concatenate([np.empty(0, np.float32), *parts]), np.array(lengths, dtype=np.int64)


def stack_vectors(rows: int, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> RawVectors:
    """Puts vectors that come batch by batch into one array; the width is the commonest of the first batch with any."""
    values = np.zeros((rows, 0), dtype=np.float32)
    lengths = np.zeros(rows, dtype=np.int64)
    at = 0
    for flat, some in batches:
        part = slice(at, at + len(some))
        lengths[part] = some
        if not values.shape[1] and (some > 0).any():
            values = np.zeros((rows, int(np.bincount(some[some > 0]).argmax())), dtype=np.float32)
        fits = (some == values.shape[1]) & (some > 0)
        kept = flat if fits.all() else flat[np.repeat(fits, np.maximum(some, 0))]
        if fits.any():
            values[part][fits] = kept.reshape(-1, values.shape[1])
        at += len(some)
    values[~(np.abs(values) <= MAX_VALUE)] = np.nan
    return RawVectors(values, lengths)
