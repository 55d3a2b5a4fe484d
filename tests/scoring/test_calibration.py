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


@pytest.mark.parametrize("scale", [0.2, 1.0, 3.0, 30.0])
def test_the_temperature_by_which_logits_were_scaled_is_found_again(scale: float):
    logits, actual = drawn(20_000, scale)
    assert calibration.fit_temperature(logits, actual) == pytest.approx(scale, rel=0.05)


def test_no_other_temperature_is_likelier():
    logits, actual = drawn(500, 2.5)
    fitted = calibration.fit_temperature(logits, actual)
    grid = np.geomspace(calibration.LOWEST, calibration.HIGHEST, 500)
    best = min(emotion.log_loss(logits, actual, temperature) for temperature in grid)
    assert emotion.log_loss(logits, actual, fitted) <= best


@pytest.mark.parametrize(
    ("logits", "actual"),
    [
        pytest.param(np.empty((0, 3)), [], id="no rows"),
        pytest.param(np.full((5, 3), 2.0), [0, 1, 2, 0, 1], id="logits that say nothing"),
        pytest.param(np.eye(3), [0, 1, 2], id="every row right"),
        pytest.param(np.eye(3)[[0, 0]] * 1e4, [0, 0], id="one class, every row right, far apart"),
    ],
)
def test_rows_that_determine_no_temperature_leave_it_at_one(logits: np.ndarray, actual: list[int]):
    assert calibration.fit_temperature(logits, np.array(actual, dtype=int)) == 1.0


def test_a_model_that_is_always_wrong_is_made_as_unsure_as_possible():
    assert calibration.fit_temperature(np.eye(3) * 5, np.array([1, 2, 0])) == pytest.approx(100.0, rel=0.01)


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


def test_temperature_lowers_the_calibration_error_of_overconfident_logits():
    logits, actual = drawn(5000, 3.0)
    fitted = calibration.fit_temperature(logits, actual)
    before = calibration.expected_calibration_error(emotion.softmax(logits), actual, 15)
    after = calibration.expected_calibration_error(emotion.softmax(logits, fitted), actual, 15)
    assert before > 0.15
    assert after < 0.03
