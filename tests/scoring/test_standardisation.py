"""Columns on one scale, as arrays and within a net: by hand, and whatever the unit."""

import numpy as np
import pytest
import torch

from pipeline.nets import standardisation as of_tensors
from pipeline.scoring import standardisation as of_arrays

ROWS = np.array([[1.0, 5.0, 0.0, 2.0], [3.0, 5.0, 0.0, np.nan], [8.0, 5.0, 0.0, 4.0]], dtype=np.float32)


@pytest.mark.parametrize("unit", [1e-12, 1e-7, 1.0, 1e9])
def test_mean_and_deviation_follow_the_unit_and_constants_stay(unit: float) -> None:
    rows = ROWS * np.float32(unit)
    mean, scale = of_arrays.standardisation(rows)
    np.testing.assert_allclose(mean, np.array([4, 5, 0, 3]) * unit, rtol=1e-5)
    np.testing.assert_allclose(scale, [np.sqrt(26 / 3) * unit, 1, 1, unit], rtol=1e-5)
    np.testing.assert_allclose(
        of_arrays.standardised(rows, mean, scale)[:, [0, 3]], [[-1.019, -1], [-0.34, 0], [1.359, 1]], atol=1e-3
    )
    within = of_tensors.standardisation(torch.from_numpy(rows))
    for made, by_hand in zip(within, (mean, scale), strict=True):
        np.testing.assert_allclose(made, by_hand, rtol=1e-5)


def test_a_column_that_rounding_alone_moves_is_constant() -> None:
    rows = np.array([[1000.0], [1000.0001], [1000.0]], dtype=np.float32)
    assert of_arrays.standardisation(rows)[1] == 1 and of_tensors.standardisation(torch.from_numpy(rows))[1] == 1
