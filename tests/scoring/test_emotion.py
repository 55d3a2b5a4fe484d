import warnings

import numpy as np
import pytest
from sklearn import metrics
from sklearn.exceptions import UndefinedMetricWarning

from pipeline.scoring import emotion

LABELS = ("anger", "joy", "sadness", "surprise")


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    actual = generator.choice(4, size=300, p=[0.5, 0.3, 0.15, 0.05])
    return 1.5 * np.eye(4)[actual] + generator.gumbel(size=(300, 4)), actual


def test_softmax_matches_known_values_and_survives_huge_logits():
    given = np.log([[1.0, 2.0, 5.0]])
    assert emotion.softmax(given) == pytest.approx(np.array([[0.125, 0.25, 0.625]]))
    assert emotion.softmax(np.array([[1e5, 0.0, -1e5]], dtype=np.float32)).tolist() == [[1.0, 0.0, 0.0]]
    assert np.isfinite(emotion.log_probabilities(np.array([[1e5, 0.0, -1e5]]))).all()


def test_log_odds_are_those_of_the_softmax():
    shares = np.array([[0.125, 0.25, 0.625], [0.9, 0.06, 0.04]])
    odds = emotion.log_odds(np.log(shares) + np.array([[5.0], [-700.0]]), np.array([1, 0]))
    assert odds == pytest.approx(np.log([0.25 / 0.75, 0.9 / 0.1]))
    assert emotion.log_odds(np.array([[1e5, 0.0, 0.0]]), np.array([0])) == pytest.approx([1e5 - np.log(2)])


def test_confusion_has_actual_classes_in_rows():
    matrix = emotion.confusion(np.array([0, 0, 2]), np.array([1, 0, 2]), 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert matrix.dtype == np.int64


def test_report_equals_scikit_learn(scored: tuple[np.ndarray, np.ndarray]):
    logits, actual = scored
    predicted = logits.argmax(axis=1)
    report = emotion.report(1.7 * logits, predicted, actual, LABELS)
    assert report["n"] == 300
    assert report["macro_f1"] == pytest.approx(metrics.f1_score(actual, predicted, average="macro"))
    assert report["weighted_f1"] == pytest.approx(metrics.f1_score(actual, predicted, average="weighted"))
    assert report["accuracy"] == pytest.approx(metrics.accuracy_score(actual, predicted))
    assert report["log_loss"] == pytest.approx(metrics.log_loss(actual, emotion.softmax(1.7 * logits)))
    columns = metrics.precision_recall_fscore_support(actual, predicted)
    for name, column in zip(("precision", "recall", "f1", "support"), columns, strict=True):
        assert report[name] == pytest.approx(dict(zip(LABELS, np.asarray(column), strict=True)))


def test_macro_f1_of_many_matrices_equals_one_by_one():
    generator = np.random.default_rng(0)
    matrices = generator.integers(0, 3, size=(2, 50, 4, 4)) * (generator.random((2, 50, 4, 4)) < 0.3)
    matrices[..., 0, 0] += 1
    together = emotion.macro_f1_of(matrices)
    assert together.shape == (2, 50)
    for at in np.ndindex(2, 50):
        cells = np.repeat(np.arange(16), matrices[at].ravel())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedMetricWarning)
            assert together[at] == pytest.approx(metrics.f1_score(cells // 4, cells % 4, average="macro"))


def test_a_class_without_rows_and_predictions_is_left_out_but_one_without_a_hit_counts_zero():
    actual, predicted = np.array([0, 0, 1, 1]), np.array([0, 0, 0, 0])
    # Class 0: precision 1/2, recall 1, F1 2/3. Class 1: no hit, 0. Classes 2 and 3 do not occur.
    assert emotion.macro_f1(actual, predicted, 4) == pytest.approx(1 / 3)
    report = emotion.report(np.eye(4)[predicted], predicted, actual, LABELS)
    assert report["f1"] == pytest.approx({"anger": 2 / 3, "joy": 0.0})
    assert report["precision"] == {"anger": 0.5}
    assert report["recall"] == {"anger": 1.0, "joy": 0.0}
    assert report["support"] == {"anger": 2, "joy": 2, "sadness": 0, "surprise": 0}


def test_an_empty_matrix_has_no_macro_f1():
    assert np.isnan(emotion.macro_f1_of(np.zeros((3, 3), dtype=int)))


def test_centred_log_probabilities_differ_from_logits_by_a_constant_a_row() -> None:
    logits = np.array([[1.0, 2.0, 6.0], [-1e5, 0.0, 1e5]])
    assert emotion.centred_log_probabilities(logits) == pytest.approx(np.array([[-2.0, -1.0, 3.0], [-1e5, 0.0, 1e5]]))
