"""Whether a probability of .8 comes true eight times in ten, and the one temperature that helps it to.

Source: Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
"""

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from pipeline.scoring import emotion

LOWEST, HIGHEST = 0.01, 100.0
"""The range in which a temperature is searched."""


def fit_temperature(logits: np.ndarray, actual: np.ndarray) -> float:
    """The temperature under which validation rows, ``logits`` [N, K] and ``actual`` int [N], are likeliest.

    1.0 where the rows do not determine one: there are none, the logits do not tell classes apart, or every row is
    right, so that ever sharper probabilities would fit ever better.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if len(logits) == 0 or np.ptp(logits, axis=1).max() == 0 or (_margin(logits, actual) >= 0).all():
        return 1.0
    # The likelihood is concave in 1 / temperature, so along its logarithm there is one minimum and the search finds it.
    optimum = minimize_scalar(
        lambda log_temperature: emotion.log_loss(logits, actual, float(np.exp(log_temperature))),
        bounds=(np.log(LOWEST), np.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(optimum.x))


def _margin(logits: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """How far the true class's logit lies above the best other one; 0 or less is a row that is not right."""
    rows = np.arange(len(actual))
    others = logits.copy()
    others[rows, actual] = -np.inf
    return logits[rows, actual] - others.max(axis=1)


def expected_calibration_error(probabilities: np.ndarray, actual: np.ndarray, bins: int) -> float:
    """Mean gap between confidence and accuracy over ``bins`` bins of equal width, weighted by their rows; 0 is best.

    Confidence is the largest of a row's ``probabilities`` [N, K]; ``actual`` is int [N].
    """
    table = reliability(probabilities, actual, bins).query("count > 0")
    gaps = (table["confidence"] - table["accuracy"]).abs()
    return float((gaps * table["count"]).sum() / table["count"].sum())


def reliability(probabilities: np.ndarray, actual: np.ndarray, bins: int) -> pd.DataFrame:
    """One row for each of ``bins`` bins ``(bin_low, bin_high]``: mean ``confidence``, ``accuracy`` and ``count``.

    An empty bin has a count of 0 and NaN for both means.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == actual
    edges = np.linspace(0.0, 1.0, bins + 1)
    where = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(where, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(where, weights=confidence, minlength=bins) / count
        accuracy = np.bincount(where, weights=right, minlength=bins) / count
    return pd.DataFrame(
        {
            "bin_low": edges[:-1],
            "bin_high": edges[1:],
            "confidence": mean_confidence,
            "accuracy": accuracy,
            "count": count,
        }
    )
