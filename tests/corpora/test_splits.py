import numpy as np
import pandas as pd
import pytest

from pipeline.corpora.splits import crossing_rows, grouped_folds, grouped_split

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


def corpus(rows: int, groups: int, seed: int) -> tuple[list[str], pd.DataFrame]:
    rng = np.random.default_rng(seed)
    labels = rng.choice(["a", "b", "c"], rows, p=[0.6, 0.35, 0.05])
    kinds = rng.choice(["text", "text+image"], rows, p=[0.2, 0.8])
    return [f"g{at}" for at in rng.zipf(1.7, rows) % groups], pd.DataFrame({"label": labels, "kind": kinds})


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_whole_and_classes_keep_their_shares(seed: int) -> None:
    _, strata = corpus(2000, 1, seed)
    groups = [f"g{at}" for at in np.random.default_rng(seed).integers(0, 500, 2000)]
    parts = grouped_split(groups, strata, SHARES, np.random.default_rng(seed))
    assert pd.Series(parts).groupby(groups).nunique().max() == 1
    for part, share in SHARES.items():
        assert np.mean(parts == part) == pytest.approx(share, abs=0.01)
        for label in "abc":
            rows = (strata["label"] == label).to_numpy()
            # 100 rows of the rare class: a share of .1 is 10 of them, give or take two groups.
            assert np.mean(parts[rows] == part) == pytest.approx(share, abs=0.03)


def test_single_rows_are_split_exactly() -> None:
    strata = pd.DataFrame({"label": ["a"] * 50 + ["b"] * 30 + ["c"] * 20})
    parts = grouped_split([str(at) for at in range(100)], strata, SHARES, np.random.default_rng(0))
    table = pd.crosstab(strata["label"], parts)
    assert table.to_dict("list") == {"test": [5, 3, 2], "train": [40, 24, 16], "val": [5, 3, 2]}


def test_a_group_too_large_for_a_small_part_goes_to_training() -> None:
    groups = ["big"] * 300 + [str(at) for at in range(700)]
    strata = pd.DataFrame({"label": ["a", "b"] * 500})
    parts = grouped_split(groups, strata, SHARES, np.random.default_rng(0))
    assert set(parts[:300]) == {"train"}
    assert np.mean(parts == "test") == pytest.approx(0.1, abs=0.01)


def test_a_part_smaller_than_every_group_still_gets_one() -> None:
    groups = [f"actor{at // 20}" for at in range(120)]
    strata = pd.DataFrame({"label": ["a", "b"] * 60})
    parts = grouped_split(groups, strata, {"train": 0.9, "val": 0.1}, np.random.default_rng(0))
    assert (parts == "val").sum() == 20
    assert grouped_split(["one"] * 4, strata.iloc[:4], SHARES, np.random.default_rng(0)).tolist() == ["train"] * 4


def test_the_same_seed_gives_the_same_split_and_another_one_another() -> None:
    groups, strata = corpus(500, 200, 0)
    one, same, other = (grouped_split(groups, strata, SHARES, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


def test_crossing_rows_leave_the_less_protected_part() -> None:
    groups = ["a", "a", "b", "b", "c", "c", "d"]
    split = ["train", "test", "train", "val", "val", "test", "train"]
    assert crossing_rows(groups, split).tolist() == [True, False, True, False, True, False, False]


def test_folds_cover_all_rows_with_groups_whole() -> None:
    groups, strata = corpus(300, 60, 3)
    folds = grouped_folds(groups, strata["label"].tolist(), 5, np.random.default_rng(0))
    assert sorted(set(folds)) == [0, 1, 2, 3, 4]
    assert pd.Series(folds).groupby(groups).nunique().max() == 1


def test_folds_are_no_more_than_groups() -> None:
    assert set(grouped_folds(["a", "a", "b"], ["x", "y", "x"], 5, np.random.default_rng(0))) == {0, 1}
