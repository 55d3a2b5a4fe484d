"""Which candidate is taken, on logits of known quality."""

import numpy as np
import pandas as pd
import pytest

from pipeline.scoring import emotion, selection
from pipeline.scoring.calibration import fit

ACTUAL = np.random.default_rng(0).choice(3, size=600, p=[0.6, 0.3, 0.1])
GROUPS = np.arange(600) // 2
NOISE = np.random.default_rng(1).normal(size=(600, 3))


def logits(signal: float, noise: np.ndarray = NOISE) -> np.ndarray:
    return signal * np.eye(3)[ACTUAL] + np.log([0.6, 0.3, 0.1]) + noise


def as_good() -> np.ndarray:
    """Exactly as good as ``logits(1.5)``: the noise of each row is that of another row of its class."""
    elsewhere = NOISE.copy()
    for code in range(3):
        rows = np.flatnonzero(code == ACTUAL)
        elsewhere[rows] = NOISE[np.roll(rows, 1)]
    return logits(1.5, elsewhere)


def test_the_clearly_better_one_is_taken_though_it_is_not_the_simplest():
    choice = selection.choose(["plain", "good"], [logits(0.3), logits(2.0)], ACTUAL, GROUPS)
    assert choice.taken == 1
    assert choice.report()["taken"] == "good"
    assert "clearly behind in macro-F1: plain" in choice.report()["why"]


def test_of_two_that_are_as_good_the_simplest_is_taken():
    other = as_good()
    for names in (["a", "b"], ["b", "a"]):
        given = [logits(1.5), other] if names[0] == "a" else [other, logits(1.5)]
        assert selection.choose(names, given, ACTUAL, GROUPS).taken == 0


def test_a_favoured_one_is_taken_unless_it_is_clearly_behind():
    names, given = ["plain", "tuned", "other"], [logits(1.5), as_good(), logits(0.3)]
    choice = selection.choose(names, given, ACTUAL, GROUPS, "tuned")
    assert choice.taken == 1
    assert choice.report()["why"] == "favoured, and not clearly behind; clearly behind in macro-F1: other"
    worse = selection.choose(names, given, ACTUAL, GROUPS, "other")
    assert worse.report()["taken"] == "plain"
    assert worse.report()["why"].startswith("the simplest")
    first = selection.choose(names, given, ACTUAL, GROUPS, "plain")
    assert first.report()["why"].startswith("the simplest")


def test_one_candidate_is_the_only_one():
    choice = selection.choose(["alone"], [logits(1.0)], ACTUAL, GROUPS)
    assert choice.report()["why"] == "the only candidate"


def test_where_there_is_nothing_to_choose_the_given_calibration_decides():
    given = logits(1.5)
    calibration = fit(given, ACTUAL, GROUPS)
    choice = selection.without_rivals("alone", given, ACTUAL, calibration)
    again = selection.choose(["alone"], [given], ACTUAL, GROUPS)
    assert choice.calibration == calibration and choice.report() == again.report()


def test_logits_that_are_only_differently_scaled_are_the_same_candidate():
    choice = selection.choose(["a", "b"], [logits(1.5), 7 * logits(1.5) + [1, 0, -2]], ACTUAL, GROUPS)
    a, b = choice.tried.values()
    assert b["balanced_log_loss"] == pytest.approx(a["balanced_log_loss"], abs=2e-3)
    assert choice.taken == 0


def test_balanced_losses_by_hand():
    # Shares (3 + 1) / 6 and (1 + 1) / 6: a row whose logits are the log shares says nothing, so each costs log 2.
    actual = np.array([0, 0, 0, 1])
    given = np.tile(np.log([4 / 6, 2 / 6]), (4, 1))
    losses = selection.balanced_losses(given, actual)
    assert losses == pytest.approx(np.log(2) * np.array([1 / 6, 1 / 6, 1 / 6, 1 / 2]))
    assert losses.sum() == pytest.approx(np.log(2))


def test_the_errors_vary_by_groups():
    doubled = np.concatenate([logits(0.8), logits(0.8)])
    better = np.concatenate([logits(1.0), logits(1.0)])
    actual = np.concatenate([ACTUAL, ACTUAL])
    rows = selection.choose(["a", "b"], [doubled, better], actual, np.arange(1200))
    pairs = selection.choose(["a", "b"], [doubled, better], actual, np.tile(np.arange(600), 2))
    ratio = pairs.tried["a"]["macro_f1_error"] / rows.tried["a"]["macro_f1_error"]
    assert ratio == pytest.approx(2**0.5, rel=0.01)
    assert emotion.macro_f1(ACTUAL, logits(1.0).argmax(axis=1), 3) > 0  # the rows tell classes apart at all


OTHER = np.random.default_rng(2).normal(size=(600, 3))


def test_one_standard_error_behind_in_macro_f1_is_out():
    ratios = []
    for signal in (1.3, 1.4, 1.5, 1.55, 1.6, 1.65):
        weaker = selection.choose(["a", "b"], [logits(signal, OTHER), logits(1.5)], ACTUAL, GROUPS).tried["a"]
        ratios.append(weaker["macro_f1_behind"] / weaker["macro_f1_error"])
        assert ("loss_behind" in weaker) == (ratios[-1] <= 1)
    assert [ratio for ratio in ratios if 0.5 < ratio <= 1] and [ratio for ratio in ratios if 1 < ratio < 1.5]


def test_the_error_of_a_difference_of_losses_is_that_of_a_sum_over_groups():
    given = [logits(1.6, OTHER), logits(1.5)]
    choice = selection.choose(["a", "b"], given, ACTUAL, GROUPS)
    losses = [selection.balanced_losses(fit(of, ACTUAL, GROUPS).calibrated(of), ACTUAL) for of in given]
    weaker = int(losses[0].sum() < losses[1].sum())
    differences = pd.Series(losses[weaker] - losses[1 - weaker]).groupby(GROUPS).sum()
    tried = choice.tried["ab"[weaker]]
    assert tried["loss_behind"] == pytest.approx(differences.sum())
    assert tried["loss_error"] == pytest.approx(differences.std(ddof=1) * np.sqrt(300))
