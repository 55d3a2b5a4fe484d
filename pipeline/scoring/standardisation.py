"""Columns on one scale. ``nets.standardisation`` does the same to tensors, within a net."""

import numpy as np

FLAT = 1e-6
"""A column that varies by less than this share of its largest value, whatever its unit, is constant: uninformative,
and must not be divided by nothing."""

COLUMNS = 64
"""So many columns are looked at together: the deviations are as large as they are."""

CLIP = 5.0
"""Standardised columns are cut here where outliers would do harm: features of sound and faces have wild ones."""


def standardisation(rows: np.ndarray, dtype: type[np.floating] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column of ``rows`` [n, width], n > 0; 1 for the latter where constant.

    ``dtype`` is what sums are kept in, where that is to be more exact than the rows. NaN is what a row lacks, and
    counts for nothing; of a column that all lack the mean is 0.
    """
    blocks = np.array_split(rows, max(1, rows.shape[1] // COLUMNS), axis=1)
    mean, spread = zip(*(_moments(block, dtype) for block in blocks), strict=True)
    return np.concatenate(mean), np.concatenate(spread)


def _moments(rows: np.ndarray, dtype: type[np.floating] | None) -> tuple[np.ndarray, np.ndarray]:
    known = ~np.isnan(rows)
    largest = np.abs(rows).max(axis=0, initial=0.0, where=known)
    if known.all():
        spread = rows.std(axis=0, dtype=dtype)
        return rows.mean(axis=0, dtype=dtype), np.where(spread > FLAT * largest, spread, 1.0)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, rows, 0).sum(axis=0, dtype=dtype) / count
    spread = np.sqrt((np.where(known, rows - mean, 0) ** 2).sum(axis=0, dtype=dtype) / count)
    return mean, np.where(spread > FLAT * largest, spread, 1.0)


def standardised(rows: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """``rows`` [n, width] on that scale; what a row lacks (NaN) is at the mean."""
    return np.nan_to_num((rows - mean) / scale, copy=False, nan=0.0)
