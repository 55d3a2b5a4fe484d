"""Tuning for real, on encoders small enough to train in seconds."""

import json
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from scipy.special import log_softmax

from pipeline.core import artifacts, schemas
from pipeline.core.descriptions import read_description
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.core.schemas import MODALITIES, FusionCandidate
from pipeline.params import Params
from pipeline.posts.candidates import CandidateResult
from pipeline.posts.descriptions import FusionDescription, SpecialistDescription
from pipeline.posts.folds import NamedFold
from pipeline.posts.fusion_candidates import average, build, fit_fusion, try_fusion
from pipeline.posts.fusion_rows import read_fusion_rows
from pipeline.posts.specialist import _worth_tuning, train
from pipeline.posts.specialist_rows import read_rows
from pipeline.stages import embed, fuse, train_image, train_text, train_video
from tests import processes, tiny
from tests.test_end_to_end import texts

SMALL = {"batch": 8, "folds": 2, "epochs": 4, "least_steps": 0, "encoder_learning_rate": 3e-3}


def posts_table(layout: Layout, rows: list[dict[str, Any]]) -> None:
    frame = pd.DataFrame(rows).rename(columns={"id": "sample_id"}).assign(group_id=lambda table: table["sample_id"])
    for column in ("text", "image_path", "video_path"):
        frame[column] = frame.get(column)
    frame["split"] = [("train", "train", "train", "val", "test")[at // 2 % 5] for at in range(len(frame))]
    frame = frame.sort_values("sample_id")[schemas.POSTS_TABLE.names]
    table = pa.Table.from_pandas(frame, schema=schemas.POSTS_TABLE, preserve_index=False)
    artifacts.write_parquet(layout.table("posts"), table)
    for name in ("source", "target"):  # `embed` prepares all corpora
        features = [{"id": str(at), "score": 0.5, "audio": [at, 1.0 - at * at]} for at in range(3)]
        artifacts.write_parquet(layout.sample_corpus(name), pa.Table.from_pylist(features))
        names = [dict.fromkeys(("sample_id", "group_id", "given_group"), str(at)) for at in range(3)]
        scored = [{**one, "split": "train", "score": 0.5} for one in names]
        artifacts.write_parquet(layout.table(name), pa.Table.from_pylist(scored, schema=schemas.SCORED_TABLE))


def sentences(count: int) -> list[dict[str, Any]]:
    """Texts in the words that the tiny encoder knows; one word tells the label."""
    rng = np.random.default_rng(0)
    rows = []
    for at in range(count):
        label = ("happy", "sad")[at % 2]
        words = [*rng.choice(["i", "am", "so", "today", "the", "cat", "dog"], 4), label]
        rows.append({"id": f"p{at:03d}", "label": label, "text": " ".join(rng.permutation(words))})
    return rows


def tensors(layout: Layout, stage: str) -> dict[str, np.ndarray]:
    return load_file(layout.model(stage) / "model.safetensors")


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_a_text_encoder_learns(tmp_path: Path, tune: str) -> None:
    layout = Layout(tmp_path)
    posts_table(layout, sentences(100))
    encoder = tiny.distilbert(tmp_path / "bert")
    settings = {
        "embed": {"text": {"encoder": str(encoder)}, "image": {"encoder": str(tiny.clip(tmp_path / "clip"))}},
        "train_text": {"candidates": [tune], "tuned": SMALL},
        "posts": {"media": "."},
    }
    params = Params.model_validate(settings)
    embed.run(params, layout)
    train_text.run(params, layout)
    description = artifacts.read_json(layout.model("train_text") / "model.json")
    assert description["candidate"] == tune
    found, start = tensors(layout, "train_text"), load_file(encoder / "model.safetensors")
    if tune == "full":
        metrics = json.loads(layout.details("train_text").read_text())["posts"]
        assert metrics["out_of_fold"]["macro_f1"] > 0.8
    else:  # only the low-rank updates learn; B starts as zero, and a random tiny encoder gives them little to work with
        assert all(value.any() for name, value in found.items() if "lora_B" in name)
        frozen = {name: value for name, value in found.items() if "base_layer" in name}
        assert len(frozen) == 2 * 2 * 2  # weight and bias of query and value in two layers
        for name, value in frozen.items():
            tail = name.split("transformer.", 1)[1].replace("base_layer.", "")
            original = next(key for key in start if key.endswith(tail))
            np.testing.assert_array_equal(value, start[original])
    # The same run again is the same to the byte, encoder and all.
    before = (layout.model("train_text") / "model.safetensors").read_bytes()
    train_text.run(params, layout)
    assert (layout.model("train_text") / "model.safetensors").read_bytes() == before


def launched(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[CompletedProcess[str]]:
    """`train_text` in two processes, as a launcher starts them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_PORT", str(probe.getsockname()[1]))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    started = []
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        started.append(processes.start("train_text", "--project", root))
    ended = []
    for member in started:
        with member.stdout, member.stderr:
            out, err = member.stdout.read(), member.stderr.read()
        ended.append(CompletedProcess([], member.wait(), out, err))
    return ended


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_two_processes_of_a_launcher_train_what_one_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tune: str
) -> None:
    layout = Layout(tmp_path)
    posts_table(layout, sentences(100))
    encoder = tiny.distilbert(tmp_path / "bert")
    config = json.loads((encoder / "config.json").read_text())
    (encoder / "config.json").write_text(json.dumps(config | {"dropout": 0.0, "attention_dropout": 0.0}))
    settings = {
        "device": "cpu",
        "embed": {"text": {"encoder": str(encoder)}, "image": {"encoder": str(tiny.clip(tmp_path / "clip"))}},
        "specialist": {"dropout": 0.0},
        "train_text": {"candidates": [tune], "tuned": SMALL},
        "posts": {"media": "."},
    }
    layout.params.write_text(json.dumps(settings))
    params = Params.model_validate(settings)
    embed.run(params, layout)
    train_text.run(params, layout)
    alone, metrics = artifacts.read_predictions(layout.predictions("train_text"), 2), layout.details("train_text")
    wanted = json.loads(metrics.read_text())
    metrics.unlink()
    shutil.rmtree(layout.model("train_text"))
    ended = launched(tmp_path, monkeypatch)
    assert [member.returncode for member in ended] == [0, 0]
    assert ended[0].stdout + ended[0].stderr == "", "the process that helps is silent"
    divided = artifacts.read_predictions(layout.predictions("train_text"), 2)
    assert divided.rows.equals(alone.rows)
    assert np.abs(divided.logits - alone.logits).max() < 0.01 < np.abs(alone.logits).max()
    found = json.loads(metrics.read_text())["posts"]["out_of_fold"]
    assert found["macro_f1"] == wanted["posts"]["out_of_fold"]["macro_f1"]
    assert found["macro_f1"] > 0.8 or tune == "lora"
    assert not layout.lock("train_text").exists()


def shades(folder: Path, count: int) -> list[dict[str, Any]]:
    """Light and dark pictures: what the labels mean is plain to see."""
    rng = np.random.default_rng(0)
    rows = []
    for at in range(count):
        level = 190 if at % 2 else 60
        noise = rng.integers(-40, 40, (40, 48, 3))
        Image.fromarray((level + noise).astype(np.uint8)).save(folder / f"{at}.png")
        rows.append({"id": f"p{at:03d}", "label": ("dark", "light")[at % 2], "image_path": f"{at}.png"})
    return rows


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_a_clip_encoder_learns(tmp_path: Path, tune: str) -> None:
    layout = Layout(tmp_path)
    posts_table(layout, shades(tmp_path, 60))
    settings = {
        "embed": {"image": {"encoder": str(tiny.clip(tmp_path / "clip"))}},
        "train_image": {"candidates": [tune], "tuned": {**SMALL, "accumulate": 2}},
        "posts": {"media": "."},
    }
    params = Params.model_validate(settings)
    embed.run(params, layout)
    train_image.run(params, layout)
    metrics = json.loads(layout.details("train_image").read_text())["posts"]
    assert metrics["choice"]["taken"] == tune
    assert metrics["out_of_fold"]["macro_f1"] > 0.8


def test_a_picture_that_was_damaged_after_it_was_embedded_is_named(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    posts_table(layout, shades(tmp_path, 20))
    settings = {
        "embed": {"image": {"encoder": str(tiny.clip(tmp_path / "clip"))}},
        "train_image": {"candidates": ["full"], "tuned": SMALL},
        "posts": {"media": "."},
    }
    params = Params.model_validate(settings)
    embed.run(params, layout)
    (tmp_path / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match=r"3\.png: .*; `embed` could read it: restore it, or run `dvc repro embed`"):
        train_image.run(params, layout)


def gifs(folder: Path, count: int) -> list[dict[str, Any]]:
    rows = []
    for at, row in enumerate(shades(folder, count)):
        frame = Image.open(folder / row["image_path"]).quantize(64, Image.Quantize.FASTOCTREE)
        frames = [frame.rotate(90 * turn) for turn in range(2 + at % 3)]
        frame.save(folder / f"{at}.gif", save_all=True, append_images=frames, duration=80)
        rows.append({"id": row["id"], "label": row["label"], "video_path": f"{at}.gif"})
    return rows


def test_a_video_encoder_learns_from_clips_of_unequal_length(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    posts_table(layout, gifs(tmp_path, 40))
    small_clip = {"encoder": str(tiny.clip(tmp_path / "clip"))}
    settings = {
        "embed": {"image": small_clip, "video": {**small_clip, "frames": 4}},
        "train_video": {"candidates": ["full"], "tuned": SMALL},
        "posts": {"media": "."},
    }
    params = Params.model_validate(settings)
    embed.run(params, layout)
    train_video.run(params, layout)
    metrics = json.loads(layout.details("train_video").read_text())["posts"]
    assert metrics["out_of_fold"]["macro_f1"] > 0.8


def embeddings(
    layout: Layout, modality: schemas.Modality, vectors: np.ndarray, present: np.ndarray, ids: list[str]
) -> None:
    reasons = [None if there else "none" for there in present]
    content = [f"digest {name}" if there else None for name, there in zip(ids, present, strict=True)]
    with artifacts.embeddings_writer(
        layout.embeddings("posts", modality), vectors.shape[1], {"name": "given"}
    ) as writer:
        writer.write(ids, vectors * present[:, None], reasons, content)


def test_out_of_fold_predictions_know_nothing_of_their_rows(tmp_path: Path) -> None:
    """Labels drawn at random: whoever predicts them above chance has seen them."""
    layout = Layout(tmp_path)
    rng = np.random.default_rng(0)
    ids = [f"p{at:03d}" for at in range(300)]
    rows = [{"id": name, "label": rng.choice(["a", "b"]), "text": "t", "image_path": "x"} for name in ids]
    posts_table(layout, rows)
    embeddings(layout, "text", rng.normal(size=(300, 200)).astype(np.float32), np.ones(300, dtype=bool), ids)
    head = {"weight_decay": 0.0, "epochs": 30, "patience": 30}
    train("text", Params.model_validate({"train_text": {"candidates": ["head"], "head": head, "dropout": 0.0}}), layout)
    metrics = json.loads(layout.details("train_text").read_text())["posts"]
    assert 0.38 < metrics["out_of_fold"]["accuracy"] < 0.62
    net = tensors(layout, "train_text")
    table = artifacts.read_posts(layout.table("posts"))
    vectors = artifacts.read_embeddings(layout.embeddings("posts", "text")).vectors
    logits = ((vectors - net["mean"]) / net["scale"]) @ net["layers.1.weight"].T + net["layers.1.bias"]
    seen = (table["split"] == "train").to_numpy()
    right = np.array(["a", "b"])[logits.argmax(axis=1)] == table["label"]
    assert right[seen].mean() > 0.75  # the final model, on rows it was fitted on: the number nobody should report


def test_a_modality_too_rare_to_train_is_left_out_and_says_so(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    rows = [{**row, "image_path": "x.png" if at < 2 else None} for at, row in enumerate(texts(40))]
    posts_table(layout, rows)
    table = artifacts.read_posts(layout.table("posts"))
    present = table["image_path"].notna().to_numpy()
    embeddings(layout, "image", np.ones((40, 8), dtype=np.float32), present, table["sample_id"].tolist())
    train_image.run(Params(), layout)
    assert artifacts.read_json(layout.model("train_image") / "model.json")["absent"] is True
    metrics = json.loads(layout.details("train_image").read_text())["posts"]
    assert metrics["warnings"] == ["too few posts have image: 2 for training, 0 for validation"]


def test_a_specialist_with_nothing_to_be_fused_with_decides_as_it_does(tmp_path: Path) -> None:
    layout, rng = Layout(tmp_path), np.random.default_rng(0)
    posts_table(layout, [{**row, "label": "aab"[at % 3]} for at, row in enumerate(texts(90))])
    table = artifacts.read_posts(layout.table("posts"))
    vectors = rng.normal(size=(90, 8)) + (table["label"] == "a").to_numpy()[:, None]
    for name in MODALITIES:
        there = np.full(90, name == "text")
        embeddings(layout, name, vectors.astype(np.float32), there, table["sample_id"].tolist())
        train(name, Params.model_validate({"train_text": {"candidates": ["logreg"]}}), layout)
    fuse.run(Params(), layout)
    described_by = {"train_text": SpecialistDescription, "fuse": FusionDescription}
    models = {stage: read_description(layout.model(stage), of) for stage, of in described_by.items()}
    decided = {}
    for stage, described in models.items():
        predictions = artifacts.read_predictions(layout.predictions(stage), classes=2)
        rows = predictions.rows[["sample_id", "subset", "kind"]].assign(
            decided=described.calibration.decide(described.calibration.calibrated(predictions.logits))
        )
        decided[stage] = (
            rows[rows["kind"].isin(["specialist", "fusion"])].set_index("sample_id")["decided"].sort_index()
        )
    assert any(models["train_text"].calibration.offset) and decided["fuse"].equals(decided["train_text"])


def test_a_lone_specialist_that_finds_all_classes_alike_has_predicted_all_the_same(tmp_path: Path) -> None:
    """Its centred log-probabilities are zeros, as those of posts that it did not predict."""
    layout, rows = Layout(tmp_path), 40
    posts_table(layout, [{**row, "label": "ab"[at % 2]} for at, row in enumerate(texts(rows))])
    table = artifacts.read_posts(layout.table("posts"))
    for name in MODALITIES:
        there = np.full(rows, name == "text")
        embeddings(layout, name, np.ones((rows, 8), dtype=np.float32), there, table["sample_id"].tolist())
        train(name, Params.model_validate({"train_text": {"candidates": ["majority"]}}), layout)
    path = layout.predictions("train_text")
    predictions = artifacts.read_predictions(path, classes=2)
    calibrated = read_description(layout.model("train_text"), SpecialistDescription).calibration
    alike = np.tile(-np.array(calibrated.bias) / np.array(calibrated.scale), (len(predictions.rows), 1))
    artifacts.write_predictions(path, replace(predictions, logits=alike.astype(np.float32)))
    fuse.run(Params(), layout)
    fused = artifacts.read_predictions(layout.predictions("fuse"), classes=2)
    whole = fused.rows[(fused.rows["kind"] == "fusion") & (fused.rows["subset"] == "text")]
    assert set(whole["sample_id"]) == set(table["sample_id"]) and not fused.logits[whole.index].any()


def test_training_posts_of_one_group_are_called_so(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    posts_table(layout, texts(40))
    table = artifacts.read_posts(layout.table("posts"))
    train_rows = table["split"] == "train"
    table = table.assign(group_id=table["group_id"].mask(train_rows, "one"))
    changed = pa.Table.from_pandas(table, schemas.POSTS_TABLE, preserve_index=False)
    artifacts.write_parquet(layout.table("posts"), changed)
    for name in MODALITIES:
        there = np.full(40, name == "text")
        embeddings(layout, name, np.ones((40, 8), dtype=np.float32), there, table["sample_id"].tolist())
        train(name, Params(), layout)
    metrics = json.loads(layout.details("train_text").read_text())["posts"]
    assert metrics["warnings"] == ["all 24 training posts that have text are of one group; two are the fewest"]
    with pytest.raises(InputError, match=r"no modality has a trained specialist; .*train_text\.json and its like"):
        read_fusion_rows(Params(), layout)


def test_seeded_nets_do_not_depend_on_what_ran_before(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    rows = [{**row, "image_path": "x"} for row in texts(60)]
    posts_table(layout, rows)
    table = artifacts.read_posts(layout.table("posts"))
    vectors = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    embeddings(layout, "text", vectors, np.ones(60, dtype=bool), table["sample_id"].tolist())
    weights = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        train_text.run(Params.model_validate({"train_text": {"candidates": ["head"], "folds": 2}}), layout)
        weights.append(tensors(layout, "train_text")["layers.1.weight"])
    np.testing.assert_array_equal(*weights)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("candidate", ["logreg", "head"])
def test_of_many_rows_the_validation_rows_are_the_one_inner_fold(tmp_path: Path, alone: bool, candidate: str) -> None:
    layout = Layout(tmp_path)
    posts_table(layout, [{**row, "image_path": None if alone else "x"} for row in texts(80)])
    table = artifacts.read_posts(layout.table("posts")).set_index("sample_id")
    signal = (table["label"] == "good").to_numpy()[:, None]
    vectors = (np.random.default_rng(0).normal(size=(80, 6)) + 2 * signal).astype(np.float32)
    embeddings(layout, "text", vectors, np.ones(80, dtype=bool), table.index.tolist())
    block = {"candidates": ["majority", candidate], "inner_rows": 20, "folds": 2, "head": {"epochs": 5}}
    train("text", Params.model_validate({"train_text": block}), layout)
    rows = artifacts.read_predictions(layout.predictions("train_text"), classes=2).rows
    made_by = rows.groupby("split")["fold"].agg(set).to_dict()
    assert made_by.pop("val") == made_by.pop("test") == {"final"}
    # Only where there is something to fuse are training rows predicted by models that had not seen them.
    assert made_by == ({} if alone else {"train": {"fold-0", "fold-1"}})
    fitted = artifacts.read_parquet(layout.fitted("train_text")).to_pandas()
    final = fitted[fitted["fold"] == "final"].groupby("role")["sample_id"].agg(set)
    assert final["train"] == set(table.index[table["split"] == "train"])
    assert final["val"] == set(table.index[table["split"] == "val"])
    metrics = json.loads(layout.details("train_text").read_text())["posts"]
    assert metrics["choice"]["taken"] == candidate
    assert metrics["out_of_fold"]["n"] == (table["split"] == "val").sum()
    assert metrics["out_of_fold"]["macro_f1"] > 0.8


def test_up_to_so_many_rows_the_final_model_learns_from_validation_rows_too(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    posts_table(layout, [{**row, "image_path": "x"} for row in texts(60)])
    table = artifacts.read_posts(layout.table("posts"))
    embeddings(layout, "text", np.eye(60, dtype=np.float32), np.ones(60, dtype=bool), table["sample_id"].tolist())
    train("text", Params.model_validate({"train_text": {"candidates": ["logreg"], "folds": 3}}), layout)
    fitted = artifacts.read_parquet(layout.fitted("train_text")).to_pandas()
    seen = set(fitted.loc[fitted["fold"] == "final", "sample_id"])
    assert seen == set(table.loc[table["split"] != "test", "sample_id"])
    rows = artifacts.read_predictions(layout.predictions("train_text"), classes=2).rows
    assert set(rows.loc[rows["split"] == "val", "fold"]) <= {"fold-0", "fold-1", "fold-2"}


@pytest.mark.parametrize(("gap", "tried"), [(0.0, False), (8.0, True)])
def test_few_texts_tune_an_encoder_only_where_its_vectors_say_more_than_words(
    tmp_path: Path, gap: float, tried: bool
) -> None:
    """Each text has a word of its own; what is good about one, if anything, its vector says."""
    layout = Layout(tmp_path)
    posts_table(layout, [{"id": f"p{at:02d}", "text": f"the w{at}", "label": "ab"[at // 2 % 2]} for at in range(60)])
    table = artifacts.read_posts(layout.table("posts"))
    signal = gap * (table["label"] == "a").to_numpy()[:, None]
    vectors = (np.random.default_rng(0).normal(size=(60, 16)) + signal).astype(np.float32)
    embeddings(layout, "text", vectors, np.ones(60, dtype=bool), table["sample_id"].tolist())
    encoder = tiny.distilbert(tmp_path / "bert")
    block = {"candidates": ["logreg", "tfidf_logreg", "full"], "folds": 2, "tuned": SMALL | {"epochs": 1}}
    settings = {"embed": {"text": {"encoder": str(encoder)}}, "train_text": {**block, "tuned_rows": 10}}
    train("text", Params.model_validate(settings), layout)
    choice = json.loads(layout.details("train_text").read_text())["posts"]["choice"]
    assert list(choice["tried"]) == ["logreg", "tfidf_logreg", *(["full"] if tried else [])]
    assert ("full not tried: of fewer than 500 texts" in choice["why"]) != tried


def test_what_is_worth_tuning_is_asked_of_few_texts_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(tmp_path)
    posts_table(layout, texts(60))
    ids = artifacts.read_posts(layout.table("posts"))["sample_id"].tolist()
    embeddings(layout, "text", np.eye(60, dtype=np.float32), np.ones(60, dtype=bool), ids)
    corpus = read_rows("text", Params(), layout)
    right = np.eye(2, dtype=np.float32)[corpus.codes] * 4
    vectors, words = CandidateResult("logreg", -right, {}, {}), CandidateResult("tfidf_logreg", right, {}, {})
    everything = [NamedFold(np.arange(0), np.arange(60), "fold-0")]
    assert not _worth_tuning([vectors, words], corpus, everything)
    assert _worth_tuning([vectors], corpus, everything)  # who leaves the words out wants no such question
    monkeypatch.setattr("pipeline.posts.specialist.FEW", 30)
    assert _worth_tuning([vectors, words], corpus, everything)


FUSION = {"folds": 2, "epochs": 3, "width": 16, "hidden": 16}


def two_modalities(
    layout: Layout, fuse_block: dict[str, Any], most: int, changed: Callable[[pd.DataFrame], object] | None = None
) -> Params:
    """Texts and pictures of 80 posts, both with a signal, and their specialists trained.

    ``changed`` edits the table of posts, columns ``schemas.POSTS_TABLE``, after their vectors were made of it.
    """
    posts_table(layout, [{**row, "image_path": "x"} for row in texts(80)])
    table = artifacts.read_posts(layout.table("posts"))
    signal = (table["label"] == "good").to_numpy()[:, None]
    for at, name in enumerate(("text", "image")):
        vectors = np.random.default_rng(at).normal(size=(80, 6)) + 1.5 * signal
        embeddings(layout, name, vectors.astype(np.float32), np.ones(80, dtype=bool), table["sample_id"].tolist())
    embeddings(layout, "video", np.zeros((80, 4), np.float32), np.zeros(80, dtype=bool), table["sample_id"].tolist())
    if changed:
        changed(table)
        rows = pa.Table.from_pandas(table, schema=schemas.POSTS_TABLE, preserve_index=False)
        artifacts.write_parquet(layout.table("posts"), rows)
    block = {"candidates": ["logreg"], "folds": 2, "inner_rows": most}
    params = Params.model_validate({"train_text": block, "train_image": block, "fuse": fuse_block})
    for stage in (train_text, train_image, train_video):
        stage.run(params, layout)
    return params


@pytest.mark.parametrize(("most", "folds"), [(10, {"final"}), (10_000, {"fold-0", "fold-1"})])
def test_the_fusion_is_chosen_on_rows_that_its_candidates_had_not_seen(
    tmp_path: Path, most: int, folds: set[str]
) -> None:
    layout = Layout(tmp_path)
    params = two_modalities(layout, {**FUSION, "inner_rows": most}, most)
    fuse.run(params, layout)
    rows = artifacts.read_predictions(layout.predictions("fuse"), classes=2).rows
    known = rows[(rows["kind"] == "fusion") & (rows["split"] != "test")]
    assert set(known["fold"]) == folds
    assert set(known["split"]) == ({"val"} if most == 10 else {"train", "val"})
    metrics = json.loads(layout.details("fuse").read_text())["posts"]
    assert list(metrics["choice"]["tried"]) == list(params.fuse.candidates)
    assert metrics["out_of_fold"]["macro_f1"] > 0.8


@pytest.mark.parametrize("most", [10, 10_000])
def test_labels_of_test_posts_change_no_model_and_no_prediction(tmp_path: Path, most: int) -> None:
    def turn(table: pd.DataFrame, split: str) -> None:
        of = table["split"] == split
        table.loc[of, "label"] = table.loc[of, "label"].map({"good": "bad", "bad": "good"})

    layouts = {name: Layout(tmp_path / name) for name in ("as they are", "test", "val")}
    for name, layout in layouts.items():
        change = None if name == "as they are" else partial(turn, split=name)
        fuse.run(two_modalities(layout, {**FUSION, "inner_rows": most}, most, change), layout)
    files = ("predictions.parquet", "model.safetensors", "model.json", "fitted.parquet")
    made = {
        name: [(layout.model(stage) / file).read_bytes() for stage in ("train_text", "fuse") for file in files]
        for name, layout in layouts.items()
    }
    assert made["test"] == made["as they are"]
    assert made["val"] != made["as they are"]  # so a label that counts would have been noticed


@pytest.mark.parametrize("most", [10, 10_000])
def test_the_averaged_fusion_is_the_mean_of_its_parts_fitted_alone(tmp_path: Path, most: int) -> None:
    layout = Layout(tmp_path)
    names: list[FusionCandidate] = ["stacked_logreg", "trained"]
    params = two_modalities(layout, {**FUSION, "inner_rows": most, "candidates": [*names, "averaged"]}, most)
    rows = read_fusion_rows(params, layout)
    folds = rows.grouping.inner(2, most)
    tried = [try_fusion(name, rows, folds, params) for name in names]
    averaged = average(tried)
    unseen = np.concatenate([fold.held_out for fold in folds])
    means = np.mean([log_softmax(of.logits[unseen], axis=1) for of in tried], axis=0)
    np.testing.assert_allclose(averaged.logits[unseen], means, rtol=1e-5, atol=1e-6)

    final = averaged.final
    if most == 10_000:
        assert final is None
        final = fit_fusion("averaged", rows, rows.modalities, rows.grouping.whole(), params, averaged.settings)
    assert final is not None
    test = rows.grouping.part("test")
    whole_fold = rows.grouping.whole()
    parts = [of.final or fit_fusion(of.name, rows, rows.modalities, whole_fold, params, of.settings) for of in tried]
    with torch.inference_mode():
        said = [of.net(*rows.inputs(test, rows.modalities)).log_softmax(dim=1) for of in parts]
        whole = final.net(*rows.inputs(test, rows.modalities))
    torch.testing.assert_close(whole, torch.stack(said).mean(dim=0))
    rebuilt = build(final.described)
    rebuilt.load_state_dict(final.net.state_dict())
    with torch.inference_mode():
        again = rebuilt.eval()(*rows.inputs(test, rows.modalities))
    torch.testing.assert_close(again, whole)
