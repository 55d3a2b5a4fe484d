import numpy as np
import pytest

from pipeline.scoring.one_standard_error import behind, simplest, worthwhile


def test_the_difference_of_two_sums_has_the_error_of_groups_that_vary_as_wholes():
    """By hand: groups a, b, c lose 3, 0 and 3 more: 6 in all, sample deviation √3, times √3."""
    losses, best = np.array([2.0, 1.0, 0.0, 4.0]), np.array([0.0, 0.0, 0.0, 1.0])
    found = behind(losses, best, np.array(list("aabc")))
    assert (found.by, found.error) == (6.0, pytest.approx(3.0))
    assert found.clearly
    assert not behind(best, best, np.array(list("aabc"))).clearly


def test_what_a_single_group_says_is_never_clear():
    plain, better = np.ones(40), np.full(40, 0.5)
    assert not behind(plain, better, np.zeros(40)).clearly
    assert worthwhile([better, plain], np.zeros(40)) == 1
    # Of many groups that differ in nothing but one, the difference is as large as its standard error.
    lucky = np.where(np.arange(40) == 7, 0.9, 1.0)
    found = behind(plain, lucky, np.arange(40))
    assert found.error == pytest.approx(found.by) and not found.clearly
    assert simplest([plain, lucky], np.arange(40)) == 0


def test_a_smaller_choice_must_better_the_plain_one_by_more_than_chance():
    plain, groups = np.ones(60), np.arange(60) // 3
    steady = plain - 0.01
    assert worthwhile([steady, plain], groups) == 0
    # One group of twenty gains, the rest lose little: the sum is better, by less than its standard error.
    lucky = np.where(groups == 7, 0.5, 1.01)
    assert lucky.sum() < plain.sum()
    assert worthwhile([lucky, plain], groups) == 1
    assert worthwhile([lucky, steady, plain], groups) == 2  # the least, or the plain one: nothing between
    assert worthwhile([plain, plain], groups) == 1
    # The same gains row by row, where no rows belong together, are more than chance; in two groups they are not.
    gains = np.where(np.arange(60) % 2 == 0, 0.8, 1.1)
    assert worthwhile([gains, plain], np.arange(60)) == 0
    assert worthwhile([np.where(np.arange(60) < 30, 0.8, 1.1), plain], np.arange(60) // 30) == 1


def test_the_simplest_is_taken_that_is_not_bettered_by_more_than_a_standard_error():
    """By hand: four groups gain 4 in all, once 8, 0, 0 and -4, whose standard error is 8.7, and once 1 each."""
    groups, plain = np.array(list("abcd")), np.full(4, 10.0)
    unsure, sure = plain - np.array([8.0, 0.0, 0.0, -4.0]), plain - 1
    assert simplest([plain, unsure], groups) == 0
    assert simplest([plain, sure], groups) == 1
    assert simplest([plain + 5, plain, unsure], groups) == 1
    assert simplest([sure, plain, sure], groups) == 0
