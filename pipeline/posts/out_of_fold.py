"""How a specialist or the fusion does on the rows out of fold: what their stages write of it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.scoring import emotion
from pipeline.scoring.calibration import Calibration


@dataclass(frozen=True)
class OutOfFold:
    """Calibrated logits, float64 [n, K], of n rows that models had not seen, of the classes ``codes``, int [n]."""

    calibrated: np.ndarray
    predicted: np.ndarray
    codes: np.ndarray
    labels: tuple[str, ...]

    @staticmethod
    def of(logits: np.ndarray, codes: np.ndarray, labels: tuple[str, ...], calibration: Calibration) -> "OutOfFold":
        calibrated = calibration.calibrated(logits)
        return OutOfFold(calibrated, calibration.decide(calibrated), codes, labels)

    def metrics(self) -> dict[str, Any]:
        return emotion.report(self.calibrated, self.predicted, self.codes, self.labels)

    def confusion(self) -> pd.DataFrame:
        """A row each: its ``actual`` and its ``predicted`` label."""
        names = np.array(self.labels, dtype=object)
        return pd.DataFrame({"actual": names[self.codes], "predicted": names[self.predicted]})
