"""A row's score and its group: who likes a film in one line of a review likes it in the next.

A score is moved by the mean of what the other rows of its group are predicted to be. How far is fitted on the rows that
inner folds held out; the labels of a group are no part of its rows' scores, and a row without others keeps its own.
"""

from collections.abc import Iterable

import numpy as np
from scipy.optimize import nnls

from pipeline.corpora.wording import name_key
from pipeline.sentiment.descriptions import GroupContext

FEWEST = 8
"""Groups of several rows below which nothing is fitted."""

MOST = 100.0
"""No weight is larger, however little scores differ."""

SHRINKAGE = 10
"""Groups at which the weights are half of the way from (1, 0), which changes nothing, to those of least squares."""


def group_keys(names: Iterable[str | None]) -> np.ndarray:
    """[N] objects: equal where two spellings of a name are one group, as `split` has it; None for a row without one."""
    names = list(names)
    keys = {name: name_key(name) for name in set(names) if name is not None}  # groups are fewer than rows
    return np.array([None if name is None else keys[name] for name in names], dtype=object)


class GroupSums:
    """Sums over groups of how far K scores of their rows are from a centre, gathered part by part."""

    def __init__(self, context: GroupContext) -> None:
        self.context = context
        self._of: dict[str, np.ndarray] = {}

    def add(self, scores: np.ndarray, keys: np.ndarray) -> None:
        """More rows: float64 [N, K], and their ``group_keys``; a row without a key belongs to no group."""
        known = np.flatnonzero([key is not None for key in keys])
        if not len(known):
            return
        names, codes = np.unique(keys[known].astype(str), return_inverse=True)
        sums = np.zeros((len(names), scores.shape[1] + 1))
        np.add.at(sums, codes, np.column_stack([scores[known] - self.context.centre, np.ones(len(known))]))
        for name, group_sums in zip(names.tolist(), sums, strict=True):
            self._of[name] = self._of[name] + group_sums if name in self._of else group_sums

    def others(self, scores: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The mean of the other rows of each row's group, less the centre, float64 [N, K]; and bool [N], whether there
        are any. All of these rows must have been added."""
        alone = np.append(np.zeros(scores.shape[1]), 1.0)
        of_rows = [alone if key is None else self._of[key] for key in keys]
        sums = np.array(of_rows).reshape(len(keys), len(alone))  # also of no rows
        count = sums[:, -1:] - 1
        means = (sums[:, :-1] - (scores - self.context.centre)) / np.maximum(count, 1)
        return means, count[:, 0] > 0

    def moved(self, scores: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The scores, float64 [N, K], moved by those of their groups; and bool [N], which rows were."""
        context, (means, accompanied) = self.context, self.others(scores, keys)
        moved = context.centre + context.own * (scores - context.centre) + context.others * means
        return np.where(accompanied[:, None], moved, scores), accompanied


def in_groups(scores: np.ndarray, keys: np.ndarray, context: GroupContext) -> np.ndarray:
    """The scores, float64 [N], of rows with these ``group_keys``, moved by each other's."""
    sums = GroupSums(context)
    sums.add(scores[:, None], keys)
    return sums.moved(scores[:, None], keys)[0][:, 0]


def fit_context(
    scores: np.ndarray,
    actual: np.ndarray,
    keys: np.ndarray,
    blocks: np.ndarray,
    centre: float,
    *,
    scaled: bool = True,
) -> GroupContext | None:
    """How far to follow groups: least squares with weights not below zero, where the order of rows or of groups would
    turn round, shrunk by the number of groups. None where too few have several rows, or the others are uninformative.

    Args:
        scores: float64 [N]: of rows that the models behind them had not learned from.
        actual: float64 [N], the rows' own scores.
        keys: their ``group_keys``.
        blocks: [N] names of what is independent of each other: groups with the copies that join them.
        centre: the mean score learned from, from which both weights are measured.
        scaled: whether a row's own score has a weight too; without, it keeps that of 1.
    """
    sums = GroupSums(GroupContext(centre=round(centre, 6), own=1.0, others=0.0))
    sums.add(scores[:, None], keys)
    others, accompanied = sums.others(scores[:, None], keys)
    count = len(np.unique(blocks[accompanied]))
    if count < FEWEST:
        return None
    centre = sums.context.centre
    apart, target, of_rows = (scores - centre)[accompanied], (actual - centre)[accompanied], others[accompanied]
    if scaled:
        own_weight, of_others = nnls(np.column_stack([apart, of_rows]), target)[0].clip(max=MOST)
    else:
        own_weight, of_others = 1.0, nnls(of_rows, target - apart)[0].clip(max=MOST)[0]
    weight = count / (count + SHRINKAGE)
    # Rounded, as a description keeps them.
    own_weight, of_others = round(1 + weight * (float(own_weight) - 1), 6), round(weight * float(of_others), 6)
    return GroupContext(centre=centre, own=own_weight, others=of_others) if of_others else None
