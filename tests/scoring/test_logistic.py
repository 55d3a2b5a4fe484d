import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from pipeline.scoring import logistic


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("sparse", [False, True])
def test_the_softmax_of_the_logits_are_the_probabilities_of_scikit_learn(classes: int, sparse: bool):
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(200, 6))
    actual = (rows[:, :classes] + generator.gumbel(size=(200, classes))).argmax(axis=1)
    weights, bias = logistic.fit(csr_array(rows) if sparse else rows, actual, classes, 0.5)
    known = LogisticRegression(C=0.5, max_iter=2000).fit(rows, actual).predict_proba(rows)
    assert softmax(rows @ weights.T + bias, axis=1) == pytest.approx(known, abs=1e-4)


@pytest.mark.parametrize("classes", [2, 3])
def test_more_columns_than_rows_give_the_same_model(classes: int):
    generator = np.random.default_rng(1)
    rows = generator.normal(size=(40, 200)) + 1.0
    actual = np.arange(40) % classes
    weights, bias = logistic.fit(rows, actual, classes, 0.01)
    known = LogisticRegression(C=0.01, max_iter=5000, tol=1e-8).fit(rows, actual)
    unseen = generator.normal(size=(30, 200))
    assert softmax(unseen @ weights.T + bias, axis=1) == pytest.approx(known.predict_proba(unseen), abs=1e-3)


@pytest.mark.parametrize("width", [6, 200])
def test_a_design_that_serves_several_strengths_gives_what_each_alone_gives(width: int):
    generator = np.random.default_rng(2)
    rows, actual = generator.normal(size=(40, width)), np.arange(40) % 3
    design = logistic.design(rows)
    assert design.width == width and len(design.rows) == 40 and design.rows.shape[1] == min(width, 40)
    for strength in (0.01, 1.0):
        for shared, alone in zip(
            logistic.fit(design, actual, 3, strength), logistic.fit(rows, actual, 3, strength), strict=True
        ):
            assert np.array_equal(shared, alone)


def test_a_class_without_rows_is_never_predicted():
    rows = np.array([[0.0], [1.0], [0.1], [0.9]])
    for actual in ([0, 2, 0, 2], [1, 1, 1, 1]):
        weights, bias = logistic.fit(rows, np.array(actual), 3, 1.0)
        assert set((rows @ weights.T + bias).argmax(axis=1)) <= set(actual)
        assert np.isfinite(weights).all()
