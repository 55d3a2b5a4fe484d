"""Fine-tuning on small corpora: what it chooses, predicts and from what; that phases and encoders learn, and resume."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pipeline.core import artifacts
from pipeline.core.descriptions import read_description
from pipeline.core.errors import InputError
from pipeline.core.fitted import read_fitted
from pipeline.core.schemas import subset_name, subsets_of
from pipeline.encoders import text
from pipeline.nets.transfer import TransferNet
from pipeline.params import EmbedTextParams
from pipeline.scoring.one_standard_error import simplest
from pipeline.scoring.ridge import FeatureBlock, ridge
from pipeline.sentiment import candidates, phases
from pipeline.sentiment.adapters import read_adapters
from pipeline.sentiment.candidates import (
    CANDIDATES,
    Setting,
    TextMode,
    available_candidates,
    choose,
    fit_candidate,
    held_scores,
    setting_of,
)
from pipeline.sentiment.data import FinetuneJob, Target, limit_groups, of_fold, read_target
from pipeline.sentiment.descriptions import FinetunedDescription
from pipeline.sentiment.finetuned import load_finetuned
from pipeline.sentiment.finetuning import _output_scale, text_mode
from pipeline.sentiment.initialisation import InnerFold, adapted_folds, judged_by_validation, linear_net
from pipeline.sentiment.phases import tune_words
from pipeline.sentiment.source_model import read_source
from pipeline.sentiment.text_model import source_text_scores
from pipeline.sentiment.variants import Variant
from pipeline.training import loop
from pipeline.training.finished import Finished
from tests import tracks
from tests.tracks import Track, everything

STAGES = ("train_source", "train_adapters", "finetune_e2e")
EVERY = ("text", "audio", "visual")
WHOLE = Variant("finetuned", subset_name(EVERY))
VARIANTS = [Variant("finetuned", subset_name(subset)) for subset in subsets_of(EVERY)]
KEY = ["fold", *Variant._fields, "sample_id"]
FOLD, OTHER = "repeat-0.fold-0", "repeat-0.fold-1"
CURVE = {"curve": (12, 99)}
LEARNS = {
    "epochs": 4,
    "least_steps": 0,
    "encoder_learning_rate": 1e-3,
    "head_learning_rate": 0.003,
    "batch": 8,
    "weight_decay": 0.0,
}
ONCE = {**LEARNS, "runs": 1}
BRIEFLY = {**ONCE, "epochs": 2}


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Track:
    return tracks.run(tracks.make(tmp_path_factory.mktemp("folded"), folds=2), *STAGES)


@pytest.fixture(scope="module")
def holdout(tmp_path_factory: pytest.TempPathFactory) -> Track:
    return tracks.run(tracks.make(tmp_path_factory.mktemp("holdout")), *STAGES, finetune_e2e=CURVE)


def predictions(track: Track) -> pd.DataFrame:
    return artifacts.read_scores(track.layout.predictions("finetune_e2e"))


def scores(track: Track, variant: Variant = WHOLE, fold: str = "final") -> pd.Series:
    rows = variant.of(predictions(track))
    return rows[rows["fold"] == fold].set_index("sample_id")["score"].sort_index()


def actual(track: Track, ids: pd.Index) -> np.ndarray:
    return track.target.set_index("sample_id")["score"][ids].to_numpy()


def report(track: Track) -> dict[str, Any]:
    return json.loads(track.layout.details("finetune_e2e").read_text())["sentiment"]


def weights(track: Track) -> dict[str, torch.Tensor]:
    return load_file(track.layout.model("finetune_e2e") / "model.safetensors")


def believe_the_source(monkeypatch: pytest.MonkeyPatch, weight: float) -> None:
    """Takes the candidate ``all``, which starts with this weight on what the source says and, with it, no probes.

    So it does not hang on a start well chosen whether tuning has something to better, and the source something to say.
    """

    def start(target: Any, fold: Any, heard: Any, seed: int) -> Any:
        net, used, chosen = linear_net(target, fold, heard, seed)
        if heard.source is None and heard.carried == {}:
            return net, used, chosen
        with torch.no_grad():
            net.mix.weight.fill_(weight)
            for name in net.probes if net.source is not None else ():
                net.probe(name).linear.weight.zero_()
        return net, EVERY, chosen

    monkeypatch.setattr(candidates, "linear_net", start)
    take(monkeypatch, "all")


def take(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """No other candidate stands, so this one is taken."""
    monkeypatch.setattr(candidates, "available_candidates", lambda _: [name])


def tuned(track: Track, root: Path, **settings: Any) -> Track:
    return tracks.run(tracks.copied(track, root), "finetune_e2e", finetune_e2e=settings)


# --- what is predicted -----------------------------------------------------------------------------------------------


def test_predictions_cover_the_roles_of_each_fold(folded: Track) -> None:
    assert tracks.covered(predictions(folded)) == folded.expected(VARIANTS)


def test_the_curve_has_test_rows_only_and_no_sizes_that_are_not_there(holdout: Track) -> None:
    curve = [WHOLE._replace(with_source=with_source, groups=12) for with_source in (True, False)]
    assert tracks.covered(predictions(holdout)) == holdout.expected(VARIANTS) | holdout.expected(curve, ("test",))


def test_fitted_rows_are_those_of_the_folds(folded: Track) -> None:
    fitted = read_description(folded.layout.model("finetune_e2e"), FinetunedDescription).fitted
    found = read_fitted(folded.layout.model("finetune_e2e"), fitted)
    seen = folded.folds[folded.folds["role"] != "test"].merge(folded.target[["sample_id", "group_id"]])
    columns = ["fold", "sample_id", "group_id", "role"]
    assert sorted(found[columns].values.tolist()) == sorted(seen[columns].values.tolist())


def rebuilt(track: Track, *, encoder: nn.Module | None = None) -> TransferNet:
    """By its own files alone."""
    return load_finetuned(track.layout.model("finetune_e2e"), encoder)


def test_the_net_rebuilt_gives_the_predictions(holdout: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    believe_the_source(monkeypatch, 0.2)
    track = tuned(holdout, tmp_path)
    assert report(track)["scale"] > 1.1  # the weights hold it
    net, val = rebuilt(track), track.rows("final", "val")  # which are predicted by the models of inner folds
    vectors = {name: torch.from_numpy(rows) for name, rows in track.vectors["target"].items()}
    for variant, subset in ((WHOLE, EVERY), (Variant("finetuned", "audio_visual"), ("audio", "visual"))):
        there = {key: torch.from_numpy(mask & (key in subset)) for key, mask in track.present["target"].items()}
        with torch.inference_mode():
            known = pd.Series(net(vectors, there)[:, 0].numpy(), index=track.target["sample_id"])
        series = scores(track, variant).drop(val)
        np.testing.assert_allclose(series, known[series.index], atol=1e-4)


def test_modalities_that_are_not_used_say_nothing(
    words: dict[bool, Track], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(monkeypatch, "text_transfer")
    track = tuned(words[True], tmp_path)
    assert report(track)["modalities"] == "text"
    for subset in subsets_of(EVERY):
        found = scores(track, Variant("finetuned", subset_name(subset)))
        assert (
            found.equals(scores(track)) if "text" in subset else found.drop(track.rows("final", "val")).nunique() == 1
        )


def test_it_learns_and_says_so_of_validation_rows(holdout: Track) -> None:
    test, val = (pd.Index(holdout.rows("final", role)) for role in ("test", "val"))
    assert np.corrcoef(scores(holdout)[test], actual(holdout, test))[0, 1] > 0.7
    known = np.corrcoef(scores(holdout)[val], actual(holdout, val))[0, 1]
    assert report(holdout)["val"]["pearson"] == pytest.approx(known, abs=1e-6)


# --- what must not be seen -------------------------------------------------------------------------------------------


def moved(track: Track, root: Path, row: str, *, score: float | None = None, gain: float = 1.0) -> Track:
    """The track with one target row changed."""
    track = tracks.copied(track, root)
    at = int(np.flatnonzero(track.target["sample_id"] == row)[0])
    if score is not None:
        track.target.loc[at, "score"] = score
    for vectors in track.vectors["target"].values():
        vectors[at] *= gain
    return tracks.run(track, *STAGES[1:])


def test_the_score_of_a_test_row_changes_nothing_in_its_fold(folded: Track, tmp_path: Path) -> None:
    row = next(row for row in folded.rows(FOLD, "test") if row in folded.rows(OTHER, "train"))
    again = moved(folded, tmp_path, row, score=-3.0)
    before, after = (predictions(item).set_index(KEY)["score"] for item in (folded, again))
    assert before.index.equals(after.index)
    assert before[FOLD].equals(after[FOLD])
    assert not before[OTHER].equals(after[OTHER])


def test_the_features_of_a_test_row_change_its_own_prediction_only(folded: Track, tmp_path: Path) -> None:
    row = next(row for row in folded.rows(FOLD, "test") if row in folded.rows(OTHER, "train"))
    again = moved(folded, tmp_path, row, gain=-2.0)
    before, after = (predictions(item).set_index(KEY)["score"] for item in (folded, again))
    apart = (before - after).abs()[FOLD]
    own = apart.xs(row, level="sample_id")
    assert own[WHOLE] > 1e-3
    assert apart.drop(row, level="sample_id").max() < 1e-5
    assert (before - after).abs()[OTHER].drop(row, level="sample_id").max() > 1e-3


@pytest.mark.parametrize(("role", "same"), [("test", True), ("train", False)])
def test_a_held_out_row_leaves_the_weights_as_they_are(holdout: Track, tmp_path: Path, role: str, same: bool) -> None:
    again = moved(holdout, tmp_path, holdout.rows("final", role)[0], score=-3.0, gain=-2.0)
    for stage in ("train_adapters", "finetune_e2e"):
        files = [(item.layout.model(stage) / "model.safetensors").read_bytes() for item in (holdout, again)]
        assert (files[0] == files[1]) == same


def test_the_curve_without_the_source_does_not_know_it(
    holdout: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    believe_the_source(monkeypatch, 0.3)
    first, other = tuned(holdout, tmp_path / "first", **CURVE), tracks.copied(holdout, tmp_path / "other")
    other.tables["source"]["score"] = -other.tables["source"]["score"]
    tracks.run(other, *STAGES, finetune_e2e=CURVE)
    for with_source, same in ((False, True), (True, False)):
        point = WHOLE._replace(with_source=with_source, groups=12)
        before, after = (scores(item, point) for item in (first, other))
        assert before.equals(after) == same
        assert before.std() > 0.01


def test_more_groups_of_the_curve_hold_all_of_fewer(folded: Track) -> None:
    target, settings = read_target(folded.layout), tracks.params(folded, target={"val_share": 0.25})
    before: set[str] = set()
    for groups in (4, 8, 16, 24):
        kept = limit_groups(target, FOLD, groups, settings)
        now = set(kept.fitted(FOLD)["sample_id"])
        assert before < now and len(now) == groups
        assert len(kept.rows(FOLD, "val")) == min(groups // 4, len(target.rows(FOLD, "val")))
        assert kept.rows(FOLD, "test").tolist() == target.rows(FOLD, "test").tolist()
        before = now
    assert before == set(target.fitted(FOLD)["sample_id"])


@pytest.mark.parametrize("val_share", [0.05, 0.4])
def test_a_size_of_the_curve_is_kept_where_one_role_has_too_few_groups(folded: Track, val_share: float) -> None:
    target, settings = read_target(folded.layout), tracks.params(folded, target={"val_share": val_share})
    assert {len(limit_groups(target, FOLD, size, settings).fitted(FOLD)) for size in (20, 22, 24)} == {20, 22, 24}


# --- the phases ------------------------------------------------------------------------------------------------------


def test_a_tuning_that_ruins_what_it_starts_from_is_not_taken(holdout: Track, tmp_path: Path) -> None:
    wild = tuned(holdout, tmp_path, first_learning_rate=1.0, learning_rate=1.0)
    found = report(wild)["candidates"]
    assert found["all"]["mse"] > 4 * found["adapters"]["mse"]
    assert report(wild)["taken"] != "all"
    np.testing.assert_allclose(scores(wild), scores(holdout))  # of which the same simple candidate was taken


@pytest.mark.parametrize(("first", "whole"), [("head", False), ("model", True)])
def test_the_first_phase_leaves_the_adapters_alone(
    holdout: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, whole: bool
) -> None:
    believe_the_source(monkeypatch, 0.3)
    track = tuned(holdout, tmp_path, first=first, first_epochs=6, epochs=0, scale=False)
    found = weights(track)
    for name, adapter in read_adapters(track.layout, "final").items():
        for key, value in adapter.state_dict().items():
            assert torch.equal(found[f"adapters.{name}.{key}"], value)
    parameters = {f"source.{name}": value for name, value in read_source(track.layout).net.named_parameters()}
    moved = {name for name, value in parameters.items() if not torch.equal(found[name], value)}
    assert {name for name in moved if "fusion.classify" in name and name.endswith("weight")}
    assert any("fusion.classify" not in name for name in moved) == whole


def test_everything_learns_in_the_second_phase(holdout: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    believe_the_source(monkeypatch, 0.3)
    track = tuned(holdout, tmp_path, first_epochs=0, epochs=6, scale=False)
    found = weights(track)
    for name, adapter in read_adapters(track.layout, "final").items():
        key = "layers.0.weight"
        assert (found[f"adapters.{name}.{key}"] - adapter.state_dict()[key]).abs().max() > 1e-3


def test_a_strong_pull_holds_the_weights_where_they_were(
    holdout: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    believe_the_source(monkeypatch, 0.3)
    distance = {}
    for pull in (0.0, 1000.0):
        track = tuned(holdout, tmp_path / str(pull), first_epochs=0, epochs=12, l2_sp=pull, scale=False)
        found = weights(track)
        start = {f"source.{name}": value for name, value in read_source(track.layout).net.state_dict().items()}
        distance[pull] = sum((found[name] - value).square().sum().item() for name, value in start.items())
    assert distance[0.0] > 4 * distance[1000.0]


@pytest.mark.parametrize(("weight", "stretches"), [(0.1, True), (9.0, False)])
def test_the_scale_is_the_one_with_the_least_loss_on_held_rows(
    holdout: Track, monkeypatch: pytest.MonkeyPatch, weight: float, stretches: bool
) -> None:
    believe_the_source(monkeypatch, weight)
    of = setting(holdout, first_epochs=0, epochs=1)
    inner = choose(of).inner["all"]
    at = np.concatenate([fold.held_out for fold in of.folds])
    actual, held = of.target.scores.numpy()[at], held_scores(inner, of.folds, EVERY)[at]
    centre = of.target.scores.numpy()[of.whole.train].mean()
    grid = np.geomspace(0.25, 100, 20_001)
    errors = centre + grid[:, None] * (held - centre) - actual
    best = grid[(0.3 * errors**2 + np.abs(errors)).mean(axis=1).argmin()]  # Pearson's r knows no scale
    assert (best > 1) == stretches
    scale, offset = _output_scale(inner, of)
    assert scale == pytest.approx(best ** (len(at) / (len(at) + 20)), rel=2e-3)
    assert scale * centre + offset == pytest.approx(centre, abs=1e-6)


# --- the choice ------------------------------------------------------------------------------------------------------


def setting(track: Track, fold: str = "final", mode: str = "none", *, few: bool = False, **settings: Any) -> Setting:
    params = tracks.params(track, finetune_e2e=settings)
    target, plain = read_target(track.layout), read_target(track.layout, by_source_text=False)
    kept = Finished(track.layout.cache / "finished" / "by hand")
    job = FinetuneJob(of_fold(params, fold), track.layout, fold, kept)
    return setting_of(target, plain, read_source(track.layout), job, TextMode(mode, few))


def test_inner_folds_hold_each_row_once_and_groups_whole(folded: Track) -> None:
    of = setting(folded, FOLD, inner_folds=3)
    assert len(of.folds) == 3
    learned = of.target.rows(FOLD, "train", "val")
    assert sorted(np.concatenate([fold.held_out for fold in of.folds])) == sorted(learned) == sorted(of.whole.train)
    groups = of.target.table["group_id"].to_numpy()
    for fold in of.folds:
        assert sorted([*fold.train, *fold.held_out]) == sorted(learned)
        assert not {*groups[fold.train]} & {*groups[fold.held_out]}


def test_the_candidate_ridge_is_the_baseline_of_that_name(folded: Track) -> None:
    of = setting(folded, FOLD)
    columns, groups = of.plain.columns, of.target.table["group_id"].to_numpy(dtype=str)
    blocks = [FeatureBlock(columns.vectors[name].numpy(), columns.present[name].numpy()) for name in columns.modalities]
    baseline = ridge(blocks, of.target.scores.numpy(), of.whole.train, groups, select=True)
    np.testing.assert_allclose(fit_candidate("ridge", of, of.whole).scores(EVERY), baseline, atol=1e-4)


def test_a_model_of_least_squares_is_not_scaled_anew(folded: Track, tmp_path: Path) -> None:
    track = tuned(folded, tmp_path, candidates=("ridge",), inner_folds=2)
    of = setting(track, FOLD)
    found, wanted = scores(track, fold=FOLD), fit_candidate("ridge", of, of.whole).scores(EVERY)
    table = of.target.table["sample_id"]
    tests = of.target.rows(FOLD, "test")
    np.testing.assert_array_equal(found[table.iloc[tests]], wanted[tests])
    assert (report(track)["scale"], report(track)["offset"]) == (1.0, 0.0)
    assert _output_scale(choose(setting(track, FOLD, candidates=("ridge",))).inner["ridge"], of)[0] != 1


def test_the_text_transfer_by_hand(words: dict[bool, Track]) -> None:
    of = setting(words[True])
    learn, actual = of.folds[0].train, of.target.scores.numpy()
    said = candidates.source_text_head(words[True].layout)
    vectors, there = of.target.columns.vectors["text"], of.target.columns.present["text"].numpy()
    by_text = np.where(there, said(vectors)[:, 0].detach().numpy(), said.bias.item())
    slope, offset = np.polyfit(by_text[learn], actual[learn], 1)
    assert slope > 0
    found = fit_candidate("text_transfer", of, of.folds[0])
    np.testing.assert_allclose(found.scores(EVERY), slope * by_text + offset, atol=1e-4)
    assert found.used == ("text",)


def test_what_is_chosen_is_the_simplest_that_held_rows_find_no_better_one_for(folded: Track) -> None:
    of = setting(folded, FOLD)
    choice = choose(of)
    held = np.concatenate([fold.held_out for fold in of.folds])
    actual, groups = of.target.scores.numpy()[held], of.target.table["group_id"].to_numpy(dtype=str)[held]
    errors = {}
    for name in ("ridge", "adapters", "all"):
        by_hand = [fit_candidate(name, of, fold).scores(EVERY)[fold.held_out] for fold in of.folds]
        errors[name] = (np.concatenate(by_hand) - actual) ** 2
        assert choice.report["candidates"][name]["mse"] == pytest.approx(errors[name].mean())
    assert list(choice.report["candidates"]) == list(errors)
    assert choice.taken == list(errors)[simplest(list(errors.values()), groups)]


def test_adapters_that_validation_rows_judge_know_nothing_of_them(holdout: Track) -> None:
    of = setting(holdout)
    val = of.target.rows("final", "val")
    other = of.target.scores.clone()
    other[torch.from_numpy(val)] = -other[torch.from_numpy(val)]
    vectors = {name: torch.where(at_rows(of.target, val), -2.0, of.target.columns.vectors[name]) for name in EVERY}
    altered = replace(of.target, scores=other, columns=replace(of.target.columns, vectors=vectors))
    judged, again = (judged_by_validation(target, of.source, of.job) for target in (of.target, altered))
    np.testing.assert_array_equal(judged.held_out, val)
    np.testing.assert_array_equal(judged.train, of.target.rows("final", "train"))
    untrained = judged_by_validation(of.target, of.source, without_epochs(of.job))
    for name, adapter in judged.adapters.items():
        same, start = again.adapters[name].state_dict(), untrained.adapters[name].state_dict()
        assert all(torch.equal(value, same[key]) for key, value in adapter.state_dict().items())
        assert not all(torch.equal(value, start[key]) for key, value in adapter.state_dict().items())


def at_rows(target: Target, rows: np.ndarray) -> torch.Tensor:
    """bool [N, 1]."""
    return torch.from_numpy(np.isin(np.arange(len(target.table)), rows))[:, None]


def without_epochs(job: FinetuneJob) -> FinetuneJob:
    block = job.params.adapter.model_copy(update={"epochs": 0})
    return replace(job, params=job.params.model_copy(update={"adapter": block}))


def test_only_named_candidates_are_compared(folded: Track) -> None:
    of = setting(folded, FOLD)

    def among(*names: str) -> Setting:
        block = of.job.params.finetune_e2e.model_copy(update={"candidates": names})
        params = of.job.params.model_copy(update={"finetune_e2e": block})
        return replace(of, job=replace(of.job, params=params))

    assert choose(among("ridge")).taken == "ridge"
    assert list(choose(among("all", "ridge")).inner) == ["ridge", "all"]
    with pytest.raises(InputError, match=r"finetune_e2e\.candidates: text_tuned: not with these corpora"):
        choose(among("text_tuned"))


def test_too_few_groups_for_inner_folds_are_one_line(folded: Track) -> None:
    of = setting(folded, FOLD)
    group = of.target.table["group_id"].iloc[of.target.rows(FOLD, "train")[0]]
    ids = of.target.table.loc[of.target.table["group_id"] == group, "sample_id"]
    alone = replace(of.target, folds=of.target.folds[of.target.folds["sample_id"].isin(set(ids))])
    with pytest.raises(InputError, match="learns from 1 group, and inner folds need two"):
        adapted_folds(alone, of.source, of.job, 2)


def test_every_fold_says_what_it_chose(folded: Track) -> None:
    folder = folded.layout.model("finetune_e2e")
    choices = read_description(folder, FinetunedDescription).choices
    assert set(choices) == set(folded.folds["fold"])
    for fold, known in choices.items():
        assert known["taken"] in known["candidates"] and set(known["candidates"]) < set(CANDIDATES)
        assert (report(folded) if fold == "final" else report(folded)["folds"][fold])["taken"] == known["taken"]


def test_another_repeat_has_another_seed() -> None:
    params = tracks.Params()
    seeds = [of_fold(params, fold).seed for fold in ("repeat-0.fold-1", "repeat-2.fold-0", "final")]
    assert seeds == [params.seed, params.seed + 2, params.seed]


# --- units -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("taken", ["ridge", "text_transfer_tuned", "all"])
def test_scores_of_another_scale_are_learned_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: str) -> None:
    take(monkeypatch, taken)
    made = {}
    for scale in (1, 100):
        track = tracks.make(tmp_path / str(scale), words=taken != "ridge", per_group=3, noise=0.5)
        for table in track.tables.values():
            table["score"] *= scale
        source = {"text": "full", "tuned": LEARNS} if taken == "text_transfer_tuned" else {"text": "none"}
        block = {"text": "none" if taken == "ridge" else "full", "tuned": ONCE, **(CURVE if taken == "ridge" else {})}
        made[scale] = tracks.run(track, *STAGES, train_source=source, finetune_e2e=block)
    for stage in STAGES:
        plain, scaled = (artifacts.read_scores(track.layout.predictions(stage)) for track in made.values())
        assert plain[KEY].equals(scaled[KEY])
        np.testing.assert_allclose(scaled["score"] / 100, plain["score"], atol=2e-3)
    context = read_description(made[100].layout.model("finetune_e2e"), FinetunedDescription).context
    assert (context is None) == (report(made[1]).get("group_context") is None)
    mse = [report(track)["candidates"][taken]["mse"] for track in made.values()]
    assert mse[1] == pytest.approx(1e4 * mse[0], rel=1e-3)
    if taken == "ridge":
        vectors, present = read_target(made[100].layout).columns.at(np.arange(len(made[100].target)))
        with torch.inference_mode():
            known = pd.Series(rebuilt(made[100])(vectors, present)[:, 0].numpy(), index=made[100].target["sample_id"])
        alone = Variant("finetuned_alone", subset_name(EVERY))
        series = scores(made[100], alone if context else WHOLE).drop(made[100].rows("final", "val"))
        np.testing.assert_allclose(series, known[series.index], rtol=1e-4, atol=1e-3)


# --- the words -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Track]:
    """Words, told or not told by the source's text model; all but fine-tuned."""
    made = {told: tracks.make(tmp_path_factory.mktemp("words"), words=True, free=0) for told in (False, True)}
    for told, track in made.items():
        block = {"text": "full", "tuned": LEARNS} if told else {"text": "none"}
        tracks.run(track, *STAGES[:2], train_source=block)
    return made


def spoken(track: Track, root: Path, mode: str, block: dict[str, Any] = BRIEFLY) -> Track:
    return tuned(track, root, text=mode, tuned=block, first_epochs=0)


@pytest.mark.parametrize("taken", ["text_tuned", "text_transfer_tuned", "all"])
@pytest.mark.parametrize(("mode", "told"), [("full", True), ("full", False), ("lora", True), ("lora", False)])
def test_the_text_encoder_learns(
    words: dict[bool, Track], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, told: bool, taken: str
) -> None:
    believe_the_source(monkeypatch, 0.3)
    take(monkeypatch, taken)
    if taken == "text_transfer_tuned" and not told:
        pytest.skip("without a text model of the source's there is none to tune")
    track = spoken(words[told], tmp_path, mode)
    assert (report(track)["text"], report(track)["taken"]) == (mode, taken)
    encoder = text.load(EmbedTextParams(encoder=str(track.encoder)))
    start = {f"encoder.{name}": value.clone() for name, value in encoder.net.state_dict().items()}
    if told and taken != "text_tuned":
        start = load_file(track.layout.model("train_source") / "text" / "model.safetensors")
    net = rebuilt(track, encoder=encoder.net)
    found = {name: value for name, value in weights(track).items() if name.startswith("encoder.")}
    moved = {name for name, value in found.items() if not torch.equal(value, start[name])}
    if mode == "full":
        assert len(moved) > 20 and not any("embeddings" in name for name in moved)
    else:
        assert moved == {name for name in found if name.endswith(("q_lin.weight", "v_lin.weight"))}
    # The words themselves through the net, as they were while it learned, give what was predicted.
    vectors, present = read_target(track.layout).columns.at(np.arange(len(track.target)))
    tokens = encoder.collate(encoder.tokenize(track.target["text"].fillna("").tolist()))
    with torch.inference_mode():
        known = pd.Series(net(vectors, present, tokens)[:, 0].numpy(), index=track.target["sample_id"])
    series = scores(track).drop(track.rows("final", "val"))
    np.testing.assert_allclose(series, known[series.index], atol=1e-4)


def test_words_tuned_plainly_are_a_step_of_their_own(words: dict[bool, Track], tmp_path: Path) -> None:
    track = spoken(words[False], tmp_path, "full", ONCE)
    step = Variant("text_tuned", subset_name(EVERY))
    assert tracks.covered(predictions(track)) == track.expected([*VARIANTS, step])
    test = track.rows("final", "test")
    known = np.array([-1.0 if "sad" in said else 1.0 for said in track.target.set_index("sample_id")["text"][test]])
    assert np.corrcoef(scores(track, step)[test], known)[0, 1] > 0.9


def test_the_step_is_what_was_tuned_and_the_taken_model_is_that_rescaled(
    words: dict[bool, Track], tmp_path: Path
) -> None:
    candidates = ["text_tuned"]
    track = tuned(words[False], tmp_path, text="full", tuned=ONCE, candidates=candidates, group_context=False)
    (found,), step = [report(track)], Variant("text_tuned", subset_name(EVERY))
    assert found["taken"] == "text_tuned" and found["scale"] != 1
    np.testing.assert_allclose(scores(track), found["offset"] + found["scale"] * scores(track, step), atol=1e-5)


def test_the_sources_text_model_is_where_its_tuning_begins(words: dict[bool, Track]) -> None:
    still = {**LEARNS, "encoder_learning_rate": 1e-12, "head_learning_rate": 1e-12, "epochs": 1}
    of = setting(words[True], mode="full")
    params = tracks.params(words[True], finetune_e2e={"text": "full", "tuned": still})
    of = replace(of, job=replace(of.job, params=params))
    made = candidates.fit_candidate("text_transfer_tuned", of, of.folds[0])
    known = source_text_scores(words[True].layout, of.target)
    np.testing.assert_allclose(made.scores(EVERY), known, atol=1e-4)


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_an_average_of_both_text_models_is_trained_once_and_lies_between(words: dict[bool, Track], mode: str) -> None:
    of = setting(words[True], mode=mode)
    of = replace(of, job=replace(of.job, params=tracks.params(words[True], finetune_e2e={"text": mode, "tuned": ONCE})))
    plain, carried = (fit_candidate(name, of, of.folds[0]) for name in ("text_tuned", "text_transfer_tuned"))
    ends = [{name: value.clone() for name, value in made.net.state_dict().items()} for made in (plain, carried)]
    assert any(not torch.equal(of, ends[1][name]) for name, of in ends[0].items() if name.startswith("encoder."))
    said = [made.scores(EVERY) for made in (plain, carried)]
    pieces = everything(of.job.kept.folder)
    made = fit_candidate("text_averaged", of, of.folds[0])
    assert everything(of.job.kept.folder) == pieces  # nothing was trained anew
    for name, value in made.net.state_dict().items():
        torch.testing.assert_close(value, (ends[0][name] + ends[1][name]) / 2 if value.is_floating_point() else value)
    assert not any(np.allclose(made.scores(EVERY), one) for one in said)


def test_groups_are_tuned_on_the_mean_of_their_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that says nothing stands before each that does."""
    take(monkeypatch, "text_transfer_tuned")
    track = tracks.make(tmp_path, words=True, free=0)
    track.target["text"] = [None if said is None else f"the cat\n{said}" for said in track.target["text"]]
    source = {"text": "full", "tuned": LEARNS}
    block = {"text": "full", "tuned": {**LEARNS, "runs": 1, "lines": 1}, "first_epochs": 0}
    tracks.run(track, *STAGES, train_source=source, finetune_e2e=block, target={"level": "group"})
    assert (report(track)["text"], report(track)["taken"]) == ("full", "text_transfer_tuned")
    encoder = text.load(EmbedTextParams(encoder=str(track.encoder)))
    net = rebuilt(track, encoder=encoder.net)
    start = load_file(track.layout.model("train_source") / "text" / "model.safetensors")
    assert any(not torch.equal(value, start[f"encoder.{name}"]) for name, value in encoder.net.state_dict().items())
    vectors, present = read_target(track.layout).columns.at(np.arange(len(track.target)))
    with torch.inference_mode():
        means = [
            encoder.net(**encoder.collate(encoder.tokenize(said.split("\n")))).mean(dim=0)
            if said
            else torch.zeros(encoder.width)
            for said in track.target["text"].fillna("")
        ]
        known = net({**vectors, "text": torch.stack(means)}, present)[:, 0].numpy()
    known = pd.Series(known, index=track.target["sample_id"])
    series = scores(track).drop(track.rows("final", "val"))
    np.testing.assert_allclose(series, known[series.index], atol=1e-4)
    test = track.rows("final", "test")
    actual = track.target.set_index("sample_id")["score"][test]
    assert np.corrcoef(series[test], actual)[0, 1] > 0.7


def test_the_final_encoder_is_the_mean_of_runs_with_other_seeds(words: dict[bool, Track]) -> None:
    of = setting(words[False], mode="full")

    def tuned_words(seed: int, runs: int, fold: InnerFold) -> dict[str, torch.Tensor]:
        params = tracks.params(words[False], finetune_e2e={"text": "full", "tuned": {**BRIEFLY, "runs": runs}})
        params = params.model_copy(update={"seed": seed})
        return phases.tune_words(of.plain, fold, replace(of.job, params=params), "full")[0].state_dict()

    first, second, third = (tuned_words(seed, 1, of.whole) for seed in (5, 6, 7))
    for name, value in tuned_words(5, 3, of.whole).items():
        torch.testing.assert_close(value, (first[name] + second[name] + third[name]) / 3, check_dtype=False)
    assert not torch.equal(first["text_head.weight"], second["text_head.weight"])
    one, several = (tuned_words(5, runs, of.folds[0]) for runs in (1, 3))  # which is judged
    assert all(torch.equal(several[name], value) for name, value in one.items())


def test_few_words_are_read_more_often(words: dict[bool, Track]) -> None:
    of = setting(words[False], mode="full")
    tuned = {**BRIEFLY, "batch": 16, "least_steps": 30}
    params = tracks.params(words[False], finetune_e2e={"text": "full", "tuned": tuned})
    history = phases.tune_words(of.plain, of.folds[0], replace(of.job, params=params), "full")[1]
    assert len(history) == -(-30 // -(-len(of.folds[0].train) // 8)) > 2


class Killed(Exception):
    pass


def test_a_killed_tuning_of_the_words_goes_on_to_the_same_weights(
    words: dict[bool, Track], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    believe_the_source(monkeypatch, 0.3)
    steps, kill_at = 0, 0
    original = loop._Training._step

    def step(*given: Any) -> float:
        nonlocal steps
        steps += any(isinstance(item, str) and "with text" in item for item in given)
        if kill_at and steps == kill_at:
            raise Killed
        return original(*given)

    monkeypatch.setattr(loop._Training, "_step", step)
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    straight = spoken(words[False], tmp_path / "straight", "full")
    needed = steps
    assert needed > 10
    for kill in (5, needed - 3):
        steps, kill_at = 0, kill
        with pytest.raises(Killed):
            spoken(words[False], tmp_path / str(kill), "full")
        kill_at = 0
        killed = spoken(words[False], tmp_path / str(kill), "full")
        assert steps == needed + 1  # the killed step, and each other step once
        assert everything(killed.layout.model("finetune_e2e")) == everything(straight.layout.model("finetune_e2e"))


def test_a_training_with_other_words_labels_or_held_rows_is_another(words: dict[bool, Track]) -> None:
    of = setting(words[False], mode="full")
    encoder, fold = text.load(EmbedTextParams(encoder=str(words[False].encoder))), of.folds[0]

    def identity(target: Target, fold: InnerFold) -> str:
        known = phases._identity(nn.Linear(1, 1, bias=False), encoder, phases.TuningData(target, fold, of.job))
        return json.dumps({**known, "start": ""}, sort_keys=True)

    def changed(column: str, row: int, value: Any) -> Target:
        table = of.target.table.copy()
        table.loc[row, column] = value
        return replace(of.target, table=table)

    seen = {identity(of.target, fold), identity(of.target, replace(fold, held_out=fold.held_out[1:]))}
    seen |= {identity(changed("score", at, 2.75), fold) for at in (fold.train[0], fold.held_out[0])}
    seen |= {identity(changed("text", at, "so what"), fold) for at in (fold.train[0], fold.held_out[0])}
    assert len(seen) == 6
    assert identity(of.target, fold) in seen


def test_the_words_of_a_target_with_rows_without_a_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    believe_the_source(monkeypatch, 0.3)
    block = {"text": "full", "tuned": LEARNS, "first_epochs": 0}
    track = tracks.run(tracks.make(tmp_path, words=True), *STAGES, finetune_e2e=block)
    assert report(track)["text"] == "full"


def test_words_that_are_none_cannot_be_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    believe_the_source(monkeypatch, 0.3)
    why = "finetune_e2e.text: 'full' cannot be: the target's text is no words; give none or auto"
    with pytest.raises(InputError, match=why) as one:
        tracks.run(tracks.make(tmp_path), *STAGES, finetune_e2e={"text": "full"})
    assert "\n" not in str(one.value)
    assert not (tmp_path / "models" / "finetune_e2e").exists()


@pytest.mark.parametrize(
    ("by_source", "level", "enough", "tuned"),
    [
        (False, "row", {"auto_rows": 0, "auto_groups": 1}, True),
        (True, "row", {"auto_rows": 1, "auto_groups": -20}, False),
        (True, "group", {"auto_rows": 1, "auto_groups": 0}, True),
        (True, "group", {"auto_rows": -20, "auto_groups": 1}, False),
    ],
)
def test_auto_tunes_texts_from_enough_rows_on(
    words: dict[bool, Track], by_source: bool, level: str, enough: dict[str, int], tuned: bool
) -> None:
    """``enough``: how many more than there are rows with words."""
    track = words[by_source]
    target = read_target(track.layout)
    worded = len(target.with_words(target.rows("final", "train")))
    assert 20 < worded < len(track.rows("final", "train"))
    block = {"text": "auto", **{name: worded + more for name, more in enough.items()}}
    params = tracks.params(track, finetune_e2e=block, target={"level": level})
    assert text_mode(read_target(track.layout), params) == (TextMode("full", few=True) if tuned else TextMode("none"))


def wordless(target: Target, at: np.ndarray) -> Target:
    """The target with no words in the rows ``at``."""
    there = target.columns.present["text"].clone()
    there[torch.from_numpy(at)] = False
    return replace(target, columns=replace(target.columns, present={**target.columns.present, "text": there}))


def test_rows_without_words_do_not_count_for_auto_and_teach_a_text_model_nothing(words: dict[bool, Track]) -> None:
    track = words[False]
    target = read_target(track.layout)
    train, none = target.rows("final", "train"), target.rows("final", "train")[:6]
    fewer = len(wordless(target, none).with_words(train))
    params = tracks.params(track, finetune_e2e={"text": "auto", "auto_rows": fewer + 1})
    assert text_mode(target, params).tuned and not text_mode(wordless(target, none), params).tuned
    scores = target.scores.clone()
    scores[torch.from_numpy(none)] = 3.0
    of = setting(track, mode="full")
    fold = InnerFold(train, train[:0], {})
    targets = [wordless(of, none) for of in (target, replace(target, scores=scores))]
    nets = [tune_words(of_target, fold, of.job, "full")[0] for of_target in targets]
    for one, other in zip(*(net.state_dict().values() for net in nets), strict=True):
        assert torch.equal(one, other)


def test_auto_tunes_no_features(holdout: Track) -> None:
    params = tracks.params(holdout, finetune_e2e={"text": "auto", "auto_rows": 1})
    assert text_mode(read_target(holdout.layout), params) == TextMode("none")


def test_few_rows_judge_by_inner_folds_and_tune_no_encoder_from_nothing(words: dict[bool, Track]) -> None:
    few, many = (setting(words[True], mode="full", few=few) for few in (True, False))
    assert set(available_candidates(many)) - set(available_candidates(few)) == {"text_tuned", "text_averaged"}
    assert "text_transfer_tuned" in available_candidates(few)
    assert "text_tuned" in available_candidates(setting(words[False], mode="full", few=True))
    assert len(few.folds) == 2  # ``tuned.folds``
    learned = few.target.rows("final", "train", "val")
    assert sorted(np.concatenate([fold.held_out for fold in few.folds])) == sorted(learned)
    np.testing.assert_array_equal(many.folds[0].held_out, many.target.rows("final", "val"))


# --- the same again --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [1, 2])
def test_a_second_run_gives_the_same_bytes_with_one_process_or_two(
    holdout: Track, tmp_path: Path, processes: int
) -> None:
    again = tracks.copied(holdout, tmp_path)
    shutil.rmtree(again.layout.model("finetune_e2e"))
    tracks.run(again, "finetune_e2e", finetune_e2e=CURVE, processes=processes)
    assert everything(again.layout.model("finetune_e2e")) == everything(holdout.layout.model("finetune_e2e"))
    assert again.layout.details("finetune_e2e").read_bytes() == holdout.layout.details("finetune_e2e").read_bytes()
