import tracemalloc
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from pipeline.scoring import intervals, sentiment
from pipeline.scoring.intervals import DIFFERENCE, Resampled, resampled_macro_f1, resampled_macro_f1_difference


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


def t_interval(value: float, draws: np.ndarray, groups: int, to: Any, back: Any, confidence: float) -> np.ndarray:
    """Worked out as a text book has it: the value ± t times the standard error, on another scale."""
    error = np.std(to(draws)) * np.sqrt(groups / (groups - 1))
    return back(np.array(stats.t.interval(confidence, groups - 1, to(value), error)))


def arcsine(value: Any) -> Any:
    return np.arcsin(np.sqrt(value))


def test_intervals_agree_with_a_slow_loop_over_groups():
    actual, a, b, groups = posts(240, 40, seed=5)
    scores = slow(actual, [a, b], groups, 600)
    found = resampled_macro_f1(actual, a, groups, 3, 20_000, seed=1)
    assert found.value == pytest.approx(f1_score(actual, a, average="macro"))
    assert np.quantile(found.draws, [0.05, 0.95]) == pytest.approx(np.quantile(scores[:, 0], [0.05, 0.95]), abs=0.015)
    count = len(np.unique(groups))
    wanted = t_interval(found.value, scores[:, 0], count, arcsine, lambda y: np.sin(y) ** 2, 0.9)
    assert found.interval(0.9) == pytest.approx(wanted, abs=0.01)

    found = resampled_macro_f1_difference(actual, a, b, groups, 3, 20_000, seed=1)
    observed = f1_score(actual, a, average="macro") - f1_score(actual, b, average="macro")
    assert found.value == pytest.approx(observed)
    wanted = t_interval(observed, scores[:, 0] - scores[:, 1], count, np.positive, np.positive, 0.9)
    assert found.interval(0.9) == pytest.approx(wanted, abs=0.01)


def limits(found: Resampled, confidence: float = 0.95) -> tuple[float, float]:
    interval = found.interval(confidence)
    assert interval is not None
    return interval


def test_groups_make_an_interval_wider_than_as_many_single_rows():
    actual, a, _, groups = posts(600, 30, seed=2)
    low, high = limits(resampled_macro_f1(actual, a, groups, 3, 3000, seed=0))
    low_single, high_single = limits(resampled_macro_f1(actual, a, np.arange(600), 3, 3000, seed=0))
    assert high - low > 1.5 * (high_single - low_single)


def test_two_groups_give_the_three_scores_that_they_can_give_and_no_interval():
    actual = np.array([0, 1, 0, 1])
    predicted = np.array([0, 1, 1, 0])
    groups = np.array(["right", "right", "wrong", "wrong"])
    # Drawn twice each with chance 1/4: all right, 1; all wrong, 0; one of each with chance 1/2: .5.
    found = resampled_macro_f1(actual, predicted, groups, 2, 4000, seed=0)
    scores, counts = np.unique(found.draws, return_counts=True)
    assert scores.tolist() == [0, 0.5, 1]
    assert counts / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    assert (found.value, found.groups, found.interval(0.95)) == (0.5, 2, None)


def test_fewer_than_eight_groups_have_no_interval():
    actual, a, b, _ = posts(160, 20, seed=1)
    for count in (1, 7, 8):
        groups = np.arange(160) % count
        assert (resampled_macro_f1(actual, a, groups, 3, 500, seed=0).interval(0.95) is None) == (count < 8)
        assert (resampled_macro_f1_difference(actual, a, b, groups, 3, 500, seed=0).interval(0.9) is None) == (
            count < 8
        )


def test_equal_systems_have_an_interval_without_width():
    actual, a, _, groups = posts(100, 20, seed=0)
    assert limits(resampled_macro_f1_difference(actual, a, a, groups, 3, 500, seed=0)) == (0.0, 0.0)


@pytest.mark.parametrize("wrong", [1, 2, 60, 119, 120])
def test_a_value_is_inside_its_interval_which_stays_among_the_possible_ones(wrong: int):
    actual = np.arange(120) % 3
    predicted = np.where(np.arange(120) < wrong, (actual + 1) % 3, actual)
    found = resampled_macro_f1(actual, predicted, np.arange(120) // 12, 3, 500, seed=0)
    low, high = limits(found)
    assert 0 <= low <= found.value <= high <= 1
    assert low < high


def test_the_seed_decides_and_the_size_of_a_chunk_does_not(monkeypatch: pytest.MonkeyPatch):
    actual, a, _, groups = posts(200, 30, seed=4)
    first = resampled_macro_f1(actual, a, groups, 3, 999, seed=7).draws.tolist()
    monkeypatch.setattr(intervals, "CHUNK_CELLS", 1)
    assert resampled_macro_f1(actual, a, groups, 3, 999, seed=7).draws.tolist() == first
    assert resampled_macro_f1(actual, a, groups, 3, 999, seed=8).draws.tolist() != first


def test_intervals_of_eight_groups_cover_the_truth_as_often_as_they_promise():
    """Groups' rates of right answers are drawn from a known distribution: half of all answers are right."""
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(8), 12)
    held = usual = 0
    for _ in range(400):
        right = generator.random(96) < generator.beta(2, 2, size=8)[groups]
        actual = generator.integers(0, 2, size=96)
        # Accuracy .5 of two classes alike is a macro-F1 of .5, but for a bias that is small beside the interval.
        found = resampled_macro_f1(actual, np.where(right, actual, 1 - actual), groups, 2, 300, seed=0)
        low, high = limits(found)
        held += low <= 0.5 <= high
        low, high = np.quantile(found.draws, [0.025, 0.975])
        usual += low <= 0.5 <= high
    assert usual / 400 < 0.9
    assert held / 400 == pytest.approx(0.95, abs=0.025)


def test_memory_stays_bounded_with_many_groups():
    actual, a, b, _ = posts(100_000, 10, seed=0)
    groups = np.arange(100_000) // 2
    tracemalloc.start()
    resampled_macro_f1_difference(actual, a, b, groups, 3, 500, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6  # resampling all groups at once would take 200 MB for the draws alone


# --- scores ----------------------------------------------------------------------------------------------------------


def scores(groups: int, per_group: int, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """True scores, two systems of two repeats each, and groups whose rows are alike and are judged alike."""
    generator = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), per_group)
    actual = generator.normal(size=groups)[group] + 0.5 * generator.normal(size=len(group))
    wrong = generator.normal(size=(2, groups))[:, group] + 0.3 * generator.normal(size=(2, len(group)))
    return actual, {"a": actual + wrong, "b": 0.5 * actual + 2 * wrong + 3}, group


def mean_scores(actual: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    metrics = {"pearson": sentiment.pearson, "ccc": sentiment.ccc, "mae": sentiment.mae, "mse": sentiment.mse}
    return {name: float(np.mean([metric(actual, one) for one in predicted])) for name, metric in metrics.items()}


def test_intervals_of_scores_agree_with_a_slow_loop_over_groups_and_repeats():
    actual, systems, groups = scores(30, 4, seed=3)
    found = intervals.resampled_scores(actual, systems, groups, 20_000, seed=1)
    generator = np.random.default_rng(99)
    slow = []
    for _ in range(600):
        rows = np.concatenate([np.flatnonzero(groups == name) for name in generator.choice(30, size=30)])
        slow.append([mean_scores(actual[rows], systems[name][:, rows]) for name in ("a", "b")])
    for metric, width in (("pearson", 0.03), ("ccc", 0.03), ("mae", 0.03), ("mse", 0.1)):
        drawn, own = np.array([both[0][metric] for both in slow]), found["a"][metric]
        assert np.quantile(own.draws, [0.05, 0.95]) == pytest.approx(np.quantile(drawn, [0.05, 0.95]), abs=width)
        assert own.value == pytest.approx(mean_scores(actual, systems["a"])[metric])
        to, back = (np.arctanh, np.tanh) if metric in ("pearson", "ccc") else (np.sqrt, np.square)
        assert own.interval(0.9) == pytest.approx(t_interval(own.value, drawn, 30, to, back, 0.9), abs=width)
    drawn = np.array([both[0]["pearson"] - both[1]["pearson"] for both in slow])
    paired = found["a"]["pearson"] - found["b"]["pearson"]
    wanted = t_interval(paired.value, drawn, 30, np.positive, np.positive, 0.9)
    assert paired.interval(0.9) == pytest.approx(wanted, abs=0.03)


def test_a_resample_of_every_group_once_gives_the_metrics_themselves():
    actual, systems, groups = scores(12, 3, seed=0)
    whole = intervals._scores_of(intervals._moments(actual, systems["b"], groups).sum(axis=0, keepdims=True))
    report = sentiment.report(actual, systems["b"])
    assert {name: float(values[0]) for name, values in whole.items()} == pytest.approx(
        {name: report[name] for name in ("pearson", "ccc", "mae", "mse")}
    )


def test_what_is_undefined_in_every_resample_has_no_interval():
    actual, _, groups = scores(12, 3, seed=0)
    found = intervals.resampled_scores(actual, {"constant": np.zeros((1, 36))}, groups, 200, seed=0)
    assert found["constant"]["pearson"].interval(0.95) is None
    assert found["constant"]["mae"].interval(0.95) is not None


def test_a_perfect_correlation_is_inside_its_interval():
    actual, _, groups = scores(12, 3, seed=0)
    found = intervals.resampled_scores(actual, {"same": actual[None]}, groups, 200, seed=0)["same"]
    low, high = limits(found["pearson"])
    assert 0.999 < low <= found["pearson"].value <= high <= 1 + 1e-12
    assert limits(found["mae"]) == (0, 0)


def test_a_difference_of_samples_has_the_groups_of_the_smaller_one():
    small, large = (Resampled(0.5, np.array([0.4, 0.6]), count, count / 2, intervals.SHARE) for count in (7, 90))
    apart = large - small
    assert (apart.groups, apart.effective, apart.scale) == (7, 3.5, DIFFERENCE)
    assert (large - small).interval(0.95) is None


def test_unequal_groups_count_as_fewer():
    assert intervals.effective_groups(np.repeat(["a", "b", "c"], 5)) == pytest.approx(3)
    # Of 6, 2, 1 and 1 rows: 10 * 10 / (36 + 4 + 1 + 1).
    assert intervals.effective_groups(np.repeat(["a", "b", "c", "d"], [6, 2, 1, 1])) == pytest.approx(100 / 42)


def test_a_warning_says_what_few_or_unequal_groups_mean():
    few = intervals.few_groups_warnings
    assert few(np.arange(40) % 20, "the test rows") == []
    assert few(np.zeros(4), "x") == ["only 1 group among x: too few for intervals, which need 8"]
    assert few(np.arange(60) % 12, "x") == ["only 12 groups among x: the intervals are rough"]
    # 24 groups, one of which has 39 of 62 rows: 62 * 62 / (39 * 39 + 23) = 2.49.
    assert few(np.maximum(np.arange(62) - 38, 0), "x") == [
        "24 groups among x, which are so unequal that they count as 2.5: "
        "too few for intervals, which need 8, and 4 of one size"
    ]


def test_groups_of_which_one_has_most_rows_have_no_interval():
    actual, a, b, _ = posts(100, 20, seed=1)
    groups = np.maximum(np.arange(100) - 70, 0)  # one of 71 rows, 29 of one: they count as 2.0
    assert resampled_macro_f1(actual, a, groups, 3, 300, seed=0).interval(0.95) is None
    assert resampled_macro_f1_difference(actual, a, b, groups, 3, 300, seed=0).interval(0.95) is None


def test_intervals_of_unequal_groups_cover_the_truth_as_often_as_they_promise():
    """Sizes whose logarithms have a deviation of 1.2; half of all answers are right, group by group another share."""
    generator, held, counted = np.random.default_rng(3), 0, 0
    while counted < 400:
        sizes = np.maximum(np.round(8 * generator.lognormal(0, 1.2, size=15)), 1).astype(int)
        group = np.repeat(np.arange(15), sizes)
        right = generator.random(len(group)) < generator.beta(2, 2, size=15)[group]
        actual = generator.integers(0, 2, size=len(group))
        found = resampled_macro_f1(actual, np.where(right, actual, 1 - actual), group, 2, 200, seed=0)
        if (interval := found.interval(0.95)) is not None:
            counted += 1
            held += interval[0] <= 0.5 <= interval[1]
    assert 0.93 <= held / counted <= 0.99


@pytest.mark.parametrize(("groups", "least"), [(8, 0.92), (20, 0.92)])
def test_intervals_of_correlations_and_errors_cover_the_truth(groups: int, least: float):
    """Scores of variance 2 and errors of variance 1, independent: r is 2 / sqrt(2 * 3), the mean error sqrt(2 / pi)."""
    generator = np.random.default_rng(1)
    group, held = np.repeat(np.arange(groups), 10), {"pearson": 0, "mae": 0}
    truth = {"pearson": 2 / np.sqrt(2 * 3), "mae": np.sqrt(2 / np.pi)}
    for _ in range(300):
        actual = generator.normal(size=groups)[group] + generator.normal(size=len(group))
        wrong = np.sqrt(0.5) * (generator.normal(size=groups)[group] + generator.normal(size=len(group)))
        found = intervals.resampled_scores(actual, {"a": (actual + wrong)[None]}, group, 200, seed=0)["a"]
        for metric, value in truth.items():
            low, high = limits(found[metric])
            held[metric] += low <= value <= high
    assert all(least <= count / 300 <= 0.98 for count in held.values())


def test_the_size_of_a_chunk_changes_no_resample_of_scores(monkeypatch: pytest.MonkeyPatch):
    actual, systems, groups = scores(20, 3, seed=0)
    first = intervals.resampled_scores(actual, systems, groups, 99, seed=5)["a"]["pearson"].draws
    monkeypatch.setattr(intervals, "CHUNK_CELLS", 1)
    again = intervals.resampled_scores(actual, systems, groups, 99, seed=5)["a"]["pearson"].draws
    assert again == pytest.approx(first, abs=1e-12)


def test_with_one_row_a_group_the_permutation_test_is_the_plain_one():
    actual, systems, _ = scores(40, 1, seed=6)
    own = {"a": systems["a"][:1], "noise": np.random.default_rng(3).normal(size=(1, 40))}
    found = intervals.permutation_p(actual, own, np.arange(40), 4000, seed=0)
    for name, predicted in own.items():
        wanted = stats.permutation_test(
            (actual,),
            lambda shuffled, predicted=predicted: stats.pearsonr(shuffled, predicted[0])[0],
            permutation_type="pairings",
            alternative="greater",
            n_resamples=2000,
            rng=np.random.default_rng(0),
        ).pvalue
        assert found[name] == pytest.approx(wanted, abs=0.04)
    assert found["a"] < 0.01


def test_what_correlates_the_wrong_way_round_is_no_success():
    actual, systems, groups = scores(40, 2, seed=6)
    found = intervals.permutation_p(actual, {"turned": -systems["a"]}, groups, 500, seed=0)
    assert found["turned"] == 1.0


def test_rows_of_a_group_that_are_alike_are_no_evidence_but_groups_are():
    generator = np.random.default_rng(0)
    group = np.repeat(np.arange(8), 40)
    small = []
    for _ in range(60):
        actual, predicted = (generator.normal(size=8)[group] + 0.1 * generator.normal(size=320) for _ in range(2))
        small.append(intervals.permutation_p(actual, {"a": predicted[None]}, group, 200, seed=1)["a"] < 0.1)
    # Eight groups, not 320 rows: as if rows were exchangeable, almost every pair would look significant.
    assert np.mean(small) < 0.25
    actual, systems, groups = scores(40, 3, seed=1)
    assert intervals.permutation_p(actual, systems, groups, 500, seed=0)["a"] == pytest.approx(1 / 501)


def test_a_constant_has_no_permutation_test():
    actual, systems, groups = scores(10, 2, seed=0)
    systems["constant"] = np.ones((2, 20))
    assert set(intervals.permutation_p(actual, systems, groups, 100, seed=0)) == {"a", "b"}
    assert intervals.permutation_p(np.zeros(20), systems, groups, 100, seed=0) == {}


@pytest.mark.parametrize("right", [True, False])
def test_a_perfect_score_of_few_groups_is_not_certain_and_nor_is_none(right: bool):
    classes, groups = np.arange(24) % 3, np.repeat(np.arange(12), 2)
    predicted = classes if right else (classes + 1) % 3
    found = limits(resampled_macro_f1(classes, predicted, groups, 3, 500, seed=0))
    exact = stats.binomtest(12 if right else 0, 12).proportion_ci(0.95)
    assert found == pytest.approx((exact.low, exact.high))
