"""The whole graph on small corpora, stage by stage, as DVC would run it."""

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML
from sklearn.metrics import f1_score
from typer.testing import CliRunner

from pipeline.cli import STAGES, app
from pipeline.core import artifacts
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.params import Params
from pipeline.reporting import diagnose, report
from pipeline.serving import bundle
from pipeline.serving.posts import Post
from pipeline.serving.predictor import Predictor
from tests.test_dvc_yaml import GRAPH, SPEED_ONLY

pytestmark = pytest.mark.drawn

SENTIMENT = {
    "processes": 1,
    "target": {"folds": 2, "repeats": 1},
    "train_source": {"epochs": 3},
    "adapter": {"epochs": 2},
    "finetune_e2e": {"first_epochs": 1, "epochs": 2, "curve": [10]},
}
SMALL = {
    **SENTIMENT,
    "sample": {"posts": 120, "source_rows": 120, "target_rows": 40, "unlabelled_rows": 20},
    "embed": {"video": {"frames": 2}},
    "train_text": {"folds": 3, "head": {"epochs": 8}},
    "train_image": {"folds": 3, "head": {"epochs": 8}},
    "train_video": {"folds": 3, "head": {"epochs": 8}},
    "fuse": {"folds": 2, "epochs": 6, "width": 16, "hidden": 16},
    "evaluate": {"bootstrap": 200, "gallery": 4, "permutations": 100},
}

NOT_BUILT_IN = tuple(name for name in STAGES if name != "sample")
"""The stages that a corpus of one's own goes through."""


class Reader:
    """Stands in for a block of params and notes which keys are read."""

    def __init__(self, block: BaseModel, prefix: str, seen: set[str]) -> None:
        self._block, self._prefix, self._seen = block, prefix, seen

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._block, name)
        if isinstance(value, BaseModel):
            return Reader(value, f"{self._prefix}{name}.", self._seen)
        if name == "model_copy":  # which reads nothing yet
            return lambda update: Reader(value(update=update), self._prefix, self._seen)
        if callable(value):  # model_dump reads the whole block
            self._seen.add(self._prefix.rstrip("."))
            return value
        self._seen.add(f"{self._prefix}{name}")
        return value

    def of_specialist(self, modality: str) -> Any:
        return getattr(self, f"train_{modality}")


def run(root: Path, settings: dict[str, Any], stages: tuple[str, ...] = tuple(STAGES)) -> dict[str, set[str]]:
    """Runs stages in order; returns the params that each one read."""
    reads: dict[str, set[str]] = {}
    for stage in stages:
        reads[stage] = set()
        params: Any = Reader(Params.model_validate(settings), "", reads[stage])
        importlib.import_module(f"pipeline.stages.{stage}").run(params, Layout(root))
    return reads


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, dict[str, set[str]]]:
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOCARE_CACHE", str(root / "cache"))
        reads = run(root, SMALL)
    return Layout(root), reads


@pytest.mark.parametrize("stage", STAGES)
def test_the_graph_lists_every_param_that_a_stage_reads(
    project: tuple[Layout, dict[str, set[str]]], stage: str
) -> None:
    listed = GRAPH["stages"][stage]["params"]
    covered = {key for key in project[1][stage] for name in listed if key == name or key.startswith(f"{name}.")}
    assert project[1][stage] - covered - SPEED_ONLY == set()


def test_every_output_of_the_graph_is_there(project: tuple[Layout, dict[str, set[str]]]) -> None:
    outs = [out for block in GRAPH["stages"].values() for out in block["outs"]]
    assert [out for out in outs if not (project[0].root / out).exists()] == []
    left = [path for path in project[0].root.rglob("*") if path.name.endswith(".tmp")]
    assert left == []


@pytest.mark.drawn(False)
def test_two_processes_fuse_and_evaluate_as_one_does(
    project: tuple[Layout, dict[str, set[str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMOCARE_CACHE", str(tmp_path / "cache"))
    again = Layout(tmp_path / "again")
    for folder in ("data", "models", "metrics", "plots"):
        shutil.copytree(project[0].root / folder, again.root / folder)
    shutil.rmtree(again.model("fuse"))
    for stage in ("fuse", "evaluate"):
        again.details(stage).unlink()
        importlib.import_module(f"pipeline.stages.{stage}").run(Params.model_validate({**SMALL, "processes": 2}), again)
    made = {file.name: file.read_bytes() for file in again.model("fuse").iterdir()}
    assert made == {file.name: file.read_bytes() for file in project[0].model("fuse").iterdir()}
    for stage in ("fuse", "evaluate"):
        assert again.details(stage).read_bytes() == project[0].details(stage).read_bytes()


def test_no_metric_or_plot_names_an_author_or_says_what_a_post_says(
    project: tuple[Layout, dict[str, set[str]]],
) -> None:
    root = project[0].root
    posts = pd.read_csv(root / "data/sample/posts/manifest.csv")
    personal = {*posts["group"].dropna(), *(said for said in posts["text"].dropna() if len(said) > 15)}
    files = [file for name in ("metrics", "plots") for file in (root / name).rglob("*") if file.is_file()]
    assert len(personal) > 100 and len(files) > 20
    for file in files:
        held = file.read_bytes().decode("utf-8", errors="ignore")
        assert [words for words in personal if words in held] == [], file


def test_nothing_that_is_scored_was_fitted_on(project: tuple[Layout, dict[str, set[str]]]) -> None:
    layout = project[0]
    posts = artifacts.read_posts(layout.table("posts")).set_index("sample_id")
    test_groups = set(posts.loc[posts["split"] == "test", "group_id"])
    for stage in ("train_text", "train_image", "train_video", "fuse"):
        fitted = artifacts.read_parquet(layout.fitted(stage)).to_pandas()
        assert len(fitted)
        assert not test_groups & set(fitted["group_id"])


def test_training_rows_are_predicted_by_models_that_did_not_see_their_group(
    project: tuple[Layout, dict[str, set[str]]],
) -> None:
    layout = project[0]
    posts = artifacts.read_posts(layout.table("posts")).set_index("sample_id")
    for stage in ("train_text", "train_image", "train_video"):
        fitted = artifacts.read_parquet(layout.fitted(stage)).to_pandas()
        predictions = artifacts.read_predictions(layout.predictions(stage), classes=5)
        train = predictions.rows[predictions.rows["split"] != "test"]
        assert set(train["fold"]) == {"fold-0", "fold-1", "fold-2"}
        for fold, rows in train.groupby("fold"):
            assert not set(posts.loc[rows["sample_id"], "group_id"]) & set(
                fitted.loc[fitted["fold"] == fold, "group_id"]
            )


def test_headline_numbers_are_those_of_the_predictions(project: tuple[Layout, dict[str, set[str]]]) -> None:
    layout = project[0]
    metrics = json.loads(layout.details("evaluate").read_text())["posts"]
    description = artifacts.read_json(layout.model("fuse") / "model.json")
    labels = description["labels"]
    posts = artifacts.read_posts(layout.table("posts")).set_index("sample_id")
    predictions = artifacts.read_predictions(layout.predictions("fuse"), classes=5)
    mask = ((predictions.rows["split"] == "test") & (predictions.rows["kind"] == "fusion")).to_numpy()
    chosen = predictions.where(mask)
    actual = posts.loc[chosen.rows["sample_id"], "label"]
    calibration = {name: np.array(of) for name, of in description["calibration"].items()}
    deciding = chosen.logits * calibration["scale"] + calibration["bias"] + calibration["offset"]
    predicted = np.array(labels)[deciding.argmax(axis=1)]
    assert metrics["n"] == len(actual) == (posts["split"] == "test").sum()
    assert metrics["fusion"]["macro_f1"] == pytest.approx(f1_score(actual, predicted, average="macro"), abs=1e-6)
    assert set(metrics["ablation"]) == {
        "text", "image", "video", "text_image", "text_video", "image_video", "text_image_video",
    }  # fmt: skip
    assert metrics["ablation"]["text_image_video"]["masked"]["macro_f1"] == metrics["fusion"]["macro_f1"]


def test_a_run_becomes_a_small_report_and_a_bundle_that_predicts_without_it(
    project: tuple[Layout, dict[str, set[str]]], tmp_path: Path
) -> None:
    layout, params = project[0], Params.model_validate(SMALL)
    report.write(params, layout, tmp_path / "report.html")
    assert 200_000 < (tmp_path / "report.html").stat().st_size < 5_000_000
    bundle.export(params, layout, tmp_path / "bundle")
    post = Post("why would anyone do this", sorted((layout.root / "data/sample/posts/images").iterdir())[0])
    alone = Predictor.load(tmp_path / "bundle").predict([post])
    assert alone == Predictor.of_project(params, layout).predict([post])


OTHERS = {
    "posts": {"source", "source_texts", "target", "target_folds", "train_source", "train_adapters", "finetune_e2e"},
    "sentiment": {"posts", "train_text", "train_image", "train_video", "fuse"},
}
"""What files and folders of the other track are called."""


def compared(both: Layout, alone: Layout, track: str) -> tuple[int, list[str]]:
    """How many files a run of one track wrote, and which of them are others than those of a run of both.

    Metrics of both tracks stand in one file, of which the track's own blocks count.
    """
    tops = ("data", "models", "metrics", "plots")
    files = [path for top in tops for path in sorted((alone.root / top).rglob("*")) if path.is_file()]
    names = [path.relative_to(alone.root) for path in files]
    own = [
        name
        for name in names
        if name.parts[1] == "sample" or not OTHERS[track] & {part.partition(".")[0] for part in name.parts}
    ]

    def differs(name: Path) -> bool:
        one, other = (layout.root / name for layout in (both, alone))
        if one.read_bytes() == other.read_bytes():
            return False
        blocks = {} if name.suffix != ".json" else artifacts.read_json(other)
        blocks.pop("built_in", None)
        return blocks == {} or any(artifacts.read_json(one).get(key) != block for key, block in blocks.items())

    return len(own), [str(name) for name in own if differs(name)]


def test_the_posts_alone_and_run_anew_give_the_same_bytes(
    project: tuple[Layout, dict[str, set[str]]], tmp_path: Path
) -> None:
    run(tmp_path, {**SMALL, "tracks": ["posts"]})
    count, differ = compared(project[0], Layout(tmp_path), "posts")
    assert count > 150 and differ == []


def corpus(root: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Writes a manifest into ``root``; returns the settings that run it."""
    pd.DataFrame(rows).to_csv(root / "manifest.csv", index=False)
    block = {"folds": 2, "head": {"epochs": 3}}
    small = {name: SMALL[name] for name in ("fuse", "evaluate", *SENTIMENT)}
    sample = {**SMALL["sample"], "posts": 40}
    small |= {"train_text": block, "train_image": block, "sample": sample}
    return {**small, "posts": {"manifest": "manifest.csv", "media": "."}}


def texts(count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    words = {
        "good": ["lovely", "great", "nice", "happy", "fine"],
        "bad": ["awful", "sad", "broken", "terrible", "poor"],
    }
    rows = []
    for at in range(count):
        label = ("good", "bad")[at % 2]
        rows.append({"id": f"p{at}", "label": label, "text": f"{' '.join(rng.choice(words[label], 3))} number {at}"})
    return rows


def outputs(root: Path) -> set[str]:
    """What the stages of the graph left, but for the example corpora."""
    tops = ("data/split", "data/embeddings", "models", "metrics", "plots")
    return {str(path.relative_to(root)) for top in tops for path in (root / top).rglob("*") if path.is_file()}


def test_the_other_track_alone_and_run_anew_gives_the_same_bytes_and_says_what_is_left_out(
    project: tuple[Layout, dict[str, set[str]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout, both = Layout(tmp_path), project[0]
    shutil.copytree(both.sample_posts.parent, layout.sample_posts.parent)
    run(tmp_path, {**SMALL, "tracks": ["sentiment"]}, NOT_BUILT_IN)
    lines = capsys.readouterr().err.splitlines()
    for stage in ("train_text", "train_image", "train_video", "fuse"):
        assert f"{stage}: nothing to do, since params `tracks` leaves posts out" in lines
        assert [path.name for path in layout.model(stage).iterdir()] == ["OFF"]
        assert json.loads(layout.metrics(stage).read_text()) == {}
    count, differ = compared(both, layout, "sentiment")
    assert count > 150 and differ == []
    assert set(artifacts.read_json(layout.details("evaluate"))) == {"sentiment"}
    assert artifacts.read_json(layout.metrics("split"))["built_in"] == "source, target"
    runner = CliRunner()
    told = runner.invoke(app, ["summary", "--project", str(tmp_path)]).stdout
    assert "Transfer (built-in): 40 test rows" in told and "Posts" not in told
    report.write(Params.model_validate({**SMALL, "tracks": ["sentiment"]}), layout, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "Source and target are built in" in page and 'id="confusion"' not in page
    YAML().dump({"tracks": ["sentiment"]}, layout.params)
    refused = runner.invoke(app, ["errors", "--project", str(tmp_path)])
    assert "tracks leaves posts out; add it and run `dvc repro`" in refused.stderr
    bundle.export(Params.model_validate({**SMALL, "tracks": ["sentiment"]}), layout, tmp_path / "bundle")
    assert bundle.tracks_of(tmp_path / "bundle") == ["sentiment"]


def test_a_corpus_of_texts_alone_with_two_labels_and_without_the_other_track(tmp_path: Path) -> None:
    reads = run(tmp_path, {**corpus(tmp_path, texts(80)), "tracks": ["posts"]}, NOT_BUILT_IN)
    assert {stage for stage, names in reads.items() if "tracks" in names} == {"split"}
    layout = Layout(tmp_path)
    assert [path.name for path in layout.model("finetune_e2e").iterdir()] == ["OFF"]
    assert artifacts.read_json(layout.metrics("split")) == {"posts": {"rows": 80}, "built_in": "none"}
    assert outputs(tmp_path) >= {"data/embeddings/target/audio.parquet", "data/split/target_folds.parquet"}
    with pytest.raises(InputError, match="tracks leaves sentiment out"):
        diagnose.find(Params(), layout)
    metrics = json.loads(layout.details("evaluate").read_text())["posts"]
    assert set(metrics["ablation"]) == {"text"}
    assert "image" not in metrics
    assert metrics["fusion"]["macro_f1"] > 0.7
    absent = json.loads(Layout(tmp_path).details("train_video").read_text())["posts"]
    assert absent == {"train_rows": 0, "warnings": ["no post has video"]}


def test_a_corpus_with_its_own_train_and_val_scores_val_and_makes_a_validation_part(tmp_path: Path) -> None:
    rows = [{**row, "split": "val" if at >= 60 else "train"} for at, row in enumerate(texts(80))]
    run(tmp_path, {**corpus(tmp_path, rows), "tracks": ["posts"]}, NOT_BUILT_IN)
    posts = artifacts.read_posts(Layout(tmp_path).table("posts"))
    assert set(posts.loc[posts["split"] == "test", "sample_id"]) == {f"p{at}" for at in range(60, 80)}
    assert (posts["split"] == "val").sum() == 6
    assert json.loads(Layout(tmp_path).details("evaluate").read_text())["posts"]["n"] == 20
