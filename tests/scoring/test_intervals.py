import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import f1_score

from pipeline.scoring import emotion, intervals
from pipeline.scoring.intervals import grouped_bootstrap_macro_f1, paired_bootstrap_macro_f1


def posts(rows: int, groups: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Actual classes, two systems' predictions, and groups that are right or wrong together."""
    generator = np.random.default_rng(seed)
    group = generator.integers(0, groups, size=rows)
    actual = generator.choice(3, size=rows, p=[0.6, 0.3, 0.1])
    luck = generator.random(groups)[group]
    a = np.where(luck < 0.7, actual, generator.integers(0, 3, size=rows))
    b = np.where(luck < 0.5, actual, generator.integers(0, 3, size=rows))
    return actual, a, b, np.array([f"author {number}" for number in group])


def slow(actual: np.ndarray, systems: list[np.ndarray], groups: np.ndarray, resamples: int) -> np.ndarray:
    """[resamples, systems]: draws groups one by one and scores the rows they bring."""
    generator = np.random.default_rng(99)
    names = np.unique(groups)
    members = {name: np.flatnonzero(groups == name) for name in names}
    scores = []
    for _ in range(resamples):
        rows = np.concatenate([members[name] for name in generator.choice(names, size=len(names))])
        scores.append([f1_score(actual[rows], system[rows], average="macro") for system in systems])
    return np.array(scores)


def test_intervals_agree_with_a_slow_loop_over_groups():
    actual, a, b, groups = posts(240, 40, seed=5)
    scores = slow(actual, [a, b], groups, 600)
    wanted = np.quantile(scores[:, 0], [0.05, 0.95])
    found = grouped_bootstrap_macro_f1(actual, a, groups, 3, 20_000, 0.9, seed=1)
    assert found == pytest.approx(wanted, abs=0.015)

    wanted = np.quantile(scores[:, 0] - scores[:, 1], [0.05, 0.95])
    difference, low, high = paired_bootstrap_macro_f1(actual, a, b, groups, 3, 20_000, 0.9, seed=1)
    observed = f1_score(actual, a, average="macro") - f1_score(actual, b, average="macro")
    assert difference == pytest.approx(observed)
    assert (low, high) == pytest.approx(wanted, abs=0.02)


def test_groups_make_an_interval_wider_than_as_many_single_rows():
    actual, a, _, groups = posts(600, 30, seed=2)
    low, high = grouped_bootstrap_macro_f1(actual, a, groups, 3, 3000, 0.95, seed=0)
    low_single, high_single = grouped_bootstrap_macro_f1(actual, a, np.arange(600), 3, 3000, 0.95, seed=0)
    assert high - low > 1.5 * (high_single - low_single)


def test_two_groups_give_the_three_scores_that_they_can_give():
    actual = np.array([0, 1, 0, 1])
    predicted = np.array([0, 1, 1, 0])
    groups = np.array(["right", "right", "wrong", "wrong"])
    # Drawn twice each with chance 1/4: all right, 1; all wrong, 0; one of each with chance 1/2: .5.
    low, high = grouped_bootstrap_macro_f1(actual, predicted, groups, 2, 4000, 0.6, seed=0)
    assert (low, high) == (0.0, 1.0)
    low, high = grouped_bootstrap_macro_f1(actual, predicted, groups, 2, 4000, 0.4, seed=0)
    assert (low, high) == (0.5, 0.5)


def test_a_perfect_system_and_equal_systems_have_intervals_without_width():
    actual, a, _, groups = posts(100, 20, seed=0)
    assert grouped_bootstrap_macro_f1(actual, actual, groups, 3, 500, 0.95, seed=0) == (1.0, 1.0)
    assert paired_bootstrap_macro_f1(actual, a, a, groups, 3, 500, 0.95, seed=0) == (0.0, 0.0, 0.0)
    one = np.zeros(100)
    value = emotion.macro_f1(actual, a, 3)
    assert grouped_bootstrap_macro_f1(actual, a, one, 3, 500, 0.95, seed=0) == pytest.approx((value, value))


def test_the_seed_decides_and_the_size_of_a_chunk_does_not(monkeypatch: pytest.MonkeyPatch):
    actual, a, _, groups = posts(200, 30, seed=4)
    first = grouped_bootstrap_macro_f1(actual, a, groups, 3, 999, 0.95, seed=7)
    monkeypatch.setattr(intervals, "CHUNK_CELLS", 1)
    assert grouped_bootstrap_macro_f1(actual, a, groups, 3, 999, 0.95, seed=7) == first
    assert grouped_bootstrap_macro_f1(actual, a, groups, 3, 999, 0.95, seed=8) != first


def test_memory_stays_bounded_with_many_groups():
    actual, a, b, _ = posts(100_000, 10, seed=0)
    groups = np.arange(100_000) // 2
    tracemalloc.start()
    paired_bootstrap_macro_f1(actual, a, b, groups, 3, 500, 0.95, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6  # resampling all groups at once would take 200 MB for the draws alone
