"""Whether the columns of scored rows are those of the rows that a model was fitted on: the same, in the same order.

A model reads columns by their place. Where two parts of a corpus went through other software, or a table was put
together by hand, columns change places or scales, and every number downstream is plausible and wrong.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import t as student

from pipeline.scoring import sentiment

CHANCE = 0.01
"""How often chance may find a single moved column in a whole modality whose columns are the same."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
FEWEST_GROUPS = 8
"""With fewer groups on one side their spread is too noisy, and nothing is compared."""

HALVES, BLOCKS = 20, 4
"""Random parts of the fitted rows, and parts that lie together, that show how alike the correlations of unchanged
columns are: neighbours in a table often come from one recording, whatever its groups say."""

COMPARED = 512
"""Columns whose correlations are compared, at most, evenly from all of them."""


@dataclass(frozen=True)
class Shift:
    """How the scored rows' columns lie to those of the fitted rows.

    Attributes:
        columns: how many there are.
        moved: how many of them have a mean that differs by more than ``CHANCE`` allows.
        explained: which share of those columns' difference goes away when they may change places among themselves, less
            what would go away if they had moved as far the other way: among many columns most places are taken by one
            that fits. 0 where none has moved.
        likeness: correlation, over all pairs of columns, of how strongly they go together in both parts. What the
            score explains is taken out before, or labels that leaked into one part would look like columns in disorder.
        usual: the lowest such likeness among parts of the fitted rows, each as large as the scored one.
    """

    columns: int
    moved: int
    explained: float
    likeness: float
    usual: float


@dataclass(frozen=True)
class ColumnSample:
    """One modality's columns, float [n, width], with the rows' groups and scores, [n]."""

    values: np.ndarray
    groups: np.ndarray
    scores: np.ndarray

    def at(self, rows: np.ndarray) -> "ColumnSample":
        return ColumnSample(self.values[rows], self.groups[rows], self.scores[rows])

    @cached_property
    def names(self) -> np.ndarray:
        """The groups, each once."""
        return np.unique(self.groups)


def shift(fitted: ColumnSample, scored: ColumnSample, seed: int) -> Shift | None:
    """Compares the columns of two parts; None where there is too little of them."""
    if min(len(fitted.names), len(scored.names)) < FEWEST_GROUPS:
        return None
    varied = (fitted.values.std(axis=0) > sentiment.FLAT) | (scored.values.std(axis=0) > sentiment.FLAT)
    if varied.sum() < 2:
        return None
    fitted, scored = (
        ColumnSample(part.values[:, varied].astype(np.float64), part.groups, part.scores) for part in (fitted, scored)
    )
    moved = _moved(fitted, scored)
    compared = np.unique(np.linspace(0, len(moved) - 1, COMPARED).astype(int))
    columns = ColumnSample(fitted.values[:, compared], fitted.groups, fitted.scores)
    return Shift(
        columns=int(varied.sum()),
        moved=int(moved.sum()),
        explained=_explained(fitted.values[:, moved], scored.values[:, moved]) if moved.any() else 0.0,
        likeness=_alike(columns, ColumnSample(scored.values[:, compared], scored.groups, scored.scores)),
        usual=_usual(columns, len(scored.names), seed),
    )


def _moved(a: ColumnSample, b: ColumnSample) -> np.ndarray:
    """Which columns have different means, bool [width]: Welch's t on the groups' means, corrected for all columns."""
    a_means, b_means = (sentiment.group_means(part.values.T, part.groups) for part in (a, b))
    error = np.sqrt(a_means.var(axis=1, ddof=1) / a_means.shape[1] + b_means.var(axis=1, ddof=1) / b_means.shape[1])
    apart = np.abs(a_means.mean(axis=1) - b_means.mean(axis=1)) / np.maximum(error, 1e-12)
    freedom = min(a_means.shape[1], b_means.shape[1]) - 1
    return apart > student.ppf(1 - CHANCE / (2 * len(apart)), freedom)


def _explained(a: np.ndarray, b: np.ndarray) -> float:
    """The share of the columns' difference that other places explain, less what they explain of its mirror image."""
    ends, starts = (np.quantile(x, QUANTILES, axis=0).T for x in (b, a))
    moves = (ends - starts).mean(axis=1, keepdims=True)
    shares = []
    for quantiles in (ends, ends - 2 * moves):
        cost = _distances(starts, quantiles)
        rows, places = linear_sum_assignment(cost)
        shares.append(1 - cost[rows, places].sum() / max(np.diagonal(cost).sum(), 1e-12))
    return float(shares[0] - shares[1])


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How differently columns are distributed, [width, width], by their ``QUANTILES``, [width, 5]."""
    a_range, b_range = (np.maximum(np.ptp(q, axis=1), sentiment.FLAT) for q in (a, b))
    total = np.zeros((len(a_range), len(b_range)))
    for at in range(len(QUANTILES)):
        total += np.abs(a[:, at, None] - b[None, :, at])
    return np.minimum(total / (a_range[:, None] + b_range[None, :]), 10.0)


def _usual(fitted: ColumnSample, groups: int, seed: int) -> float:
    """How alike the columns' correlations are, at the least, in parts of so many groups and in the rest."""
    generator = np.random.default_rng(seed)
    size = min(groups, len(fitted.names) // 2)
    in_order = fitted.groups[np.sort(np.unique(fitted.groups, return_index=True)[1])]
    starts = np.linspace(0, len(in_order) - size, BLOCKS).astype(int)
    parts = [generator.permutation(fitted.names)[:size] for _ in range(HALVES)]
    parts += [in_order[start : start + size] for start in starts]
    drawn = [np.isin(fitted.groups, part) for part in parts]
    return min(_alike(fitted.at(rows), fitted.at(~rows)) for rows in drawn)


def _alike(a: ColumnSample, b: ColumnSample) -> float:
    pairs = np.triu_indices(a.values.shape[1], k=1)
    likeness = sentiment.pearson(_correlations(a)[pairs], _correlations(b)[pairs])
    return 0.0 if likeness is None else likeness


def _correlations(part: ColumnSample) -> np.ndarray:
    """Between columns, [width, width], without what the score explains of them."""
    x = part.values - part.values.mean(axis=0)
    score = part.scores - part.scores.mean()
    x = x - np.outer(score, score @ x) / max(score @ score, 1e-12)
    x /= np.maximum(np.sqrt((x**2).sum(axis=0)), 1e-12)
    return x.T @ x
