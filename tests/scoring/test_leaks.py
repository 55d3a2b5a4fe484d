import pandas as pd
import pytest

from pipeline.core.errors import InputError
from pipeline.scoring import leaks
from pipeline.scoring.leaks import Leak, refuse_fitted_rows

SCORED = pd.DataFrame({"sample_id": ["p8", "p9"], "group_id": ["ann", "bob"]})


def fitted(*rows: tuple[str, str, str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=["stage", "fold", "sample_id", "group_id", "role"])


def by_stage(*rows: tuple[str, str, str, str, str]) -> list[pd.DataFrame]:
    """A table a stage, as they are read, behind one of a stage that saw others."""
    other = ("train_video", "final", "other", "other", "train")
    return [fitted(other), *(of for _, of in fitted(*rows).groupby("stage"))]


def test_rows_and_groups_that_nobody_saw_pass():
    refuse_fitted_rows(
        SCORED, by_stage(("fuse", "final", "p1", "cleo", "train"), ("fuse", "final", "p2", "dan", "val"))
    )


@pytest.mark.parametrize("role", ["train", "val"])
def test_a_fitted_row_is_refused_whatever_it_was_for(role: str):
    with pytest.raises(InputError, match=r"fitted on by train_text: 1 rows \(p9\)"):
        refuse_fitted_rows(SCORED, by_stage(("train_text", "fold-1", "p9", "renamed", role)))


def test_another_row_of_the_group_is_refused():
    with pytest.raises(InputError, match=r"fitted on by fuse: 1 groups \(ann\)"):
        refuse_fitted_rows(SCORED, by_stage(("fuse", "final", "p1", "ann", "train")))


def test_stages_are_named_and_only_the_first_ids():
    scored = pd.DataFrame({"sample_id": [f"p{n}" for n in range(9)], "group_id": [f"g{n}" for n in range(9)]})
    rows = [(stage, "final", f"p{n}", f"g{n}", "train") for n in range(9) for stage in ("train_image", "fuse")]
    with pytest.raises(InputError) as refusal:
        refuse_fitted_rows(scored, by_stage(*rows))
    assert "fitted on by fuse, train_image: 9 rows (p0, p1, p2, p3, p4, …) and 9 groups (g0," in str(refusal.value)
    assert "\n" not in str(refusal.value)


# --- folds -----------------------------------------------------------------------------------------------------------

FOLDS = pd.DataFrame(
    [("f0", "a", "test"), ("f0", "b", "train"), ("f1", "b", "test"), ("f1", "a", "train")],
    columns=["fold", "sample_id", "role"],
)
IN_FOLDS = pd.DataFrame([("f0", "a", "x"), ("f1", "b", "y")], columns=["fold", "sample_id", "group_id"])


def test_a_row_may_be_fitted_on_by_other_folds_but_not_by_its_own():
    honest = [("tune", "f0", "b", "y", "train"), ("tune", "f1", "a", "x", "val")]
    assert leaks.fitted_in_fold(IN_FOLDS, fitted(*honest)) == []
    row, group = leaks.fitted_in_fold(IN_FOLDS, fitted(*honest, ("tune", "f0", "a", "x", "val")))
    assert str(row) == "1 test rows were fitted on by tune in the same fold (a)"
    assert str(group) == "1 groups of test rows were fitted on by tune in the same fold (x)"
    only = leaks.fitted_in_fold(IN_FOLDS, fitted(*honest, ("tune", "f1", "c", "y", "train")))
    assert only == [Leak("1 groups of test rows were fitted on by tune in the same fold", ("y",))]


def test_a_prediction_that_calls_a_training_row_a_test_row_is_found():
    rows = pd.DataFrame({"fold": ["f0", "f1"], "sample_id": ["a", "a"], "split": ["test", "test"]})
    (found,) = leaks.wrong_roles(rows, FOLDS, "tune")
    assert str(found) == "tune predicted rows as test in f1, where its role is train (a)"
    unknown = rows.iloc[:1].assign(sample_id="z")
    assert "where its role is none (z)" in str(leaks.wrong_roles(unknown, FOLDS, "tune")[0])
    assert leaks.wrong_roles(rows.iloc[:1], FOLDS, "tune") == []


def test_a_copy_counts_only_in_the_fold_that_fitted_on_it():
    seen = fitted(("tune", "f1", "c", "z", "train"))
    assert leaks.copies_in_fold({"a": "one", "c": "one"}, IN_FOLDS, seen, "the corpus") == []
    (found,) = leaks.copies_in_fold({"b": "one", "c": "one", "a": "two"}, IN_FOLDS, seen, "the corpus")
    assert found.ids == ("b = c",)
    assert leaks.copies_in_fold({}, IN_FOLDS, seen, "the corpus") == []


def test_every_leak_is_in_the_one_line_that_refuses():
    leaks.refuse([])
    with pytest.raises(InputError) as refusal:
        leaks.refuse([Leak("this leaks", tuple("abcdefg")), Leak("that too")])
    assert str(refusal.value).startswith("this leaks (a, b, c, d, e, …); that too; nothing is scored")
    assert "\n" not in str(refusal.value)
