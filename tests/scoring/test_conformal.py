from fractions import Fraction

import numpy as np
import pytest

from pipeline.scoring import conformal, emotion


def drawn(rows: int, seed: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and classes drawn from others: the model is wrong, and unlike so for each class."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(rows, classes))
    actual = (logits + np.linspace(-1, 1, classes) + generator.gumbel(size=(rows, classes))).argmax(axis=1)
    return emotion.softmax(3 * logits), actual


def test_thresholds_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.8, 0.2], [0.2, 0.8]])
    scores = conformal.class_scores(probabilities, np.array([0, 0, 0, 0, 1]))
    np.testing.assert_allclose(scores[0], [0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(scores[1], [0.2])
    # Class 0: ceil(5 * .8) = 4, the largest of four. Class 1: ceil(2 * .8) = 2 of one, so it cannot be ruled out.
    np.testing.assert_allclose(conformal.thresholds(scores, 0.8), [0.4, np.inf])
    # ceil(5 * .5) = 3; ceil(2 * .5) = 1.
    np.testing.assert_allclose(conformal.thresholds(scores, 0.5), [0.3, 0.2])


@pytest.mark.parametrize("coverage", ["0.5", "0.8", "0.9", "0.95", "0.99"])
def test_the_rank_is_that_of_exact_arithmetic(coverage: str):
    """The p-value form of the same rule: in the set unless fewer than alpha of the n + 1 rows are as strange."""
    exact = Fraction(coverage)
    for rows in range(120):
        ordered = np.arange(1, rows + 1, dtype=float)
        (found,) = conformal.thresholds([ordered], float(coverage))
        as_strange = {score: Fraction(int((ordered >= score).sum()) + 1, rows + 1) for score in ordered}
        kept = [score for score, share in as_strange.items() if share > 1 - exact]
        if Fraction(1, rows + 1) > 1 - exact:  # even a row stranger than all others is kept
            assert found == np.inf
            assert rows < conformal.rows_needed(float(coverage))
        else:
            assert found == max(kept)
            assert rows >= conformal.rows_needed(float(coverage))


def test_a_class_without_calibration_rows_is_in_every_set():
    limits = conformal.thresholds([np.array([]), np.linspace(0, 0.1, 50)], 0.9)
    np.testing.assert_array_equal(
        conformal.prediction_sets(np.array([[1e-9, 1.0]]), np.array([1]), limits), [[True, True]]
    )


def test_the_predicted_class_is_in_every_set():
    sets = conformal.prediction_sets(np.array([[0.5, 0.3, 0.2]]), np.array([1]), np.array([0.1, 0.1, 0.1]))
    np.testing.assert_array_equal(sets, [[False, True, False]])


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_every_class_is_covered_on_new_rows_though_the_model_is_wrong(coverage: float):
    """Over many draws the mean coverage of a class lies in [coverage, coverage + 1 / (n + 1)] by the theorem."""
    covered = np.zeros((40, 3))
    for seed in range(40):
        probabilities, actual = drawn(600, seed)
        limits = conformal.thresholds(conformal.class_scores(probabilities, actual), coverage)
        probabilities, actual = drawn(3000, 1000 + seed)
        sets = conformal.prediction_sets(probabilities, probabilities.argmax(axis=1), limits)
        report = conformal.coverage_report(sets, actual, "abc")
        covered[seed] = [report["class_coverage"][label] for label in "abc"]
    assert (covered.mean(axis=0) > coverage - 0.01).all()
    assert (covered.mean(axis=0) < coverage + 0.03).all()


def test_coverage_report_by_hand():
    sets = np.array([[True, False, False], [True, True, False], [False, True, True], [True, True, True]])
    report = conformal.coverage_report(sets, np.array([0, 0, 0, 2]), ["a", "b", "c"])
    assert report == {"coverage": 0.75, "mean_size": 2.0, "single": 0.25, "class_coverage": {"a": 2 / 3, "c": 1.0}}
