"""The one-standard-error rule: the simplest choice is taken that is not behind the best by more than a standard error.

The best of several noisy figures is often best by luck, and what is simple carries over better to rows unlike these.

Sources: Breiman, Friedman, Olshen and Stone, "Classification and Regression Trees", 1984, section 3.4.3; Hastie,
Tibshirani and Friedman, "The Elements of Statistical Learning", 2nd edition 2009, section 7.10. There the standard
error is that of the best figure; here it is that of the difference to the best, on the same rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ROUNDING = 1e-9
"""A difference that all comes from one group is as large as its standard error, but for the last digits."""


@dataclass(frozen=True)
class Behind:
    """``by`` how much one choice is behind another, and the standard ``error`` of that difference.

    A single group does not show its error; it then counts as large as the difference, so that nothing is clear.
    """

    by: float
    error: float

    @property
    def clearly(self) -> bool:
        """Whether it is more than a standard error; what is no number is not clear."""
        return self.by > self.error * (1 + ROUNDING)


def behind(losses: np.ndarray, best: np.ndarray, groups: np.ndarray) -> Behind:
    """How far the sum of ``losses`` is above that of ``best``, both float64 [n] and of the same rows.

    Groups, [n] names, vary as wholes: the standard error of the sum of G differences is their sample deviation
    (divisor G - 1) times √G.
    """
    codes = np.unique(groups, return_inverse=True)[1]
    differences = np.bincount(codes, losses - best)
    by, count = float(differences.sum()), len(differences)
    return Behind(by, abs(by) if count < 2 else float(differences.std(ddof=1) * count**0.5))


def worthwhile(errors: Sequence[np.ndarray], groups: np.ndarray) -> int:
    """Which of several choices to take, of which the last is the plain one.

    The one of least error, if the plain one is clearly behind it.

    Args:
        errors: the squared errors of each choice on the same rows, float64 [n].
        groups: [n] names.
    """
    least = min(range(len(errors)), key=lambda at: errors[at].sum())
    return least if behind(errors[-1], errors[least], groups).clearly else len(errors) - 1


def simplest(errors: Sequence[np.ndarray], groups: np.ndarray) -> int:
    """Which of several choices to take, the simplest first: the first that is not clearly behind that of least error.

    Arguments as of ``worthwhile``.
    """
    least = min(errors, key=np.sum)
    return next(at for at, choice in enumerate(errors) if not behind(choice, least, groups).clearly)
