"""How far a score may be off: intervals around the fine-tuned model's scores, and whether they keep their promise.

Split conformal prediction: an interval reaches as far to both sides as nearly all residuals of calibration rows. In a
holdout these are the validation rows, predicted by models of inner folds that were not fitted on them; what was chosen
on them (the candidate, the scale of its output) makes residuals a little small, so the promise holds only nearly.
Under cross-validation they are the rows that each fold left out, residuals of models that are alike but not the same as
the final one, as in the jackknife: nearly the promise again, and `evaluate` measures what became of it.

Sources: Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005; Barber, Candès, Ramdas, Tibshirani,
"Predictive inference with the jackknife+", Annals of Statistics 2021.
"""

import math

import numpy as np
import pandas as pd

from pipeline.core.schemas import FINAL, repeat_of
from pipeline.scoring.conformal import conformal_quantile


def residuals(predictions: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Absolute residuals of calibration rows: columns ``fold, sample_id, residual``.

    Args:
        predictions: of the fine-tuned models with all they know, as ``schemas.SCORES_TABLE``.
        table: the target's rows, with ``sample_id`` and ``score``.
    """
    final = predictions["fold"] == FINAL
    left_out = predictions[(predictions["split"] == "test") & ~final]
    kept = left_out if len(left_out) else predictions[(predictions["split"] == "val") & final]
    actual = table.set_index("sample_id")["score"].loc[kept["sample_id"]].to_numpy(dtype=np.float64)
    return kept[["fold", "sample_id"]].assign(residual=np.abs(kept["score"].to_numpy() - actual))


def calibration(predictions: pd.DataFrame, table: pd.DataFrame) -> np.ndarray:
    """Ascending absolute residuals, float64 [n rows]: of ``residuals``, thinned where several repeats have a row."""
    return _by_row(residuals(predictions, table))


def _by_row(residuals_of_rows: pd.DataFrame) -> np.ndarray:
    """As many order statistics as there are rows, for residuals of a row are no two pieces of evidence.

    Not a row's mean over repeats, whose errors are smaller than those of one model.
    """
    ordered, rows = np.sort(residuals_of_rows["residual"].to_numpy()), residuals_of_rows["sample_id"].nunique()
    return ordered[-(-np.arange(1, rows + 1) * len(ordered) // max(rows, 1)) - 1]


def coverage_metrics(predictions: pd.DataFrame, table: pd.DataFrame, coverage: float) -> dict[str, float]:
    """How often intervals hold the score of rows that neither the model nor the calibration saw.

    In a holdout the test rows; under cross-validation the rows of each fold, by intervals from the residuals of the
    repeat's other folds. Empty where there are too few calibration rows.
    """
    known = residuals(predictions, table)
    rows = predictions[predictions["split"] == "test"]
    actual = table.set_index("sample_id")["score"].loc[rows["sample_id"]].to_numpy(dtype=np.float64)
    off = np.abs(rows["score"].to_numpy() - actual)
    if set(rows["fold"]) == {FINAL}:
        width = conformal_quantile(_by_row(known), coverage)
        widths = np.full(len(rows), width)
    else:
        widths = _widths_by_other_folds(rows, known, coverage)
    if not len(rows) or not np.isfinite(widths).all():
        return {}
    return {"target": coverage, "coverage": float(np.mean(off <= widths)), "mean_width": float(2 * widths.mean())}


def _widths_by_other_folds(rows: pd.DataFrame, known: pd.DataFrame, coverage: float) -> np.ndarray:
    """For each row half the width of its interval, from rows that other folds of its repeat left out."""
    repeats = known["fold"].map(repeat_of)
    widths = {
        fold: conformal_quantile(_by_row(known[(repeats == repeat_of(fold)) & (known["fold"] != fold)]), coverage)
        for fold in set(rows["fold"])
    }
    return np.array([widths.get(fold, math.inf) for fold in rows["fold"]])
