"""What a model of scores has to beat on the same rows: ridge regression, on the same features side by side.

Training and validation rows are one, and cross-validation among them by groups chooses the penalty.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import GroupKFold

from pipeline.core.folds import Fold
from pipeline.core.schemas import subsets_of
from pipeline.scoring.one_standard_error import worthwhile
from pipeline.scoring.standardisation import CLIP, standardisation

ALPHAS = np.logspace(0, 5, 11)
INNER_FOLDS = 5
"""Ridge's penalties, and the folds that choose among them."""


@dataclass(frozen=True)
class FeatureBlock:
    """One modality's ``vectors``, float [N, width], and for which rows it is ``present``, bool [N]."""

    vectors: np.ndarray
    present: np.ndarray


def ridge(
    blocks: Sequence[FeatureBlock], scores: np.ndarray, fitted: np.ndarray, groups: np.ndarray, *, select: bool = False
) -> np.ndarray:
    """Ridge regression on all blocks side by side: predictions for every row, float64 [N].

    Args:
        blocks: the modalities; an absent one counts as zeros, which is the mean of the fitted rows.
        scores: [N]; read for the fitted rows only.
        fitted: int [n], positions of the rows to fit on: training and validation rows.
        groups: [N] names; rows of a group stay together in the cross-validation among the fitted rows that chooses the
            penalty, by squared error, from ``ALPHAS``.
        select: lets the same cross-validation leave blocks out, as an uninformative one costs accuracy; see
            ``worthwhile``.
    """
    standard = [_standardised(block, fitted) for block in blocks]
    y, folds = np.asarray(scores, dtype=np.float64)[fitted], inner_folds(groups[fitted])
    tried = []
    for chosen in subsets_of(standard) if select else [tuple(standard)]:
        rows = np.concatenate(chosen, axis=1)
        tried.append((*penalty(rows[fitted], y, folds), rows))
    _, alpha, rows = tried[worthwhile([errors for errors, _, _ in tried], groups[fitted])]
    return _ridge_path(rows[fitted], y, rows, np.array([alpha]))[0]


def inner_folds(groups: np.ndarray) -> list[Fold]:
    """Folds among rows of these ``groups``, [n] names, which stay whole; none of a single group."""
    folds = min(INNER_FOLDS, len(set(groups)))
    return [Fold(*rows) for rows in GroupKFold(folds).split(groups, groups=groups)] if folds > 1 else []


def penalty(x: np.ndarray, y: np.ndarray, folds: Sequence[Fold]) -> tuple[np.ndarray, float]:
    """The penalty of least squared error in a cross-validation of ridge, and the errors it has, float64 [n].

    Of equal penalties the strongest is taken, also where there are no folds to choose by: then the errors are zeros.
    ``x`` is [n, width], ``y`` [n].
    """
    errors = np.zeros((len(ALPHAS), len(x)))
    for fold in folds:
        train, held_out = fold.train, fold.held_out
        errors[:, held_out] = (_ridge_path(x[train], y[train], x[held_out], ALPHAS) - y[held_out]) ** 2
    best = len(ALPHAS) - 1 - int(errors.sum(axis=1)[::-1].argmin())
    return errors[best], float(ALPHAS[best])


def _standardised(block: FeatureBlock, fitted: np.ndarray) -> np.ndarray:
    known = block.vectors[fitted][block.present[fitted]].astype(np.float64)
    if len(known) == 0:
        return np.zeros(block.vectors.shape)
    mean, spread = standardisation(known)
    return np.clip((block.vectors - mean) / spread, -CLIP, CLIP) * block.present[:, None]


def _ridge_path(x: np.ndarray, y: np.ndarray, unseen: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """Predictions [alphas, m] for the rows ``unseen`` under each penalty, with an intercept that is not penalised.

    One eigendecomposition serves all penalties, of the smaller of the two matrices that ridge may be written with.
    """
    mean, offset = x.mean(axis=0), y.mean()
    x, y, unseen = x - mean, y - offset, unseen - mean
    wide = x.shape[1] > len(x)
    values, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    moments = vectors.T @ (y if wide else x.T @ y)
    basis = (unseen @ x.T if wide else unseen) @ vectors
    return (basis @ (moments[:, None] / (np.maximum(values, 0.0)[:, None] + alphas))).T + offset
