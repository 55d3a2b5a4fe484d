"""What the other rows of a group do to a score: by hand, against least squares, in the stage and for new rows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.core import artifacts
from pipeline.core.descriptions import read_description
from pipeline.core.schemas import subset_name
from pipeline.nets.losses import mixed
from pipeline.sentiment.data import read_target
from pipeline.sentiment.descriptions import FinetunedDescription, GroupContext
from pipeline.sentiment.finetuned import load_finetuned, score_rows
from pipeline.sentiment.group_context import DOUBT, fit_context, in_groups
from pipeline.sentiment.variants import Variant
from pipeline.serving import score_table
from pipeline.serving.score_predictor import ScorePredictor
from tests import tracks
from tests.sentiment.test_evaluation import score
from tests.serving import scores as rows_of
from tests.tracks import Track

MSE = mixed(1.0, 0.0, 0.0)
EVERY = ("text", "audio", "visual")
WHOLE = Variant("finetuned", subset_name(EVERY))


def test_a_score_moves_with_the_others_of_its_group() -> None:
    scores, groups = np.array([1.0, 2.0, 5.0, 4.0]), np.array(["a", "a", "b", "a"])
    made = in_groups(scores, groups, GroupContext(centre=1.0, own=0.5, others=0.25))
    assert made.tolist() == [1 + 0.25 * 2, 1 + 0.5 + 0.25 * 1.5, 5.0, 1 + 1.5 + 0.25 * 0.5]
    assert in_groups(scores, groups, None).tolist() == scores.tolist()


Rows = tuple[np.ndarray, np.ndarray, np.ndarray]


def planted_rows(count: int, per_group: int, of_group: float, seed: int = 0) -> Rows:
    """Predictions that err row by row, of scores that rows of a group share in part; and the groups."""
    rng = np.random.default_rng(seed)
    group = np.arange(count) // per_group
    actual = of_group * rng.normal(size=group.max() + 1)[group] + rng.normal(size=count)
    return actual + rng.normal(size=count), actual, np.array([f"group {number}" for number in group])


def test_the_weights_are_those_of_least_squares_drawn_in() -> None:
    scores, actual, groups = planted_rows(200, 5, 1.0)
    apart = scores - 0.1
    others = (pd.Series(apart).groupby(groups).transform("sum").to_numpy() - apart) / 4
    _, of_others = np.linalg.lstsq(np.column_stack([apart, others]), actual - 0.1, rcond=None)[0]
    drawn_in = of_others * 40 / (40 + DOUBT)
    own = (apart @ (actual - 0.1 - drawn_in * others)) / (apart @ apart)
    found = fit_context(scores, actual, groups, 0.1, MSE)
    assert found is not None and found.others > 0.2
    assert (found.own, found.others) == pytest.approx((own, drawn_in), abs=1e-3)


def test_what_groups_say_pays_on_others_and_nothing_is_made_of_groups_that_say_nothing() -> None:
    for of_group, pays in ((1.0, True), (0.0, False)):
        context = fit_context(*planted_rows(200, 5, of_group), 0.0, MSE)
        scores, actual, groups = planted_rows(4000, 5, of_group, seed=1)
        alone = context.own * scores if context is not None else scores
        apart = [((made - actual) ** 2).mean() for made in (alone, in_groups(scores, groups, context))]
        assert (apart[1] < 0.95 * apart[0]) == pays and apart[1] < 1.02 * apart[0]


def test_few_groups_and_rows_that_are_alone_have_no_context() -> None:
    scores, actual, groups = planted_rows(40, 5, 2.0)
    assert fit_context(scores, actual, groups, 0.0, MSE) is not None
    seven = groups != groups[0]
    assert fit_context(scores[seven], actual[seven], groups[seven], 0.0, MSE) is None
    assert fit_context(scores, actual, np.arange(40).astype(str), 0.0, MSE) is None


# --- in the stage ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> Track:
    """Three rows a group, whose features say their scores badly."""
    track = tracks.make(tmp_path_factory.mktemp("grouped"), per_group=3, noise=2.0)
    return tracks.run(track, "train_source", "train_adapters", "finetune_e2e", finetune_e2e={"candidates": ("ridge",)})


def predictions(track: Track) -> pd.DataFrame:
    rows = WHOLE.of(artifacts.read_scores(track.layout.predictions("finetune_e2e")))
    return rows.set_index("sample_id").sort_index()


def by_the_final_net(found: pd.DataFrame) -> np.ndarray:
    """Which rows are: those that it was fitted on and that judge it are predicted by the models of inner folds."""
    return (found["split"] != "val").to_numpy()


def test_predictions_are_those_of_the_net_in_their_groups(grouped: Track) -> None:
    folder = grouped.layout.model("finetune_e2e")
    context = read_description(folder, FinetunedDescription).context
    assert context is not None and context.others > 0.05
    target, found = read_target(grouped.layout), predictions(grouped)
    alone = score_rows(load_finetuned(folder), target.columns, EVERY)
    at = by_the_final_net(found)
    groups = target.table["given_group"].to_numpy(dtype=str)
    assert found["score"][at].tolist() == in_groups(alone[at], groups[at], context).tolist()
    assert not np.allclose(found["score"][at], alone[at], atol=0.01)


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
        tracks.run(track, "train_adapters", "finetune_e2e", finetune_e2e={"candidates": ("ridge",)})
        return predictions(track)["score"]

    before = predictions(grouped)["score"]
    assert again("label", score=-3.0).equals(before)
    moved = (again("features", gain=-2.0) - before).abs()
    assert set(moved.index[moved > 1e-5]) == its_group and len(its_group) == 3


def test_rows_without_their_group_are_scored_beside_them(grouped: Track) -> None:
    found = score(grouped)["target"]
    target = read_target(grouped.layout)
    alone = score_rows(load_finetuned(grouped.layout.model("finetune_e2e")), target.columns, EVERY)
    at = target.rows("final", "test")
    known = np.corrcoef(alone[at], target.scores.numpy()[at])[0, 1]
    assert found["finetuned_alone"]["pearson"] == pytest.approx(known)
    assert found["finetuned"]["pearson"] != pytest.approx(known, abs=1e-4)


def test_without_it_each_row_is_scored_by_itself(grouped: Track, tmp_path: Path) -> None:
    block = {"candidates": ("ridge",), "group_context": False}
    track = tracks.run(tracks.copied(grouped, tmp_path), "finetune_e2e", finetune_e2e=block)
    folder = track.layout.model("finetune_e2e")
    assert read_description(folder, FinetunedDescription).context is None
    alone = score_rows(load_finetuned(folder), read_target(track.layout).columns, EVERY)
    found = predictions(track)
    at = by_the_final_net(found)
    assert found["score"][at].tolist() == alone[at].tolist()


# --- for new rows ----------------------------------------------------------------------------------------------------


def test_a_table_is_scored_in_groups_and_a_row_at_hand_by_itself(
    grouped: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_table, "CHUNK", 2)  # no matter: groups are kept whole
    using = ScorePredictor.of_project(tracks.params(grouped), grouped.layout)
    score_table.score_corpus(using, rows_of.write(grouped, tmp_path / "new.parquet"), tmp_path / "out.parquet", 0.5)
    made = pd.read_parquet(tmp_path / "out.parquet").set_index("id")["score"]
    found = predictions(grouped)
    at = found.index[by_the_final_net(found)]
    assert made[at].tolist() == found["score"][at].tolist()
    with torch.inference_mode():
        alone = score_rows(using.model.net, read_target(grouped.layout).columns, EVERY)
    assert [one.score for one in using.predict(rows_of.samples(grouped)[:5])] == alone[:5].tolist()
