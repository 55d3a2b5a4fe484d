"""Ridge regression for rows of which whole modalities may be hidden."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

CHUNK = 8192
"""Rows that are widened to float64 at a time."""


@dataclass(frozen=True)
class LinearModel:
    """``weights`` float64 [width] of all columns side by side, and ``offset``."""

    weights: np.ndarray
    offset: float

    def scores(self, blocks: Sequence[np.ndarray]) -> np.ndarray:
        """float64 [n]; ``blocks`` as for ``dropout_ridge``."""
        return np.concatenate(blocks, axis=1) @ self.weights + self.offset


def dropout_ridge(
    blocks: Sequence[np.ndarray], y: np.ndarray, penalties: Sequence[float], dropout: float
) -> list[LinearModel]:
    """The linear models of least squared error where each modality is hidden from a row with the chance ``dropout``.

    The expectation over what is hidden has a closed form, so nothing is drawn: the products of columns of different
    modalities count ``1 - dropout`` times. With 0 it is ridge regression, with a chance near 1 a ridge regression of
    each modality by itself. After van der Maaten et al., "Learning with Marginalized Corrupted Features", ICML 2013.

    Args:
        blocks: the modalities, float [n, width of each]; zeros where one is absent, as where it is hidden.
        y: float [n].
        penalties: of the squared weights; a model is fitted with each.
        dropout: from 0 to below 1.
    """
    bases = [_rows_span(block) for block in blocks]
    reduced = [block if basis is None else block @ basis for block, basis in zip(blocks, bases, strict=True)]
    x = np.concatenate(reduced, axis=1)
    mean, offset = x.mean(axis=0, dtype=np.float64), float(np.mean(y, dtype=np.float64))
    squares, moments = np.zeros((x.shape[1], x.shape[1])), np.zeros(x.shape[1])
    for start in range(0, len(x), CHUNK):
        rows = x[start : start + CHUNK] - mean
        squares += rows.T @ rows
        moments += rows.T @ (y[start : start + CHUNK] - offset)
    of_block = np.repeat(np.arange(len(blocks)), [block.shape[1] for block in reduced])
    squares[of_block[:, None] != of_block] *= 1.0 - dropout
    models = []
    for penalty in penalties:
        solved = cho_solve(cho_factor(squares + penalty * np.eye(len(squares))), moments)
        whole = [
            solved[of_block == at] if basis is None else basis @ solved[of_block == at]
            for at, basis in enumerate(bases)
        ]
        models.append(LinearModel(np.concatenate(whole), offset - float(mean @ solved)))
    return models


def _rows_span(block: np.ndarray) -> np.ndarray | None:
    """An orthonormal basis [width, n] of what fewer rows than columns span, where all weights of a ridge lie."""
    if block.shape[0] >= block.shape[1]:
        return None
    return np.linalg.svd(block.astype(np.float64), full_matrices=False)[2].T
