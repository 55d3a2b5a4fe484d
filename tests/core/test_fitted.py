from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.core.errors import InputError
from pipeline.core.fitted import compare_fitted, fitted_rows, read_fitted, write_fitted
from pipeline.core.schemas import FITTED_TABLE

SAMPLES = pd.DataFrame({"sample_id": ["a", "b", "c", "d"], "group_id": ["g", "g", "h", "i"], "label": "x"})


def test_rows_of_a_fold_by_their_role() -> None:
    rows = fitted_rows(SAMPLES, "final", np.array([3, 0]), np.array([2]))
    assert rows.columns.tolist() == FITTED_TABLE.names
    assert sorted(rows.itertuples(index=False, name=None)) == [
        ("final", "a", "g", "train"),
        ("final", "c", "h", "val"),
        ("final", "d", "i", "train"),
    ]


def test_what_is_written_comes_back_sorted_and_counts_the_final_model(tmp_path: Path) -> None:
    folds = [("fold-0", [1], [2]), ("final", [1, 0], [2])]
    rows = pd.concat([fitted_rows(SAMPLES, fold, np.array(train), np.array(val)) for fold, train, val in folds])
    fitted = write_fitted(tmp_path, rows)
    assert fitted.rows == 3
    again = read_fitted(tmp_path, fitted)
    assert again["sample_id"].tolist() == ["a", "b", "c", "b", "c"]
    assert again["fold"].tolist() == ["final"] * 3 + ["fold-0"] * 2


def test_fitted_rows_must_match_their_digest(tmp_path: Path) -> None:
    rows = fitted_rows(SAMPLES, "final", np.array([0]), np.array([1]))
    fitted = write_fitted(tmp_path, rows)
    write_fitted(tmp_path, rows.assign(sample_id=["b", "c"]))
    with pytest.raises(InputError, match="does not match the digest"):
        read_fitted(tmp_path, fitted)
    others, digest_matches = compare_fitted(tmp_path, fitted)
    assert others["sample_id"].tolist() == ["b", "c"]
    assert not digest_matches


def test_a_model_may_have_been_fitted_on_nothing(tmp_path: Path) -> None:
    nothing = np.array([], dtype=int)
    fitted = write_fitted(tmp_path, fitted_rows(SAMPLES, "final", nothing, nothing))
    assert fitted.rows == 0
    assert read_fitted(tmp_path, fitted).empty
