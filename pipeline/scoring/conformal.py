"""Prediction sets: the classes that cannot be ruled out at a wanted coverage, class by class.

Class-wise (Mondrian) split conformal prediction. A class belongs to a post's set unless its probability is lower than
that of nearly all calibration rows that truly are of the class. If the calibration rows of a class and a new post of it
are exchangeable, the post's set holds the class with at least the wanted probability, whatever the model.

The calibration rows here are those that the fusion predicted out of fold (Vovk, "Cross-conformal predictors", 2015), by
models fitted on fewer rows than the final one, and the logits' calibration was fitted on them too: so the guarantee
holds only nearly, and `evaluate` measures the coverage on test rows, which nothing has seen.

Sources: Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005 (Mondrian predictors); Vovk,
"Conditional validity of inductive conformal predictors", ACML 2012; Sadinle, Lei, Wasserman, "Least Ambiguous
Set-Valued Classifiers With Bounded Error Levels", JASA 2019 (class-wise thresholds on 1 - p); Romano, Sesia, Candès,
"Classification with Valid and Adaptive Coverage", NeurIPS 2020 (the finite-sample rank).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

COVERAGE = 0.9
"""The share of truths that sets and intervals are to hold, unless another is asked for."""


def class_scores(probabilities: np.ndarray, actual: np.ndarray) -> list[np.ndarray]:
    """Nonconformity of the calibration rows, 1 - p(true class), by class and ascending: K arrays float64.

    Args:
        probabilities: [N, K], calibrated.
        actual: int [N].
    """
    scores = 1.0 - probabilities[np.arange(len(actual)), actual].astype(np.float64)
    return [np.sort(scores[actual == at]) for at in range(probabilities.shape[1])]


def thresholds(scores: Sequence[np.ndarray], coverage: float) -> np.ndarray:
    """The largest nonconformity with which each class is still in a set, float64 [K].

    Of a class's n scores it is the ceil((n + 1) coverage)-th smallest: the new row is one of n + 1 that could equally
    well stand anywhere in the order. Infinity where n is too small to have so many, so the class is in every set.

    Args:
        scores: ascending, by class, as ``class_scores`` gives them.
        coverage: above 0 and below 1.
    """
    return np.array([conformal_quantile(ordered, coverage) for ordered in scores])


def conformal_quantile(ordered: np.ndarray, coverage: float) -> float:
    """The ceil((n + 1) coverage)-th smallest of n ascending values; infinity where there are not so many."""
    # The product of floats may lie a hair above a whole number, which would cost a rank.
    rank = math.ceil(round((len(ordered) + 1) * coverage, 9))
    return float(ordered[rank - 1]) if rank <= len(ordered) else math.inf


def rows_needed(coverage: float) -> int:
    """The fewest calibration rows of a class with which it can be ruled out at all."""
    return math.ceil(round(coverage / (1.0 - coverage), 9))


def prediction_sets(probabilities: np.ndarray, predicted: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Which classes are in each row's set, bool [N, K].

    The predicted class is always in, which can only raise the coverage: an empty set would say that no class fits.

    Args:
        probabilities: [N, K], calibrated.
        predicted: int [N].
        limits: [K], from ``thresholds``.
    """
    sets = 1.0 - np.asarray(probabilities, dtype=np.float64) <= limits
    sets[np.arange(len(sets)), predicted] = True
    return sets


def coverage_report(sets: np.ndarray, actual: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """Nested scalars for a metrics file about ``sets``, bool [N, K], against ``actual``, int [N] with N > 0.

    ``coverage`` is the share of rows whose set holds the true class, ``class_coverage`` that share per label (labels
    without rows are left out), ``mean_size`` the mean number of classes in a set, ``single`` the share of sets of one.
    """
    held = sets[np.arange(len(actual)), actual]
    sizes = sets.sum(axis=1)
    of_class = {label: held[actual == at] for at, label in enumerate(labels)}
    return {
        "coverage": float(held.mean()),
        "mean_size": float(sizes.mean()),
        "single": float((sizes == 1).mean()),
        "class_coverage": {label: float(rows.mean()) for label, rows in of_class.items() if len(rows)},
    }
