"""Multinomial logistic regression, solved to its optimum, as weights that any linear layer can hold."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

ITERATIONS = 2000
ABSENT_CLASS_LOGIT = -20.0
"""Logit of a class without a training row, below that of any other."""


@dataclass(frozen=True)
class Design:
    """Rows to regress on, [n, width or n], and, where they are fewer than their columns, the basis they are given in.

    The optimum lies in the span of the rows (the representer theorem: Kimeldorf and Wahba 1971), so it is sought among
    as many columns as there are rows: the same model, in a fraction of the time.

    Attributes:
        basis: [n, width], orthonormal rows; None: the rows have their own columns.
    """

    rows: np.ndarray | csr_array
    basis: np.ndarray | None = None

    @property
    def width(self) -> int:
        return self.rows.shape[1] if self.basis is None else self.basis.shape[1]


def design(rows: np.ndarray | csr_array) -> Design:
    """What ``fit`` regresses on; for who fits several strengths on the same rows. ``rows`` as of ``fit``."""
    if isinstance(rows, csr_array) or len(rows) >= rows.shape[1]:
        return Design(rows)
    with threadpool_limits(limits=1):
        basis, triangle = np.linalg.qr(rows.T)
    return Design(triangle.T, basis.T)


def fit(
    rows: np.ndarray | csr_array | Design, actual: np.ndarray, classes: int, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weights float64 [classes, width] and biases float64 [classes] of the likeliest model with an L2 penalty.

    No class is weighted, so that the softmax of the logits are probabilities: which class to decide for is another
    question, see ``scoring.calibration``.

    Args:
        rows: [n, width], dense or sparse, columns on one scale; or what ``design`` makes of them.
        actual: int [n]; of one class alone, that class is all there is.
        strength: scikit-learn's C, the inverse of the penalty.
    """
    prepared = rows if isinstance(rows, Design) else design(rows)
    weights, bias = np.zeros((classes, prepared.width)), np.full(classes, ABSENT_CLASS_LOGIT)
    if len(np.unique(actual)) < 2:
        bias[actual[:1]] = 0.0
        return weights, bias
    # With more threads these small products wait for each other, ten times as long where another process is at work.
    with threadpool_limits(limits=1):
        model = LogisticRegression(C=strength, max_iter=ITERATIONS).fit(prepared.rows, actual)
        coefficients = model.coef_ if prepared.basis is None else model.coef_ @ prepared.basis
    if len(model.classes_) == 2:  # scikit-learn gives the second class's logit alone
        weights[model.classes_[1]], bias[model.classes_] = coefficients[0], [0.0, model.intercept_[0]]
    else:
        weights[model.classes_], bias[model.classes_] = coefficients, model.intercept_
    return weights, bias
