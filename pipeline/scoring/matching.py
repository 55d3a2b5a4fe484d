"""Which place in a source's space each row of a target is to meet, when no pairs are known.

Two corpora whose columns do not line up are brought into one small space first: the leading principal components of
each, whitened, every component turned so that it is skewed to the right. That is all that can be done without labels,
and it leaves the orientation of the space open. With the scores of both corpora's training rows the space gets a
further axis, the score (or, for a row without one, the prediction of ridge regression), and that settles it.
"""

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial import KDTree
from scipy.stats import skew
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV

from pipeline.scoring.standardisation import CLIP, standardisation

Match = Literal["random", "kmeans", "nearest", "ot"]
Distance = Literal["l2", "cosine"]

COMPONENTS = 8
"""Axes of the common space: those that carry most of the spread; the rest is taken for the extractors' own noise."""

SCORE_AXIS = 3.0
"""Weight of the score's axis against a principal component, where scores are used."""

MOST = 2000
"""Source rows that take part, at most: optimal transport needs a table of target rows by source rows."""

PENALTIES = np.logspace(-1, 5, 13)


@dataclass(frozen=True)
class FeatureSet:
    """The rows of one corpus in one modality: ``rows`` float [n, width], ``scores`` float [n] with NaN, or None."""

    rows: np.ndarray
    scores: np.ndarray | None = None


def match_to_source(
    target: FeatureSet,
    source: FeatureSet,
    how: Match,
    distance: Distance = "l2",
    *,
    clusters: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """float32 [n, source width]: a source row, or a mean of source rows, for every target row.

    ``random`` draws a source row for each; ``nearest`` takes the nearest one in the common space; ``kmeans`` clusters
    both corpora, assigns clusters one to one at the least total distance, and takes the mean of the assigned cluster's
    rows; ``ot`` moves all target rows onto all source rows at the least total squared distance, and takes the mean of
    where a row goes (barycentric projection; Courty et al. 2017, "Optimal transport for domain adaptation").

    With the distance ``cosine`` all rows of the common space are brought to length 1, where the squared distance is
    twice 1 - the cosine.

    Scores are used if both sets have them.
    """
    if len(source.rows) > MOST:
        some = np.sort(rng.choice(len(source.rows), size=MOST, replace=False))
        source = FeatureSet(source.rows[some], None if source.scores is None else source.scores[some])
    if how == "random":
        return source.rows[rng.integers(len(source.rows), size=len(target.rows))].astype(np.float32)
    target_points, source_points = common_space(target, source)
    if distance == "cosine":
        target_points, source_points = (
            rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
            for rows in (target_points, source_points)
        )
    if how == "nearest":
        return source.rows[KDTree(source_points).query(target_points)[1]].astype(np.float32)
    if how == "kmeans":
        return _by_cluster(target_points, source_points, source.rows, clusters, rng).astype(np.float32)
    return (_transport(target_points, source_points) @ source.rows).astype(np.float32)


def common_space(target: FeatureSet, source: FeatureSet) -> tuple[np.ndarray, np.ndarray]:
    """Both sets in the common space: float [n, axes] and float [m, axes]."""
    axes = min(COMPONENTS, *target.rows.shape, *source.rows.shape)
    target_points, source_points = _whitened(target.rows, axes), _whitened(source.rows, axes)
    if target.scores is None or source.scores is None:
        return target_points, source_points
    spread = np.nanstd(source.scores)
    columns = [SCORE_AXIS * _known_or_read(features) / max(spread, 1e-9) for features in (target, source)]
    return np.column_stack([target_points, columns[0]]), np.column_stack([source_points, columns[1]])


def _whitened(rows: np.ndarray, axes: int) -> np.ndarray:
    mean, spread = standardisation(rows)
    standard = np.clip((rows - mean) / spread, -CLIP, CLIP)
    # The full decomposition of a wide table would take most of an adapter's training time.
    whitened = PCA(axes, whiten=True, svd_solver="randomized", random_state=0).fit_transform(standard)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # an axis without spread has no direction to turn
        return whitened * np.where(skew(whitened, axis=0) < 0, -1.0, 1.0)


def _known_or_read(features: FeatureSet) -> np.ndarray:
    """The score of each row; where it is not known, the prediction of ridge regression on the others."""
    assert features.scores is not None
    known = np.isfinite(features.scores)
    if known.all() or known.sum() < 3:
        return np.nan_to_num(features.scores)
    mean, spread = standardisation(features.rows)
    standard = (features.rows - mean) / spread
    ridge = RidgeCV(PENALTIES).fit(standard[known], features.scores[known])
    return np.where(known, features.scores, ridge.predict(standard))


def _by_cluster(
    target_points: np.ndarray, source_points: np.ndarray, source: np.ndarray, clusters: int, rng: np.random.Generator
) -> np.ndarray:
    count = min(clusters, *(len(np.unique(cloud.round(6), axis=0)) for cloud in (target_points, source_points)))
    seed = int(rng.integers(2**31))
    target_clusters, source_clusters = (
        KMeans(count, n_init="auto", random_state=seed).fit(cloud) for cloud in (target_points, source_points)
    )
    apart = ((target_clusters.cluster_centers_[:, None] - source_clusters.cluster_centers_[None]) ** 2).sum(axis=2)
    partner = linear_sum_assignment(apart)[1]
    means = np.stack([source[source_clusters.labels_ == cluster].mean(axis=0) for cluster in range(count)])
    return means[partner[target_clusters.labels_]]


def _transport(target_points: np.ndarray, source_points: np.ndarray) -> np.ndarray:
    """float [n, m]: the shares in which each target row goes to the source rows; every line sums to 1."""
    import ot

    plan = ot.emd(ot.unif(len(target_points)), ot.unif(len(source_points)), ot.dist(target_points, source_points))
    return np.asarray(plan) * len(target_points)
