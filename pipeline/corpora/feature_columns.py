"""Columns of features that must not be learned from, and gaps that are filled.

Constant, non-finite and time-like columns are found; no label is read.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

RISING_SHARE, RISING_STEPS, RISING_ROWS = 0.95, 20, 4
"""A column is time-like when it rises from row to row of a group so often, over so many steps in groups so large."""
FRAME_GRIDS = (60.0, 48.0)
"""The mean of the time stamps of frames, at 30 or 24 a second, is a multiple of half a frame: 1/60 or 1/48 s. At 25 it
is one of 1/50 s, which cannot be told from a number rounded to hundredths."""
GRID_TOLERANCE = 0.005
"""How far, as a share of the grid's step, a value may lie from it: one in a hundred values does so by chance."""
GRID_SHARE, GRID_ROWS = 0.7, 20


def faulty_columns(
    values: np.ndarray, groups: Sequence[str], fit_rows: np.ndarray, max_nonfinite_share: float
) -> dict[int, str]:
    """Columns that must not be learned from, each with its reason.

    ``not finite``: a larger share than ``max_nonfinite_share`` is no finite number. ``constant``: it tells nothing.
    ``time-like``: it says where in the recording a row stands, not what it holds. Either it rises from row to row of a
    group, or, for rows that are means over frames, its values lie on the grid of the frames' times.

    Args:
        values: float [N, width], rows of a group in the order of the file.
        groups: N group names.
        fit_rows: bool [N]: the rows to judge by.
    """
    values, names = values[fit_rows], np.asarray(groups, dtype=object)[fit_rows]
    if not len(values):
        return {}
    finite = np.isfinite(values)
    lowest = np.where(finite, values, np.inf).min(axis=0)
    highest = np.where(finite, values, -np.inf).max(axis=0)
    with np.errstate(invalid="ignore"):  # a column without a finite value, which is faulty anyway
        constant = highest - lowest <= 1e-6 * np.maximum(np.abs(lowest), np.abs(highest))
    faults = dict.fromkeys(np.flatnonzero(_rising(values, names) | _on_frame_grid(values)).tolist(), "time-like")
    faults |= dict.fromkeys(np.flatnonzero(constant).tolist(), "constant")
    faults |= dict.fromkeys(np.flatnonzero((~finite).mean(axis=0) > max_nonfinite_share).tolist(), "not finite")
    return dict(sorted(faults.items()))


def _rising(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """bool [width]: the column rises from row to row within the larger groups, nearly always."""
    codes = pd.factorize(groups)[0]
    order = np.argsort(codes, kind="stable")
    large = np.bincount(codes)[codes[order]] >= RISING_ROWS
    order = order[large]
    step = codes[order[1:]] == codes[order[:-1]]
    if step.sum() < RISING_STEPS:
        return np.zeros(values.shape[1], dtype=bool)
    rises = values[order[1:][step]] > values[order[:-1][step]]
    return rises.mean(axis=0) >= RISING_SHARE


def _on_frame_grid(values: np.ndarray) -> np.ndarray:
    """bool [width]: nearly all different, seconds rather than shares, and multiples of half a frame.

    Numbers rounded to hundredths say nothing, since many of them lie on any grid.
    """
    on_grid = np.zeros(values.shape[1], dtype=bool)
    for at in range(values.shape[1]):
        column = values[:, at].astype(np.float64)
        column = column[np.isfinite(column)]
        telling = column[_off(column, 100.0) > GRID_TOLERANCE]
        if len(telling) < max(GRID_ROWS, len(column) / 4) or telling.min() < 0 or np.median(telling) < 1:
            continue
        distinct = len(np.unique(telling)) >= len(telling) / 2
        shares = [float(np.mean(_off(telling, grid) <= GRID_TOLERANCE)) for grid in FRAME_GRIDS]
        on_grid[at] = distinct and max(shares) >= GRID_SHARE
    return on_grid


def _off(column: np.ndarray, grid: float) -> np.ndarray:
    """How far each value lies from a multiple of 1 / grid, as a share of that step."""
    return np.abs(column * grid - np.round(column * grid))


def medians(values: np.ndarray, present: np.ndarray, fit_rows: np.ndarray) -> np.ndarray:
    """float32 [width]: what stands for a missing number, a column's median over the finite values of present fit rows.

    It is zero for a column without any.
    """
    rows = values[fit_rows & present]
    known = np.isfinite(rows)
    middle = np.zeros(values.shape[1], dtype=np.float32)
    for at in np.flatnonzero(known.any(axis=0)):
        middle[at] = np.median(rows[known[:, at], at])
    return middle


def filled(values: np.ndarray, present: np.ndarray, fill: np.ndarray) -> tuple[np.ndarray, int]:
    """Puts ``fill`` [width] where a present row has no finite value; and how often it did."""
    gaps = ~np.isfinite(values) & present[:, None]
    return np.where(gaps, fill, values), int(gaps.sum())
