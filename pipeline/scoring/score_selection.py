"""Which of several models of scores to take: the simplest that no other betters by more than a standard error."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.scoring import sentiment
from pipeline.scoring.baselines import simplest


def choose(predicted: Mapping[str, np.ndarray], actual: np.ndarray, groups: np.ndarray) -> tuple[str, dict[str, Any]]:
    """The name of what to take, and for a metrics file what stood, what was taken and why.

    Args:
        predicted: the candidates, the simplest first: float64 [n], what each says of rows that it had not learned from.
        actual: float64 [n], their scores.
        groups: [n] names; groups vary as wholes.
    """
    names = list(predicted)
    errors = [(predicted[name] - actual) ** 2 for name in names]
    taken = names[simplest(errors, groups)]
    least = names[int(np.argmin([part.sum() for part in errors]))]
    why = "the least error" if taken == least else f"the simplest within a standard error of {least}, the least error"
    known = {name: _figures(actual, predicted[name], groups) for name in names}
    return taken, {"taken": taken, "why": why, "judged_rows": len(actual), "candidates": known}


def _figures(actual: np.ndarray, predicted: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """Mean squared error with its standard error, groups varying as wholes; Pearson's r where it is defined."""
    errors = (predicted - actual) ** 2
    sums = np.bincount(np.unique(groups, return_inverse=True)[1], errors - errors.mean())
    figures = {"mse": float(errors.mean()), "mse_se": float(np.sqrt((sums**2).sum()) / len(errors))}
    r = sentiment.pearson(actual, predicted)
    return figures if r is None else {**figures, "pearson": r}
