"""Adapters on small corpora: which rows they meet, which they must not, and that what is written is what predicted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from pipeline.core import artifacts
from pipeline.core.descriptions import read_description
from pipeline.core.fitted import read_fitted
from pipeline.core.schemas import ScoreStep, subset_name, subsets_of
from pipeline.nets.adapter import Adapter
from pipeline.params import Params
from pipeline.sentiment.adapters import describe_adapter, read_adapters
from pipeline.sentiment.data import read_target
from pipeline.sentiment.descriptions import AdaptersDescription
from pipeline.sentiment.source_model import load_source_model, read_source
from pipeline.sentiment.variants import Variant, by_variant
from tests import tracks
from tests.tracks import LACKS_TEXT, Track, everything

STAGES = ("train_source", "train_adapters")
EVERY = ("text", "audio", "visual")
VARIANTS = [Variant(step, subset_name(subset)) for step in ("zero_shot", "adapted") for subset in subsets_of(EVERY)]
FOLD, OTHER = "repeat-0.fold-0", "repeat-0.fold-1"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Track:
    """A holdout with a source model and no adapters."""
    return tracks.run(tracks.make(tmp_path_factory.mktemp("source")), "train_source")


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Track:
    """The same, where every row has a score."""
    return tracks.run(tracks.make(tmp_path_factory.mktemp("scored"), free=0), "train_source")


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> Track:
    return tracks.run(tracks.make(tmp_path_factory.mktemp("track"), folds=2), *STAGES)


def predictions(track: Track) -> pd.DataFrame:
    return artifacts.read_scores(track.layout.predictions("train_adapters"))


def scores(track: Track, step: ScoreStep, fold: str = FOLD, *, subset: str = subset_name(EVERY)) -> pd.Series:
    rows = Variant(step, subset).of(predictions(track))
    return rows[rows["fold"] == fold].set_index("sample_id")["score"].sort_index()


def weights(track: Track, fold: str) -> dict[str, bytes]:
    found = load_file(track.layout.model("train_adapters") / "model.safetensors")
    return {name: value.tobytes() for name, value in found.items() if name.startswith(f"{fold}|")}


def test_predictions_cover_the_roles_of_each_fold(track: Track) -> None:
    rows = predictions(track)
    expected = track.expected(VARIANTS)
    assert len(rows) == len(expected) == (3 * 48 + 10) * 14
    assert tracks.covered(rows) == expected
    assert not (rows.query("fold == 'final'")["split"] == "test").any()


def test_fitted_rows_are_those_of_the_folds(track: Track) -> None:
    fitted = read_description(track.layout.model("train_adapters"), AdaptersDescription).fitted
    found = read_fitted(track.layout.model("train_adapters"), fitted)
    seen = track.folds[track.folds["role"] != "test"].merge(track.target[["sample_id", "group_id"]])
    columns = ["fold", "sample_id", "group_id", "role"]
    assert sorted(found[columns].values.tolist()) == sorted(seen[columns].values.tolist())


@pytest.mark.parametrize("fold", [FOLD, "final"])
def test_the_adapters_rebuilt_give_the_predictions(track: Track, fold: str) -> None:
    source = load_source_model(track.layout.model("train_source"))
    adapters = read_adapters(track.layout, fold)
    vectors, present = track.vectors["target"], track.present["target"]
    for given, subset in ((subset_name(EVERY), {"text", "audio"}), ("audio", {"audio"})):
        with torch.inference_mode():
            made = {name: adapter.eval()(torch.from_numpy(vectors[name])) for name, adapter in adapters.items()}
            there = {name: torch.from_numpy(present[name] & (name in subset)) for name in adapters}
            known = source.eval()(made, there)[:, 0].numpy()
        found = scores(track, "adapted", fold, subset=given)
        assert len(found) == (58 if fold == "final" else 48)
        at = track.target["sample_id"].isin(found.index)
        np.testing.assert_allclose(found, known[at], atol=1e-4)


def test_a_modality_that_the_source_lacks_tells_it_nothing(track: Track) -> None:
    assert scores(track, "adapted").std() > 0.01
    pd.testing.assert_series_equal(scores(track, "adapted"), scores(track, "adapted", subset="text_audio"))
    pd.testing.assert_series_equal(
        scores(track, "adapted", subset="audio"), scores(track, "adapted", subset="audio_visual")
    )
    assert np.ptp(scores(track, "adapted", subset="visual")) < 1e-6


def moved(track: Track, root: Path, row: str, *, score: float | None = None, gain: float = 1.0) -> Track:
    """The track with one target row changed."""
    track = tracks.copied(track, root)
    at = int(np.flatnonzero(track.target["sample_id"] == row)[0])
    if score is not None:
        track.target.loc[at, "score"] = score
    for vectors in track.vectors["target"].values():
        vectors[at] *= gain
    return tracks.run(track, "train_adapters")


def learned_elsewhere(track: Track) -> str:
    """A test row of the one fold that trains the other."""
    return next(row for row in track.rows(FOLD, "test") if row in track.rows(OTHER, "train"))


def test_the_score_of_a_test_row_leaves_the_adapters_of_its_fold_as_they_are(track: Track, tmp_path: Path) -> None:
    row = learned_elsewhere(track)
    again = moved(track, tmp_path, row, score=-3.0)
    assert weights(again, FOLD) == weights(track, FOLD)
    assert weights(again, OTHER) != weights(track, OTHER)
    pd.testing.assert_series_equal(scores(again, "adapted"), scores(track, "adapted"))
    for fold in (FOLD, OTHER):
        pd.testing.assert_series_equal(scores(again, "zero_shot", fold), scores(track, "zero_shot", fold))


def test_the_features_of_a_test_row_leave_the_adapters_of_its_fold_as_they_are(track: Track, tmp_path: Path) -> None:
    row = learned_elsewhere(track)
    again = moved(track, tmp_path, row, gain=-2.0)
    assert weights(again, FOLD) == weights(track, FOLD)
    assert weights(again, OTHER) != weights(track, OTHER)
    for step in ("adapted", "zero_shot"):
        before, after = scores(track, step), scores(again, step)
        np.testing.assert_allclose(after.drop(row), before.drop(row), atol=1e-6)
        assert abs(after[row] - before[row]) > 1e-3


def test_rows_without_a_score_are_met(track: Track, tmp_path: Path) -> None:
    again = moved(track, tmp_path, "free-0001", gain=-2.0)
    for fold in (FOLD, OTHER, "final"):
        assert weights(again, fold) != weights(track, fold)


def test_without_labels_the_scores_of_the_target_say_nothing(track: Track, tmp_path: Path) -> None:
    other = tracks.copied(track, tmp_path)
    known = other.target["score"].notna()
    other.target.loc[known, "score"] = -other.target.loc[known, "score"].to_numpy()
    tracks.run(other, "train_adapters")
    pd.testing.assert_series_equal(scores(other, "zero_shot"), scores(track, "zero_shot"))
    assert np.corrcoef(scores(other, "adapted"), scores(track, "adapted"))[0, 1] < 0.9


@pytest.mark.parametrize(("label_weight", "same"), [(0.0, True), (1.0, False)])
def test_labels_of_no_weight_leave_both_steps_the_same(
    source: Track, tmp_path: Path, label_weight: float, same: bool
) -> None:
    block = {"match": "random", "label_weight": label_weight}
    track = tracks.run(tracks.copied(source, tmp_path), "train_adapters", adapter=block)
    for subset in (subset_name(EVERY), "text", "audio"):
        blind, told = (scores(track, step, "final", subset=subset) for step in ("zero_shot", "adapted"))
        assert blind.equals(told) == same


@pytest.mark.parametrize(
    ("block", "layers", "components"),
    [
        ({}, (), 8),
        ({"hidden": (256, 512, 1024)}, (256, 512, 1024), 0),  # the mission's 65 → 256 → 512 → 1024 → 713
        ({"hidden": (256,), "components": 5}, (256,), 5),
        ({"audio": {"hidden": (7,)}}, (7,), 0),
        ({"hidden": (256,), "audio": {"hidden": ()}}, (), 8),
        ({"components": 0, "audio": {"components": 4}}, (), 4),
    ],
)
def test_hidden_layers_see_the_columns_unless_components_are_asked_for(
    source: Track, block: dict[str, Any], layers: tuple[int, ...], components: int
) -> None:
    params = Params.model_validate({"adapter": block})
    found = describe_adapter(read_target(source.layout), read_source(source.layout), "audio", params)
    assert (found.width, found.hidden, found.out, found.components) == (5, layers, 8, components)


@pytest.mark.parametrize("match", ["random", "kmeans", "nearest", "ot", "coral"])
def test_every_way_of_matching_comes_closer(source: Track, tmp_path: Path, match: str) -> None:
    block = {"match": match, "epochs": 25, "learning_rate": 0.03, "dropout": 0.0, "clusters": 8}
    track = tracks.run(tracks.copied(source, tmp_path), "train_adapters", adapter=block)
    found = json.loads(track.layout.details("train_adapters").read_text())["sentiment"]
    for step in ("zero_shot", "adapted"):
        for name in ("text", "audio"):
            assert found[step][name]["last_loss"] < 0.8 * found[step][name]["first_loss"]


def test_the_distances_are_those_of_the_adapted_rows(track: Track) -> None:
    """Of the fold `final`: all labelled rows and those without a score, beside the source's training rows."""
    report = json.loads(track.layout.details("train_adapters").read_text())["sentiment"]["adapted"]["audio"]
    adapter = read_adapters(track.layout, "final")["audio"]
    there = track.present["target"]["audio"]
    with torch.inference_mode():
        made = adapter.eval()(torch.from_numpy(track.vectors["target"]["audio"][there])).numpy()
    source = track.present["source"]["audio"] & (track.tables["source"]["split"] == "train").to_numpy()
    source_rows = track.vectors["source"]["audio"][source]
    for key, apart in (
        ("mean_distance_after", made.mean(axis=0) - source_rows.mean(axis=0)),
        ("spread_distance_after", made.std(axis=0, ddof=1) - source_rows.std(axis=0, ddof=1)),
    ):
        assert report[key] == pytest.approx(np.sqrt(np.mean((apart / source_rows.std(axis=0)) ** 2)), abs=1e-4)


def test_the_source_is_its_training_rows_and_does_not_learn(track: Track) -> None:
    source = read_source(track.layout)
    rows = track.tables["source"]
    there = track.present["source"]["audio"] & (rows["split"] == "train").to_numpy()
    np.testing.assert_array_equal(source.rows["audio"], track.vectors["source"]["audio"][there])
    np.testing.assert_allclose(source.scores["audio"], rows["score"][there])
    assert not any(parameter.requires_grad for parameter in source.net.parameters())


def test_a_modality_may_have_epochs_of_its_own(source: Track, tmp_path: Path) -> None:
    """Not trained, an adapter is as it was initialised."""
    track = tracks.run(tracks.copied(source, tmp_path), "train_adapters", adapter={"audio": {"epochs": 0}})
    adapters = read_adapters(track.layout, "final")
    torch.manual_seed(42)
    fresh = Adapter(5, (), 8, components=3)
    assert all(torch.equal(a, b) for a, b in zip(adapters["audio"].parameters(), fresh.parameters(), strict=True))
    torch.manual_seed(42)
    fresh = Adapter(6, (), 9, components=3)
    assert not any(torch.equal(a, b) for a, b in zip(adapters["text"].parameters(), fresh.parameters(), strict=True))
    report = json.loads(track.layout.details("train_adapters").read_text())["sentiment"]["adapted"]
    assert (report["audio"]["epochs"], report["text"]["epochs"]) == (0.0, 4.0)


@pytest.mark.parametrize("match", ["random", "kmeans", "nearest", "ot", "coral"])
@pytest.mark.parametrize(
    ("corpus", "parts", "rows"),
    [("target", ["test"], 2), ("target", ["train"], 1), ("target", ["train", "val"], 1), ("source", ["train"], 1)],
)
def test_an_adapter_without_rows_to_meet_stays_as_it_is_initialised(
    scored: Track, tmp_path: Path, match: str, corpus: str, parts: list[str], rows: int
) -> None:
    """``rows`` of each of these parts have audio."""
    track = tracks.copied(scored, tmp_path)
    split = track.tables[corpus]["split"]
    track.present[corpus]["audio"] = np.zeros(len(split), dtype=bool)
    for part in parts:
        track.present[corpus]["audio"][np.flatnonzero(split == part)[:rows]] = True
    tracks.run(track, *(STAGES if corpus == "source" else STAGES[1:]), adapter={"match": match})
    report = json.loads(track.layout.details("train_adapters").read_text())["sentiment"]["adapted"]
    assert (report["audio"]["epochs"], report["text"]["epochs"]) == (4.0 if len(parts) > 1 else 0.0, 4.0)
    assert np.isfinite(list(report["audio"].values())).all()
    assert np.isfinite(scores(track, "adapted", "final")).all()


def test_no_epochs_at_all_leave_the_adapters_as_they_are_initialised(source: Track, tmp_path: Path) -> None:
    track = tracks.run(tracks.copied(source, tmp_path), "train_adapters", adapter={"epochs": 0})
    np.testing.assert_array_equal(scores(track, "adapted", "final"), scores(track, "zero_shot", "final"))


def test_the_sources_text_model_speaks_for_the_targets_words(tmp_path: Path) -> None:
    block = {"text": "full", "tuned": {"epochs": 2, "least_steps": 0, "encoder_learning_rate": 3e-3, "batch": 8}}
    track = tracks.run(tracks.make(tmp_path / "words", words=True), *STAGES, train_source=block)
    folder = track.layout.model("train_source") / "text"
    tensors, told = load_file(folder / "model.safetensors"), artifacts.read_embeddings(folder / "target.parquet")
    head, mean = tensors["classifier.layers.1.weight"][0], tensors["classifier.layers.1.bias"][0]
    known = pd.Series(told.vectors @ head + mean, index=told.sample_ids)
    found = scores(track, "text_transfer", "final")
    assert len(found) == 58
    np.testing.assert_allclose(found, known[found.index], atol=1e-5)
    silent = track.target["sample_id"][LACKS_TEXT]
    assert found[silent] == pytest.approx(mean, abs=1e-6)
    assert set(by_variant(predictions(track))) == {*VARIANTS, Variant("text_transfer", subset_name(EVERY))}
    # The text adapter starts from the vectors that the text model makes.
    assert read_adapters(track.layout, "final")["text"].mean.shape == (16,)
    # Its scores stand in for the labels, which say nothing.
    unseen = tracks.copied(track, tmp_path / "unseen")
    unseen.target["score"] = -unseen.target["score"].to_numpy()
    tracks.run(unseen, "train_adapters")
    blind = scores(track, "zero_shot", "final")
    assert len(blind) == 58
    pd.testing.assert_series_equal(scores(unseen, "zero_shot", "final"), blind)
    plain = tracks.run(tracks.copied(track, tmp_path / "plain"), "train_adapters", adapter={"label_weight": 0.0})
    assert not scores(plain, "zero_shot", "final").equals(blind)


def test_a_second_run_gives_the_same_bytes(track: Track, tmp_path: Path) -> None:
    again = tracks.run(tracks.copied(track, tmp_path), "train_adapters")
    assert everything(again.layout.model("train_adapters")) == everything(track.layout.model("train_adapters"))
    assert again.layout.details("train_adapters").read_bytes() == track.layout.details("train_adapters").read_bytes()
