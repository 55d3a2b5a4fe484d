"""Whether a probability of .8 comes true eight times in ten, and what makes it so; and which class to decide for.

Probabilities: each class's logit gets a scale and a bias of its own (*vector scaling*: Guo, Pleiss, Sun, Weinberger,
"On Calibration of Modern Neural Networks", ICML 2017), drawn towards one common temperature and no bias. One
temperature alone leaves the priors wrong that weighted classes have learned.

Decisions: the likeliest class is best for accuracy, but for macro-F1 a rare class must be called at a lower
probability. Each class's log-probability is raised by a share of the log of how rare it is (Menon et al., "Long-tail
learning via logit adjustment", ICLR 2021); one number is chosen, which few rows can bear.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import log_softmax

from pipeline.scoring import emotion
from pipeline.scoring.one_standard_error import Behind

COMMON_SPREAD, OWN_SPREAD, BIAS_SPREAD = 2.0, 0.3, 2.0
"""Standard deviations of the normal priors: of the log of the common scale, of a class's departure from it, and of a
bias. They keep few rows from asking for anything extreme, and give way to many."""

RARITY_SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)
"""Shares of the log of a class's rarity that are tried. The whole is right where probabilities are and classes are
told apart equally well; another is taken where it is better by more than a standard error."""


@dataclass(frozen=True)
class Calibration:
    """K numbers each: logits * ``scale`` + ``bias`` are calibrated; with ``offset`` added, the largest decides."""

    scale: tuple[float, ...]
    bias: tuple[float, ...]
    offset: tuple[float, ...]

    def calibrated(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated logits, float64 [..., K], whose softmax are probabilities."""
        return np.asarray(logits, dtype=np.float64) * self.scale + self.bias

    def decide(self, calibrated: np.ndarray) -> np.ndarray:
        """The predicted class of each row of calibrated logits [..., K], int64 [...]."""
        return (calibrated + np.asarray(self.offset)).argmax(axis=-1)


def identity_calibration(classes: int) -> Calibration:
    """Leaves logits as they are."""
    return Calibration((1.0,) * classes, (0.0,) * classes, (0.0,) * classes)


def fit(logits: np.ndarray, actual: np.ndarray, groups: np.ndarray) -> Calibration:
    """The calibration of a model by its ``logits`` [N, K] for rows that it has not seen, of the classes ``actual`` [N].

    Scale and bias are the likeliest under their priors. Neutral where there are no rows. ``groups`` are N names.
    """
    if not len(logits):
        return identity_calibration(logits.shape[1])
    scale, bias = _likeliest(np.asarray(logits, dtype=np.float64), actual)
    offset = _offset(logits * scale + bias, actual, groups)
    return Calibration(*(tuple(values.tolist()) for values in (scale, bias, offset)))


def calibrated_log_loss(logits: np.ndarray, actual: np.ndarray) -> float:
    """The log-loss of logits [N, K] once they are calibrated on the same N rows, of the classes ``actual``.

    By it, settings of one model are compared: that a model is too bold or too timid is no reason against it, since
    calibration mends that.
    """
    logits = np.asarray(logits, dtype=np.float64)
    scale, bias = _likeliest(logits, actual)
    return emotion.log_loss(logits * scale + bias, actual)


def _likeliest(logits: np.ndarray, actual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale and bias, float64 [K] each, under their priors."""
    classes = logits.shape[1]
    hit = np.zeros_like(logits)
    hit[np.arange(len(logits)), actual] = 1.0
    spreads = np.repeat([COMMON_SPREAD, OWN_SPREAD, BIAS_SPREAD], [1, classes, classes])

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        scale, bias = np.exp(theta[0] + theta[1 : classes + 1]), theta[classes + 1 :]
        log_p = log_softmax(logits * scale + bias, axis=1)
        excess = np.exp(log_p) - hit
        by_scale = (excess * logits).sum(axis=0) * scale
        gradient = np.concatenate([[by_scale.sum()], by_scale, excess.sum(axis=0)]) + theta / spreads**2
        return float(-log_p[hit > 0].sum() + (theta**2 / spreads**2).sum() / 2), gradient

    optimum = minimize(loss, np.zeros(2 * classes + 1), jac=True, method="L-BFGS-B").x
    return np.exp(optimum[0] + optimum[1 : classes + 1]), optimum[classes + 1 :]


def _offset(calibrated: np.ndarray, actual: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """float64 [K]: what is added to calibrated logits so that the largest gives a good macro-F1."""
    classes = calibrated.shape[1]
    rarity = -np.log((np.bincount(actual, minlength=classes) + 1) / (len(actual) + classes))
    rarity -= rarity.min()
    scores = behind_in_macro_f1(
        [(calibrated + share * rarity).argmax(axis=1) for share in RARITY_SHARES], actual, groups, classes
    )
    return next(share for share, score in zip(RARITY_SHARES, scores, strict=True) if not score.behind.clearly) * rarity


@dataclass(frozen=True)
class MacroF1:
    """The macro-F1 of some predictions, and how far it is behind the best."""

    value: float
    behind: Behind


def behind_in_macro_f1(
    predicted: Sequence[np.ndarray], actual: np.ndarray, groups: np.ndarray, classes: int
) -> list[MacroF1]:
    """Several predictions, int [N] each, of the same rows compared.

    Standard errors are those of a jackknife that leaves out whole ``groups`` [N] (Efron and Tibshirani, "An
    Introduction to the Bootstrap", 1993, chapter 11).
    """
    values = [emotion.macro_f1(actual, codes, classes) for codes in predicted]
    left_out = [_without_each_group(actual, codes, groups, classes) for codes in predicted]
    best = int(np.argmax(values))
    compared = []
    for value, without_group in zip(values, left_out, strict=True):
        difference, count = left_out[best] - without_group, len(without_group)
        error = np.sqrt((count - 1) / count * ((difference - difference.mean()) ** 2).sum())
        by = values[best] - value
        compared.append(MacroF1(value, Behind(by, by if count < 2 else float(error))))
    return compared


def _without_each_group(actual: np.ndarray, predicted: np.ndarray, groups: np.ndarray, classes: int) -> np.ndarray:
    """Macro-F1 with each group left out in turn, float64 [groups]; of a single group, of all rows."""
    codes = np.unique(groups, return_inverse=True)[1]
    count = int(codes.max()) + 1
    cells = codes * classes**2 + actual * classes + predicted
    per_group = np.bincount(cells, minlength=count * classes**2).reshape(count, classes, classes)
    return emotion.macro_f1_of(per_group.sum(axis=0) - per_group if count > 1 else per_group)


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
