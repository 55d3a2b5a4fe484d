"""Which of several models of scores to take: the simplest that no other betters by more than a standard error."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from pipeline.scoring import sentiment
from pipeline.scoring.one_standard_error import behind, simplest

Name = TypeVar("Name", bound=str)


def choose(
    predicted: Mapping[Name, np.ndarray],
    actual: np.ndarray,
    groups: np.ndarray,
    steadier: Mapping[Name, Name] = MappingProxyType({}),
) -> tuple[Name, dict[str, Any]]:
    """The name of what to take, and for a metrics file what stood, what was taken and why.

    Args:
        predicted: the candidates, the simplest first: float64 [n], predictions of held-out rows.
        actual: float64 [n], their scores.
        groups: [n] names; groups vary as wholes.
        steadier: a candidate → one that takes its place unless it is more than a standard error behind it: of two that
            these rows cannot tell apart, one that errs less by its nature, as an average does.
    """
    names = list(predicted)
    errors = {name: (predicted[name] - actual) ** 2 for name in names}
    taken = names[simplest(list(errors.values()), groups)]
    least = min(names, key=lambda name: errors[name].sum())
    why = "the least error" if taken == least else f"the simplest within a standard error of {least}, the least error"
    other = steadier.get(taken)
    if other in errors and not behind(errors[other], errors[taken], groups).clearly:
        taken, why = other, f"steadier than {taken} ({why}), and not clearly behind it"
    known = {name: _figures(actual, predicted[name], groups) for name in names}
    return taken, {"taken": taken, "why": why, "judged_rows": len(actual), "candidates": known}


def _figures(actual: np.ndarray, predicted: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """Mean squared error; its standard error, groups varying as wholes, if there are two; Pearson's r if defined."""
    errors = (predicted - actual) ** 2
    sums = np.bincount(np.unique(groups, return_inverse=True)[1], errors - errors.mean())
    figures, count = {"mse": float(errors.mean())}, len(sums)
    if count > 1:
        figures["mse_se"] = float(np.sqrt(count / (count - 1) * (sums**2).sum()) / len(errors))
    r = sentiment.pearson(actual, predicted)
    return figures if r is None else {**figures, "pearson": r}
