import numpy as np
import pandas as pd
import pytest

from pipeline.core.errors import InputError
from pipeline.corpora.splits import completed, crossing_rows, grouped_folds, grouped_split, score_strata, target_folds

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
    sizes = {"a": 31, "b": 12, "c": 40, "d": 37}  # and the smallest that there is
    unequal = [name for name, size in sizes.items() for _ in range(size)]
    parts = grouped_split(unequal, strata, {"train": 0.99, "val": 0.01}, np.random.default_rng(0))
    assert {name for name, part in zip(unequal, parts, strict=True) if part == "val"} == {"b"}
    assert grouped_split(["one"] * 4, strata.iloc[:4], SHARES, np.random.default_rng(0)).tolist() == ["train"] * 4


def test_training_gets_a_second_group_where_one_is_to_be_spared() -> None:
    groups = ["giant"] * 70 + [f"g{at // 5}" for at in range(35)]
    strata = pd.DataFrame({"label": ["a", "b", "c"] * 35})
    shares = {"train": 0.65, "val": 0.1, "test": 0.25}
    parts = pd.Series(grouped_split(groups, strata, shares, np.random.default_rng(0)))
    counts = pd.Series(groups).groupby(parts).nunique()
    assert counts["train"] == 2 and counts.sum() == 8
    unequal = ["giant"] * 70 + [name for name, size in (("a", 9), ("b", 4), ("c", 9), ("d", 10)) for _ in range(size)]
    parts = pd.Series(grouped_split(unequal, strata[:102], {"train": 0.7, "test": 0.3}, np.random.default_rng(0)))
    assert set(pd.Series(unequal)[parts == "train"]) == {"giant", "b"}
    three = ["giant"] * 70 + ["a"] * 5 + ["b"] * 5
    parts = pd.Series(grouped_split(three, strata[:80], shares, np.random.default_rng(0)))
    assert pd.Series(three).groupby(parts).nunique().tolist() == [1, 1, 1]


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


def test_a_given_split_is_completed() -> None:
    strata = pd.DataFrame({"label": ["a"] * 20})
    groups = [str(at) for at in range(20)]
    whole = ["train", "val", "test", "train"] * 5
    split, how = completed(whole, groups, strata, 0.2, np.random.default_rng(0))
    assert (split.tolist(), how) == (whole, "given")
    split, how = completed(["train"] * 10 + ["val"] * 10, groups, strata, 0.2, np.random.default_rng(0))
    assert split[10:].tolist() == ["test"] * 10
    assert sorted(split[:10]) == ["train"] * 8 + ["val"] * 2
    assert how.startswith("given; no row was marked test")
    split, how = completed(["train"] * 10 + ["test"] * 10, groups, strata, 0.2, np.random.default_rng(0))
    assert sorted(split) == ["test"] * 10 + ["train"] * 8 + ["val"] * 2
    assert how == "given; validation was taken out of the training rows"


def test_strata_of_scores() -> None:
    found = score_strata([-1.0, 0.0, 2.0])
    assert found["sign"].tolist() == ["-1", "0", "1"]
    assert found["tercile"].tolist() == ["0", "1", "2"]
    assert score_strata([1.0] * 4)["tercile"].nunique() == 1


def scored(groups: int, each: int = 3, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    names = np.repeat([f"g{at:02d}" for at in range(groups)], each)
    means = np.repeat(np.linspace(-2, 2, groups), each)
    table = pd.DataFrame({"sample_id": [f"{name}_{at}" for at, name in enumerate(names)], "group_id": names})
    table = table.assign(split="train", score=means + rng.normal(0, 0.1, len(names)))
    extra = pd.DataFrame({"sample_id": ["u0"], "group_id": ["u"], "split": ["unlabelled"], "score": [np.nan]})
    table = pd.concat([table, extra], ignore_index=True)
    return table.assign(given_group=table["group_id"])


def test_holdout_is_one_fold() -> None:
    table = scored(4).assign(split=["train"] * 6 + ["val"] * 3 + ["test"] * 3 + ["unlabelled"])
    found = target_folds(table.iloc[::-1], "holdout", 5, 3, 0.2, 0)
    assert found.to_dict("list") == {
        "fold": ["final"] * 12,
        "sample_id": sorted(table["sample_id"][:12]),
        "role": table.set_index("sample_id")["split"].sort_index()[:12].tolist(),
    }


def test_cross_validation_tests_each_row_once_a_repeat_with_groups_whole_and_scores_spread() -> None:
    table = scored(40)
    found = target_folds(table, "cross_validation", 4, 3, 0.25, 7)
    assert found[["fold", "sample_id"]].apply(tuple, axis=1).is_monotonic_increasing
    assert set(found["sample_id"]) == set(table["sample_id"][:120])
    group = found["sample_id"].str.partition("_")[0]
    assert found.groupby(["fold", group])["role"].nunique().max() == 1
    score = found["sample_id"].map(table.set_index("sample_id")["score"])
    for name, rows in found.groupby("fold"):
        shares = rows["role"].value_counts(normalize=True)
        if name == "final":
            assert set(rows["role"]) == {"train", "val"}
            assert shares["val"] == pytest.approx(0.25, abs=0.03)
        else:
            assert shares["test"] == pytest.approx(0.25, abs=0.03)
            assert shares["val"] == pytest.approx(0.1875, abs=0.05)
        # Groups' means go evenly from -2 to 2.
        assert score[rows.index].groupby(rows["role"]).mean().abs().max() < 0.6
    assert found["fold"].nunique() == 13
    tested = found.loc[found["role"] == "test"]
    assert (
        tested.groupby(tested["fold"].str.partition(".")[0])["sample_id"].agg(["size", "nunique"]).to_numpy().tolist()
        == [[120, 120]] * 3
    )
    first, second = (set(tested.loc[tested["fold"] == f"repeat-{at}.fold-0", "sample_id"]) for at in (0, 1))
    assert first != second


def test_folds_depend_on_the_seed_and_on_nothing_else() -> None:
    one, same, other = (target_folds(scored(20), "cross_validation", 5, 1, 0.2, seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one, same)
    assert not one.equals(other)


@pytest.mark.parametrize(
    ("groups", "message"),
    [(9, r"9 groups have a score, too few for target\.folds 5; set it to at most 4"), (3, "4 are the fewest")],
)
def test_too_few_groups_for_the_folds(groups: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        target_folds(scored(groups), "cross_validation", 5, 1, 0.2, 0)
    assert target_folds(scored(10), "cross_validation", 5, 1, 0.2, 0)["fold"].nunique() == 6


def test_groups_that_copies_have_joined_are_named() -> None:
    table = scored(9).assign(group_id="g00")
    with pytest.raises(InputError, match=r"1 group has a score, 9 before those with copies of each other were joined"):
        target_folds(table, "cross_validation", 5, 1, 0.2, 0)


def test_groups_go_where_dense_counts_of_all_strata_would_send_them() -> None:
    rng = np.random.default_rng(5)
    strata = pd.DataFrame({"label": rng.choice(["b", "a", "c d"], 400), "modalities": rng.choice(["t", "t+i"], 400)})
    groups = rng.integers(0, 90, 400)
    crossed = strata["label"] + "|" + strata["modalities"]
    every = [crossed, strata["label"], strata["modalities"], pd.Series(["rows"] * 400)]
    counts = np.concatenate(
        [np.stack([(of == name).groupby(groups).sum() for name in sorted(set(of))], axis=1) for of in every], axis=1
    ).astype(float)
    totals = counts.sum(axis=0)
    filled, place = np.zeros((3, len(totals))), {}
    order = np.random.default_rng(9).permutation(len(counts))
    for group in sorted(order, key=lambda group: -counts[group, -1]):
        left_over = (filled + counts[group]) / (np.array(list(SHARES.values()))[:, None] * totals)
        place[group] = (left_over * (counts[group] / totals)).sum(axis=1).argmin()
        filled[place[group]] += counts[group]
    of_groups = np.unique(groups, return_inverse=True)[1]
    expected = [list(SHARES)[place[group]] for group in of_groups.tolist()]
    assert grouped_split(groups, strata, SHARES, np.random.default_rng(9)).tolist() == expected
    names = [f"group {group:03d}" for group in groups]  # in the order of the numbers
    assert grouped_split(names, strata, SHARES, np.random.default_rng(9)).tolist() == expected
