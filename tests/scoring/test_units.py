import numpy as np
import pytest

from pipeline.scoring.units import score_unit


@pytest.mark.parametrize(
    ("deviation", "unit"), [(1.0, 1.0), (0.33, 1.0), (0.3, 0.1), (3.1, 1.0), (3.3, 10.0), (28.9, 10.0), (2e-3, 1e-3)]
)
def test_the_unit_is_the_next_power_of_ten(deviation: float, unit: float) -> None:
    assert score_unit(50.0 + deviation * np.array([-1.0, 1.0, 1.0, -1.0])) == pytest.approx(unit, rel=1e-12)


def test_scores_that_are_not_known_or_all_the_same_have_none() -> None:
    assert score_unit(np.array([np.nan, -20.0, 20.0, np.nan])) == 10.0
    for scores in ([], [5.0], [np.nan], [3e4, 3e4]):
        assert score_unit(np.array(scores)) == 1.0
