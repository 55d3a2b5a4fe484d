"""Scores of a prediction of sentiment, a number that runs from negative to positive.

The signs and the seven classes are those of MMSA (Mao et al., "M-SENA: An Integrated Platform for Multimodal Sentiment
Analysis", 2022), on which published figures of CMU-MOSI and CMU-MOSEI rest. What is undefined is None here, and is left
out of a report: a constant prediction has no correlation, and zero would be a claim.
"""

import numpy as np
from scipy.stats import rankdata

FLAT = 1e-6
"""Scores that spread less than this are constant; what is left is rounding."""

LOWEST, HIGHEST = -3.0, 3.0
"""The scale of MOSI and MOSEI, to which the seven classes clip."""


def pearson(actual: np.ndarray, predicted: np.ndarray) -> float | None:
    """Pearson's r of [n] and [n]; None where one of them is constant."""
    spread = np.std(actual) * np.std(predicted)
    if min(np.std(actual), np.std(predicted)) < FLAT:
        return None
    return float(np.mean((actual - np.mean(actual)) * (predicted - np.mean(predicted))) / spread)


def spearman(actual: np.ndarray, predicted: np.ndarray) -> float | None:
    """Pearson's r of the ranks, ties at their mean rank; None where one of them is constant."""
    if min(np.std(actual), np.std(predicted)) < FLAT:
        return None
    return pearson(rankdata(actual), rankdata(predicted))


def ccc(actual: np.ndarray, predicted: np.ndarray) -> float | None:
    """The concordance correlation coefficient, which an offset or a wrong scale lowers; 0 for a constant prediction.

    Source: Lin, "A concordance correlation coefficient to evaluate reproducibility", Biometrics 45, 1989. None where
    both are constant.
    """
    apart = np.var(actual) + np.var(predicted) + (np.mean(actual) - np.mean(predicted)) ** 2
    if apart < FLAT**2:
        return None
    return float(2 * np.mean((actual - np.mean(actual)) * (predicted - np.mean(predicted))) / apart)


def mse(actual: np.ndarray, predicted: np.ndarray) -> float:
    return float(np.mean((actual - predicted) ** 2))


def mae(actual: np.ndarray, predicted: np.ndarray) -> float:
    return float(np.mean(np.abs(actual - predicted)))


def acc2_nonzero(actual: np.ndarray, predicted: np.ndarray) -> float | None:
    """Accuracy of negative against positive over the rows whose true score is not 0; None where there are none."""
    nonzero = actual != 0
    return float(np.mean((actual[nonzero] > 0) == (predicted[nonzero] > 0))) if nonzero.any() else None


def f1_nonzero(actual: np.ndarray, predicted: np.ndarray) -> float | None:
    """The F1 of both signs, weighted by their rows, over the rows whose true score is not 0."""
    nonzero = actual != 0
    return _weighted_f1(actual[nonzero] > 0, predicted[nonzero] > 0) if nonzero.any() else None


def acc2_nonneg(actual: np.ndarray, predicted: np.ndarray) -> float:
    """Accuracy of negative against non-negative over all rows."""
    return float(np.mean((actual >= 0) == (predicted >= 0)))


def f1_nonneg(actual: np.ndarray, predicted: np.ndarray) -> float:
    """The F1 of negative and non-negative, weighted by their rows, over all rows."""
    return _weighted_f1(actual >= 0, predicted >= 0)


def acc7(actual: np.ndarray, predicted: np.ndarray) -> float:
    """Share of rows whose score, clipped to [-3, 3], rounds to the true one."""
    return float(np.mean(np.round(np.clip(actual, LOWEST, HIGHEST)) == np.round(np.clip(predicted, LOWEST, HIGHEST))))


def spread_ratio(actual: np.ndarray, predicted: np.ndarray) -> float | None:
    """Standard deviation of the predictions over that of the scores; near 0, the predictions cluster.

    The prediction of least squared error that correlates by r has a ratio of r, so 1 is not what to expect.
    """
    return float(np.std(predicted) / np.std(actual)) if np.std(actual) >= FLAT else None


def slope(actual: np.ndarray, predicted: np.ndarray) -> float | None:
    """By how much the true score rises where the prediction rises by 1: 1 is calibrated, more is too timid."""
    if np.std(predicted) < FLAT:
        return None
    return float(np.mean((actual - np.mean(actual)) * (predicted - np.mean(predicted))) / np.var(predicted))


METRICS = {
    "pearson": pearson,
    "spearman": spearman,
    "ccc": ccc,
    "mse": mse,
    "mae": mae,
    "acc2_nonzero": acc2_nonzero,
    "f1_nonzero": f1_nonzero,
    "acc2_nonneg": acc2_nonneg,
    "f1_nonneg": f1_nonneg,
    "acc7": acc7,
    "spread_ratio": spread_ratio,
    "slope": slope,
}


def inapplicable_metrics(actual: np.ndarray) -> dict[str, str]:
    """Names of ``METRICS`` that say nothing of such true scores, [n] with n > 0 → what they need.

    Signs need some of both kinds. The seven classes need scores that run about from -3 to 3: from -1 to 1, or from 1 to
    5, rounding gives other classes.
    """
    needs = {}
    if actual.min() >= 0 or actual.max() < 0:
        needs |= dict.fromkeys(("acc2_nonneg", "f1_nonneg"), "scores below 0 and others")
    if actual.min() >= 0 or actual.max() <= 0:
        needs |= dict.fromkeys(("acc2_nonzero", "f1_nonzero"), "scores below and above 0")
    largest = np.abs(actual).max()
    if not 1.5 < largest < HIGHEST + 0.5:
        needs["acc7"] = f"scores from {LOWEST:.0f} to {HIGHEST:.0f}"
    return needs


def report(actual: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Every metric of ``predicted``, [repeats, n] or [n], against ``actual``, [n] with n > 0.

    The repeats of a cross-validation are scored one by one, each over all its rows at once, and averaged. A metric that
    is undefined in one of them is left out, and so are those that are ``inapplicable_metrics``; ``METRICS`` names all.
    """
    averages, left_out = {}, inapplicable_metrics(actual)
    for name, metric in METRICS.items():
        if name in left_out:
            continue
        values = [metric(actual, repeat) for repeat in np.atleast_2d(predicted)]
        defined = [value for value in values if value is not None]
        if len(defined) == len(values):
            averages[name] = float(np.mean(defined))
    return averages


def group_means(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Means over each group's rows of ``values`` [..., n]: [..., groups], in the sorted order of the groups' names."""
    at = np.unique(groups, return_inverse=True)[1]
    counts = np.bincount(at)
    starts = np.cumsum(counts) - counts
    return np.add.reduceat(np.asarray(values)[..., np.argsort(at, kind="stable")], starts, axis=-1) / counts


def _weighted_f1(actual: np.ndarray, predicted: np.ndarray) -> float:
    """That of scikit-learn, which takes some hundred times as long to look at its arguments; bool [n] each, n > 0."""
    hits = np.array([np.sum(~actual & ~predicted), np.sum(actual & predicted)])
    rows, predicted_counts = (np.array([np.sum(~signs), np.sum(signs)]) for signs in (actual, predicted))
    return float(np.average(2 * hits / np.maximum(rows + predicted_counts, 1), weights=rows))


def concordance(predicted: np.ndarray, actual: np.ndarray) -> float:
    """The validation score of what a net predicts, [N, 1]: it falls with a wrong order, spread or mean."""
    return ccc(actual, predicted[:, 0]) or 0.0
