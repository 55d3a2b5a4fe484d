import pandas as pd
import pytest

from pipeline.errors import InputError
from pipeline.scoring.leaks import refuse_fitted_rows

SCORED = pd.DataFrame({"sample_id": ["p8", "p9"], "group_id": ["ann", "bob"]})


def fitted(*rows: tuple[str, str, str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=["stage", "fold", "sample_id", "group_id", "role"])


def test_rows_and_groups_that_nobody_saw_pass():
    refuse_fitted_rows(SCORED, fitted(("fuse", "final", "p1", "cleo", "train"), ("fuse", "final", "p2", "dan", "val")))


@pytest.mark.parametrize("role", ["train", "val"])
def test_a_fitted_row_is_refused_whatever_it_was_for(role: str):
    with pytest.raises(InputError, match=r"fitted on by train_text: 1 rows \(p9\)"):
        refuse_fitted_rows(SCORED, fitted(("train_text", "fold-1", "p9", "renamed", role)))


def test_another_row_of_the_group_is_refused():
    with pytest.raises(InputError, match=r"fitted on by fuse: 1 groups \(ann\)"):
        refuse_fitted_rows(SCORED, fitted(("fuse", "final", "p1", "ann", "train")))


def test_stages_are_named_and_only_the_first_ids():
    scored = pd.DataFrame({"sample_id": [f"p{n}" for n in range(9)], "group_id": [f"g{n}" for n in range(9)]})
    rows = [(stage, "final", f"p{n}", f"g{n}", "train") for n in range(9) for stage in ("train_image", "fuse")]
    with pytest.raises(InputError) as refusal:
        refuse_fitted_rows(scored, fitted(*rows))
    assert "fitted on by fuse, train_image: 9 rows (p0, p1, p2, p3, p4, …) and 9 groups (g0," in str(refusal.value)
    assert "\n" not in str(refusal.value)
