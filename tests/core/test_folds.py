"""Folds by the number that each row has."""

import numpy as np

from pipeline.core.folds import folds_of


def test_each_row_is_held_out_in_the_fold_of_its_number():
    rows, numbers = np.array([3, 5, 8, 9]), np.array([1, 0, 1, 0])
    first, second = folds_of(rows, numbers)
    assert first.held_out.tolist() == second.train.tolist() == [5, 9]
    assert second.held_out.tolist() == first.train.tolist() == [3, 8]
