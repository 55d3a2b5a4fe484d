"""A row's score in the light of its group: who likes a film in one line of a review likes it in the next.

A score is moved by what the other rows of its group get on average. How far, the rows that inner folds held out say. No
label of a group goes into its rows' scores, and a row that is alone keeps its own.
"""

import numpy as np
import torch
from scipy.optimize import minimize, minimize_scalar

from pipeline.nets.losses import Objective
from pipeline.sentiment.descriptions import GroupContext

FEWEST = 8
"""Groups of several rows below which nothing is fitted."""

DOUBT = 10
"""As of so many groups in which the others say nothing: that few groups seem alike within is often luck."""

LARGEST = 100.0
"""Up to what weights are looked for; not below zero, where the order of rows or of groups would turn round."""


def in_groups(scores: np.ndarray, groups: np.ndarray, context: GroupContext | None) -> np.ndarray:
    """The scores, float64 [N], of rows whose groups have these names, each moved by those of its group's other rows.

    Rows that are alone stay as they are, and all do without a ``context``.
    """
    if context is None:
        return scores
    apart, others, accompanied = _apart(scores, groups, context.centre)
    return np.where(accompanied, context.centre + context.own * apart + context.others * others, scores)


def fit_context(
    scores: np.ndarray, actual: np.ndarray, groups: np.ndarray, centre: float, loss: Objective
) -> GroupContext | None:
    """How far to follow groups: the weights at which the loss is least; None where too few groups have several rows,
    or the others say nothing.

    The others' weight is drawn towards zero by ``DOUBT``, and the row's own is the one that belongs to it.

    Args:
        scores: float64 [N]: of rows that the models behind them had not learned from.
        actual: float64 [N], the rows' own scores.
        groups: [N] names.
        centre: the mean score learned from, from which both are measured.
    """
    centre = round(centre, 6)  # as a description keeps it
    apart, others, accompanied = _apart(scores, groups, centre)
    count = len(np.unique(groups[accompanied]))
    if count < FEWEST:
        return None
    known = torch.from_numpy(actual[accompanied])

    def loss_at(own: float, of_others: float) -> float:
        moved = (centre + own * apart + of_others * others)[accompanied]
        return loss(torch.from_numpy(moved)[:, None], known).item()

    both = minimize(lambda pair: loss_at(*pair), (1.0, 0.0), method="Nelder-Mead", bounds=[(0.0, LARGEST)] * 2)
    of_others = round(float(both.x[1]) * count / (count + DOUBT), 6)
    if not of_others:
        return None
    own = minimize_scalar(lambda weight: loss_at(weight, of_others), bounds=(0.0, LARGEST), method="bounded")
    return GroupContext(centre=centre, own=round(float(own.x), 6), others=of_others)


def _apart(scores: np.ndarray, groups: np.ndarray, centre: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How far each row is from the centre, and the other rows of its group on average, float64 [N]; bool [N], whether
    there are any."""
    apart, codes = scores - centre, np.unique(groups, return_inverse=True)[1]
    others = np.bincount(codes)[codes] - 1
    sums = np.bincount(codes, apart)[codes] - apart
    return apart, sums / np.maximum(others, 1), others > 0
