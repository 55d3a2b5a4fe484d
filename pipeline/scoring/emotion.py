"""Scores of a classifier over emotions, from logits or from one confusion matrix."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import log_softmax


def softmax(logits: np.ndarray) -> np.ndarray:
    """Class probabilities, float64 [N, K], of ``logits`` [N, K]."""
    return np.exp(log_probabilities(logits))


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Their logarithms, float64 [N, K]; finite for finite logits, however far apart these are."""
    return log_softmax(np.asarray(logits, dtype=np.float64), axis=1)


def centred_log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities less their mean over the classes, float64 [N, K]: what the fusion reads of an expert."""
    log_p = log_probabilities(logits)
    return log_p - log_p.mean(axis=1, keepdims=True)


def log_odds(logits: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Log-odds of class ``at[n]`` against all others together, float64 [N], of ``logits`` [N, K]."""
    logits = np.asarray(logits, dtype=np.float64)
    rows = np.arange(len(at))
    others = logits.copy()
    others[rows, at] = -np.inf
    return logits[rows, at] - np.logaddexp.reduce(others, axis=1)


def log_loss(logits: np.ndarray, actual: np.ndarray) -> float:
    """Mean negative log-likelihood of the true class, in nats."""
    return float(-log_probabilities(logits)[np.arange(len(actual)), actual].mean())


def confusion(actual: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts, int64 [K, K]: row the actual class, column the predicted one."""
    cells = np.asarray(actual, dtype=np.int64) * classes + np.asarray(predicted, dtype=np.int64)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def macro_f1_of(confusion: np.ndarray) -> np.ndarray:
    """Macro-F1 of confusion matrices [..., K, K] as an array [...].

    A class with rows but no hit counts 0. A class with neither rows nor predictions has no F1 and is left out of the
    mean, which is what scikit-learn's ``f1_score`` does when it is not told the labels. NaN for an empty matrix.
    """
    hits, rows, predictions = _margins(confusion)
    seen = rows + predictions > 0
    f1 = _ratio(2 * hits, rows + predictions)
    return _ratio(np.where(seen, f1, 0.0).sum(axis=-1), seen.sum(axis=-1))


def macro_f1(actual: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    """Macro-F1 of class indices [N]; see ``macro_f1_of`` for classes that do not occur."""
    return float(macro_f1_of(confusion(actual, predicted, classes)))


def report(logits: np.ndarray, predicted: np.ndarray, actual: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """Nested scalars for a metrics file about ``predicted`` against ``actual``, int [N] with N > 0.

    ``precision``, ``recall``, ``f1`` and ``support`` are per label. What is undefined is left out: the precision of a
    class that is never predicted, the recall of a class without rows, the F1 of one with neither. ``logits`` [N, K],
    whose softmax are the probabilities, give ``log_loss`` alone.
    """
    counts = confusion(actual, predicted, len(labels))
    hits, rows, predictions = _margins(counts)
    f1 = _ratio(2 * hits, rows + predictions)
    return {
        "n": len(actual),
        "macro_f1": float(macro_f1_of(counts)),
        "weighted_f1": float(np.nansum(f1 * rows) / len(actual)),
        "accuracy": float(hits.sum() / len(actual)),
        "log_loss": log_loss(logits, actual),
        "precision": _by_label(labels, _ratio(hits, predictions)),
        "recall": _by_label(labels, _ratio(hits, rows)),
        "f1": _by_label(labels, f1),
        "support": {label: int(count) for label, count in zip(labels, rows, strict=True)},
    }


def _margins(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1), confusion.sum(axis=-2)


def _ratio(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    return np.divide(over, under, out=np.full(np.shape(over), np.nan), where=np.asarray(under) > 0)


def _by_label(labels: Sequence[str], values: np.ndarray) -> dict[str, float]:
    return {label: float(value) for label, value in zip(labels, values, strict=True) if np.isfinite(value)}
