import numpy as np
import pytest
from scipy import stats

from pipeline.scoring import matching
from pipeline.scoring.matching import Distance, FeatureSet, Match, common_space, match_to_source

EVERY: tuple[Match, ...] = ("random", "kmeans", "nearest", "ot")


def places(target: FeatureSet, source: FeatureSet, how: Match, *, clusters: int = 3, seed: int = 0) -> np.ndarray:
    return match_to_source(target, source, how, clusters=clusters, rng=np.random.default_rng(seed))


def skewed(rows: int, width: int, seed: int = 0) -> np.ndarray:
    """Columns of unequal weight, each with a long right tail."""
    rng = np.random.default_rng(seed)
    factors = rng.exponential(size=(rows, width)) * 2.0 ** -np.arange(width)
    return factors @ np.linalg.qr(rng.normal(size=(width, width)))[0]


def order(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's correlation."""
    return float(stats.spearmanr(first, second).statistic)


def test_transport_finds_a_permutation_through_other_units() -> None:
    source = skewed(40, 5)
    shuffle = np.random.default_rng(1).permutation(40)
    target = source[shuffle] * np.array([3.0, 0.1, 1.0, 20.0, 1.0]) + np.array([0.0, 5.0, -2.0, 1.0, 100.0])
    np.testing.assert_allclose(places(FeatureSet(target), FeatureSet(source), "ot"), source[shuffle], atol=1e-5)


def test_clusters_of_fewer_kinds_of_rows_than_were_asked_for() -> None:
    kinds = skewed(5, 4)
    found = places(FeatureSet(skewed(30, 3, seed=1)), FeatureSet(np.repeat(kinds, 10, axis=0)), "kmeans", clusters=8)
    assert np.isfinite(found).all()
    assert all((np.abs(kinds - row).max(axis=1) < 1e-5).any() for row in found)


def test_transport_uses_every_source_row_alike() -> None:
    """A row that meets several meets their mean; together they meet the mean of all."""
    target, source = skewed(10, 3), skewed(30, 4, seed=1)
    found = places(FeatureSet(target), FeatureSet(source), "ot")
    np.testing.assert_allclose(found.mean(axis=0), source.mean(axis=0), atol=1e-5)


def test_the_nearest_by_hand() -> None:
    target, source = skewed(20, 1), 7 - 3 * skewed(30, 1, seed=1)
    here, there = ((rows - rows.mean()) / rows.std(ddof=1) for rows in (target, source))
    here, there = (rows * np.sign(((rows - rows.mean()) ** 3).mean()) for rows in (here, there))
    expected = source[np.abs(here - there.T).argmin(axis=1)]
    np.testing.assert_allclose(places(FeatureSet(target), FeatureSet(source), "nearest"), expected, rtol=1e-6)


def test_by_cosine_a_row_meets_the_one_of_its_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Near to the first in place, and to the second in direction."""
    here, there = np.array([[1.0, 0.2]]), np.array([[0.9, 0.9], [30.0, 6.0]])
    monkeypatch.setattr(matching, "common_space", lambda target, source: (here, there))
    source = np.array([[1.0], [2.0]])
    expected: dict[Distance, float] = {"l2": 1.0, "cosine": 2.0}
    for distance, place in expected.items():
        rng = np.random.default_rng(0)
        found = match_to_source(FeatureSet(here), FeatureSet(source), "nearest", distance, clusters=2, rng=rng)
        assert found.item() == place


def test_clusters_meet_one_to_one_at_their_means() -> None:
    steps = np.array([0.0, 0.1, 0.2, 1.5, 1.6, 6.0])
    target = -2 * steps[:, None] + 9  # turned round, and turned back by its skewness
    source = np.column_stack([steps, steps + 50])
    expected = np.array([0.1, 0.1, 0.1, 1.55, 1.55, 6.0])
    found = places(FeatureSet(target), FeatureSet(source), "kmeans")
    np.testing.assert_allclose(found, np.column_stack([expected, expected + 50]), rtol=1e-6)
    found = places(FeatureSet(target), FeatureSet(source), "kmeans", clusters=99)  # no more clusters than rows
    np.testing.assert_allclose(found, source, rtol=1e-6)


@pytest.mark.parametrize("how", ["nearest", "ot"])
@pytest.mark.parametrize("known", [1.0, 0.5])
def test_scores_turn_round_what_skewness_gets_wrong(how: Match, known: float) -> None:
    """A column that is the score in both corpora: many sad rows in one, many happy rows in the other."""
    tail = np.random.default_rng(0).exponential(size=80)
    scores = {"target": 1 - tail, "source": tail - 1}
    rows = {name: column[:, None] for name, column in scores.items()}
    blind = places(FeatureSet(rows["target"]), FeatureSet(rows["source"]), how)
    assert order(blind[:, 0], scores["target"]) < -0.9
    told = np.where(np.random.default_rng(1).random(80) < known, scores["target"], np.nan)
    seeing = places(FeatureSet(rows["target"], told), FeatureSet(rows["source"], scores["source"]), how)
    assert order(seeing[:, 0], scores["target"]) > 0.9


def test_a_symmetric_cloud_is_open_until_scores_settle_it() -> None:
    score = np.linspace(-1, 1, 41)
    for turn in (1.0, -1.0):
        target, source = turn * score[:, None], score[:, None]
        assert abs(order(places(FeatureSet(target), FeatureSet(source), "ot")[:, 0], score)) > 0.99
        found = places(FeatureSet(target, score), FeatureSet(source, score), "ot")
        np.testing.assert_allclose(found, source, atol=1e-6)


def test_scores_of_one_side_alone_are_not_used() -> None:
    target, source = skewed(20, 3), skewed(25, 3, seed=1)
    score = np.arange(20.0)
    np.testing.assert_array_equal(
        places(FeatureSet(target, score), FeatureSet(source), "ot"),
        places(FeatureSet(target), FeatureSet(source), "ot"),
    )


def test_the_common_space_is_white_and_its_last_axis_the_score() -> None:
    target, source = skewed(200, 12), skewed(300, 10, seed=1)
    rng = np.random.default_rng(2)
    actual, weights = target @ rng.normal(size=12), rng.normal(size=10)
    told = np.where(rng.random(200) < 0.5, actual, np.nan)
    here, there = common_space(FeatureSet(target, told), FeatureSet(source, source @ weights))
    assert (here.shape, there.shape) == ((200, 9), (300, 9))
    for cloud in (here, there):
        np.testing.assert_allclose(np.cov(cloud[:, :8].T), np.eye(8), atol=1e-3)
        assert ((cloud[:, :8] ** 3).mean(axis=0) > 0).all()
    spread = (source @ weights).std()
    np.testing.assert_allclose(there[:, 8], 3 * (source @ weights) / spread, rtol=1e-6)
    # What is not told is read from the other rows: here the score is linear in the columns.
    np.testing.assert_allclose(here[:, 8], 3 * actual / spread, atol=0.15)
    np.testing.assert_allclose(here[np.isfinite(told), 8], 3 * told[np.isfinite(told)] / spread, rtol=1e-6)


def test_a_random_place_is_a_source_row_by_the_seed() -> None:
    target, source = skewed(50, 2), skewed(20, 3, seed=1)
    found = places(FeatureSet(target), FeatureSet(source), "random")
    assert {tuple(row) for row in found} <= {tuple(row) for row in source.astype(np.float32)}
    assert len(np.unique(found, axis=0)) > 10
    np.testing.assert_array_equal(found, places(FeatureSet(target), FeatureSet(source), "random"))
    assert not np.array_equal(found, places(FeatureSet(target), FeatureSet(source), "random", seed=1))


@pytest.mark.parametrize("how", EVERY)
def test_a_large_source_takes_part_with_some_rows(how: Match, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "MOST", 10)
    target, source = skewed(200, 2), skewed(60, 3, seed=1)
    scores = source[:, 0] * 2
    found = places(FeatureSet(target, target[:, 0]), FeatureSet(source, scores), how, clusters=50)
    assert found.shape == (200, 3)
    if how == "ot":  # the mean of where all went is the mean of those that took part
        found = found.mean(axis=0, keepdims=True)
        assert not np.allclose(found, source.mean(axis=0), atol=1e-3)
    else:
        assert 5 <= len(np.unique(found, axis=0)) <= 10
    np.testing.assert_array_equal(
        places(FeatureSet(source[:10]), FeatureSet(source[:10]), "nearest"), np.float32(source[:10])
    )
