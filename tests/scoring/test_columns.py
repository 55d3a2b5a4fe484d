import numpy as np
import pytest

from pipeline.scoring import columns
from pipeline.scoring.columns import ColumnSample
from pipeline.scoring.diagnostics import disorder


def part(groups: int, seed: int, width: int = 20, shifted: float = 0.0, told: float = 0.0) -> ColumnSample:
    """Columns that share three factors, of different means; two rows a group."""
    fixed, drawn = np.random.default_rng(1), np.random.default_rng(seed)
    rows = 2 * groups
    scores = drawn.normal(size=rows)
    values = drawn.normal(size=(rows, 3)) @ fixed.normal(size=(3, width)) + drawn.normal(size=(rows, width))
    means = fixed.normal(scale=4, size=width) + shifted
    return ColumnSample(
        values + means + told * np.outer(scores, fixed.normal(size=width)), np.arange(rows) // 2, scores
    )


def moved(one: ColumnSample, order: np.ndarray) -> ColumnSample:
    return ColumnSample(one.values[:, order], one.groups, one.scores)


@pytest.mark.parametrize("seed", range(5))
def test_parts_of_one_kind_are_in_order(seed: int):
    found = columns.shift(part(60, 10 + seed), part(20, 20 + seed), seed=0)
    assert found is not None
    assert (found.columns, found.moved) == (20, 0)
    assert found.likeness > 0.9 * found.usual
    assert disorder(found) < 1


@pytest.mark.parametrize("standardised", [False, True])
def test_columns_in_other_places_are_told_by_their_means_or_by_their_company(standardised: bool):
    fitted, scored = part(60, 2), moved(part(20, 3), np.roll(np.arange(20), 1))
    if standardised:
        fitted, scored = (
            ColumnSample((one.values - one.values.mean(axis=0)) / one.values.std(axis=0), one.groups, one.scores)
            for one in (fitted, scored)
        )
    found = columns.shift(fitted, scored, seed=0)
    assert found is not None
    assert found.likeness < 0.3 < found.usual
    assert (found.moved == 0) == standardised
    assert standardised or found.explained > 0.6
    assert disorder(found) > 1


@pytest.mark.parametrize("seed", range(4))
def test_wide_features_of_other_recordings_are_in_order(seed: int):
    """What varies together differs from recording to recording, and of many columns one fits any place."""
    drawn, (recordings, rows, width) = np.random.default_rng(seed), (6, 96, 800)
    of = np.arange(rows) * recordings // rows
    level = 0.5 * np.abs(drawn.normal(size=(recordings, 8))) @ np.abs(drawn.normal(size=(8, width)))
    together = np.einsum("nf,nfw->nw", drawn.normal(size=(rows, 3)), drawn.normal(size=(recordings, 3, width))[of])
    values = np.maximum(level[of] + 0.5 * together + 0.5 * drawn.normal(size=(rows, width)), 0)
    whole = ColumnSample(values, np.arange(rows), drawn.normal(size=rows))
    found = columns.shift(whole.at(np.arange(rows // 2)), whole.at(np.arange(rows // 2, rows)), seed=0)
    assert found is not None
    assert disorder(found) < 1


@pytest.mark.parametrize("changed", [False, True])
def test_wide_features_whose_columns_changed_places_are_told(changed: bool):
    order = np.random.default_rng(0).permutation(600) if changed else np.arange(600)
    found = columns.shift(part(60, 2, width=600), moved(part(20, 3, width=600), order), seed=0)
    assert found is not None
    assert (disorder(found) > 1) == changed


def test_two_columns_that_changed_places_are_enough():
    order = np.arange(20)
    fitted = part(60, 2)
    means = fitted.values.mean(axis=0)
    apart = [int(means.argmin()), int(means.argmax())]
    order[apart] = order[apart[::-1]]
    found = columns.shift(fitted, moved(part(20, 3), order), seed=0)
    assert found is not None
    assert found.moved == 2
    assert disorder(found) > 1


def test_another_offset_is_a_shift_that_no_places_explain():
    found = columns.shift(part(60, 2), part(20, 3, shifted=60.0), seed=0)
    assert found is not None
    assert found.moved == 20
    assert disorder(found) < 1


def test_labels_in_one_part_are_no_disorder():
    found = columns.shift(part(60, 2, told=3.0), part(20, 3), seed=0)
    assert found is not None
    assert disorder(found) < 1


def test_too_little_is_not_compared():
    assert columns.shift(part(60, 2), part(columns.FEWEST_GROUPS - 1, 3), seed=0) is None
    assert columns.shift(part(60, 2, width=1), part(20, 3, width=1), seed=0) is None
