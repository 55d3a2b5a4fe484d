"""Predictions of raw posts are those that the stages made, and their explanations are differences of predictions."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.core import artifacts
from pipeline.core.errors import InputError
from pipeline.core.files import MediaError
from pipeline.core.layout import Layout
from pipeline.core.schemas import MODALITIES
from pipeline.media.clips import read_frames
from pipeline.scoring import conformal, emotion
from pipeline.serving import bundle
from pipeline.serving.posts import Post, Prediction
from pipeline.serving.predictor import GRID, Predictor, occluded
from tests.imports import ROOT
from tests.serving import conftest
from tests.serving.conftest import Trained, corpus, train


def of_stage(trained: Trained, stage: str, kind: str, subset: str | None = None) -> dict[str, np.ndarray]:
    """Test row → logits, as the stage wrote them."""
    found = artifacts.read_predictions(trained.layout.predictions(stage), classes=2)
    wanted = (found.rows["split"] == "test") & (found.rows["kind"] == kind)
    if subset is not None:
        wanted &= found.rows["subset"] == subset
    kept = found.where(wanted.to_numpy())
    return dict(zip(kept.rows["sample_id"], kept.logits, strict=True))


def calibrated(layout: Layout, stage: str, logits: np.ndarray) -> np.ndarray:
    known = artifacts.read_json(layout.model(stage) / "model.json")["calibration"]
    return logits * np.array(known["scale"]) + np.array(known["bias"])


def offset(layout: Layout, stage: str) -> np.ndarray:
    return np.array(artifacts.read_json(layout.model(stage) / "model.json")["calibration"]["offset"])


def values(prediction: Prediction) -> np.ndarray:
    return np.array(list(prediction.probabilities.values()))


def log_odds(prediction: Prediction, label: str) -> float:
    p = prediction.probabilities[label]
    return float(np.log(p / (1 - p)))


def check_against_stages(trained: Trained, predictions: list[Prediction]) -> None:
    ids = trained.test["sample_id"]
    fused = of_stage(trained, "fuse", "fusion")
    logits = calibrated(trained.layout, "fuse", np.stack([fused[name] for name in ids]))
    expected = emotion.softmax(logits)
    names = artifacts.read_json(trained.layout.model("fuse") / "model.json")["labels"]
    labels = [names[at] for at in (logits + offset(trained.layout, "fuse")).argmax(axis=1)]
    assert [prediction.label for prediction in predictions] == labels
    np.testing.assert_allclose(np.stack([values(prediction) for prediction in predictions]), expected, atol=1e-4)
    for modality in MODALITIES:
        alone = of_stage(trained, f"train_{modality}", "specialist")
        for name, prediction in zip(ids, predictions, strict=True):
            told = prediction.parts[modality].alone
            assert (told is None) == (name not in alone)
            if told is not None:
                expected = emotion.softmax(calibrated(trained.layout, f"train_{modality}", alone[name][None]))[0]
                np.testing.assert_allclose(list(told.values()), expected, atol=1e-4)


def test_predictions_are_those_of_the_stages(trained: Trained, predictor: Predictor) -> None:
    check_against_stages(trained, predictor.predict(trained.posts()))


def test_tuned_encoders_predict_as_the_stages_did_and_travel_with_their_specialists_without_peft(
    tmp_path: Path,
) -> None:
    tuned = train(tmp_path / "project", "tuned")
    predictor, posts = tuned.predictor(), tuned.posts()
    assert {branch.encoder is branch.frozen for branch in predictor.model.branches.values()} == {False}
    expected = predictor.predict(posts)
    check_against_stages(tuned, expected)
    bundle.export(tuned.params, tuned.layout, tmp_path / "bundle")
    shutil.rmtree(tmp_path / "project" / "models")
    shutil.rmtree(tmp_path / "project" / "bert")
    code = (
        "import sys, json; sys.modules['peft'] = sys.modules['dvc'] = None; from pathlib import Path\n"
        "from pipeline.serving.predictor import Predictor; from pipeline.serving.posts import Post\n"
        f"got = Predictor.load({str(tmp_path / 'bundle')!r}).predict([Post(text=sys.argv[1])])\n"
        "print(json.dumps(got[0].as_json()))"
    )
    at = next(at for at, post in enumerate(posts) if post.text and not post.image and not post.video)
    said = [sys.executable, "-c", code, posts[at].text or ""]
    told = subprocess.run(said, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert json.loads(told)["probabilities"] == pytest.approx(expected[at].as_json()["probabilities"], abs=1e-5)


@pytest.mark.parametrize("kind", ["words", "simple"])
def test_predictions_of_linear_models_are_those_of_the_stages_and_travel_in_a_bundle(tmp_path: Path, kind: str) -> None:
    project = train(tmp_path / "project", kind)
    predictions = project.predictor().predict(project.posts())
    check_against_stages(project, predictions)
    bundle.export(project.params, project.layout, tmp_path / "bundle")
    assert (tmp_path / "bundle" / "text" / "vocabulary.json").is_file()
    (tmp_path / "project" / "models").rename(tmp_path / "gone")
    again = Predictor.load(tmp_path / "bundle").predict(project.posts())
    for one, other in zip(predictions, again, strict=True):
        assert one.label == other.label
        np.testing.assert_allclose(values(one), values(other), atol=1e-6)


def test_a_modality_is_explained_by_masking_it(trained: Trained, predictor: Predictor) -> None:
    fused = of_stage(trained, "fuse", "fusion")
    masked = {
        "text": of_stage(trained, "fuse", "masked", "image_video"),
        "image": of_stage(trained, "fuse", "masked", "text_video"),
        "video": of_stage(trained, "fuse", "masked", "text_image"),
    }
    for name, prediction in zip(trained.test["sample_id"], predictor.predict(trained.posts()), strict=True):
        at = predictor.labels.index(prediction.label)
        there = {modality: part for modality, part in prediction.parts.items() if part.state == "present"}
        for modality, part in there.items():
            # Of two classes, the log-odds of one are the difference of the logits.
            of = (calibrated(trained.layout, "fuse", logits) for logits in (fused[name], masked[modality][name]))
            whole, without = (logits[at] - logits[1 - at] for logits in of)
            assert part.change == pytest.approx(whole - without, abs=1e-3)
        total = sum(abs(part.change) for part in there.values())
        for modality, part in prediction.parts.items():
            assert part.share == pytest.approx(abs(part.change) / total if modality in there else 0.0)


def test_states_say_what_became_of_each_modality(trained: Trained, predictor: Predictor) -> None:
    broken = trained.layout.root / "broken38"
    post = Post(text=" \n", image=broken, video=MediaError("path leads out of the media folder"))
    nothing, damaged = predictor.predict([Post(), post])
    assert {part.state for part in nothing.parts.values()} == {"absent"}
    assert nothing.reasons == "nothing given"
    assert [part.state for part in damaged.parts.values()] == ["absent", "unreadable", "unreadable"]
    told = "image: not a picture: no JPEG, PNG, GIF, WebP, BMP or TIFF; video: path leads out of the media folder"
    assert damaged.reasons == f"text: empty; {told}"
    np.testing.assert_array_equal(values(nothing), values(damaged))
    assert sum(nothing.probabilities.values()) == pytest.approx(1)


def test_a_file_its_bytes_and_its_pixels_are_one_picture(trained: Trained, predictor: Predictor) -> None:
    path = trained.layout.root / "1.png"
    pixels = np.asarray(Image.open(path).convert("RGB"))
    predictions = predictor.predict([Post(image=path), Post(image=path.read_bytes()), Post(image=pixels)])
    for prediction in predictions[1:]:
        np.testing.assert_allclose(values(prediction), values(predictions[0]), atol=1e-5)


def test_a_clip_and_its_frames_are_one_clip(trained: Trained, predictor: Predictor) -> None:
    path = trained.layout.root / "2.gif"
    frames = read_frames(path, frames=3, max_pixels=10_000_000)
    a, b = predictor.predict([Post(video=path), Post(video=frames)])
    np.testing.assert_allclose(values(a), values(b), atol=1e-5)


def test_posts_do_not_depend_on_their_company(trained: Trained, predictor: Predictor) -> None:
    together = predictor.predict(trained.posts())
    for post, prediction in zip(trained.posts(), together, strict=True):
        (alone,) = predictor.predict([post])
        np.testing.assert_allclose(values(alone), values(prediction), atol=1e-5)
    assert predictor.predict([]) == []


def test_texts_that_no_tokenizer_takes(predictor: Predictor) -> None:
    half, whole = predictor.predict([Post(text="i am \ud800 sad"), Post(text="i am ? sad")])
    np.testing.assert_allclose(values(half), values(whole), atol=1e-5)


def test_prediction_sets_hold_what_rows_out_of_fold_cannot_rule_out(trained: Trained, predictor: Predictor) -> None:
    posts = artifacts.read_posts(trained.layout.table("posts")).set_index("sample_id")
    found = artifacts.read_predictions(trained.layout.predictions("fuse"), classes=2)
    unseen = found.where(((found.rows["split"] != "test") & (found.rows["kind"] == "fusion")).to_numpy())
    assert set(unseen.rows["split"]) == {"train", "val"}
    p = emotion.softmax(calibrated(trained.layout, "fuse", unseen.logits))
    actual = posts.loc[unseen.rows["sample_id"], "label"].to_numpy()
    for coverage in (0.5, 0.8):
        for prediction in predictor.predict(trained.posts(), coverage):
            for at, label in enumerate(predictor.labels):
                calibration = p[actual == label, at]
                # The p-value: the share of rows, the new one among them, whose class is at most as plain to see.
                value = (1 + (calibration <= prediction.probabilities[label] + 1e-5).sum()) / (1 + len(calibration))
                held = value > 1 - coverage + 1e-9 or label == prediction.label
                assert prediction.labels_in_set is not None
                assert (label in prediction.labels_in_set) == held
    assert predictor.predict(trained.posts()[:1])[0].labels_in_set is None
    assert conformal.rows_needed(0.8) == 4


def test_words_are_explained_by_leaving_them_out(trained: Trained, predictor: Predictor) -> None:
    path = trained.layout.root / "1.png"
    explanation = predictor.explain(Post(text="i  am so\nsad", image=path))
    assert explanation.words is not None
    assert [(word, start) for word, start, _ in explanation.words] == [("i", 0), ("am", 3), ("so", 6), ("sad", 9)]
    whole, without = predictor.predict([Post("i am so sad", path), Post("i am so", path)])
    expected = log_odds(whole, whole.label) - log_odds(without, whole.label)
    assert explanation.label == whole.label
    assert explanation.words[-1][2] == pytest.approx(expected, abs=1e-4)
    assert explanation.frames is None


def test_the_only_word_left_out_leaves_no_text(predictor: Predictor) -> None:
    explanation = predictor.explain(Post(text="sad"))
    whole, none = predictor.predict([Post(text="sad"), Post()])
    assert explanation.words is not None
    assert explanation.words[0][2] == pytest.approx(
        log_odds(whole, whole.label) - log_odds(none, whole.label), abs=1e-4
    )


def test_patches_and_frames_are_explained_by_hiding_them(trained: Trained, predictor: Predictor) -> None:
    clip = read_frames(trained.layout.root / "2.gif", frames=3, max_pixels=10_000_000)
    picture = np.asarray(Image.open(trained.layout.root / "1.png").convert("RGB"))
    explanation = predictor.explain(Post(image=picture, video=clip))
    assert explanation.patches is not None
    assert explanation.frames is not None
    hidden = list(occluded(picture, GRID))[GRID + 2]
    whole, one_hidden, one_less = predictor.predict(
        [Post(image=picture, video=clip), Post(image=hidden, video=clip), Post(image=picture, video=clip[1:])]
    )
    odds = log_odds(whole, whole.label)
    assert explanation.patches[1, 2] == pytest.approx(odds - log_odds(one_hidden, whole.label), abs=1e-4)
    assert explanation.frames[0] == pytest.approx(odds - log_odds(one_less, whole.label), abs=1e-4)
    assert explanation.words is None


def test_occluded_patches_tile_the_picture() -> None:
    picture = np.random.default_rng(0).integers(100, 256, (7, 11, 3), dtype=np.uint8)
    colour = picture.mean(axis=(0, 1)).round().astype(np.uint8)
    hidden = np.stack([(copy == colour).all(axis=2) & (picture != colour).any(axis=2) for copy in occluded(picture, 3)])
    np.testing.assert_array_equal(hidden.sum(axis=0), 1)


def test_a_corpus_of_one_modality_has_no_fusion(tmp_path: Path) -> None:
    texts = train(tmp_path, "head", {"text"})
    predictor = texts.predictor()
    assert predictor.model.fusion is None
    posts = [replace(post, image=tmp_path / "1.png") for post in texts.posts()]
    fused = of_stage(texts, "fuse", "fusion")
    for name, prediction in zip(texts.test["sample_id"], predictor.predict(posts), strict=True):
        expected = emotion.softmax(calibrated(texts.layout, "fuse", fused[name][None]))[0]
        np.testing.assert_allclose(values(prediction), expected, atol=1e-4)
        assert prediction.parts["image"].reason == "the model knows no image"
        assert prediction.parts["image"].state == "absent"


def test_a_post_without_the_only_modality_has_the_shares_of_the_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def uneven(root: Path, modalities: set[str]) -> list[dict[str, Any]]:
        rows = corpus(root, modalities)
        return [row for at, row in enumerate(rows) if at % 3 or row["label"] != rows[0]["label"]]

    monkeypatch.setattr(conftest, "corpus", uneven)
    texts = train(tmp_path, "head", {"text"})
    predictor, fused = texts.predictor(), of_stage(texts, "fuse", "fusion")
    posts = [replace(post, image=tmp_path / "1.png") for post in texts.posts()]
    known = artifacts.read_posts(texts.layout.table("posts")).query("split != 'test'")["label"].value_counts()
    shares = [(known[label] + 1) / (known.sum() + len(known)) for label in sorted(known.index)]
    silent = texts.test[texts.test["text"].isna()]
    assert len(silent) and len(set(shares)) > 1
    for name, post in zip(silent["sample_id"], [posts[at] for at in silent.index], strict=True):
        np.testing.assert_allclose(emotion.softmax(fused[name][None])[0], shares, atol=1e-5)
        np.testing.assert_allclose(values(predictor.predict([post])[0]), shares, atol=1e-4)


def test_params_that_are_not_those_of_the_training_are_refused(trained: Trained) -> None:
    video = trained.params.embed.video.model_copy(update={"frames": 5})
    embed = trained.params.embed.model_copy(update={"video": video})
    with pytest.raises(InputError, match=r"embed\.video: not what the models were trained with"):
        Predictor.of_project(trained.params.model_copy(update={"embed": embed}), trained.layout)
