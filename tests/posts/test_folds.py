"""Which rows candidates are compared on, and judged by."""

import numpy as np

from pipeline.posts.folds import Grouping, NamedFold

CODES = np.array([0, 0, 1, 1, 0, 1, 2, 2, 0])
GROUPS = np.array(["a", "b", "c", "d", "e", "f", "g", "g", "h"])
SPLIT = np.array(["train"] * 6 + ["val"] * 2 + ["test"])


def test_rows_of_a_class_that_no_fold_could_learn_are_compared_but_judge_nothing():
    grouping = Grouping(SPLIT, GROUPS, CODES, seed=0)
    folds = grouping.inner(3, most=100)
    assert grouping.compared(folds).tolist() == list(range(8))
    assert grouping.judged(folds).tolist() == list(range(6))


def test_where_only_validation_rows_judge_their_classes_must_stand_among_the_training_rows():
    grouping = Grouping(SPLIT, GROUPS, np.array([0, 0, 1, 1, 0, 1, 1, 2, 0]), seed=0)
    folds = grouping.inner(3, most=2)
    assert grouping.compared(folds).tolist() == [6, 7]
    assert grouping.judged(folds).tolist() == [6]


def test_validation_rows_that_are_very_few_do_not_judge_alone():
    grouping = Grouping(SPLIT, GROUPS, CODES, seed=0)
    assert [len(grouping.inner(2, most=most)) for most in (7, 8)] == [1, 2]  # of eight rows
    few = Grouping(np.array(["train"] * 60 + ["val"] * 2), np.arange(62).astype(str), np.arange(62) % 2, seed=0)
    assert [len(few.inner(3, most=most)) for most in (40, 41, 61)] == [1, 3, 3]


def test_where_no_class_could_be_learned_all_rows_judge():
    grouping = Grouping(SPLIT, GROUPS, CODES, seed=0)
    nothing = [NamedFold(np.array([8]), np.array([2, 3, 6]), "fold-0")]
    assert grouping.judged(nothing).tolist() == [2, 3, 6]
