"""Intervals of scores: which rows calibrate them, and what share of scores they hold, counted by hand."""

import numpy as np
import pandas as pd
import pytest

from pipeline.scoring.score_intervals import calibration, coverage_metrics

TABLE = pd.DataFrame({"sample_id": list("abcdefgh"), "score": [0.0, 1.0, 2.0, 3.0, -1.0, -2.0, 0.5, 1.5]})


def rows(of: list[tuple[str, str, str, float]]) -> pd.DataFrame:
    """``fold, sample_id, split, off``: predictions that lie ``off`` above the score."""
    table = pd.DataFrame(of, columns=["fold", "sample_id", "split", "off"])
    actual = TABLE.set_index("sample_id")["score"].loc[table["sample_id"]].to_numpy()
    return table.assign(score=actual + table["off"]).drop(columns="off")


HOLDOUT = rows(
    [
        ("final", "a", "train", 9.0),
        ("final", "b", "val", 0.2),
        ("final", "c", "val", -0.4),
        ("final", "d", "val", 0.1),
        ("final", "e", "test", 0.3),
        ("final", "f", "test", -0.5),
    ]
)
FOLDS = rows(
    [
        ("repeat-0.fold-0", "a", "test", 0.1),
        ("repeat-0.fold-0", "b", "test", 0.3),
        ("repeat-0.fold-0", "c", "val", 9.0),
        ("repeat-0.fold-1", "c", "test", -0.2),
        ("repeat-0.fold-1", "d", "test", 0.6),
        ("repeat-1.fold-0", "a", "test", 0.5),
        ("repeat-1.fold-0", "c", "test", 0.2),
        ("repeat-1.fold-1", "b", "test", 0.1),
        ("repeat-1.fold-1", "d", "test", 0.2),
        ("final", "a", "train", 9.0),
    ]
)


def test_a_holdout_is_calibrated_on_the_validation_rows() -> None:
    np.testing.assert_allclose(calibration(HOLDOUT, TABLE), [0.1, 0.2, 0.4])


def test_cross_validation_on_the_rows_that_folds_left_out_thinned_to_one_a_row() -> None:
    # Of .1 .1 | .2 .2 | .2 .3 | .5 .6 the upper of each pair, for four rows were left out twice.
    np.testing.assert_allclose(calibration(FOLDS, TABLE), [0.1, 0.2, 0.3, 0.6])


def test_repeats_do_not_narrow_the_intervals() -> None:
    rng = np.random.default_rng(0)
    ids = [f"row-{at}" for at in range(400)]
    actual, spread = rng.normal(size=400), 0.6
    table = pd.DataFrame({"sample_id": ids, "score": actual})
    predictions = pd.concat(
        pd.DataFrame(
            {
                "fold": f"repeat-{repeat}.fold-0",
                "sample_id": ids,
                "split": "test",
                "score": actual + rng.normal(0, spread, 400),
            }
        )
        for repeat in range(10)
    )
    # Of a normal error nine in ten are within 1.645 deviations; of the mean of ten absolute errors, within .98 of one.
    width = calibration(predictions, table)[int(0.9 * 401) - 1]
    assert width == pytest.approx(1.645 * spread, rel=0.06)


def test_coverage_of_a_holdout() -> None:
    # Of 3 residuals the ceil(4 * .7) = 3rd, 0.4: it holds e, which is 0.3 off, and not f, which is 0.5 off.
    assert coverage_metrics(HOLDOUT, TABLE, 0.7) == pytest.approx({"target": 0.7, "coverage": 0.5, "mean_width": 0.8})


def test_coverage_of_folds_is_measured_by_the_other_folds_of_the_repeat() -> None:
    # At one half of 2 residuals the ceil(3 * .5) = 2nd. In the repeat 0: fold 0 by 0.6, fold 1 by 0.3; in the repeat 1:
    # fold 0 by 0.2, fold 1 by 0.5. Held are a, b, c; not d; not a (0.5); c (0.2); b, d.
    held = coverage_metrics(FOLDS, TABLE, 0.5)
    assert held["coverage"] == pytest.approx(6 / 8)
    assert held["mean_width"] == pytest.approx(2 * np.mean([0.6, 0.6, 0.3, 0.3, 0.2, 0.2, 0.5, 0.5]))


def test_too_few_rows_promise_nothing() -> None:
    assert coverage_metrics(HOLDOUT, TABLE, 0.9) == {}
    assert coverage_metrics(FOLDS, TABLE, 0.9) == {}


def test_intervals_hold_as_many_scores_as_they_promise() -> None:
    rng = np.random.default_rng(0)
    count = 4000
    ids = [f"r{at}" for at in range(count)]
    table = pd.DataFrame({"sample_id": ids, "score": rng.normal(size=count)})
    off = rng.standard_t(4, size=count)
    made = pd.DataFrame({"sample_id": ids, "score": table["score"] + off, "fold": "final"})
    made["split"] = np.where(np.arange(count) < 500, "val", "test")
    held = coverage_metrics(made, table, 0.9)
    assert held["coverage"] == pytest.approx(0.9, abs=0.02)
