"""Multinomial logistic regression, solved to its optimum, as weights that any linear layer can hold."""

import numpy as np
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression

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
    model = LogisticRegression(C=strength, max_iter=ITERATIONS).fit(rows, actual)
    if len(model.classes_) == 2:  # scikit-learn gives the second class's logit alone
        weights[model.classes_[1]], bias[model.classes_] = model.coef_[0], [0.0, model.intercept_[0]]
    else:
        weights[model.classes_], bias[model.classes_] = model.coef_, model.intercept_
    return weights, bias
