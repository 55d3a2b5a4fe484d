import numpy as np
import pandas as pd
import pytest

from pipeline.scoring import calibration, emotion


def drawn(rows: int, scale: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are ``scale`` times too sure of labels drawn from their softmax."""
    generator = np.random.default_rng(seed)
    logits = 1.5 * generator.normal(size=(rows, 4))
    actual = (logits + generator.gumbel(size=(rows, 4))).argmax(axis=1)
    return scale * logits, actual


def alone(rows: int) -> np.ndarray:
    """Every row a group of its own."""
    return np.arange(rows)


@pytest.mark.parametrize("scale", [0.2, 1.0, 3.0, 30.0])
def test_the_scale_of_logits_that_are_too_sure_is_taken_back(scale: float):
    logits, actual = drawn(20_000, scale)
    fitted = calibration.fit(logits, actual, alone(20_000))
    assert np.array(fitted.scale) * scale == pytest.approx(np.ones(4), rel=0.06)
    assert np.array(fitted.bias) - np.mean(fitted.bias) == pytest.approx(np.zeros(4), abs=0.06)


def test_a_prior_that_was_shifted_is_shifted_back():
    logits, actual = drawn(20_000, 1.0)
    shift = np.array([1.0, -0.5, 0.0, 0.3])
    fitted = calibration.fit(logits + shift, actual, alone(20_000))
    shares = emotion.softmax(fitted.calibrated(logits + shift)).mean(axis=0)
    assert shares == pytest.approx(np.bincount(actual) / 20_000, abs=0.002)
    taken_back = np.array(fitted.bias) + np.array(fitted.scale) * shift
    assert taken_back - taken_back.mean() == pytest.approx(np.zeros(4), abs=0.08)


def test_no_step_away_is_likelier_under_the_priors():
    logits, actual = drawn(300, 2.5)
    fitted = calibration.fit(logits, actual, alone(300))

    def loss(scale: np.ndarray, bias: np.ndarray) -> float:
        # The common part of the scale is not seen from outside: it is what makes the priors cheapest.
        logs = np.log(scale)
        common = (
            logs.sum() / calibration.OWN_SPREAD**2 / (1 / calibration.COMMON_SPREAD**2 + 4 / calibration.OWN_SPREAD**2)
        )
        priors = (common / calibration.COMMON_SPREAD) ** 2 + (((logs - common) / calibration.OWN_SPREAD) ** 2).sum()
        priors += ((bias / calibration.BIAS_SPREAD) ** 2).sum()
        return 300 * emotion.log_loss(logits * scale + bias, actual) + priors / 2

    best = loss(np.array(fitted.scale), np.array(fitted.bias))
    generator = np.random.default_rng(1)
    for size in (0.3, 0.03, 0.003):
        for _ in range(50):
            scale = np.array(fitted.scale) * np.exp(size * generator.normal(size=4))
            assert loss(scale, np.array(fitted.bias) + size * generator.normal(size=4)) > best - 1e-3


@pytest.mark.parametrize(
    ("logits", "actual"),
    [
        pytest.param(np.full((5, 3), 2.0), [0, 1, 2, 0, 1], id="logits that say nothing"),
        pytest.param(np.eye(3), [0, 1, 2], id="every row right"),
        pytest.param(np.eye(3)[[0, 0]] * 1e4, [0, 0], id="one class, every row right, far apart"),
        pytest.param(5 * np.eye(3), [1, 2, 0], id="always wrong"),
    ],
)
def test_few_rows_ask_for_nothing_extreme(logits: np.ndarray, actual: list[int]):
    fitted = calibration.fit(logits, np.array(actual), alone(len(actual)))
    assert all(1e-4 < scale < 100 for scale in fitted.scale)
    assert all(abs(bias) < 5 for bias in fitted.bias)


def test_no_rows_leave_logits_as_they_are():
    assert calibration.fit(np.empty((0, 3)), np.empty(0, dtype=int), alone(0)) == calibration.identity_calibration(3)


def test_a_rare_class_is_decided_for_at_a_lower_probability():
    generator = np.random.default_rng(0)
    actual = generator.choice(3, size=4000, p=[0.75, 0.2, 0.05])
    logits = np.log([0.75, 0.2, 0.05]) + 1.2 * np.eye(3)[actual] + generator.normal(size=(4000, 3))
    fitted = calibration.fit(logits, actual, alone(4000))
    assert fitted.offset[0] == 0 < fitted.offset[1] < fitted.offset[2]
    sure = fitted.calibrated(logits)
    assert emotion.macro_f1(actual, fitted.decide(sure), 3) > emotion.macro_f1(actual, sure.argmax(axis=1), 3) + 0.02


@pytest.mark.parametrize(("signal", "seed"), [(1.2, 0), (0.6, 1), (0.3, 2), (0.15, 3), (3.0, 4)])
def test_as_much_of_a_class_s_rarity_is_added_as_is_not_clearly_behind(signal: float, seed: int):
    generator = np.random.default_rng(seed)
    actual = generator.choice(3, size=500, p=[0.75, 0.2, 0.05])
    logits = np.log([0.75, 0.2, 0.05]) + signal * np.eye(3)[actual] + generator.normal(size=(500, 3))
    fitted = calibration.fit(logits, actual, alone(500) // 2)
    rarity = -np.log((np.bincount(actual) + 1) / 503)
    rarity -= rarity.min()
    shares = [1.0, 0.75, 0.5, 0.25, 0.0]
    decided = [(fitted.calibrated(logits) + share * rarity).argmax(axis=1) for share in shares]
    scores = [emotion.macro_f1(actual, of, 3) for of in decided]
    compared = calibration.behind_in_macro_f1(decided, actual, alone(500) // 2, 3)
    assert [of.value for of in compared] == scores
    assert [of.behind.by for of in compared] == pytest.approx(max(scores) - np.array(scores))
    taken = next(share for share, of in zip(shares, compared, strict=True) if of.behind.by <= of.behind.error)
    assert np.array(fitted.offset) == pytest.approx(taken * rarity)


def test_one_group_has_no_standard_error_so_nothing_is_clear():
    actual, given = np.array([0, 1, 1, 0]), [np.array([0, 1, 1, 0]), np.array([0, 0, 1, 0])]
    best, other = calibration.behind_in_macro_f1(given, actual, np.zeros(4), 2)
    assert (best.value, best.behind.by, best.behind.error) == (1.0, 0.0, 0.0)
    assert other.behind.by == pytest.approx(1 - (0.8 + 2 / 3) / 2)
    assert not other.behind.clearly


def test_the_standard_error_of_a_difference_is_that_of_a_slow_jackknife():
    generator = np.random.default_rng(2)
    actual, groups = generator.integers(0, 3, 60), generator.integers(0, 12, 60)
    predicted = [np.where(generator.random(60) < share, actual, 0) for share in (0.9, 0.5)]
    best, other = calibration.behind_in_macro_f1(predicted, actual, groups, 3)
    assert (best.behind.by, best.behind.error) == (0.0, 0.0)
    assert other.behind.by == pytest.approx(best.value - other.value)
    left = []
    for group in range(12):
        kept = groups != group
        a, b = (emotion.macro_f1(actual[kept], of[kept], 3) for of in predicted)
        left.append(a - b)
    assert other.behind.error == pytest.approx(np.sqrt(11 / 12 * np.square(np.array(left) - np.mean(left)).sum()))


def test_expected_calibration_error_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.45, 0.55]])
    actual = np.array([0, 1, 1, 0])
    # Four bins: (.5, .75] holds .7 (right) and .55 (wrong): confidence .625, accuracy .5.
    #            (.75, 1] holds .9 (right) and .8 (wrong): confidence .85, accuracy .5.
    assert calibration.expected_calibration_error(probabilities, actual, 4) == pytest.approx(0.5 * 0.125 + 0.5 * 0.35)
    table = calibration.reliability(probabilities, actual, 4)
    wanted = pd.DataFrame(
        {
            "bin_low": [0.0, 0.25, 0.5, 0.75],
            "bin_high": [0.25, 0.5, 0.75, 1.0],
            "confidence": [np.nan, np.nan, 0.625, 0.85],
            "accuracy": [np.nan, np.nan, 0.5, 0.5],
            "count": [0, 0, 2, 2],
        }
    )
    pd.testing.assert_frame_equal(table, wanted)


def test_a_confidence_on_an_edge_belongs_to_the_lower_bin():
    table = calibration.reliability(np.array([[0.5, 0.5], [0.0, 1.0]]), np.array([0, 1]), 2)
    assert table["count"].tolist() == [1, 1]


def test_calibration_lowers_the_calibration_error_of_overconfident_logits():
    logits, actual = drawn(5000, 3.0)
    fitted = calibration.fit(logits, actual, alone(5000))
    before = calibration.expected_calibration_error(emotion.softmax(logits), actual, 15)
    after = calibration.expected_calibration_error(emotion.softmax(fitted.calibrated(logits)), actual, 15)
    assert before > 0.15
    assert after < 0.03


@pytest.mark.parametrize("scale", [0.2, 1.0, 5.0])
def test_the_calibrated_loss_does_not_hold_boldness_against_a_model(scale: float):
    logits, actual = drawn(5000, scale)
    loss = calibration.calibrated_log_loss(logits, actual)
    by = calibration.fit(logits, actual, alone(5000))
    assert loss == pytest.approx(emotion.log_loss(by.calibrated(logits), actual))
    assert loss == pytest.approx(emotion.log_loss(logits / scale, actual), abs=0.003)
