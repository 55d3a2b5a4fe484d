"""Scores the test rows of both tracks, which no model has seen, and shows where and why the fusion errs.

Nothing is scored before the rows that every model in the lineage was fitted on have been checked against the test rows.
Whatever a choice was needed for, such as the baseline to compare with, was chosen on validation rows. The source →
target track is scored in ``sentiment_evaluation``.

Reads:  data/split/posts.parquet, data/embeddings/posts/*.parquet, models/{train_text,train_image,train_video,fuse}/,
        of the posts' media what the contact sheet shows, and what ``sentiment_tables`` names.
Writes: metrics/evaluate.json, plots/evaluate/.
"""

from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline import figures, media
from pipeline.core import artifacts
from pipeline.core.artifacts import Predictions
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.core.schemas import FINAL, MODALITIES, Modality
from pipeline.corpora.posts import codes_of
from pipeline.figures import Tile
from pipeline.params import Evaluate, Params
from pipeline.scoring import baselines, calibration, conformal, emotion, intervals, leaks
from pipeline.scoring.baselines import Baseline
from pipeline.stages import sentiment_evaluation

FEW_ROWS, FEW_GROUPS = 100, 20
"""Fewer test rows, or groups behind an interval, are worth a warning."""

FEATURE_CELLS = 2**28
"""Numbers in the training matrix of the embeddings baseline, at most (1 GB); more rows than fit are sampled from."""

BASELINE_NAMES = {
    "majority": "majority class",
    "tfidf_logreg": "TF-IDF + logistic regression",
    "embeddings_logreg": "embeddings + logistic regression",
}

TILE_PIXELS, TILE_FRAMES = 320, 4


@dataclass(frozen=True)
class HeldOut:
    """What is scored, n rows: ``posts``, their classes ``codes``, int64 [n], as positions in ``labels``."""

    posts: pd.DataFrame
    codes: np.ndarray
    labels: tuple[str, ...]
    block: Evaluate
    seed: int

    def macro_f1(self, logits: np.ndarray, at: np.ndarray | slice = slice(None)) -> dict[str, float]:
        """Macro-F1 with its interval, of ``logits`` for the rows ``at``."""
        codes, predicted, groups = self.codes[at], logits.argmax(axis=1), self.posts["group_id"].to_numpy()[at]
        low, high = intervals.grouped_bootstrap_macro_f1(
            codes, predicted, groups, len(self.labels), self.block.bootstrap, self.block.confidence, self.seed
        )
        value = emotion.macro_f1(codes, predicted, len(self.labels))
        return {"macro_f1": value, "macro_f1_ci_low": low, "macro_f1_ci_high": high}

    def accuracy(self, logits: np.ndarray, at: np.ndarray | slice = slice(None)) -> float:
        return float((logits.argmax(axis=1) == self.codes[at]).mean())


@dataclass(frozen=True)
class Features:
    """The embeddings of all modalities of the corpus side by side, for the linear baseline and for the error table.

    Attributes:
        train, val, test: float32 [rows, width].
        train_at: int64 [rows of train], positions among the training posts.
        present: modality → bool [test rows].
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    train_at: np.ndarray
    present: dict[Modality, np.ndarray]


def run(params: Params, layout: Layout) -> None:
    with artifacts.replacing_folder(layout.plots("evaluate")) as plots:
        metrics = {
            "posts": _posts(params, layout, plots),
            "sentiment": sentiment_evaluation.run(params, layout, plots),
        }
    artifacts.write_json(layout.metrics("evaluate"), metrics)


def _posts(params: Params, layout: Layout, plots: Path) -> dict[str, Any]:
    """Scores the posts track, draws its figures into ``plots``, and returns its metrics."""
    posts = artifacts.read_posts(layout.table("posts"))
    fuse = _description(layout, "fuse")
    modalities: list[Modality] = [name for name in MODALITIES if name in fuse["modalities"]]
    test = _held_out(posts, tuple(fuse["labels"]), params)
    _refuse_seen(test, modalities, layout)

    fusion = _fusion_logits(layout, test)
    features = _features(posts, modalities, params.seed, layout)
    specialists = {name: _specialist_logits(layout, name, test, features.present[name]) for name in modalities}
    simple = _baselines(posts, features, test.labels)
    best = _best_on_validation(posts, simple, test.labels)

    metrics: dict[str, Any] = {
        "n": len(test.codes),
        "fusion": _fusion_metrics(test, fusion["fusion"], fuse["temperature"]),
        **{name: _specialist_metrics(test, specialists[name], features.present[name]) for name in modalities},
        "baselines": {name: _simple_metrics(test, made.test) for name, made in simple.items()},
        "ablation": _ablation_metrics(test, fusion, modalities),
        "fusion_minus_best_baseline": _difference(test, fusion["fusion"], best, simple[best].test),
    }
    metrics["conformal"] = _coverage(posts, test, fusion["fusion"], fuse["temperature"], layout)
    warnings = _warnings(test, metrics, features, int((posts["split"] == "train").sum()))
    if warnings:
        metrics["warnings"] = "; ".join(warnings)

    pulls = _pulls(fusion, modalities, features.present, fuse["temperature"])
    errors = _errors(test, fusion["fusion"], fuse["temperature"], pulls)
    artifacts.write_csv(plots / "errors.csv", errors.round(artifacts.DECIMALS))
    figures.contact_sheet(plots / "contact_sheet.png", _tiles(errors, test.posts, params, layout))
    _draw_confusion(plots, test, fusion["fusion"])
    _draw_reliability(plots, test, fusion["fusion"], fuse["temperature"])
    _draw_ablation(plots, metrics["ablation"])
    _draw_systems(plots, metrics, modalities)
    return metrics


# --- what is read, and what is refused -------------------------------------------------------------------------------


def _description(layout: Layout, stage: str) -> dict[str, Any]:
    return artifacts.read_json(layout.model(stage) / "model.json")


def _held_out(posts: pd.DataFrame, labels: tuple[str, ...], params: Params) -> HeldOut:
    rows = posts[posts["split"] == "test"].reset_index(drop=True)
    if rows.empty:
        raise InputError("data/split/posts.parquet: no row has the split `test`, so there is nothing to evaluate")
    unknown = sorted(set(posts["label"]) - set(labels))
    if unknown:
        raise InputError(f"models/fuse/model.json: does not know the label {unknown[0]!r}; run `dvc repro`")
    return HeldOut(rows, codes_of(rows, labels), labels, params.evaluate, params.seed)


def _refuse_seen(test: HeldOut, modalities: list[Modality], layout: Layout) -> None:
    """Raises InputError when any model that a scored prediction rests on has seen a test row or its group."""
    stages = ["fuse", *(f"train_{name}" for name in modalities)]
    fitted = []
    for stage in stages:
        description = _description(layout, stage)
        if tuple(description["labels"]) != test.labels:
            raise InputError(f"models/{stage}/model.json: its labels differ from those of fuse; run `dvc repro`")
        rows = artifacts.read_fitted(layout.fitted(stage), description["fitted"]["digest"])
        if rows.empty:
            raise InputError(f"{layout.fitted(stage)}: does not say which rows it was fitted on; run `dvc repro`")
        fitted.append(rows.assign(stage=stage))
        stages += [parent for parent in description["parents"] if parent not in stages]
    leaks.refuse_fitted_rows(test.posts, pd.concat(fitted))


def _fusion_logits(layout: Layout, test: HeldOut) -> dict[str, np.ndarray]:
    """Variant → float32 [n, K], each for all test rows and in their order."""
    path = layout.predictions("fuse")
    predictions = _final_test_predictions(path, test)
    variants = predictions.rows["variant"].to_numpy()
    found = {str(name): predictions.where(variants == name) for name in dict.fromkeys(variants)}
    return {name: part.logits[_positions(part, test.posts["sample_id"], path)] for name, part in found.items()}


def _specialist_logits(layout: Layout, modality: Modality, test: HeldOut, present: np.ndarray) -> np.ndarray:
    """Logits, float32 [m, K], for those m test rows for which ``present``, bool [n], is true."""
    path = layout.predictions(f"train_{modality}")
    predictions = _final_test_predictions(path, test)
    return predictions.logits[_positions(predictions, test.posts.loc[present, "sample_id"], path)]


def _final_test_predictions(path: Path, test: HeldOut) -> Predictions:
    predictions = artifacts.read_predictions(path, len(test.labels))
    predictions = predictions.where((predictions.rows["split"] == "test").to_numpy())
    if (predictions.rows["fold"] != FINAL).any():
        raise InputError(f"{path}: test rows were predicted by a cross-fitted model; run `dvc repro`")
    if not np.isfinite(predictions.logits).all():
        raise InputError(f"{path}: holds logits that are not finite; train again, with a smaller learning rate")
    return predictions


def _positions(predictions: Predictions, ids: pd.Series, path: Path) -> np.ndarray:
    """Where each id stands among the predictions; these and no others must be there, once each."""
    at = pd.Index(predictions.rows["sample_id"])
    if len(at) != len(ids) or not at.is_unique or not ids.isin(at).all():
        raise InputError(f"{path}: its test rows are not those of data/split/posts.parquet; run `dvc repro`")
    return at.get_indexer(pd.Index(ids))


# --- baselines -------------------------------------------------------------------------------------------------------


def _features(posts: pd.DataFrame, modalities: list[Modality], seed: int, layout: Layout) -> Features:
    """Vectors of every modality side by side; absent ones at the training mean, with a column that says so."""
    split = posts["split"].to_numpy()
    train, val, test = (np.flatnonzero(split == name) for name in ("train", "val", "test"))
    sources = [artifacts.read_embeddings(layout.embeddings("posts", name)) for name in modalities]
    fits = FEATURE_CELLS // sum(source.width + 1 for source in sources)
    kept = np.arange(len(train))
    if len(train) > fits:
        kept = np.sort(np.random.default_rng(seed).choice(len(train), size=fits, replace=False))
    columns: list[list[np.ndarray]] = [[], [], []]
    present: dict[Modality, np.ndarray] = {}
    for name, source in zip(modalities, sources, strict=True):
        if not np.array_equal(source.sample_ids, posts["sample_id"].to_numpy()):
            raise InputError(f"{layout.embeddings('posts', name)}: rows differ from data/split; run `dvc repro`")
        known = train[kept][source.present[train[kept]]]
        usual = (source.vectors[known].sum(axis=0, dtype=np.float64) / max(1, len(known))).astype(np.float32)
        present[name] = source.present[test]
        for part, at in zip(columns, (train[kept], val, test), strict=True):
            here = source.present[at][:, None]
            part += [np.where(here, source.vectors[at], usual), here.astype(np.float32)]
    made = [np.concatenate(part, axis=1, dtype=np.float32) for part in columns]
    return Features(made[0], made[1], made[2], kept, present)


def _baselines(posts: pd.DataFrame, features: Features, labels: tuple[str, ...]) -> dict[str, Baseline]:
    parts = [posts[posts["split"] == name] for name in ("train", "val", "test")]
    train, val, _ = (codes_of(part, labels) for part in parts)
    made = {"majority": baselines.majority(train, len(labels), len(parts[1]), len(parts[2]))}
    texts = [[text or "" for text in part["text"]] for part in parts]
    if any(texts[0]):
        made["tfidf_logreg"] = baselines.tfidf_logreg(texts[0], texts[1], texts[2], train, val, len(labels))
    made["embeddings_logreg"] = baselines.embeddings_logreg(
        features.train, features.val, features.test, train[features.train_at], val, len(labels)
    )
    return made


def _best_on_validation(posts: pd.DataFrame, made: dict[str, Baseline], labels: tuple[str, ...]) -> str:
    """The baseline to compare with, chosen before and without its test score."""
    codes = codes_of(posts[posts["split"] == "val"], labels)
    return max(made, key=lambda name: emotion.macro_f1(codes, made[name].val.argmax(axis=1), len(labels)))


# --- metrics ---------------------------------------------------------------------------------------------------------


def _fusion_metrics(test: HeldOut, logits: np.ndarray, temperature: float) -> dict[str, Any]:
    ece = partial(calibration.expected_calibration_error, actual=test.codes, bins=test.block.calibration_bins)
    report = emotion.report(logits, test.codes, test.labels, temperature)
    del report["n"]
    return {
        **test.macro_f1(logits),
        **report,
        "log_loss_uncalibrated": emotion.log_loss(logits, test.codes),
        "ece": ece(emotion.softmax(logits, temperature)),
        "ece_uncalibrated": ece(emotion.softmax(logits)),
        "temperature": temperature,
    }


def _specialist_metrics(test: HeldOut, logits: np.ndarray, has: np.ndarray) -> dict[str, Any]:
    """On the test rows that have its modality."""
    if not has.any():
        return {"n": 0}
    return {"n": int(has.sum()), **test.macro_f1(logits, has), "accuracy": test.accuracy(logits, has)}


def _simple_metrics(test: HeldOut, logits: np.ndarray) -> dict[str, float]:
    return {**test.macro_f1(logits), "accuracy": test.accuracy(logits)}


def _ablation_metrics(test: HeldOut, fusion: dict[str, np.ndarray], modalities: list[Modality]) -> dict[str, Any]:
    """Every subset on all test rows, also on those that have nothing of it, so that subsets can be compared."""
    sizes = range(1, len(modalities) + 1)
    subsets = ["_".join(subset) for size in sizes for subset in combinations(modalities, size)]
    kinds = ("masked", "retrained")
    missing = [f"{kind}:{subset}" for subset in subsets for kind in kinds if f"{kind}:{subset}" not in fusion]
    if missing:
        raise InputError(f"models/fuse/predictions.parquet: has no variant {missing[0]}; run `dvc repro`")
    return {subset: {kind: test.macro_f1(fusion[f"{kind}:{subset}"]) for kind in kinds} for subset in subsets}


def _coverage(
    posts: pd.DataFrame, test: HeldOut, logits: np.ndarray, temperature: float, layout: Layout
) -> dict[str, Any]:
    """How often the prediction sets that `predict` gives hold the true class, on the test rows."""
    predictions = artifacts.read_predictions(layout.predictions("fuse"), len(test.labels))
    val = predictions.where(
        ((predictions.rows["split"] == "val") & (predictions.rows["variant"] == "fusion")).to_numpy()
    )
    codes = codes_of(posts.set_index("sample_id", drop=False).loc[val.rows["sample_id"]], test.labels)
    wanted = test.block.coverage
    limits = conformal.thresholds(conformal.class_scores(emotion.softmax(val.logits, temperature), codes), wanted)
    sets = conformal.prediction_sets(emotion.softmax(logits, temperature), limits)
    return {"target": wanted, **conformal.coverage_report(sets, test.codes, test.labels)}


def _difference(test: HeldOut, fusion: np.ndarray, best: str, baseline: np.ndarray) -> dict[str, Any]:
    value, low, high = intervals.paired_bootstrap_macro_f1(
        test.codes,
        fusion.argmax(axis=1),
        baseline.argmax(axis=1),
        test.posts["group_id"].to_numpy(),
        len(test.labels),
        test.block.bootstrap,
        test.block.confidence,
        test.seed,
    )
    return {"value": value, "ci_low": low, "ci_high": high, "baseline": best}


def _warnings(test: HeldOut, metrics: dict[str, Any], features: Features, train_rows: int) -> list[str]:
    """What a reader of the numbers must know: all that is small, absent or undefined."""
    found = []
    rows, groups = len(test.codes), test.posts["group_id"].nunique()
    if rows < FEW_ROWS:
        found.append(f"only {rows} test rows: the intervals are wide")
    if groups < FEW_GROUPS:
        found.append(f"only {groups} groups among the test rows: the intervals are rough")
    fusion = metrics["fusion"]
    found += [f"no test row of class {label}" for label, count in fusion["support"].items() if not count]
    found += [f"fusion never predicts {label}" for label in test.labels if label not in fusion["precision"]]
    found += [f"no specialist for {name}" for name in MODALITIES if name not in metrics]
    found += [f"no test row has {name}" for name in MODALITIES if metrics.get(name) == {"n": 0}]
    if "tfidf_logreg" not in metrics["baselines"]:
        found.append("no training row has text, so no TF-IDF baseline")
    if len(features.train_at) < train_rows:
        found.append(f"embeddings_logreg was fitted on {len(features.train_at)} of {train_rows} training rows")
    return found


# --- errors ----------------------------------------------------------------------------------------------------------


def _pulls(
    fusion: dict[str, np.ndarray], modalities: list[Modality], present: dict[Modality, np.ndarray], temperature: float
) -> dict[str, np.ndarray]:
    """How far each modality pulled each test row towards the class that the fusion predicts, float64 [n].

    It is the log-odds of that class less what they are with the modality masked: above 0, the modality spoke for the
    prediction. NaN where the row does not have the modality, or the corpus has no other.
    """
    predicted = fusion["fusion"].argmax(axis=1)
    whole = emotion.log_odds(fusion["fusion"], predicted, temperature)
    pulls = {}
    for name in modalities:
        others = "_".join(other for other in modalities if other != name)
        masked = emotion.log_odds(fusion[f"masked:{others}"], predicted, temperature) if others else np.nan
        pulls[f"pull_{name}"] = np.where(present[name], whole - masked, np.nan)
    return pulls


def _errors(test: HeldOut, logits: np.ndarray, temperature: float, pulls: dict[str, np.ndarray]) -> pd.DataFrame:
    """Every misclassified test row, the most confident first."""
    probabilities = emotion.softmax(logits, temperature)
    predicted = logits.argmax(axis=1)
    names = np.array(test.labels, dtype=object)
    table = pd.DataFrame(
        {
            "id": test.posts["sample_id"],
            "label": test.posts["label"],
            "prediction": names[predicted],
            "confidence": probabilities.max(axis=1),
            "probability_of_label": probabilities[np.arange(len(predicted)), test.codes],
            **pulls,
        }
    )
    wrong = table[predicted != test.codes]
    return wrong.sort_values(["confidence", "id"], ascending=[False, True], ignore_index=True)


def _tiles(errors: pd.DataFrame, posts: pd.DataFrame, params: Params, layout: Layout) -> list[Tile]:
    by_id = posts.set_index("sample_id")
    folder = layout.root / params.posts.media
    tiles = []
    for error in errors.head(params.evaluate.gallery).to_dict("records"):
        post = by_id.loc[error["id"]]
        pulls = {name: error.get(f"pull_{name}", np.nan) for name in MODALITIES}
        caption = [str(error["id"]), f"{error['label']}, taken for {error['prediction']} ({error['confidence']:.2f})"]
        known = [f"{name} {pull:+.1f}" for name, pull in pulls.items() if np.isfinite(pull)]
        caption += [f"pull: {', '.join(known)}"] if known else []
        tiles.append(Tile(_pictures(post, folder, params.embed.max_pixels), post["text"] or "", "\n".join(caption)))
    return tiles


def _pictures(post: pd.Series, folder: Path, max_pixels: int) -> list[np.ndarray]:
    """The picture, or some frames of the clip; nothing where neither can be read, which `embed` has reported."""
    size = {"max_pixels": max_pixels, "at_least": TILE_PIXELS}
    try:
        if post["image_path"]:
            return [media.read_picture(folder / post["image_path"], **size)]
        if post["video_path"]:
            return media.read_frames(folder / post["video_path"], frames=TILE_FRAMES, **size)
    except media.MediaError:
        return []
    return []


# --- figures ---------------------------------------------------------------------------------------------------------


def _draw_confusion(plots: Path, test: HeldOut, logits: np.ndarray) -> None:
    predicted = logits.argmax(axis=1)
    names = np.array(test.labels, dtype=object)
    artifacts.write_csv(
        plots / "confusion.csv", pd.DataFrame({"actual": names[test.codes], "predicted": names[predicted]})
    )
    matrix = emotion.confusion(test.codes, predicted, len(test.labels))
    figures.confusion(plots / "confusion.png", matrix, test.labels, f"fusion, {len(test.codes)} test rows")


def _draw_reliability(plots: Path, test: HeldOut, logits: np.ndarray, temperature: float) -> None:
    before, after = (
        calibration.reliability(emotion.softmax(logits, by), test.codes, test.block.calibration_bins)
        for by in (1.0, temperature)
    )
    both = pd.concat([before.assign(temperature="before"), after.assign(temperature="after")])
    artifacts.write_csv(plots / "reliability.csv", both.round(artifacts.DECIMALS))
    title = f"fusion, {len(test.codes)} test rows, temperature {temperature:.2f}"
    figures.reliability(plots / "reliability.png", before, after, title)


def _draw_ablation(plots: Path, ablation: dict[str, Any]) -> None:
    rows = pd.DataFrame(
        [{"subset": subset, "kind": kind, **_bar(of[kind])} for subset, of in ablation.items() for kind in of]
    )
    artifacts.write_csv(plots / "ablation.csv", rows.round(artifacts.DECIMALS))
    figures.ablation(plots / "ablation.png", rows, "what each modality brings")


def _draw_systems(plots: Path, metrics: dict[str, Any], modalities: list[Modality]) -> None:
    named = {
        "fusion": metrics["fusion"],
        **{f"{name} alone ({metrics[name]['n']} rows)": metrics[name] for name in modalities if metrics[name]["n"]},
        **{BASELINE_NAMES[name]: of for name, of in metrics["baselines"].items()},
    }
    rows = pd.DataFrame([{"name": name, **_bar(of)} for name, of in named.items()])
    artifacts.write_csv(plots / "systems.csv", rows.round(artifacts.DECIMALS))
    figures.systems(plots / "systems.png", rows, f"macro-F1 on {metrics['n']} test rows")


def _bar(of: dict[str, float]) -> dict[str, float]:
    return {"value": of["macro_f1"], "low": of["macro_f1_ci_low"], "high": of["macro_f1_ci_high"]}
