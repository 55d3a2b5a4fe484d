"""Multinomial logistic regression, solved to its optimum, as weights that any linear layer can hold."""

import numpy as np
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

ITERATIONS = 2000
NEVER = -20.0
"""Logit of a class without a training row, below that of any other."""


def fit(
    rows: np.ndarray | csr_array, actual: np.ndarray, classes: int, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weights float64 [classes, width] and biases float64 [classes] of the likeliest model with an L2 penalty.

    No class is weighted, so that the softmax of the logits are probabilities: which class to decide for is another
    question, see ``scoring.calibration``.

    Args:
        rows: [n, width], dense or sparse, columns on one scale.
        actual: int [n]; of one class alone, that class is all there is.
        strength: scikit-learn's C, the inverse of the penalty.
    """
    weights, bias = np.zeros((classes, rows.shape[1])), np.full(classes, NEVER)
    if len(np.unique(actual)) < 2:
        bias[actual[:1]] = 0.0
        return weights, bias
    # With more threads these small products wait for each other, ten times as long where another process is at work.
    with threadpool_limits(limits=1):
        return _solved(rows, actual, weights, bias, strength)


def _solved(
    rows: np.ndarray | csr_array, actual: np.ndarray, weights: np.ndarray, bias: np.ndarray, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    basis = None
    if isinstance(rows, np.ndarray) and len(rows) < rows.shape[1]:
        # The optimum lies in the span of the rows (the representer theorem: Kimeldorf and Wahba 1971), so it is sought
        # among as many columns as there are rows: the same model, in a fraction of the time.
        left, spread, basis = np.linalg.svd(rows, full_matrices=False)
        rows = left * spread
    model = LogisticRegression(C=strength, max_iter=ITERATIONS).fit(rows, actual)
    coefficients = model.coef_ if basis is None else model.coef_ @ basis
    if len(model.classes_) == 2:  # scikit-learn gives the second class's logit alone
        weights[model.classes_[1]], bias[model.classes_] = coefficients[0], [0.0, model.intercept_[0]]
    else:
        weights[model.classes_], bias[model.classes_] = coefficients, model.intercept_
    return weights, bias
