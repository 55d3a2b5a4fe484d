"""Which model of scores is taken, and what is said of it."""

import numpy as np
import pytest

from pipeline.scoring.score_selection import choose

GROUPS = np.repeat(np.array([f"g{number}" for number in range(50)]), 4)


def noisy(spread: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    actual = rng.normal(size=len(GROUPS))
    return actual, actual + spread * rng.normal(size=len(GROUPS))


def test_what_is_clearly_better_is_taken() -> None:
    actual, good = noisy(0.2, 1)
    bad = np.zeros(len(actual))
    taken, report = choose({"simple": bad, "intricate": good}, actual, GROUPS)
    assert taken == report["taken"] == "intricate"
    assert report["why"] == "the least error"
    assert report["judged_rows"] == 200
    assert "pearson" not in report["candidates"]["simple"]  # a constant has none
    of = report["candidates"]["intricate"]
    assert of["mse"] == pytest.approx(np.mean((good - actual) ** 2))
    assert of["pearson"] == pytest.approx(np.corrcoef(good, actual)[0, 1])


def test_of_two_that_differ_by_chance_the_simpler_is_taken() -> None:
    actual, one = noisy(0.5, 2)
    other = one + 0.02 * np.random.default_rng(3).normal(size=len(actual))
    least = min(("simple", one), ("intricate", other), key=lambda item: ((item[1] - actual) ** 2).sum())[0]
    taken, report = choose({"simple": one, "intricate": other}, actual, GROUPS)
    assert taken == "simple"
    assert least in report["why"] or report["why"] == "the least error"


def test_what_is_steadier_takes_the_place_of_another_unless_clearly_behind_it() -> None:
    actual, one = noisy(0.5, 2)
    alike, behind = one + 0.02 * np.random.default_rng(3).normal(size=len(actual)), noisy(0.9, 4)[1]
    assert choose({"one": one, "mean": alike}, actual, GROUPS)[0] == "one"
    taken, report = choose({"one": one, "mean": alike}, actual, GROUPS, {"one": "mean"})
    assert taken == "mean" and report["why"].startswith("steadier than one (")
    assert choose({"one": one, "mean": actual + behind}, actual, GROUPS, {"one": "mean"})[0] == "one"
    assert choose({"one": one}, actual, GROUPS, {"one": "mean"})[0] == "one"


def test_the_standard_error_lets_groups_vary_as_wholes() -> None:
    """Rows of a group that err alike say no more than one of them."""
    actual = np.zeros(len(GROUPS))
    errors = np.repeat(np.random.default_rng(4).normal(size=50) ** 2, 4)
    _, report = choose({"one": np.sqrt(errors)}, actual, GROUPS)
    assert report["candidates"]["one"]["mse_se"] == pytest.approx(errors[::4].std(ddof=1) / np.sqrt(50))


def test_one_group_shows_no_standard_error() -> None:
    _, report = choose({"one": np.ones(4)}, np.zeros(4), np.zeros(4))
    assert report["candidates"]["one"]["mse"] == 1.0 and "mse_se" not in report["candidates"]["one"]
