"""The source model on small corpora: what it predicts, what it was fitted on, what it must not see."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipeline.core import artifacts
from pipeline.core.descriptions import read_description
from pipeline.core.errors import InputError
from pipeline.core.fitted import read_fitted
from pipeline.encoders import text
from pipeline.nets.specialist import Specialist, TunedSpecialist
from pipeline.params import EmbedTextParams
from pipeline.sentiment.descriptions import SourceDescription, TextModelDescription
from pipeline.sentiment.source_model import load_source_model
from pipeline.sentiment.text_model import train_text_model
from pipeline.sentiment.variants import Variant
from pipeline.training.checkpoint import load_weights
from tests import tracks
from tests.tracks import LACKS_TEXT, Track, everything

VARIANTS = [Variant("source", name) for name in ("text", "audio", "text_audio")]
TUNED = {
    "epochs": 15,
    "least_steps": 0,
    "encoder_learning_rate": 3e-3,
    "head_learning_rate": 0.01,
    "batch": 8,
    "runs": 1,
}
CPU = torch.device("cpu")


def run(track: Track, **settings: object) -> Track:
    return tracks.run(track, "train_source", train_source=settings)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Track:
    return run(tracks.make(tmp_path_factory.mktemp("features")))


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Track:
    return run(tracks.make(tmp_path_factory.mktemp("words"), words=True), text="full", tuned=TUNED)


def weights(track: Track) -> bytes:
    return (track.layout.model("train_source") / "model.safetensors").read_bytes()


def test_every_row_is_predicted_once_by_each_subset_of_the_shared_modalities(features: Track) -> None:
    rows = features.tables["source"]
    found = artifacts.read_scores(features.layout.predictions("train_source"))
    expected = {("final", name, part, made) for name, part in rows[["sample_id", "split"]].values for made in VARIANTS}
    assert tracks.covered(found) == expected


def test_it_was_fitted_on_training_and_validation_rows(features: Track) -> None:
    description = read_description(features.layout.model("train_source"), SourceDescription)
    found = read_fitted(features.layout.model("train_source"), description.fitted)
    rows = features.tables["source"].query("split != 'test'")
    expected = {("final", *row) for row in rows[["sample_id", "group_id", "split"]].itertuples(index=False, name=None)}
    assert len(found) == description.fitted.rows == len(expected)
    assert set(found.itertuples(index=False, name=None)) == expected


def test_it_learns(features: Track) -> None:
    metrics = json.loads(features.layout.details("train_source").read_text())["sentiment"]["features"]
    found = artifacts.read_scores(features.layout.predictions("train_source"))
    test = VARIANTS[-1].of(found).query("split == 'test'").set_index("sample_id")["score"]
    actual = features.tables["source"].set_index("sample_id")["score"][test.index]
    assert np.corrcoef(test, actual)[0, 1] > 0.8
    of = metrics["choice"]["candidates"][metrics["choice"]["taken"]]
    assert metrics["out_of_fold"]["pearson"] == pytest.approx(of["pearson"], abs=1e-6)
    assert metrics["out_of_fold"]["pearson"] > 0.8


def test_the_model_rebuilt_gives_the_predictions(features: Track) -> None:
    folder, ids = features.layout.model("train_source"), features.tables["source"]["sample_id"]
    assert read_description(folder, SourceDescription).modalities == ("text", "audio")
    net = load_source_model(folder)
    load_weights(folder, net)
    vectors, present = features.vectors["source"], features.present["source"]
    predictions = artifacts.read_scores(features.layout.predictions("train_source"))
    for variant, subset in ((VARIANTS[-1], ("text", "audio")), (VARIANTS[1], ("audio",))):
        there = {kind: torch.from_numpy(mask & (kind in subset)) for kind, mask in present.items()}
        given = {kind: torch.from_numpy(rows * present[kind][:, None]) for kind, rows in vectors.items()}
        with torch.inference_mode():
            scores = net.eval()(given, there)[:, 0].numpy()
        found = variant.of(predictions).set_index("sample_id")["score"]
        np.testing.assert_allclose(found[ids], scores, atol=1e-5)


@pytest.mark.parametrize(("part", "same"), [("test", True), ("train", False), ("val", False)])
def test_test_rows_leave_the_weights_as_they_are(features: Track, tmp_path: Path, part: str, same: bool) -> None:
    track = tracks.make(tmp_path)
    at = int(np.flatnonzero(track.tables["source"]["split"] == part)[1])
    track.tables["source"].loc[at, "score"] = -3.0
    track.vectors["source"]["text"][at] *= -2
    assert (weights(run(track)) == weights(features)) == same


def test_a_second_run_gives_the_same_bytes(features: Track, words: Track, tmp_path: Path) -> None:
    for name, first, more in (("features", features, {}), ("words", words, {"text": "full", "tuned": TUNED})):
        again = run(tracks.make(tmp_path / name, words=name == "words"), **more)
        assert everything(again.layout.model("train_source")) == everything(first.layout.model("train_source"))
        assert again.layout.details("train_source").read_bytes() == first.layout.details("train_source").read_bytes()


def test_without_words_there_is_no_text_model(features: Track) -> None:
    folder = features.layout.model("train_source") / "text"
    assert read_description(folder, TextModelDescription).absent
    assert sorted(path.name for path in folder.iterdir()) == ["fitted.parquet", "model.json", "predictions.parquet"]
    assert len(artifacts.read_scores(folder / "predictions.parquet")) == 0


@pytest.mark.parametrize("why", ["asked", "source", "target"])
def test_a_text_model_needs_words_on_both_sides(tmp_path: Path, why: str) -> None:
    track = tracks.make(tmp_path, words=True)
    if why == "source":
        track.tables["source_texts"] = track.tables["source_texts"].iloc[:0]
    if why == "target":
        track.encoder = None  # its text is features
    run(track, text="none" if why == "asked" else "full")
    assert read_description(track.layout.model("train_source") / "text", TextModelDescription).absent


def test_the_text_model_learns_from_the_sources_words(words: Track) -> None:
    folder, rows = words.layout.model("train_source") / "text", words.tables["source_texts"]
    found = artifacts.read_scores(folder / "predictions.parquet")
    assert found["sample_id"].tolist() == rows["sample_id"].tolist()
    assert found["split"].tolist() == rows["split"].tolist()
    test = (rows["split"] == "test").to_numpy()
    happy = rows["text"].str.contains("happy").to_numpy()
    assert found["score"][test & happy].min() > found["score"][test & ~happy].max()
    description = read_description(folder, TextModelDescription)
    fitted = read_fitted(folder, description.fitted)
    assert set(fitted["sample_id"]) == set(rows.loc[~test, "sample_id"])
    assert description.best_epoch == TUNED["epochs"]
    metrics = json.loads(words.layout.details("train_source").read_text())["sentiment"]
    assert metrics["text"]["rows"] == len(fitted) == (~test).sum()


def test_nothing_is_kept_of_a_training_that_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOCARE_CACHE", str(tmp_path / "cache"))
    kept = []
    monkeypatch.setattr("pipeline.sentiment.text_model.write_model", lambda *_: kept.extend(pieces()))

    def pieces() -> list[Path]:
        return list((tmp_path / "cache").rglob("*.safetensors"))

    track = tracks.make(tmp_path / "track", words=True)
    run(track, text="full", tuned={**TUNED, "epochs": 1, "runs": 2})
    assert len(kept) == 2  # a run that is cut off here takes up both
    assert pieces() == []


def test_the_text_model_is_the_mean_of_runs_with_other_seeds(words: Track, tmp_path: Path) -> None:
    """Each alone, by the seed of its own, and all three at once."""

    def tensors(seed: int, runs: int) -> dict[str, torch.Tensor]:
        track = tracks.copied(words, tmp_path / f"{seed} {runs}")
        settings = tracks.params(track, train_source={"text": "full", "tuned": {**TUNED, "epochs": 1, "runs": runs}})
        folder = tmp_path / f"of {seed} {runs}"
        folder.mkdir()
        params = settings.model_copy(update={"seed": seed})
        assert train_text_model(track.tables["source_texts"], folder, params, track.layout) is not None
        return load_file(folder / "model.safetensors")

    alone, together = [tensors(seed, 1) for seed in (5, 6, 7)], tensors(5, 3)
    assert not torch.equal(alone[0]["classifier.layers.1.weight"], alone[1]["classifier.layers.1.weight"])
    for name, value in together.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, torch.stack([of[name] for of in alone]).mean(dim=0))


def rebuilt(track: Track) -> tuple[text.TextEncoder, TunedSpecialist]:
    """The encoder as it was before it learned, and the text model by its files."""
    folder = track.layout.model("train_source") / "text"
    encoder = text.load(EmbedTextParams(encoder=str(track.encoder)))
    description = read_description(folder, TextModelDescription).net
    assert description is not None
    net = TunedSpecialist(
        text.load(EmbedTextParams(encoder=str(track.encoder))).net,
        Specialist(classes=1, **description.arguments()),
    )
    load_weights(folder, net)
    return encoder, net.eval()


def test_the_text_model_rebuilt_gives_the_predictions_and_the_targets_vectors(words: Track) -> None:
    encoder, net = rebuilt(words)
    folder = words.layout.model("train_source") / "text"
    said = words.tables["source_texts"]["text"].tolist()
    with torch.inference_mode():
        scores = net(encoder.collate(encoder.tokenize(said)))[:, 0].numpy()
    found = artifacts.read_scores(folder / "predictions.parquet")["score"]
    np.testing.assert_allclose(found, scores, atol=1e-5)
    target = artifacts.read_embeddings(folder / "target.parquet")
    assert target.sample_ids.tolist() == words.target["sample_id"].tolist()
    assert (~target.present).nonzero()[0].tolist() == [LACKS_TEXT]
    assert not target.vectors[LACKS_TEXT].any()
    texts = words.target["text"][target.present].tolist()
    with torch.inference_mode():
        vectors = net.encoder(**encoder.collate(encoder.tokenize(texts))).numpy()
    np.testing.assert_allclose(target.vectors[target.present], vectors, atol=1e-5)
    assert np.abs(vectors - encoder.encode(texts, CPU)).max() > 0.1  # the encoder has learned


def test_the_words_of_a_test_row_leave_the_text_model_as_it_is(words: Track, tmp_path: Path) -> None:
    track = tracks.make(tmp_path, words=True)
    rows = track.tables["source_texts"]
    at = rows.index[rows["split"] == "test"][0]
    rows.loc[at, ["score", "text"]] = [3.0, "sad sad cat"]
    run(track, text="full", tuned=TUNED)
    name = "text/model.safetensors"
    changed, before = (everything(item.layout.model("train_source"))[name] for item in (track, words))
    assert changed == before


def test_low_rank_updates_become_part_of_the_encoder(tmp_path: Path) -> None:
    track = run(tracks.make(tmp_path, words=True), text="lora", tuned=TUNED)
    encoder, net = rebuilt(track)  # by names that know nothing of low ranks
    tensors = load_file(track.layout.model("train_source") / "text" / "model.safetensors")
    start = {f"encoder.{name}": value for name, value in encoder.net.state_dict().items()}
    moved = {name for name, value in start.items() if not torch.equal(value, tensors[name])}
    assert moved == {name for name in start if name.endswith(("q_lin.weight", "v_lin.weight"))}
    said = track.tables["source_texts"]["text"].tolist()
    with torch.inference_mode():
        scores = net(encoder.collate(encoder.tokenize(said)))[:, 0].numpy()
    found = artifacts.read_scores(track.layout.model("train_source") / "text" / "predictions.parquet")["score"]
    np.testing.assert_allclose(found, scores, atol=1e-5)


def test_a_group_has_the_mean_of_its_lines(tmp_path: Path) -> None:
    track = tracks.make(tmp_path, words=True)
    track.target.loc[0, "text"] = "happy cat\nthe dog is so sad"
    blocks = {"train_source": {"text": "full", "tuned": TUNED | {"epochs": 1}}, "target": {"level": "group"}}
    tracks.run(track, "train_source", **blocks)
    encoder, net = rebuilt(track)
    with torch.inference_mode():
        lines = net.encoder(**encoder.collate(encoder.tokenize(["happy cat", "the dog is so sad"]))).numpy()
    found = artifacts.read_embeddings(track.layout.model("train_source") / "text" / "target.parquet")
    np.testing.assert_allclose(found.vectors[0], lines.mean(axis=0), atol=1e-5)


def test_nothing_in_common_is_one_clear_line(tmp_path: Path) -> None:
    track = tracks.make(tmp_path)
    track.present["source"]["text"][:] = False
    track.present["target"]["audio"][:] = False
    with pytest.raises(
        InputError,
        match="training rows of the source have audio, the target has text, visual: no modality to carry over",
    ) as one:
        run(track)
    assert "\n" not in str(one.value)
    assert not track.layout.model("train_source").exists()
