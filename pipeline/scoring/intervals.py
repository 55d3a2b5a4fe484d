"""Bootstrap intervals of macro-F1 that resample whole groups, because posts of one author are not independent.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993 (percentile interval); Field and Welsh,
"Bootstrapping clustered data", 2007 (groups are drawn whole, with replacement).

A resample only matters through its confusion matrix, and that is linear in how often each group was drawn: draw counts
times the groups' own confusion matrices. Groups with equal matrices are interchangeable, so they are drawn as one kind
with the sum of their chances. This is the same distribution, and a million single posts become K x K kinds.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from pipeline.scoring import emotion

CHUNK_CELLS = 2**22
"""Draw counts and confusion cells held at once, at most: 32 MB each."""


def grouped_bootstrap_macro_f1(
    actual: np.ndarray,
    predicted: np.ndarray,
    groups: np.ndarray,
    classes: int,
    resamples: int,
    confidence: float,
    seed: int,
) -> tuple[float, float]:
    """The percentile interval (low, high) of macro-F1 over resamples of whole ``groups``.

    ``actual`` and ``predicted`` are class indices, int [N], N > 0; ``groups`` [N] are names of any kind; ``confidence``
    is the coverage, such as 0.95. One group alone gives an interval without width.
    """
    cells = np.asarray(actual, dtype=np.int64) * classes + predicted
    scores = [
        emotion.macro_f1_of(counts.reshape(-1, classes, classes))
        for counts in _resampled(cells, groups, classes**2, resamples, seed)
    ]
    return _percentiles(np.concatenate(scores), confidence)


def paired_bootstrap_macro_f1(
    actual: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    groups: np.ndarray,
    classes: int,
    resamples: int,
    confidence: float,
    seed: int,
) -> tuple[float, float, float]:
    """(difference, low, high) of macro-F1, predictions ``a`` minus ``b``, both scored on the same resamples.

    The arguments are those of ``grouped_bootstrap_macro_f1``. An interval without zero says that the difference is not
    an accident of which groups were drawn for the test.
    """
    cells = (np.asarray(actual, dtype=np.int64) * classes + a) * classes + b
    differences = []
    for counts in _resampled(cells, groups, classes**3, resamples, seed):
        both = counts.reshape(-1, classes, classes, classes)
        differences.append(emotion.macro_f1_of(both.sum(axis=3)) - emotion.macro_f1_of(both.sum(axis=2)))
    observed = emotion.macro_f1(actual, a, classes) - emotion.macro_f1(actual, b, classes)
    return observed, *_percentiles(np.concatenate(differences), confidence)


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


def _percentiles(scores: np.ndarray, confidence: float) -> tuple[float, float]:
    low, high = np.quantile(scores, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
