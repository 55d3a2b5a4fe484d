"""What the other rows of a group do to a score: by hand, against least squares, in the stage and for new rows."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core import artifacts
from pipeline.core.descriptions import read_description
from pipeline.core.schemas import UNLABELLED, subset_name
from pipeline.sentiment.data import read_target
from pipeline.sentiment.descriptions import FinetunedDescription, GroupContext
from pipeline.sentiment.finetuned import load_finetuned, score_rows
from pipeline.sentiment.group_context import SHRINKAGE, GroupSums, fit_context, group_keys, in_groups
from pipeline.sentiment.variants import Variant
from pipeline.serving import bundle, score_table
from pipeline.serving.score_predictor import ScorePredictor
from tests import tracks
from tests.sentiment.test_evaluation import score
from tests.serving import scores as rows_of
from tests.serving.test_score_predictor import evaluated
from tests.tracks import Track

EVERY = ("text", "audio", "visual")
WHOLE, ALONE = (Variant(step, subset_name(EVERY)) for step in ("finetuned", "finetuned_alone"))
RIDGE = {"candidates": ("ridge",)}


def test_a_score_moves_with_the_others_of_its_group() -> None:
    scores, keys = np.array([1.0, 2.0, 5.0, 4.0, 9.0]), group_keys(["A", "a ", "b", "a", None])
    made = in_groups(scores, keys, GroupContext(centre=1.0, own=0.5, others=0.25))
    assert made.tolist() == [1 + 0.25 * 2, 1 + 0.5 + 0.25 * 1.5, 5.0, 1 + 1.5 + 0.25 * 0.5, 9.0]
    assert in_groups(scores[:0], keys[:0], GroupContext(centre=1.0, own=0.5, others=0.25)).tolist() == []


Rows = tuple[np.ndarray, np.ndarray, np.ndarray]


def planted_rows(count: int, per_group: int, of_group: float, seed: int = 0) -> Rows:
    """Predictions that err row by row, of scores that rows of a group share in part; and the keys of the groups."""
    rng = np.random.default_rng(seed)
    group = np.arange(count) // per_group
    actual = of_group * rng.normal(size=group.max() + 1)[group] + rng.normal(size=count)
    return actual + rng.normal(size=count), actual, group_keys([f"group {number}" for number in group])


def fitted(rows: Rows, centre: float = 0.0) -> GroupContext | None:
    scores, actual, keys = rows
    return fit_context(scores, actual, keys, keys, centre)


def test_sums_that_are_gathered_part_by_part_move_as_all_at_once() -> None:
    scores, _, keys = planted_rows(60, 5, 1.0)
    context = GroupContext(centre=0.2, own=0.9, others=0.4)
    sums, parts = GroupSums(context), [slice(at, at + 7) for at in range(0, 60, 7)]
    for part in parts:
        sums.add(scores[part, None], keys[part])
    made = [sums.moved(scores[part, None], keys[part])[0][:, 0] for part in parts]
    np.testing.assert_allclose(np.concatenate(made), in_groups(scores, keys, context))


def test_the_weights_are_those_of_least_squares_shrunk() -> None:
    scores, actual, keys = rows = planted_rows(200, 5, 1.0)
    apart = scores - 0.1
    others = (pd.Series(apart).groupby(keys).transform("sum").to_numpy() - apart) / 4
    own, of_others = np.linalg.lstsq(np.column_stack([apart, others]), actual - 0.1, rcond=None)[0]
    found, weight = fitted(rows, 0.1), 40 / (40 + SHRINKAGE)
    assert found is not None and found.others > 0.2
    assert (found.own, found.others) == pytest.approx((1 + weight * (own - 1), weight * of_others), abs=1e-5)
    kept = fit_context(*rows, keys, 0.1, scaled=False)
    residual = actual - scores
    assert kept is not None and kept.others > 0.02
    assert (kept.own, kept.others) == pytest.approx((1, weight * (others @ residual) / (others @ others)), abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_groups_that_share_something_help_on_others_and_few_that_share_nothing_do_no_harm(seed: int) -> None:
    for of_group, groups, per_group, at_most in ((1.0, 40, 5, 0.9), (0.0, 40, 5, 1.05), (0.0, 8, 5, 1.1)):
        context = fitted(planted_rows(groups * per_group, per_group, of_group, seed))
        scores, actual, keys = planted_rows(4000, per_group, of_group, seed=100)
        moved = scores if context is None else in_groups(scores, keys, context)
        errors = [((made - actual) ** 2).mean() for made in (scores, moved)]
        assert errors[1] < at_most * errors[0]


def test_few_groups_and_rows_that_are_alone_have_no_context() -> None:
    scores, actual, keys = planted_rows(40, 5, 2.0)
    assert fitted((scores, actual, keys)) is not None
    seven = keys != keys[0]
    assert fitted((scores[seven], actual[seven], keys[seven])) is None
    assert fitted((scores, actual, group_keys(map(str, range(40))))) is None
    joined = np.where(np.arange(40) < 10, "one", keys)  # two of the groups are joined by copies
    assert fit_context(scores, actual, keys, joined, 0.0) is None


# --- in the stage ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> Track:
    """Three rows a group, whose features say their scores badly; an unlabelled row is of a validation row's group."""
    track = tracks.make(tmp_path_factory.mktemp("grouped"), per_group=3, noise=2.0)
    free = track.target.index[track.target["split"] == UNLABELLED][0]
    val = track.target.set_index("sample_id").loc[track.rows("final", "val")[0]]
    track.target.loc[free, ["group_id", "given_group"]] = val[["group_id", "given_group"]].to_numpy()
    return tracks.run(track, "train_source", "train_adapters", "finetune_e2e", finetune_e2e=RIDGE)


def predictions(track: Track, variant: Variant = WHOLE) -> pd.DataFrame:
    rows = variant.of(artifacts.read_scores(track.layout.predictions("finetune_e2e")))
    return rows.set_index("sample_id").sort_index()


def alone(track: Track) -> np.ndarray:
    return score_rows(load_finetuned(track.layout.model("finetune_e2e")), read_target(track.layout).columns, EVERY)


def context_of(track: Track) -> GroupContext | None:
    return read_description(track.layout.model("finetune_e2e"), FinetunedDescription).context


def test_predictions_are_those_of_the_net_in_their_groups(grouped: Track) -> None:
    context, found = context_of(grouped), predictions(grouped)
    assert context is not None and context.others > 0.05 and context.own == 1  # ridge is taken
    keys = group_keys(read_target(grouped.layout).table["given_group"])
    at = (found["split"] != "val").to_numpy()  # validation rows are predicted by the models of inner folds
    assert found["score"][at].tolist() == in_groups(alone(grouped)[at], keys[at], context).tolist()
    assert not np.allclose(found["score"][at], alone(grouped)[at], atol=0.01)
    held = predictions(grouped, ALONE)["score"][~at]  # and these have only each other
    assert found["score"][~at].tolist() == in_groups(held.to_numpy(), keys[~at], context).tolist()


def test_a_test_row_moves_those_of_its_group_and_no_label_of_theirs_moves_it(grouped: Track, tmp_path: Path) -> None:
    row = grouped.rows("final", "test")[0]
    at = int(np.flatnonzero(grouped.target["sample_id"] == row)[0])
    its_group = set(grouped.target.loc[grouped.target["given_group"] == grouped.target["given_group"][at], "sample_id"])

    def again(name: str, *, score: float | None = None, gain: float = 1.0) -> pd.Series:
        track = tracks.copied(grouped, tmp_path / name)
        if score is not None:
            track.target.loc[at, "score"] = score
        for vectors in track.vectors["target"].values():
            vectors[at] *= gain
        return predictions(tracks.run(track, "train_adapters", "finetune_e2e", finetune_e2e=RIDGE))["score"]

    before = predictions(grouped)["score"]
    assert again("label", score=-3.0).equals(before)
    moved = (again("features", gain=-2.0) - before).abs()
    assert set(moved.index[moved > 1e-5]) == its_group and len(its_group) == 3


def test_rows_without_their_group_are_scored_beside_them(grouped: Track) -> None:
    found, target = score(grouped)["target"], read_target(grouped.layout)
    at = target.rows("final", "test")
    known = np.corrcoef(alone(grouped)[at], target.scores.numpy()[at])[0, 1]
    assert found["finetuned_alone"]["pearson"] == pytest.approx(known)
    assert found["finetuned"]["pearson"] != pytest.approx(known, abs=1e-4)


def test_without_it_each_row_is_scored_by_itself(grouped: Track, tmp_path: Path) -> None:
    block = {**RIDGE, "group_context": False}
    track = tracks.run(tracks.copied(grouped, tmp_path), "finetune_e2e", finetune_e2e=block)
    assert context_of(track) is None and not len(predictions(track, ALONE))
    found = predictions(track)
    at = (found["split"] != "val").to_numpy()
    assert found["score"][at].tolist() == alone(track)[at].tolist()


# --- for new rows ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def using(grouped: Track) -> ScorePredictor:
    return ScorePredictor.of_project(tracks.params(grouped), grouped.layout)


def scored(using: ScorePredictor, rows: list[dict[str, Any]], folder: Path) -> pd.DataFrame:
    pq.write_table(pa.Table.from_pylist(rows), folder / "new.parquet")
    score_table.score_corpus(using, folder / "new.parquet", folder / "out.parquet", 0.5)
    return pd.read_parquet(folder / "out.parquet")


def test_a_table_is_scored_in_groups_and_a_row_at_hand_by_itself(
    grouped: Track, using: ScorePredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_table, "CHUNK", 2)  # groups lie in several parts
    made, found = scored(using, rows_of.rows(grouped), tmp_path).set_index("id"), predictions(grouped)
    both = grouped.target["split"] == UNLABELLED
    both |= grouped.target["given_group"].isin(grouped.target.loc[both, "given_group"])
    at = grouped.target.loc[~both & (grouped.target["split"] != "val"), "sample_id"]
    np.testing.assert_allclose(made["score"][at], found["score"][at], rtol=0, atol=1e-12)
    assert [one.score for one in using.predict(rows_of.samples(grouped)[:5])] == alone(grouped)[:5].tolist()


def test_a_part_did_what_changes_without_it_in_the_whole_group(
    grouped: Track, using: ScorePredictor, tmp_path: Path
) -> None:
    description = using.model.description.model_copy(update={"used": EVERY})
    using, rows = ScorePredictor(replace(using.model, description=description)), rows_of.rows(grouped)
    whole, without = (scored(using, [{**row, **lost} for row in rows], tmp_path) for lost in ({}, {"text": None}))
    np.testing.assert_allclose(whole["text_change"], whole["score"] - without["score"], atol=1e-6)
    assert whole["text_change"].abs().min() > 0.001 and whole["audio_state"].eq("absent").any()
    assert (whole.loc[whole["audio_state"] == "absent", "audio_change"] == 0).all()


def test_rows_without_a_group_or_a_score_belong_to_none(grouped: Track, using: ScorePredictor, tmp_path: Path) -> None:
    rows, known = rows_of.rows(grouped)[:4], [one.score for one in using.predict(rows_of.samples(grouped)[:4])]
    lonely = [{**row, "id": "clip", "group": None} for row in rows[:2]]  # the same id twice, and as a group's name
    silent = {**rows[3], "group": "CLIP", **dict.fromkeys(EVERY)}
    made = scored(using, [{**rows[2], "group": "clip"}, *lonely, silent], tmp_path)
    assert made["score"][:3].tolist() == [known[2], *known[:2]]
    assert made["reason"].notna().tolist() == [False, False, False, True]
    two = scored(using, [{**rows[2], "group": "clip"}, {**rows[3], "group": "CLIP "}], tmp_path)
    assert not np.isclose(two["score"], np.array(known[2:], dtype=float)).any()


def test_intervals_are_of_rows_scored_in_the_same_way(grouped: Track, using: ScorePredictor, tmp_path: Path) -> None:
    def reach(variant: Variant) -> float:
        rows = predictions(grouped, variant)
        val = rows.loc[rows["split"] == "val", "score"]
        off = np.sort(np.abs(val - grouped.target.set_index("sample_id")["score"][val.index]))
        return off[math.ceil((len(off) + 1) * 0.5) - 1]

    several = grouped.target["given_group"].duplicated(keep=False)
    made = scored(using, rows_of.rows(grouped), tmp_path)
    np.testing.assert_allclose(made["score_high"] - made["score"], np.where(several, reach(WHOLE), reach(ALONE)))
    assert reach(WHOLE) != reach(ALONE)


def test_a_bundle_scores_a_table_as_the_project_does(grouped: Track, using: ScorePredictor, tmp_path: Path) -> None:
    evaluated(grouped)
    bundle.export(tracks.params(grouped), grouped.layout, tmp_path / "bundle", ["sentiment"])
    bundled = ScorePredictor.load(tmp_path / "bundle")
    own, of_bundle = (scored(one, rows_of.rows(grouped), tmp_path) for one in (using, bundled))
    pd.testing.assert_frame_equal(own, of_bundle)
    assert "a row by itself as `finetuned_alone`" in (tmp_path / "bundle" / "README.md").read_text()
