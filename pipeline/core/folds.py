"""Rows to learn from and rows held out: what every inner cross-validation, of either track, is made of."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Fold:
    """A model learns from the rows ``train`` and predicts the rows ``held_out``; both int64 positions."""

    train: np.ndarray
    held_out: np.ndarray


def folds_of(rows: np.ndarray, numbers: np.ndarray) -> list[Fold]:
    """The folds in which each of the ``rows``, int64 [n], is held out once: in that of its number, int64 [n]."""
    return [Fold(rows[numbers != number], rows[numbers == number]) for number in range(int(numbers.max()) + 1)]
