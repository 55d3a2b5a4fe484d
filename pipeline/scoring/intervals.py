"""Bootstrap intervals that resample whole groups: posts of one author, or parts of one video, are not independent.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993; Field and Welsh, "Bootstrapping clustered
data", 2007 (groups are drawn whole, with replacement).

An interval is the value plus and minus Student's t, with one degree of freedom less than the effective number of
groups, times the bootstrap's standard error; it is laid on a scale on which the error hardly depends on the value
(shares by the arcsine of their root, correlations by Fisher's z, errors by their root), and carried back. The
percentiles of the resamples, which are usual, know neither that the error itself is estimated from few groups nor that
resamples vary too little by the factor sqrt((G - 1) / G): of 8 groups they cover 83 to 90 % where 95 % are promised
(benchmarks/README.md).

A resample only matters through its confusion matrix, and that is linear in how often each group was drawn: draw counts
times the groups' own confusion matrices. Groups with equal matrices are interchangeable, so they are drawn as one kind
with the sum of their chances. This is the same distribution, and a million single posts become K x K kinds.

For scores the confusion matrix gives way to the sums of the scores, their squares, products and errors, from which
correlations and errors follow.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from scipy.special import stdtrit

from pipeline.scoring import emotion

System = TypeVar("System", bound=Hashable)
"""What names the predictions of one model among those of several."""

CHUNK_CELLS = 2**22
"""Draw counts and confusion cells held at once, at most: 32 MB each."""

NO_VARIANCE = 1e-12
"""A resample whose scores vary less has no correlation."""

FEW_GROUPS = 20
"""Fewer groups behind an interval are worth a warning."""

UNEQUAL = 0.75
"""Groups that count as fewer than this share of their number are called unequal."""

MIN_GROUPS, MIN_EFFECTIVE = 8, 4.0
"""Fewer groups, or fewer effective ones, have no interval: the variance between groups is poorly estimated."""

ALIKE = 1e-9
"""Shares that differ by less are the same."""

MAX_CORRELATION = 0.9999
"""Fisher's z has no end; a higher correlation counts as this one."""


class Scale(NamedTuple):
    """Where the error of a statistic hardly depends on its value, and the way back; both of arrays."""

    forth: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]


SHARE = Scale(lambda x: np.arcsin(np.sqrt(x)), lambda y: np.sin(y.clip(0, np.pi / 2)) ** 2)
CORRELATION = Scale(lambda x: np.arctanh(x.clip(-MAX_CORRELATION, MAX_CORRELATION)), np.tanh)
ERROR = Scale(np.sqrt, lambda y: y.clip(0) ** 2)
DIFFERENCE = Scale(np.positive, np.positive)
SCALES = {"pearson": CORRELATION, "ccc": CORRELATION, "mae": ERROR, "mse": ERROR}


@dataclass(frozen=True)
class Resampled:
    """A statistic of all groups, and of resamples of them.

    Attributes:
        value: NaN where it is undefined.
        draws: float64 [resamples], NaN where a resample leaves it undefined.
        groups: how many there are.
        effective: how many of one size would be as informative: ``effective_groups``.
    """

    value: float
    draws: np.ndarray
    groups: int
    effective: float
    scale: Scale

    def __sub__(self, other: "Resampled") -> "Resampled":
        """The difference; a paired one where both were resampled together."""
        groups, effective = min(self.groups, other.groups), min(self.effective, other.effective)
        return Resampled(self.value - other.value, self.draws - other.draws, groups, effective, DIFFERENCE)

    def interval(self, confidence: float) -> tuple[float, float] | None:
        """(low, high) around the value, which is never outside.

        ``confidence`` is the coverage, such as 0.95. None of fewer than ``MIN_GROUPS`` groups or ``MIN_EFFECTIVE``
        effective ones, and where the value or all resamples are undefined. A share of 1 or 0 in every resample is not
        certain for that: the other end is that of as many successes or failures as there are effective groups (Clopper
        and Pearson 1934).
        """
        defined, groups = self.draws[np.isfinite(self.draws)], self.effective
        if self.groups < MIN_GROUPS or groups < MIN_EFFECTIVE or not np.isfinite(self.value) or not len(defined):
            return None
        error = self.scale.forth(defined).std() * np.sqrt(groups / (groups - 1))
        if self.scale is SHARE and error < ALIKE and min(self.value, 1 - self.value) < ALIKE:
            least = ((1 - confidence) / 2) ** (1 / groups)
            return (least, 1.0) if self.value > 0.5 else (0.0, 1 - least)
        far = stdtrit(groups - 1, (1 + confidence) / 2) * error
        low, high = self.scale.back(self.scale.forth(np.array(self.value)) + np.array([-far, far]))
        return min(float(low), self.value), max(float(high), self.value)


def interval_metrics(drawn: Resampled, confidence: float, prefix: str = "") -> dict[str, float]:
    """The interval as metrics, ``<prefix>ci_low`` and ``<prefix>ci_high``; empty where there is none."""
    limits = drawn.interval(confidence)
    return {} if limits is None else {f"{prefix}ci_low": limits[0], f"{prefix}ci_high": limits[1]}


def effective_groups(groups: np.ndarray) -> float:
    """As many groups of one size are as informative as these: (sum of n)^2 / (sum of n^2) of their numbers of rows n.

    ``groups`` [N] are names of any kind, N > 0. Sources: Kish, "Survey Sampling", 1965; Carter, Schnepel and
    Steigerwald, "Asymptotic behavior of a t-test robust to cluster heterogeneity", 2017, for degrees of freedom.
    """
    sizes = np.bincount(pd.factorize(np.asarray(groups))[0]).astype(np.float64)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def few_groups_warnings(groups: np.ndarray, rows: str) -> list[str]:
    """A warning where ``rows``, as it names them, are of few groups, or of few large ones; ``groups`` [N] names."""
    count, effective = _count(groups), effective_groups(groups)
    if effective >= FEW_GROUPS:
        return []
    named = "1 group" if count == 1 else f"{count} groups"
    only = "only " if count < FEW_GROUPS else ""
    uneven = f", which are so unequal that they count as {effective:.1f}" if effective < UNEQUAL * count else ""
    enough = count >= MIN_GROUPS and effective >= MIN_EFFECTIVE
    need = f"{MIN_GROUPS}, and {MIN_EFFECTIVE:.0f} of one size" if uneven else str(MIN_GROUPS)
    means = "the intervals are rough" if enough else f"too few for intervals, which need {need}"
    return [f"{only}{named} among {rows}{uneven}: {means}"]


def resampled_macro_f1(
    actual: np.ndarray, predicted: np.ndarray, groups: np.ndarray, classes: int, resamples: int, seed: int
) -> Resampled:
    """Macro-F1 over resamples of whole ``groups``.

    ``actual`` and ``predicted`` are class indices, int [N], N > 0; ``groups`` [N] are names of any kind.
    """
    cells = np.asarray(actual, dtype=np.int64) * classes + predicted
    draws = [
        emotion.macro_f1_of(counts.reshape(-1, classes, classes))
        for counts in _resampled(cells, groups, classes**2, resamples, seed)
    ]
    value = emotion.macro_f1(actual, predicted, classes)
    return Resampled(value, np.concatenate(draws), _count(groups), effective_groups(groups), SHARE)


def resampled_macro_f1_difference(
    actual: np.ndarray, a: np.ndarray, b: np.ndarray, groups: np.ndarray, classes: int, resamples: int, seed: int
) -> Resampled:
    """Macro-F1 of predictions ``a`` minus that of ``b``, both scored on the same resamples of whole ``groups``.

    The arguments are those of ``resampled_macro_f1``. An interval without zero says that the difference is not an
    accident of which groups were drawn for the test.
    """
    cells = (np.asarray(actual, dtype=np.int64) * classes + a) * classes + b
    draws = []
    for counts in _resampled(cells, groups, classes**3, resamples, seed):
        both = counts.reshape(-1, classes, classes, classes)
        draws.append(emotion.macro_f1_of(both.sum(axis=3)) - emotion.macro_f1_of(both.sum(axis=2)))
    value = emotion.macro_f1(actual, a, classes) - emotion.macro_f1(actual, b, classes)
    return Resampled(value, np.concatenate(draws), _count(groups), effective_groups(groups), DIFFERENCE)


def _count(groups: np.ndarray) -> int:
    return len(pd.unique(np.asarray(groups)))


def _resampled(cells: np.ndarray, groups: np.ndarray, width: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Chunks [chunk, width] of how many rows fell into each cell, one line for each resample."""
    kinds, sizes = _kinds(cells, groups, width)
    total = sizes.sum()
    generator = np.random.default_rng(seed)
    chunk = max(1, CHUNK_CELLS // max(len(sizes), width))
    for start in range(0, resamples, chunk):
        draws = generator.multinomial(total, sizes / total, size=min(chunk, resamples - start))
        yield draws @ kinds


def _kinds(cells: np.ndarray, groups: np.ndarray, width: int) -> tuple[csr_array, np.ndarray]:
    """The distinct groups as cell counts, int64 [kinds, width], and how many groups are of each, int64 [kinds]."""
    group_of = pd.factorize(np.asarray(groups))[0]
    order = np.lexsort((cells, group_of))
    cells = np.asarray(cells, dtype=np.int64)[order]
    starts = np.flatnonzero(np.diff(group_of[order], prepend=-1))
    sizes: dict[bytes, int] = {}
    for group in np.split(cells, starts[1:]):
        key = group.tobytes()
        sizes[key] = sizes.get(key, 0) + 1
    members = [np.frombuffer(key, dtype=np.int64) for key in sizes]
    columns = np.concatenate(members)
    rows = np.repeat(np.arange(len(members)), [len(group) for group in members])
    kinds = csr_array((np.ones(len(columns), dtype=np.int64), (rows, columns)), shape=(len(members), width))
    return kinds, np.fromiter(sizes.values(), dtype=np.int64)


# --- scores ----------------------------------------------------------------------------------------------------------


def resampled_scores(
    actual: np.ndarray, systems: Mapping[System, np.ndarray], groups: np.ndarray, resamples: int, seed: int
) -> dict[System, dict[str, Resampled]]:
    """System → ``pearson, ccc, mae, mse`` → its value, and that of resamples of whole groups.

    Args:
        actual: [n] true scores, n > 0.
        systems: name → [repeats, n] predictions of the same rows; one repeat is a holdout, several are those of a
            repeated cross-validation, which are scored one by one and averaged.
        groups: [n] names of any kind.

    A resample draws its groups once, for all systems and all repeats, so that the difference of two of these is a
    paired one.
    """
    group_of = pd.factorize(np.asarray(groups))[0]
    count = int(group_of.max()) + 1
    sums = {name: _moments(actual, predicted, group_of) for name, predicted in systems.items()}
    values = {name: _scores_of(moments.sum(axis=0, keepdims=True)) for name, moments in sums.items()}
    parts: dict[System, list[dict[str, np.ndarray]]] = {name: [] for name in systems}
    generator = np.random.default_rng(seed)
    chunk = max(1, CHUNK_CELLS // count)
    for start in range(0, resamples, chunk):
        draws = generator.multinomial(count, np.full(count, 1 / count), size=min(chunk, resamples - start))
        for name, moments in sums.items():
            parts[name].append(_scores_of(np.tensordot(draws.astype(np.float64), moments, axes=1)))
    effective = effective_groups(groups)

    def resampled(name: System, metric: str, value: float) -> Resampled:
        draws = np.concatenate([part[metric] for part in parts[name]])
        return Resampled(value, draws, count, effective, SCALES[metric])

    return {
        name: {metric: resampled(name, metric, float(drawn[0])) for metric, drawn in values[name].items()}
        for name in systems
    }


def _moments(actual: np.ndarray, predicted: np.ndarray, group_of: np.ndarray) -> np.ndarray:
    """Each group's sums over its rows, [groups, repeats, 8], from which every metric of a resample follows."""
    # Both sides lose the same constant, which no metric notices, and squares lose no digits.
    a = np.broadcast_to(actual - actual.mean(), predicted.shape)
    p = predicted - actual.mean()
    columns = np.stack([np.ones_like(p), a, p, a * a, p * p, a * p, np.abs(a - p), (a - p) ** 2])
    sums = np.zeros((group_of.max() + 1, *columns.shape[:2]))
    np.add.at(sums, group_of, np.moveaxis(columns, 2, 0))
    return np.swapaxes(sums, 1, 2)


def _scores_of(moments: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics [resamples], averaged over the repeats, of ``moments`` [resamples, repeats, 8]."""
    a, p, aa, pp, ap, absolute, squared = np.moveaxis(moments[..., 1:] / moments[..., :1], -1, 0)
    var_a, var_p, covariance = aa - a * a, pp - p * p, ap - a * p
    with np.errstate(invalid="ignore", divide="ignore"):
        varied = (var_a > NO_VARIANCE) & (var_p > NO_VARIANCE)
        pearson = np.where(varied, covariance / np.sqrt(var_a * var_p), np.nan)
        apart = var_a + var_p + (a - p) ** 2
        ccc = np.where(apart > NO_VARIANCE, 2 * covariance / apart, np.nan)
    metrics = {"pearson": pearson, "ccc": ccc, "mae": absolute, "mse": squared}
    return {name: values.mean(axis=1) for name, values in metrics.items()}


def permutation_p(
    actual: np.ndarray, systems: Mapping[str, np.ndarray], groups: np.ndarray, permutations: int, seed: int
) -> dict[str, float]:
    """System → how often scores that have nothing to do with its predictions correlate with them as highly, or higher.

    The arguments are those of ``resampled_scores``; a system without a correlation is left out. A score is taken apart
    into its group's mean and the rest. Means change places between groups, the rest between the rows of a group: what
    is not exchangeable, rows of different groups, is never exchanged, and with one row a group this is the plain
    permutation test. p = (1 + as high) / (1 + permutations), so it is never 0 (Phipson and Smyth, 2010). One-sided:
    cross-validated predictions without skill fall where their fold's scores rise, which is evidence of nothing.
    """
    group_of = pd.factorize(np.asarray(groups))[0]
    order = np.argsort(group_of, kind="stable")
    group_of, actual = group_of[order], np.asarray(actual, dtype=np.float64)[order]
    means = np.bincount(group_of, weights=actual) / np.bincount(group_of)
    rest = actual - means[group_of]
    centred = {name: _unit(np.asarray(predicted)[:, order]) for name, predicted in systems.items()}
    centred = {name: rows for name, rows in centred.items() if rows is not None}
    target = _unit(actual[None])
    if target is None:
        return {}
    observed = {name: float((rows @ target[0]).mean()) for name, rows in centred.items()}
    as_high = dict.fromkeys(centred, 0)
    generator = np.random.default_rng(seed)
    chunk = max(1, CHUNK_CELLS // len(actual))
    for start in range(0, permutations, chunk):
        size = min(chunk, permutations - start)
        places = generator.permuted(np.tile(np.arange(len(means)), (size, 1)), axis=1)
        within = np.argsort(group_of + generator.random((size, len(actual))), axis=1)
        shuffled = means[places][:, group_of] + rest[within]
        shuffled -= shuffled.mean(axis=1, keepdims=True)
        shuffled /= np.maximum(np.linalg.norm(shuffled, axis=1, keepdims=True), NO_VARIANCE)
        for name, rows in centred.items():
            as_high[name] += int(((shuffled @ rows.T).mean(axis=1) >= observed[name] - 1e-12).sum())
    return {name: (1 + count) / (1 + permutations) for name, count in as_high.items()}


def _unit(rows: np.ndarray) -> np.ndarray | None:
    """Rows [repeats, n] without their means and of length 1: products are correlations; None if one is constant."""
    rows = rows - rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / lengths if (lengths**2 > NO_VARIANCE * rows.shape[1]).all() else None
