"""The stage on small artefacts made by hand; every headline number is worked out again with scikit-learn."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image
from sklearn import metrics as known
from sklearn.linear_model import LogisticRegression

from pipeline.core import artifacts, schemas
from pipeline.core.artifacts import Predictions
from pipeline.core.descriptions import write_description
from pipeline.core.errors import InputError
from pipeline.core.fitted import write_fitted
from pipeline.core.folds import Fold
from pipeline.core.layout import Layout
from pipeline.core.schemas import FINAL, MODALITIES, Modality
from pipeline.params import EvaluateParams, Params, PostsParams
from pipeline.posts import baseline_rows, evaluation
from pipeline.posts.descriptions import FirstPresentNet, FusionDescription, SpecialistDescription
from pipeline.scoring.baselines import Baseline, BaselineTrainingSet
from pipeline.scoring.calibration import Calibration
from pipeline.scoring.emotion import softmax
from pipeline.stages import evaluate

LABELS = ("anger", "joy", "sadness")
PARAMS = Params(posts=PostsParams(media="media"), evaluate=EvaluateParams(bootstrap=200, gallery=4))
CALIBRATION = Calibration(scale=(1 / 1.6, 0.5, 0.7), bias=(0.1, 0.0, -0.2), offset=(0.0, 0.3, 0.0))


@dataclass
class Project:
    """What `split`, `embed`, `train_*` and `fuse` would have written."""

    layout: Layout
    posts: pd.DataFrame
    modalities: Sequence[Modality]
    seed: int = 0
    generator: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.generator = np.random.default_rng(self.seed)

    @property
    def codes(self) -> np.ndarray:
        return self.posts["label"].map(LABELS.index).to_numpy()

    def part(self, *splits: str) -> np.ndarray:
        return np.flatnonzero(self.posts["split"].isin(splits))

    def present(self, modality: Modality) -> np.ndarray:
        column = {"text": "text", "image": "image_path", "video": "video_path"}[modality]
        return self.posts[column].notna().to_numpy()

    def logits(self, at: np.ndarray, skill: float) -> np.ndarray:
        noise = self.generator.gumbel(size=(len(at), 3))
        return (skill * np.eye(3)[self.codes[at]] + noise).astype(np.float32)

    def write(self) -> "Project":
        table = pa.Table.from_pandas(self.posts, schema=schemas.POSTS_TABLE, preserve_index=False)
        artifacts.write_parquet(self.layout.table("posts"), table)
        artifacts.write_parquet(self.layout.table("target"), schemas.SCORED_TABLE.empty_table())
        for name in MODALITIES:
            self.write_specialist(name)
        self.write_fuse()
        return self

    def write_specialist(self, name: Modality) -> None:
        stage, present = f"train_{name}", self.present(name)
        reasons = [None if here else "none given" for here in present]
        vectors = np.where(present[:, None], self.logits(np.arange(len(self.posts)), 1.0), 0).astype(np.float32)
        with artifacts.embeddings_writer(self.layout.embeddings("posts", name), 3, {}) as writer:
            writer.write(self.posts["sample_id"].tolist(), vectors, reasons, reasons)
        absent = name not in self.modalities
        at = np.array([], dtype=int) if absent else np.flatnonzero(present)
        rows = self.posts.iloc[at][["sample_id", "split"]]
        fold = np.where(rows["split"] == "train", "fold-0", FINAL)
        rows = rows.assign(fold=fold, kind="specialist", subset=name).reset_index(drop=True)
        artifacts.write_predictions(self.layout.predictions(stage), Predictions(rows, self.logits(at, 1.5)))
        self.describe(stage, [name], at, absent=absent, parents=[])

    def write_fuse(self) -> None:
        scored = self.part("val", "test")
        sizes = range(1, len(self.modalities) + 1)
        subsets = ["_".join(subset) for size in sizes for subset in combinations(self.modalities, size)]
        variants = [("fusion", subsets[-1]), *((kind, name) for name in subsets for kind in ("masked", "retrained"))]
        # Shuffled, since nothing promises the order of predictions.
        orders = [self.generator.permutation(scored) for _ in variants]
        rows = [
            self.posts.iloc[at][["sample_id", "split"]].assign(fold=FINAL, kind=kind, subset=subset)
            for (kind, subset), at in zip(variants, orders, strict=True)
        ]
        logits = np.concatenate([self.logits(at, 2.5 if at is orders[0] else 1.5) for at in orders])
        table = Predictions(pd.concat(rows, ignore_index=True), logits)
        artifacts.write_predictions(self.layout.predictions("fuse"), table)
        everything = np.arange(len(self.posts))
        self.describe("fuse", self.modalities, everything, parents=[f"train_{name}" for name in self.modalities])

    def describe(self, stage: str, modalities: Sequence[str], at: np.ndarray, **more: Any) -> None:
        seen = at[self.posts["split"].iloc[at].isin(["train", "val"])]
        rows = self.posts.iloc[seen][["sample_id", "group_id"]].assign(fold=FINAL, role=self.posts["split"].iloc[seen])
        known: dict[str, Any] = {"stage": stage, "labels": LABELS, "modalities": modalities, "calibration": CALIBRATION}
        known["fitted"] = write_fitted(self.layout.model(stage), rows)
        widths = dict.fromkeys(modalities, 1)
        net = FirstPresentNet(widths=widths, classes=len(LABELS), order=tuple(modalities)) if len(widths) > 1 else None
        nothing = None if net else (0.0,) * len(LABELS)
        fusion = FusionDescription(net=net, nothing=nothing, **known, **more) if stage == "fuse" else None
        write_description(self.layout.model(stage), fusion or SpecialistDescription(**known, **more))

    def refit(self, stage: str, rows: pd.DataFrame, honest_digest: bool = True) -> None:
        """Replaces what a stage says it was fitted on, with or without the digest that belongs to it."""
        fitted = write_fitted(self.layout.model(stage), rows)
        if honest_digest:
            path = self.layout.model(stage) / "model.json"
            artifacts.write_json(path, {**artifacts.read_json(path), "fitted": fitted.model_dump()})

    def fitted(self, stage: str) -> pd.DataFrame:
        return artifacts.read_parquet(self.layout.fitted(stage)).to_pandas()

    def test_logits(self, stage: str, kind: str, subset: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Actual classes and logits of the test rows, put together by hand."""
        predictions = artifacts.read_predictions(self.layout.predictions(stage), 3)
        codes = dict(zip(self.posts["sample_id"], self.codes, strict=True))
        rows = predictions.rows.query("kind == @kind and split == 'test'").sort_values("sample_id")
        rows = rows if subset is None else rows[rows["subset"] == subset]
        return np.array([codes[name] for name in rows["sample_id"]]), predictions.logits[rows.index]

    def run(self) -> dict[str, Any]:
        """The posts track alone; the other one is off, and has tests of its own."""
        evaluate.run(PARAMS, self.layout)
        return artifacts.read_json(self.layout.details("evaluate"))["posts"]

    def plots(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.layout.plots("evaluate") / name)


def make(root: Path, modalities: Sequence[Modality] = MODALITIES, rows: int = 240) -> Project:
    generator = np.random.default_rng(1)
    labels = generator.choice(LABELS, size=rows, p=[0.5, 0.3, 0.2])
    number = np.arange(rows)
    has = {name: np.full(rows, name in modalities) for name in MODALITIES}
    if len(modalities) > 1:
        has["image"], has["video"] = number % 3 != 0, number % 3 == 0
        has["text"][5::7] = False
    words = {"anger": "grr \N{POUTING FACE}", "joy": "yay so good", "sadness": "oh no"}
    texts = [f"me rn: {words[label if lucky else 'joy']}" for label, lucky in zip(labels, number % 4, strict=True)]
    posts = pd.DataFrame(
        {
            "sample_id": [f"p{n:03}" for n in number],
            "group_id": [f"author {n // 2:03}" for n in number],
            "split": np.where(number < rows // 2, "train", np.where(number < rows * 3 // 4, "val", "test")),
            "label": labels,
            "text": pd.Series(texts).where(has["text"], None),
            "image_path": pd.Series(["a.png"] * rows).where(has["image"], None),
            "video_path": pd.Series(["broken.mp4"] * rows).where(has["video"], None),
        }
    )
    layout = Layout(root)
    (root / "media").mkdir()
    Image.new("RGB", (80, 60), "teal").save(root / "media" / "a.png")
    (root / "media" / "broken.mp4").write_bytes(b"no clip")
    return Project(layout, posts, modalities).write()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = make(tmp_path_factory.mktemp("project"))
    made.run()
    return made


@pytest.fixture
def fresh(tmp_path: Path) -> Project:
    return make(tmp_path)


@pytest.fixture
def found(project: Project) -> dict[str, Any]:
    return artifacts.read_json(project.layout.details("evaluate"))["posts"]


def calibrated(logits: np.ndarray) -> np.ndarray:
    return logits * np.array(CALIBRATION.scale) + np.array(CALIBRATION.bias)


def decided(logits: np.ndarray) -> np.ndarray:
    return (calibrated(logits) + np.array(CALIBRATION.offset)).argmax(axis=1)


def macro_f1(actual: np.ndarray, logits: np.ndarray) -> float:
    return float(known.f1_score(actual, decided(logits), average="macro"))


def test_headline_numbers_equal_scikit_learn(project: Project, found: dict[str, Any]):
    actual, logits = project.test_logits("fuse", "fusion")
    predicted = decided(logits)
    assert (predicted != logits.argmax(axis=1)).any()  # or the offsets would not be seen
    fusion = found["fusion"]
    assert found["n"] == len(actual) == 60
    assert fusion["macro_f1"] == pytest.approx(macro_f1(actual, logits), abs=1e-6)
    assert fusion["weighted_f1"] == pytest.approx(known.f1_score(actual, predicted, average="weighted"), abs=1e-6)
    assert fusion["accuracy"] == pytest.approx(known.accuracy_score(actual, predicted), abs=1e-6)
    assert fusion["log_loss"] == pytest.approx(known.log_loss(actual, softmax(calibrated(logits))), abs=1e-6)
    assert fusion["log_loss_uncalibrated"] == pytest.approx(known.log_loss(actual, softmax(logits)), abs=1e-6)
    assert fusion["macro_f1_ci_low"] < fusion["macro_f1"] < fusion["macro_f1_ci_high"]
    columns = known.precision_recall_fscore_support(actual, predicted)
    for name, column in zip(("precision", "recall", "f1", "support"), columns, strict=True):
        assert fusion[name] == pytest.approx(dict(zip(LABELS, np.asarray(column), strict=True)), abs=1e-6)


@pytest.mark.parametrize("modality", MODALITIES)
def test_specialists_are_scored_on_the_test_rows_that_have_their_modality(
    project: Project, found: dict[str, Any], modality: Modality
):
    actual, logits = project.test_logits(f"train_{modality}", "specialist")
    assert found[modality]["n"] == len(actual) == project.present(modality)[project.part("test")].sum() < 60
    assert found[modality]["macro_f1"] == pytest.approx(macro_f1(actual, logits), abs=1e-6)
    assert found[modality]["accuracy"] == pytest.approx((actual == decided(logits)).mean(), abs=1e-6)


def test_every_subset_is_scored_on_every_test_row(project: Project, found: dict[str, Any]):
    assert list(found["ablation"]) == [
        "text", "image", "video", "text_image", "text_video", "image_video", "text_image_video"
    ]  # fmt: skip
    for subset, kinds in found["ablation"].items():
        for kind in ("masked", "retrained"):
            actual, logits = project.test_logits("fuse", kind, subset)
            assert len(actual) == 60
            assert kinds[kind]["macro_f1"] == pytest.approx(macro_f1(actual, logits), abs=1e-6)


def test_baselines_learn_from_what_models_learn_from_and_the_one_to_beat_is_chosen_on_validation_rows(
    project: Project, found: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    train, test = project.part("train"), project.part("test")
    simple = found["baselines"]
    assert list(simple) == ["majority", "tfidf_logreg", "embeddings_logreg"]
    common = np.bincount(project.codes[train]).argmax()
    assert simple["majority"]["accuracy"] == pytest.approx((project.codes[test] == common).mean(), abs=1e-6)
    sources = [artifacts.read_embeddings(project.layout.embeddings("posts", name)) for name in MODALITIES]
    vectors = np.hstack([np.hstack([source.vectors, source.present[:, None]]) for source in sources])
    both = project.part("train", "val")
    plain = LogisticRegression(max_iter=1000).fit(vectors[both], project.codes[both]).predict(vectors[test])
    alike = known.f1_score(project.codes[test], plain, average="macro")
    assert simple["embeddings_logreg"]["macro_f1"] == pytest.approx(alike, abs=0.1)
    assert simple["majority"]["macro_f1"] < 0.3 < simple["tfidf_logreg"]["macro_f1"]

    difference = found["fusion_minus_best_baseline"]
    beaten = simple[difference["baseline"]]["macro_f1"]
    assert difference["value"] == pytest.approx(found["fusion"]["macro_f1"] - beaten, abs=2e-6)
    assert difference["ci_low"] < difference["value"] < difference["ci_high"]


def test_the_baseline_to_beat_may_be_one_that_the_test_rows_like_less():
    right, wrong = np.eye(3), np.eye(3)[[1, 2, 0]]
    made = {
        "majority": Baseline(held=wrong, test=right, settings={}),
        "tfidf_logreg": Baseline(held=right, test=wrong, settings={}),
    }
    learned = BaselineTrainingSet(np.arange(6) % 3, 3, 3, [Fold(np.arange(3), np.arange(3, 6))])
    assert evaluation._best_on_held_rows(learned, made) == "tfidf_logreg"


def test_of_baselines_that_do_alike_the_one_that_knows_most_is_to_be_beaten():
    alike = Baseline(held=np.eye(3), test=np.eye(3), settings={})
    learned = BaselineTrainingSet(np.arange(6) % 3, 3, 3, [Fold(np.arange(3), np.arange(3, 6))])
    names = ["majority", "tfidf_logreg", "embeddings_logreg"]
    assert evaluation._best_on_held_rows(learned, dict.fromkeys(names, alike)) == "embeddings_logreg"


@pytest.mark.parametrize(("enough", "many", "folds"), [(300, 20_000, 5), (1, 20_000, 1), (300, 10, 1)])
def test_few_validation_rows_choose_no_baseline(
    project: Project, monkeypatch: pytest.MonkeyPatch, enough: int, many: int, folds: int
):
    monkeypatch.setattr(evaluation, "ENOUGH", enough)
    monkeypatch.setattr(evaluation, "MANY", many)
    posts = artifacts.read_posts(project.layout.table("posts"))
    labels = tuple(sorted(posts["label"].unique()))
    test = SimpleNamespace(labels=labels, seed=0)
    rows = SimpleNamespace(posts=posts, train=project.part("train"), val=project.part("val"))
    learned = evaluation._learned(rows, test)  # pyright: ignore[reportArgumentType]
    assert len(learned.folds) == folds
    groups = posts["group_id"].to_numpy()[np.concatenate([rows.train, rows.val])]
    for fold in learned.folds:
        assert not {*groups[fold.train]} & {*groups[fold.held_out]}
    known = len(rows.train) + len(rows.val)
    held = np.arange(known) if folds > 1 else np.arange(len(rows.train), known)
    assert sorted(learned.held_out) == held.tolist()


def test_errors_are_listed_with_pulls_by_confidence(project: Project):
    actual, logits = project.test_logits("fuse", "fusion")
    errors = project.plots("errors.csv")
    probabilities = softmax(calibrated(logits))
    predicted = decided(logits)
    ids = project.posts["sample_id"].iloc[project.part("test")].to_numpy()
    assert set(errors["id"]) == set(ids[predicted != actual])
    assert errors["confidence"].is_monotonic_decreasing

    first = int(np.flatnonzero(ids == errors["id"][0])[0])
    assert errors["label"][0] == LABELS[actual[first]]
    assert errors["prediction"][0] == LABELS[predicted[first]]
    assert errors["confidence"][0] == pytest.approx(probabilities[first, predicted[first]], abs=1e-6)
    assert errors["probability_of_label"][0] == pytest.approx(probabilities[first, actual[first]], abs=1e-6)

    at = project.part("test")[first]
    without = {"text": "image_video", "image": "text_video", "video": "text_image"}
    for name in MODALITIES:
        _, masked = project.test_logits("fuse", "masked", without[name])
        chances = [softmax(calibrated(of))[first, predicted[first]] for of in (logits, masked)]
        whole, rest = (np.log(chance / (1 - chance)) for chance in chances)
        wanted = whole - rest if project.present(name)[at] else np.nan
        assert errors[f"pull_{name}"][0] == pytest.approx(wanted, abs=1e-5, nan_ok=True)


def test_plots_say_the_same_as_the_metrics(project: Project, found: dict[str, Any]):
    names = {path.name for path in project.layout.plots("evaluate").iterdir()}
    tables = {"confusion.csv", "reliability.csv", "ablation.csv", "systems.csv", "errors.csv"}
    assert names == tables | {
        "confusion.png", "reliability.png", "ablation.png", "systems.png", "contact_sheet.png"
    }  # fmt: skip
    confusion = project.plots("confusion.csv")
    agree = known.f1_score(confusion["actual"], confusion["predicted"], average="macro")
    assert agree == pytest.approx(found["fusion"]["macro_f1"], abs=1e-6)
    assert project.plots("systems.csv")["name"].tolist()[0] == "fusion"
    assert len(project.plots("ablation.csv")) == 14
    table = project.plots("reliability.csv").query("calibration == 'after' and count > 0")
    ece = ((table["confidence"] - table["accuracy"]).abs() * table["count"]).sum() / 60
    assert ece == pytest.approx(found["fusion"]["ece"], abs=1e-5)


def test_both_tracks_stand_side_by_side_in_one_file(project: Project, found: dict[str, Any]):
    metrics = artifacts.read_json(project.layout.details("evaluate"))
    assert metrics == {"posts": found}


@pytest.mark.drawn
def test_a_second_run_gives_the_same_bytes(project: Project):
    def everything() -> dict[str, bytes]:
        files = [project.layout.details("evaluate"), *project.layout.plots("evaluate").iterdir()]
        return {file.name: file.read_bytes() for file in files}

    runs = []
    for _ in range(2):
        project.run()
        runs.append(everything())
    assert runs[0] == runs[1]


@pytest.mark.parametrize("stage", ["fuse", "train_text", "train_video"])
@pytest.mark.parametrize("role", ["train", "val"])
def test_a_test_row_that_any_model_was_fitted_on_is_refused(fresh: Project, stage: str, role: str):
    leaked = pd.DataFrame([{"fold": FINAL, "sample_id": "p200", "group_id": "elsewhere", "role": role}])
    fresh.refit(stage, pd.concat([fresh.fitted(stage), leaked]))
    with pytest.raises(InputError, match=rf"fitted on by {stage}: 1 rows \(p200\)"):
        fresh.run()
    assert not fresh.layout.details("evaluate").exists()
    assert not fresh.layout.plots("evaluate").exists()


def test_a_group_that_a_model_was_fitted_on_is_refused(fresh: Project):
    leaked = pd.DataFrame([{"fold": "fold-0", "sample_id": "other", "group_id": "author 100", "role": "train"}])
    fresh.refit("train_image", pd.concat([fresh.fitted("train_image"), leaked]))
    with pytest.raises(InputError, match=r"fitted on by train_image: 1 groups \(author 100\)"):
        fresh.run()


def test_the_leak_of_a_parent_that_is_no_specialist_is_refused(fresh: Project):
    fresh.describe("pretrained", ["text"], np.arange(240), parents=[])
    leaked = fresh.posts.iloc[[239]][["sample_id", "group_id"]].assign(fold=FINAL, role="train")
    fresh.refit("pretrained", leaked[["fold", "sample_id", "group_id", "role"]])
    path = fresh.layout.model("train_text") / "model.json"
    artifacts.write_json(path, {**artifacts.read_json(path), "parents": ["pretrained"]})
    with pytest.raises(InputError, match="fitted on by pretrained"):
        fresh.run()


def test_a_swapped_or_emptied_fitted_file_is_refused(fresh: Project):
    rows = fresh.fitted("fuse")
    fresh.refit("fuse", rows.iloc[1:], honest_digest=False)
    with pytest.raises(InputError, match="does not match the digest"):
        fresh.run()
    fresh.refit("fuse", rows.iloc[:0])
    with pytest.raises(InputError, match="does not say which rows"):
        fresh.run()


def test_predictions_of_other_rows_or_folds_are_refused(fresh: Project):
    path = fresh.layout.predictions("fuse")
    whole = artifacts.read_predictions(path, 3)
    artifacts.write_predictions(path, whole.where((whole.rows["sample_id"] != "p200").to_numpy()))
    with pytest.raises(InputError, match="test rows are not those of"):
        fresh.run()
    artifacts.write_predictions(path, Predictions(whole.rows.assign(fold="fold-1"), whole.logits))
    with pytest.raises(InputError, match="cross-fitted"):
        fresh.run()
    artifacts.write_predictions(path, Predictions(whole.rows, whole.logits * np.float32(np.inf)))
    with pytest.raises(InputError, match="not finite"):
        fresh.run()
    masked = (whole.rows["kind"] == "masked") & (whole.rows["subset"] == "text_image")
    artifacts.write_predictions(path, whole.where((~masked).to_numpy()))
    with pytest.raises(InputError, match="has no text_image of kind masked"):
        fresh.run()
    artifacts.write_predictions(path, whole.where((whole.rows["kind"] != "fusion").to_numpy()))
    with pytest.raises(InputError, match="does not have predictions of one fusion"):
        fresh.run()


def test_no_test_rows_are_one_clear_line(fresh: Project):
    fresh.posts["split"] = fresh.posts["split"].replace("test", "val")
    fresh.write()
    with pytest.raises(InputError, match="nothing to evaluate") as refusal:
        fresh.run()
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_corpus_of_one_modality_just_works(tmp_path: Path, modality: Modality):
    project = make(tmp_path, [modality], rows=120)
    found = project.run()
    warned = "\n".join(found["warnings"])
    assert list(found["ablation"]) == [modality]
    assert ("tfidf_logreg" in found["baselines"]) == (modality == "text")
    assert ("no TF-IDF baseline" in warned) == (modality != "text")
    others = [name for name in MODALITIES if name != modality]
    assert all(f"no specialist for {name}" in warned and name not in found for name in others)
    assert project.plots("errors.csv")[f"pull_{modality}"].isna().all()


def test_what_is_small_or_undefined_is_left_out_and_named(fresh: Project):
    test = fresh.posts["split"] == "test"
    fresh.posts.loc[test & (fresh.posts["label"] == "sadness"), "label"] = "joy"
    fresh.posts.loc[test, ["video_path"]] = None
    fresh.posts.loc[test, "group_id"] = [f"new {n % 5}" for n in range(test.sum())]
    fresh.write()
    found = fresh.run()
    few = "only 5 groups among the test rows: too few for intervals, which need 8"
    for warning in ("only 60 test rows", few, "no test row of class sadness", "no test row has video"):
        assert warning in "\n".join(found["warnings"])
    assert found["video"] == {"n": 0}
    assert "sadness" not in found["fusion"]["recall"]
    assert "ci_low" not in json.dumps(found, allow_nan=False)
    assert fresh.plots("systems.csv")[["low", "high"]].isna().all(axis=None)
    headlines = artifacts.read_json(fresh.layout.metrics("evaluate"))["posts"]
    assert headlines["fusion"].keys() == {"macro_f1"}


def test_a_specialist_whose_rows_are_of_few_groups_has_no_interval(fresh: Project):
    with_video = np.flatnonzero((fresh.posts["split"] == "test") & fresh.posts["video_path"].notna())
    fresh.posts.loc[with_video, "group_id"] = [f"new {n % 7}" for n in range(len(with_video))]
    found = fresh.write().run()
    assert "no interval of video: its rows are of too few groups" in found["warnings"]
    assert "macro_f1" in found["video"] and "macro_f1_ci_low" not in found["video"]
    assert "macro_f1_ci_low" in found["image"] and "no interval of image" not in "\n".join(found["warnings"])


def test_a_large_corpus_gives_the_baselines_a_sample(fresh: Project, monkeypatch: pytest.MonkeyPatch):
    learned = len(fresh.part("train", "val"))
    monkeypatch.setattr(baseline_rows, "ROWS", learned // 2)
    found = fresh.run()
    of = len(fresh.part("train"))
    assert (
        f"the baselines were fitted on {int(of * (learned // 2 / learned))} of {of} training rows" in found["warnings"]
    )
    assert found["baselines"]["embeddings_logreg"]["macro_f1"] > 0.3
