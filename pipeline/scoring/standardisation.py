"""Columns on one scale. ``nets.standardisation`` does the same to tensors, within a net."""

import numpy as np

FLAT = 1e-6
"""A column that varies less is constant: it says nothing, and must not be divided by nothing."""

CLIP = 5.0
"""Standardised columns are cut here where outliers would do harm: features of sound and faces have wild ones."""


def standardisation(rows: np.ndarray, dtype: type[np.floating] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column of ``rows`` [n, width], n > 0; 1 for the latter where constant.

    ``dtype`` is what sums are kept in, where that is to be more exact than the rows.
    """
    spread = rows.std(axis=0, dtype=dtype)
    return rows.mean(axis=0, dtype=dtype), np.where(spread > FLAT, spread, 1.0)
