"""The stage on a planted track; headline numbers are worked out again from the tables."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics as known

from pipeline.core import artifacts
from pipeline.core.errors import InputError
from pipeline.core.fitted import write_fitted
from pipeline.core.schemas import ScoreStep
from pipeline.corpora.shared_groups import shared_names
from pipeline.params import EvaluateParams, Params
from pipeline.scoring import sentiment
from pipeline.scoring.ridge import FeatureBlock, ridge
from pipeline.sentiment import evaluation as sentiment_evaluation
from pipeline.sentiment.variants import Variant
from tests import planted, tracks
from tests.planted import Planted
from tests.tracks import Track

PARAMS = Params(evaluate=EvaluateParams(bootstrap=200, permutations=100))
PER_GROUP = Params(evaluate=EvaluateParams(bootstrap=200, permutations=100, sentiment_per="group"))


def score(track: Planted | Track, params: Params = PARAMS) -> dict[str, Any]:
    """Through JSON, as a user gets it: no NaN may be there."""
    plots = track.layout.plots("evaluate")
    plots.mkdir(parents=True, exist_ok=True)
    artifacts.write_json(track.layout.details("evaluate"), sentiment_evaluation.run(params, track.layout, plots))
    return artifacts.read_json(track.layout.details("evaluate"))


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return planted.make(tmp_path_factory.mktemp("holdout"), words=True).write()


@pytest.fixture(scope="module")
def found(track: Planted) -> dict[str, Any]:
    return score(track)


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return planted.make(tmp_path_factory.mktemp("folds"), "cross_validation", groups=60, per_group=1).write()


@pytest.fixture
def fresh(tmp_path: Path) -> Planted:
    return planted.make(tmp_path, words=True)


def pairs(track: Planted, stage: str, step: ScoreStep, role: str, corpus: str = "target", **which: Any) -> pd.DataFrame:
    """True and predicted scores of rows of a role."""
    variant = Variant(step, **{"subset": planted.WHOLE, **which})
    rows = variant.of(track.predictions[stage]).query("split == @role")
    return rows.merge(track.tables[corpus], on="sample_id", suffixes=("", "_actual"))


@pytest.mark.parametrize(
    ("stage", "step"),
    [
        ("train_adapters", "text_transfer"),
        ("train_adapters", "zero_shot"),
        ("train_adapters", "adapted"),
        ("finetune_e2e", "text_tuned"),
        ("finetune_e2e", "finetuned"),
    ],
)
def test_steps_are_scored_on_the_test_rows_and_beside_it_on_training_rows(
    track: Planted, found: dict[str, Any], stage: str, step: ScoreStep
):
    rows = pairs(track, stage, step, "test")
    one = found["target"][step]
    assert found["target"]["n"] == len(rows) == 36
    assert found["target"]["groups"] == 18
    assert one["pearson"] == pytest.approx(stats.pearsonr(rows["score"], rows["score_actual"])[0], abs=1e-6)
    assert one["mae"] == pytest.approx(known.mean_absolute_error(rows["score_actual"], rows["score"]), abs=1e-6)
    for name in ("pearson", "ccc", "mae"):
        assert one[f"{name}_ci_low"] < one[name] < one[f"{name}_ci_high"]
    seen = pairs(track, stage, step, "train")
    wanted = stats.pearsonr(seen["score"], seen["score_actual"])[0]
    assert one["resubstitution_pearson"] == pytest.approx(wanted, abs=1e-6)
    assert 0 < one["permutation_p"] <= 1
    assert "pearson_within_folds" not in one


@pytest.mark.parametrize(("key", "stage"), [("source", "train_source"), ("source_text", "train_source/text")])
def test_the_source_is_scored_on_its_own_test_rows(track: Planted, found: dict[str, Any], key: str, stage: str):
    corpus, subset = {"source": ("source", planted.WHOLE), "source_text": ("source_texts", "text")}[key]
    rows = pairs(track, stage, "source", "test", corpus, subset=subset)
    assert found[key]["n"] == len(rows)
    wanted = stats.pearsonr(rows["score"], rows["score_actual"])[0]
    assert found[key]["pearson"] == pytest.approx(wanted, abs=1e-6)
    assert {"pearson_ci_low", "pearson_ci_high", "resubstitution_pearson"} <= set(found[key])


def test_ridge_stands_beside_the_source_model(track: Planted, found: dict[str, Any]):
    rows = track.tables["source"]
    fitted = np.flatnonzero(rows["split"].isin(["train", "val"]))
    blocks = [
        FeatureBlock(np.asarray(of.vectors), of.present)
        for name in planted.WHOLE.split("_")
        for of in [artifacts.read_embeddings(track.layout.embeddings("source", name))]
    ]
    scores, groups = rows["score"].to_numpy(np.float64), rows["group_id"].to_numpy(dtype=str)
    predicted = ridge(blocks, scores, fitted, groups)
    test = (rows["split"] == "test").to_numpy()
    wanted = stats.pearsonr(predicted[test], scores[test])[0]
    of = found["source"]
    assert of["ridge"]["pearson"] == pytest.approx(wanted, abs=1e-6)
    assert of["source_minus_ridge"]["value"] == pytest.approx(of["pearson"] - wanted, abs=1e-5)
    assert of["source_minus_ridge_mae"]["value"] == pytest.approx(of["mae"] - of["ridge"]["mae"], abs=1e-5)
    assert "ridge" not in found["source_text"]  # words have no columns


def test_every_metric_is_there_and_the_mean_has_no_correlation(found: dict[str, Any]):
    for step in ("ridge", "text_transfer", "zero_shot", "adapted", "text_tuned", "finetuned"):
        assert set(sentiment.METRICS) <= set(found["target"][step])
    mean = found["target"]["mean"]
    assert not {"pearson", "spearman", "ccc", "permutation_p", "resubstitution_pearson"} & set(mean)
    assert found["target"]["taken"] == {"all": 1}
    assert {"mae", "mse", "acc2_nonzero", "acc2_nonneg", "acc7"} <= set(mean)
    warned = "\n".join(found["warnings"])
    assert "no correlation of the mean baseline" in warned and "only 36 scored target rows" in warned


def test_ridge_is_a_floor_that_uses_training_and_validation_rows(track: Planted, found: dict[str, Any]):
    subsets = found["target"]["subsets"]
    assert list(subsets) == ["text", "audio", "text_audio"]
    assert subsets["text_audio"]["ridge"]["pearson"] == found["target"]["ridge"]["pearson"]
    assert all(set(of) == {"ridge", "zero_shot", "adapted", "finetuned"} for of in subsets.values())
    rows = pairs(track, "finetune_e2e", "finetuned", "test", subset="text")
    wanted = stats.pearsonr(rows["score"], rows["score_actual"])[0]
    assert subsets["text"]["finetuned"]["pearson"] == pytest.approx(wanted, abs=1e-6)


def test_differences_are_those_of_the_figures_they_compare(found: dict[str, Any]):
    target = found["target"]
    for key, metric in (("finetuned_minus_ridge", "pearson"), ("finetuned_minus_ridge_mae", "mae")):
        wanted = target["finetuned"][metric] - target["ridge"][metric]
        assert target[key]["value"] == pytest.approx(wanted, abs=2e-6)
        assert target[key]["ci_low"] < target[key]["value"] < target[key]["ci_high"]
    curve = target["curve"]
    wanted = curve["with_10"]["pearson"] - curve["without_10"]["pearson"]
    assert curve["with_minus_without_10"]["value"] == pytest.approx(wanted, abs=2e-6)
    assert {"pearson", "ci_low", "ci_high", "mae"} == set(curve["with_20"])


def test_the_gap_of_each_modality_is_that_of_ridge_fitted_on_training_rows_alone(found: dict[str, Any]):
    gap = found["target"]["modality_gap"]
    assert list(gap) == ["text", "audio"]
    assert gap["text"]["train_pearson"] > gap["text"]["val_pearson"] > 0.3


def test_the_diagnosis_stands_in_the_metrics(found: dict[str, Any]):
    diagnosis = found["diagnosis"]
    assert diagnosis["first"] == "sample_too_small"
    assert diagnosis["findings"] == 1
    assert set(diagnosis["sample_too_small"]) == {"likelihood", "measured", "means", "try"}


def test_plots_say_the_same_as_the_metrics(track: Planted, found: dict[str, Any]):
    plots = track.layout.plots("evaluate")
    pictures = {"transfer.png", "curve.png", "predicted.png", "sentiment_subsets.png", "modality_gap.png"}
    assert {path.name for path in plots.iterdir()} == pictures | {"predicted.csv"}
    predicted = pd.read_csv(plots / "predicted.csv")
    assert list(predicted.columns) == ["sample_id", "group_id", "actual", "predicted"]
    agree = stats.pearsonr(predicted["actual"], predicted["predicted"])[0]
    assert agree == pytest.approx(found["target"]["finetuned"]["pearson"], abs=1e-5)


@pytest.mark.drawn
def test_a_second_run_gives_the_same_bytes(track: Planted):
    def everything() -> dict[str, bytes]:
        files = [track.layout.details("evaluate"), *track.layout.plots("evaluate").iterdir()]
        return {file.name: file.read_bytes() for file in files}

    runs = []
    for _ in range(2):
        score(track)
        runs.append(everything())
    assert runs[0] == runs[1]


def test_repeats_pool_the_rows_that_each_fold_left_out(folded: Planted):
    found = score(folded)
    each = []
    for repeat in ("repeat-0", "repeat-1"):
        rows = pairs(folded, "finetune_e2e", "finetuned", "test")
        rows = rows[rows["fold"].str.startswith(repeat)]
        assert len(rows) == 60
        each.append(stats.pearsonr(rows["score"], rows["score_actual"])[0])
    target = found["target"]
    assert (target["protocol"], target["n"], target["groups"]) == ("cross_validation", 60, 60)
    assert target["finetuned"]["pearson"] == pytest.approx(np.mean(each), abs=1e-6)
    by_fold = pairs(folded, "finetune_e2e", "finetuned", "test").groupby("fold")
    within = [stats.pearsonr(part["score"], part["score_actual"])[0] for _, part in by_fold]
    assert len(within) > 2 and target["finetuned"]["pearson_within_folds"] == pytest.approx(np.mean(within), abs=1e-6)
    assert "pearson_within_folds" not in target["mean"]
    assert "modality_gap" not in target and "the modality gap is not measured" in "\n".join(found["warnings"])
    assert "source_text" not in found and not {"text_transfer", "text_tuned"} & set(target)
    assert target["ridge"]["resubstitution_pearson"] > target["ridge"]["pearson"] > 0.2


def test_a_cross_validated_corpus_that_came_with_a_split_shows_the_gap(tmp_path: Path):
    track = planted.make(tmp_path, "cross_validation", groups=60, per_group=1)
    track.target["given_split"] = ["train"] * 36 + ["val"] * 12 + ["test"] * 12
    assert set(score(track.write())["target"]["modality_gap"]) == {"text", "audio"}


def test_scored_per_group_both_sides_are_the_means_of_a_groups_rows(track: Planted):
    found = score(track, PER_GROUP)
    rows = pairs(track, "finetune_e2e", "finetuned", "test").groupby("group_id")[["score", "score_actual"]].mean()
    assert found["target"]["n"] == found["target"]["groups"] == len(rows) == 18
    wanted = stats.pearsonr(rows["score"], rows["score_actual"])[0]
    assert found["target"]["finetuned"]["pearson"] == pytest.approx(wanted, abs=1e-6)
    predicted = pd.read_csv(track.layout.plots("evaluate") / "predicted.csv")
    assert predicted["sample_id"].tolist() == list(rows.index)


@pytest.mark.parametrize("lacks_text", [False, True])
def test_a_modality_that_the_source_lacks_is_scored_and_carries_nothing(tmp_path: Path, lacks_text: bool):
    track, lacks = tracks.make(tmp_path, words=lacks_text), "visual"
    if lacks_text:
        lacks = "text"
        for corpus, name in (("target", "visual"), ("source", "text")):
            del track.vectors[corpus][name], track.present[corpus][name]
    tracks.run(track, "train_source", "train_adapters", "finetune_e2e")
    subsets = score(track)["target"]["subsets"]
    assert subsets[lacks]["zero_shot"] == subsets[lacks]["adapted"] == {}
    assert subsets[lacks]["ridge"]["pearson"] > 0.5
    both = "_".join(name for name in ("text", "audio", "visual") if name in (lacks, "audio"))
    for step in ("zero_shot", "adapted"):
        assert subsets[both][step] == subsets["audio"][step] != {}


def test_what_is_undefined_is_left_out_and_named(fresh: Planted):
    fresh.change("finetune_e2e", np.zeros_like, "finetuned")
    fresh.predictions["finetune_e2e"] = fresh.predictions["finetune_e2e"].query("groups != 20 or not with_source")
    fresh.predictions["finetune_e2e"] = fresh.predictions["finetune_e2e"].iloc[:-3]
    found = score(fresh.write())
    target = found["target"]
    assert not {"pearson", "pearson_ci_low", "permutation_p"} & set(target["finetuned"])
    assert "finetuned: pearson, spearman, slope undefined" in found["warnings"]
    assert "curve without_20: not every fold has so many groups" in found["warnings"]
    assert "finetuned_minus_ridge" not in target and "finetuned_minus_ridge_mae" in target
    assert target["subsets"]["text"]["finetuned"] == {}
    assert list(target["curve"]) == ["with_10", "without_10", "with_minus_without_10"]
    json.dumps(found, allow_nan=False)


@pytest.mark.drawn
def test_few_groups_have_scores_without_intervals(tmp_path: Path):
    track = planted.make(tmp_path, groups=30, per_group=6).write()
    found = score(track)
    target = found["target"]
    assert target["groups"] == 6
    assert "only 6 groups among the scored target rows: too few for intervals, which need 8" in found["warnings"]
    for one in (
        target["finetuned"],
        target["finetuned_minus_ridge"],
        target["curve"]["with_10"],
        target["subsets"]["text"]["ridge"],
    ):
        assert one.keys() & {"pearson", "value"} and not any("ci_low" in key for key in one)
    assert "source_model_weak" not in found["diagnosis"]
    assert (track.layout.plots("evaluate") / "transfer.png").stat().st_size > 5000


# --- the leak guard --------------------------------------------------------------------------------------------------


def refused(track: Planted, match: str) -> None:
    with pytest.raises(InputError, match=match) as refusal:
        score(track.write())
    assert "\n" not in str(refusal.value)
    assert "nothing is scored" in str(refusal.value)
    assert not track.layout.details("evaluate").exists()


@pytest.mark.parametrize("stage", ["train_adapters", "finetune_e2e", "train_source", "train_source/text"])
@pytest.mark.parametrize("role", ["train", "val"])
def test_a_test_row_that_any_model_was_fitted_on_is_refused(fresh: Planted, stage: str, role: str):
    corpus = {"train_source": "source", "train_source/text": "source_texts"}.get(stage, "target")
    row = fresh.tables[corpus].query("split == 'test'")["sample_id"].iloc[0]
    leaked = pd.DataFrame([{"fold": "final", "sample_id": row, "group_id": "elsewhere", "role": role}])
    fresh.fitted[stage] = pd.concat([fresh.fitted[stage], leaked])
    refused(fresh, rf"1 test rows were fitted on by {stage} in the same fold \({row}\)")


def test_a_group_that_a_model_was_fitted_on_is_refused(fresh: Planted):
    group = fresh.target.query("split == 'test'")["group_id"].iloc[0]
    fresh.fitted["train_adapters"].loc[0, "group_id"] = group
    refused(fresh, rf"1 groups of test rows were fitted on by train_adapters in the same fold \({group}\)")


def test_a_fold_may_score_what_other_folds_were_fitted_on_but_not_its_own(folded: Planted, tmp_path: Path):
    score(folded)
    track = planted.make(tmp_path, "cross_validation", groups=60, per_group=1)
    row = track.folds.query("fold == 'repeat-1.fold-2' and role == 'test'")["sample_id"].iloc[0]
    leaked = {"fold": "repeat-1.fold-2", "sample_id": row, "group_id": "elsewhere", "role": "val"}
    track.fitted["finetune_e2e"] = pd.concat([track.fitted["finetune_e2e"], pd.DataFrame([leaked])])
    refused(track, rf"fitted on by finetune_e2e in the same fold \({row}\)")


def test_predictions_that_disagree_with_the_folds_are_refused(fresh: Planted):
    rows = fresh.predictions["train_adapters"]
    at = Variant("adapted", planted.WHOLE).of(rows).query("split == 'train'").index[0]
    rows.loc[at, "split"] = "test"
    row = rows.loc[at, "sample_id"]
    refused(fresh, rf"train_adapters predicted rows as test in final, where its role is train \({row}\)")


def test_a_copy_of_a_fitted_row_is_refused_by_its_text_and_by_its_vectors(fresh: Planted):
    train, test = (fresh.target.query("split == @part").index[0] for part in ("train", "test"))
    ids = f"{fresh.target['sample_id'][test]} = {fresh.target['sample_id'][train]}"
    fresh.target.loc[test, "text"] = fresh.target["text"][train].upper() + "!"
    refused(fresh, rf"near-duplicates of rows of the target corpus fitted on in the same fold \({ids}\)")
    fresh.target.loc[test, "text"] = None
    for values in fresh.vectors["target"].values():
        values[test] = values[train] * (1 + 1e-7)
    refused(fresh, rf"near-duplicates of rows of the target corpus fitted on in the same fold \({ids}\)")


def test_a_scored_row_in_the_source_is_refused_by_text_or_group_but_not_by_a_plain_number(fresh: Planted):
    test, train = fresh.target.query("split == 'test'").index[0], fresh.tables["source_texts"].index[0]
    text, group = str(fresh.target["text"][test]), str(fresh.target["group_id"][test])
    fresh.tables["source_texts"].loc[train, "text"] = text
    refused(fresh, "1 of the target's test rows are copies of rows that models of the source_texts corpus saw")
    fresh.tables["source_texts"].loc[train, "text"] = None
    seen = fresh.tables["source"].index[0]
    fresh.tables["source"].loc[seen, "given_group"] = group
    refused(fresh, rf"1 groups .* have the names of groups of the source corpus; .* \({group}\)")
    fresh.tables["source"].loc[seen, "given_group"] = f"@{group.upper()} "
    refused(fresh, rf"1 groups .* have the names of groups of the source corpus; .* \({group}\)")
    fresh.tables["source"].loc[seen, "given_group"] = "17"
    fresh.target.loc[test, "given_group"] = "17"
    score(fresh.write())


@pytest.mark.parametrize("name", ["Bob", "bob ", "ＢＯＢ", "@bob", "b\u200bob"])
def test_a_group_is_one_however_two_corpora_spell_its_name(name: str):
    assert shared_names(["7", "bob", "ann"], ["7", "７", name, "bo b"]) == ["bob"]


def test_ids_that_number_the_rows_of_both_corpora_are_no_leak(fresh: Planted):
    test, seen = fresh.target.query("split == 'test'").index[0], fresh.tables["source"].index[0]
    for table, at in ((fresh.target, test), (fresh.tables["source"], seen)):
        table.loc[at, ["sample_id", "given_group"]] = "row_0"
    fresh.tables["source"].loc[seen, "given_group"] = "a video"
    renamed = {f"target-{test:04}": "row_0", f"source-{seen:04}": "row_0"}
    for rows in (fresh.folds, *fresh.fitted.values(), *fresh.predictions.values()):
        rows["sample_id"] = rows["sample_id"].replace(renamed)
    assert "row_0" in set(fresh.folds["sample_id"]) and "row_0" in set(fresh.fitted["train_source"]["sample_id"])
    for corpus in ("target", "source"):
        rows = fresh.tables[corpus].sort_values("sample_id")
        fresh.vectors[corpus] = {name: values[rows.index] for name, values in fresh.vectors[corpus].items()}
        fresh.tables[corpus] = rows.reset_index(drop=True)
    score(fresh.write())


def test_a_line_of_a_group_in_the_source_is_refused(fresh: Planted):
    grouped = PARAMS.model_copy(update={"target": PARAMS.target.model_copy(update={"level": "group"})})
    test, train = fresh.target.query("split == 'test'").index[0], fresh.tables["source_texts"].index[0]
    said = str(fresh.target["text"][test])
    fresh.target.loc[test, "text"] = f"{said}\nwhat else was said in the same video, at some length and by nobody else"
    fresh.tables["source_texts"].loc[train, "text"] = said
    with pytest.raises(InputError, match="1 of the target's test rows are copies of rows that models of the source_t"):
        score(fresh.write(), grouped)


def test_a_row_of_the_source_with_another_id_is_refused_by_its_features(fresh: Planted):
    test, seen = (
        fresh.target.query("split == 'test'").index[0],
        fresh.tables["source"].query("split == 'train'").index[0],
    )
    audio = {corpus: fresh.vectors[corpus]["audio"] for corpus in ("source", "target")}
    wide = np.zeros((len(audio["source"]), audio["target"].shape[1]), dtype=np.float32)
    wide[:, : audio["source"].shape[1]] = audio["source"]
    wide[seen] = audio["target"][test]
    fresh.vectors["source"]["audio"] = wide
    ids = f"{fresh.target['sample_id'][test]} = {fresh.tables['source']['sample_id'][seen]}"
    refused(fresh, rf"1 of the target's test rows are copies of rows that models of the source corpus saw \({ids}\)")


def test_a_row_without_a_score_that_copies_a_scored_one_is_refused(fresh: Planted):
    test = fresh.target.query("split == 'test'").index[0]
    train = fresh.target.query("split == 'train'").index[0]
    row = fresh.target["sample_id"][train]
    fresh.target.loc[train, ["split", "score"]] = ["unlabelled", np.nan]
    fresh.folds = fresh.folds[fresh.folds["sample_id"] != row]
    for name in ("train_adapters", "finetune_e2e"):
        fresh.fitted[name] = fresh.fitted[name][fresh.fitted[name]["sample_id"] != row]
        fresh.predictions[name] = fresh.predictions[name][fresh.predictions[name]["sample_id"] != row]
    fresh.target.loc[train, "text"] = fresh.target["text"][test]
    ids = f"{fresh.target['sample_id'][test]} = {row}"
    refused(fresh, rf"near-duplicates of rows of the target corpus fitted on in the same fold \({ids}\)")


def test_equal_vectors_of_short_texts_are_no_copies(fresh: Planted):
    train, test = (fresh.target.query("split == @part").index[0] for part in ("train", "test"))
    fresh.target.loc[[train, test], "text"] = "oh my"
    fresh.vectors["target"]["text"][test] = fresh.vectors["target"]["text"][train]
    score(fresh.write())


def test_a_changed_or_silent_fitted_table_is_refused(fresh: Planted):
    fresh.write()
    write_fitted(fresh.layout.model("finetune_e2e"), fresh.fitted["finetune_e2e"].iloc[1:])
    with pytest.raises(InputError, match=r"finetune_e2e/fitted\.parquet does not match the digest"):
        score(fresh)
    fresh.fitted["finetune_e2e"] = fresh.fitted["finetune_e2e"].iloc[:0]
    refused(fresh, "finetune_e2e/fitted.parquet does not say which rows")


def test_predictions_that_do_not_cover_the_test_rows_are_refused(fresh: Planted):
    whole = fresh.predictions["finetune_e2e"]
    tested = Variant("finetuned", planted.WHOLE).of(whole).query("split == 'test'")
    fresh.predictions["finetune_e2e"] = whole.drop(tested.index[0])
    with pytest.raises(InputError, match="finetuned with text_audio: repeat 0 does not have each test row once"):
        score(fresh.write())
    fresh.predictions["finetune_e2e"] = whole.query("subset != 'audio'")
    with pytest.raises(InputError, match=r"finetune_e2e/predictions\.parquet: has no audio of finetuned"):
        score(fresh.write())


def test_no_test_rows_are_one_clear_line(fresh: Planted):
    fresh.folds["role"] = fresh.folds["role"].replace("test", "val")
    with pytest.raises(InputError, match="no fold has test rows, so there is nothing to evaluate"):
        score(fresh.write())
