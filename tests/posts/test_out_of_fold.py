"""What is written of rows out of fold, against a case worked out by hand."""

import numpy as np
import pytest

from pipeline.posts.out_of_fold import OutOfFold
from pipeline.scoring.calibration import Calibration


def test_rows_are_decided_and_measured_as_calibrated():
    logits = np.array([[0.0, 1.0], [1.0, 0.0], [0.2, 0.0]], dtype=np.float32)
    # The bias turns nothing; the offset turns the last row, whose classes are .2 apart.
    calibration = Calibration((1.0, 1.0), (0.0, 0.1), (0.0, 0.3))
    rows = OutOfFold.of(logits, np.array([1, 0, 1]), ("Anger", "Joy"), calibration)
    assert rows.confusion().to_dict("list") == {
        "actual": ["Joy", "Anger", "Joy"],
        "predicted": ["Joy", "Anger", "Joy"],
    }
    assert rows.calibrated == pytest.approx(np.array([[0.0, 1.1], [1.0, 0.1], [0.2, 0.1]]), abs=1e-6)
    assert rows.metrics()["accuracy"] == 1.0
    by_hand = np.mean(np.log1p(np.exp([-1.1, -0.9, 0.1])))
    assert rows.metrics()["log_loss"] == pytest.approx(by_hand, abs=1e-5)
