import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as known

from pipeline.scoring import sentiment

GENERATOR = np.random.default_rng(0)
ACTUAL = np.round(GENERATOR.uniform(-3, 3, size=200), 1)
PREDICTED = 0.5 * ACTUAL + GENERATOR.normal(size=200)


def test_correlations_and_errors_equal_scipy_and_scikit_learn():
    assert sentiment.pearson(ACTUAL, PREDICTED) == pytest.approx(stats.pearsonr(ACTUAL, PREDICTED)[0])
    assert sentiment.spearman(ACTUAL, PREDICTED) == pytest.approx(stats.spearmanr(ACTUAL, PREDICTED)[0])
    assert sentiment.mse(ACTUAL, PREDICTED) == pytest.approx(known.mean_squared_error(ACTUAL, PREDICTED))
    assert sentiment.mae(ACTUAL, PREDICTED) == pytest.approx(known.mean_absolute_error(ACTUAL, PREDICTED))


def test_concordance_falls_with_an_offset_and_with_a_wrong_scale():
    actual = np.array([-1.0, 0.0, 1.0])
    assert sentiment.ccc(actual, actual) == pytest.approx(1.0)
    assert sentiment.ccc(actual, -actual) == pytest.approx(-1.0)
    # Variances 2/3 and 2/3, covariance 2/3, means 1 apart: 2 · 2/3 / (4/3 + 1).
    assert sentiment.ccc(actual, actual + 1) == pytest.approx(4 / 7)
    # Variances 2/3 and 8/3, covariance 4/3.
    assert sentiment.ccc(actual, 2 * actual) == pytest.approx(0.8)
    assert sentiment.ccc(actual, np.full(3, 0.5)) == 0.0


def test_signs_and_classes_by_hand():
    actual = np.array([-2.0, -0.4, 0.0, 0.6, 3.0, 1.0])
    predicted = np.array([-1.9, 0.2, -0.1, 0.7, 4.2, 0.0])
    # Without the row whose score is 0: right, wrong, right, right, and 0.0 is not positive: wrong.
    assert sentiment.acc2_nonzero(actual, predicted) == pytest.approx(3 / 5)
    # With it, from 0 on a score is not negative: right, wrong, wrong, right, right, right.
    assert sentiment.acc2_nonneg(actual, predicted) == pytest.approx(4 / 6)
    # -2 = -2, 0 = 0, 0 = 0, 1 = 1, 3 = 3 once clipped, 1 is not 0.
    assert sentiment.acc7(actual, predicted) == pytest.approx(5 / 6)
    told = actual != 0
    assert sentiment.f1_nonzero(actual, predicted) == pytest.approx(
        known.f1_score(actual[told] > 0, predicted[told] > 0, average="weighted")
    )
    assert sentiment.f1_nonneg(actual, predicted) == pytest.approx(
        known.f1_score(actual >= 0, predicted >= 0, average="weighted")
    )


@pytest.mark.parametrize("offset", [-9.0, -1.0, 0.0, 1.0, 9.0])  # from all negative to all positive
def test_f1_and_accuracy_of_signs_equal_scikit_learn(offset: float):
    told = ACTUAL != 0
    nonzero = known.f1_score(ACTUAL[told] > 0, PREDICTED[told] + offset > 0, average="weighted")
    assert sentiment.f1_nonzero(ACTUAL, PREDICTED + offset) == nonzero
    nonneg = known.f1_score(ACTUAL + offset >= 0, PREDICTED >= 0, average="weighted")
    assert sentiment.f1_nonneg(ACTUAL + offset, PREDICTED) == nonneg
    right = known.accuracy_score(ACTUAL[told] > 0, PREDICTED[told] + offset > 0)
    assert sentiment.acc2_nonzero(ACTUAL, PREDICTED + offset) == pytest.approx(right)
    right = known.accuracy_score(ACTUAL + offset >= 0, PREDICTED >= 0)
    assert sentiment.acc2_nonneg(ACTUAL + offset, PREDICTED) == pytest.approx(right)


def test_spread_and_slope_tell_timid_from_calibrated():
    assert sentiment.spread_ratio(ACTUAL, 0.1 * ACTUAL + 2) == pytest.approx(0.1)
    assert sentiment.slope(ACTUAL, 0.1 * ACTUAL + 2) == pytest.approx(10.0)
    assert sentiment.slope(ACTUAL, PREDICTED) == pytest.approx(np.polyfit(PREDICTED, ACTUAL, 1)[0])


@pytest.mark.parametrize("predicted", [np.full(200, 0.3), np.float32(0.3) + GENERATOR.normal(0, 1e-9, size=200)])
def test_a_constant_prediction_has_no_correlation_and_is_left_out_of_the_report(predicted: np.ndarray):
    found = sentiment.report(ACTUAL, predicted)
    assert set(sentiment.METRICS) - set(found) == {"pearson", "spearman", "slope"}
    assert found["spread_ratio"] == pytest.approx(0.0, abs=1e-6)
    assert np.isfinite(list(found.values())).all()


def test_scores_that_are_all_zero_have_no_signs_to_tell():
    found = sentiment.report(np.zeros(3), np.array([1.0, -1.0, 0.5]))
    undefined = {
        "pearson",
        "spearman",
        "acc2_nonzero",
        "f1_nonzero",
        "acc2_nonneg",
        "f1_nonneg",
        "acc7",
        "spread_ratio",
    }
    assert set(sentiment.METRICS) - set(found) == undefined
    assert sentiment.ccc(np.zeros(3), np.zeros(3)) is None


@pytest.mark.parametrize(
    ("lowest", "highest", "left_out"),
    [
        (-3, 3, set()),
        (-2.4, 1.2, set()),
        (-1, 1, {"acc7"}),
        (1, 5, {"acc7", "acc2_nonzero", "f1_nonzero", "acc2_nonneg", "f1_nonneg"}),
        (-3, 0, {"acc2_nonzero", "f1_nonzero"}),
    ],
)
def test_signs_and_seven_classes_are_left_out_of_scores_on_another_scale(
    lowest: float, highest: float, left_out: set[str]
):
    actual = np.linspace(lowest, highest, 30)
    assert set(sentiment.inapplicable_metrics(actual)) == left_out
    assert set(sentiment.METRICS) - set(sentiment.report(actual, actual + 0.1)) == left_out


def test_repeats_are_scored_one_by_one_and_averaged():
    both = sentiment.report(ACTUAL, np.stack([PREDICTED, -PREDICTED]))
    assert both["pearson"] == pytest.approx(0.0)
    each = [sentiment.mae(ACTUAL, predicted) for predicted in (PREDICTED, -PREDICTED)]
    assert both["mae"] == pytest.approx(np.mean(each))
    assert "pearson" not in sentiment.report(ACTUAL, np.stack([PREDICTED, np.zeros(200)]))


def test_group_means_by_hand():
    groups = np.array(["b", "a", "b", "c"])
    assert sentiment.group_means(np.array([1.0, 5.0, 3.0, 7.0]), groups).tolist() == [5.0, 2.0, 7.0]
    stacked = sentiment.group_means(np.array([[1.0, 5.0, 3.0, 7.0], [0.0, 0.0, 4.0, 1.0]]), groups)
    assert stacked.tolist() == [[5.0, 2.0, 7.0], [0.0, 2.0, 1.0]]
