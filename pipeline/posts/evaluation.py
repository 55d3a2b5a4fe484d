"""The posts track's part of `evaluate`: the test rows scored, with intervals, baselines and ablation."""

from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core import artifacts
from pipeline.core.descriptions import read_description
from pipeline.core.errors import InputError
from pipeline.core.folds import Fold
from pipeline.core.layout import Layout
from pipeline.core.schemas import MODALITIES, Modality, subset_name, subsets_of
from pipeline.figures.contact_sheet import draw_contact_sheet
from pipeline.params import Params
from pipeline.posts.baseline_rows import BaselineRows, baseline_rows
from pipeline.posts.descriptions import FusionDescription
from pipeline.posts.evaluation_figures import write_ablation, write_confusion, write_reliability, write_systems
from pipeline.posts.folds import Grouping
from pipeline.posts.fusion_nonconformity import fusion_class_scores
from pipeline.posts.held_out import (
    FusionLogits,
    HeldOut,
    fusion_logits,
    held_out_posts,
    refuse_seen,
    specialist_predicted,
)
from pipeline.posts.labels import codes_of
from pipeline.posts.mistakes import error_table, error_tiles, modality_attributions
from pipeline.posts.training_figures import draw_training
from pipeline.scoring import baselines, calibration, conformal, emotion, intervals
from pipeline.scoring.baselines import Baseline, BaselineTrainingSet

ENOUGH, MANY, FOLDS = 300, 20_000, 5
"""Validation rows, of which fewer cannot tell the settings of baselines apart, so that folds of all rows do; but not of
so many rows, each of whose fits takes long."""

FEW_ROWS = 100
"""Fewer test rows are worth a warning."""


def evaluate_posts(params: Params, layout: Layout, plots: Path) -> dict[str, Any]:
    """Scores the posts track, draws its figures into ``plots``, and returns its metrics."""
    posts = artifacts.read_posts(layout.table("posts"), ["sample_id", "group_id", "split", "label"])
    fuse = read_description(layout.model("fuse"), FusionDescription)
    modalities: list[Modality] = [name for name in MODALITIES if name in fuse.modalities]
    test = held_out_posts(posts, fuse.labels, params)
    refuse_seen(test, modalities, layout)

    fusion = fusion_logits(layout, test, fuse.calibration)
    rows = baseline_rows(posts, modalities, params.seed, layout)
    learned = _learned(rows, test)
    simple, present = _baselines(rows, learned, test)
    best = _best_on_held_rows(learned, simple)
    specialists = {name: specialist_predicted(layout, name, test, present[name]) for name in modalities}

    metrics: dict[str, Any] = {
        "n": len(test.codes),
        "fusion": _fusion_metrics(test, fusion),
        **{name: _specialist_metrics(test, specialists[name], present[name]) for name in modalities},
        "baselines": {name: _simple_metrics(test, baseline.test.argmax(axis=1)) for name, baseline in simple.items()},
        "ablation": _ablation_metrics(test, fusion, modalities),
        "fusion_minus_best_baseline": _difference(test, fusion.predicted, best, simple[best].test),
    }
    metrics["conformal"] = _coverage(posts, test, fusion, fuse, layout)
    warnings = _warnings(test, metrics, rows)
    if warnings:
        metrics["warnings"] = warnings

    pulls = modality_attributions(fusion, modalities, present)
    errors = error_table(test, fusion, pulls)
    artifacts.write_csv(plots / "errors.csv", errors.round(artifacts.DECIMALS))
    draw_contact_sheet(plots / "contact_sheet.png", error_tiles(errors, params, layout))
    draw_training(plots, layout, list(test.labels))
    write_confusion(plots, test, fusion.predicted)
    write_reliability(plots, test, fusion.raw, fusion.whole)
    write_ablation(plots, metrics["ablation"])
    write_systems(plots, metrics, modalities)
    return metrics


def _learned(rows: BaselineRows, test: HeldOut) -> BaselineTrainingSet:
    """What the baselines learn from, and the rows that tell their settings apart."""
    posts = rows.posts.iloc[np.concatenate([rows.train, rows.val])]
    at, train, codes = np.arange(len(posts)), len(rows.train), codes_of(posts, test.labels)
    if len(rows.val) >= ENOUGH or (len(rows.val) and len(posts) > MANY):
        folds = [Fold(at[:train], at[train:])]
    else:
        folds = Grouping.of(posts, codes, test.seed).cross(at, FOLDS)
    return BaselineTrainingSet(codes, train, len(test.labels), folds)


def _baselines(
    rows: BaselineRows, learned: BaselineTrainingSet, test: HeldOut
) -> tuple[dict[str, Baseline], dict[Modality, np.ndarray]]:
    """The baselines, and which test rows have each modality, bool [n]."""
    fitted = {"majority": baselines.majority(learned, len(test.codes))}
    texts = rows.training_texts()
    if any(texts[: learned.train]):
        fitted["tfidf_logreg"] = baselines.tfidf_logreg(learned, texts, rows.test_texts())
    vectors = rows.training_vectors()
    fitted["embeddings_logreg"] = baselines.embeddings_logreg(learned, vectors.rows, rows.test_vectors(vectors.usual))
    return fitted, vectors.present


def _best_on_held_rows(learned: BaselineTrainingSet, fitted: dict[str, Baseline]) -> str:
    """The baseline to compare with, chosen before and without its test score; of equal ones, what knows most."""
    codes = learned.codes[learned.held_out]
    scores = {
        name: emotion.macro_f1(codes, baseline.held.argmax(axis=1), learned.classes)
        for name, baseline in fitted.items()
    }
    return max(reversed(fitted), key=lambda name: scores[name])


def _fusion_metrics(test: HeldOut, fusion: FusionLogits) -> dict[str, Any]:
    ece = partial(calibration.expected_calibration_error, actual=test.codes, bins=test.block.calibration_bins)
    report = emotion.report(fusion.whole, fusion.predicted, test.codes, test.labels)
    del report["n"]
    return {
        **test.macro_f1(fusion.predicted),
        **report,
        "log_loss_uncalibrated": emotion.log_loss(fusion.raw, test.codes),
        "ece": ece(emotion.softmax(fusion.whole)),
        "ece_uncalibrated": ece(emotion.softmax(fusion.raw)),
    }


def _specialist_metrics(test: HeldOut, predicted: np.ndarray, has: np.ndarray) -> dict[str, Any]:
    """On the test rows that have its modality."""
    if not has.any():
        return {"n": 0}
    return {"n": int(has.sum()), **test.macro_f1(predicted, has), "accuracy": test.accuracy(predicted, has)}


def _simple_metrics(test: HeldOut, predicted: np.ndarray) -> dict[str, float]:
    return {**test.macro_f1(predicted), "accuracy": test.accuracy(predicted)}


def _ablation_metrics(test: HeldOut, fusion: FusionLogits, modalities: list[Modality]) -> dict[str, Any]:
    """Every subset on all test rows, also on those that have nothing of it, so that subsets can be compared."""
    subsets = [subset_name(subset) for subset in subsets_of(modalities)]
    kinds = ("masked", "retrained")
    for kind, subset in product(kinds, subsets):
        if (kind, subset) not in fusion.subsets:
            raise InputError(f"models/fuse/predictions.parquet: has no {subset} of kind {kind}; run `dvc repro`")
    return {
        subset: {kind: test.macro_f1(fusion.decide(fusion.subsets[kind, subset])) for kind in kinds}
        for subset in subsets
    }


def _coverage(
    posts: pd.DataFrame, test: HeldOut, fusion: FusionLogits, fuse: FusionDescription, layout: Layout
) -> dict[str, Any]:
    """How often the prediction sets that `predict` gives hold the true class, on the test rows."""
    limits = conformal.thresholds(fusion_class_scores(posts, fuse, layout), test.block.coverage)
    sets = conformal.prediction_sets(emotion.softmax(fusion.whole), fusion.predicted, limits)
    return {"target": test.block.coverage, **conformal.coverage_report(sets, test.codes, test.labels)}


def _difference(test: HeldOut, predicted: np.ndarray, best: str, baseline: np.ndarray) -> dict[str, Any]:
    drawn = intervals.resampled_macro_f1_difference(
        test.codes,
        predicted,
        baseline.argmax(axis=1),
        test.groups,
        len(test.labels),
        test.block.bootstrap,
        test.seed,
    )
    return {"value": drawn.value, **intervals.interval_metrics(drawn, test.block.confidence), "baseline": best}


def _warnings(test: HeldOut, metrics: dict[str, Any], learned: BaselineRows) -> list[str]:
    """What a reader of the numbers must know: all that is small, absent or undefined."""
    warnings = []
    if len(test.codes) < FEW_ROWS:
        warnings.append(f"only {len(test.codes)} test rows: the intervals are wide")
    warnings += intervals.few_groups_warnings(test.groups, "the test rows")
    fusion = metrics["fusion"]
    warnings += [f"no test row of class {label}" for label, count in fusion["support"].items() if not count]
    warnings += [f"fusion never predicts {label}" for label in test.labels if label not in fusion["precision"]]
    warnings += [f"no specialist for {name}" for name in MODALITIES if name not in metrics]
    warnings += [f"no test row has {name}" for name in MODALITIES if metrics.get(name) == {"n": 0}]
    warnings += [
        f"no interval of {name}: its rows are of too few groups"
        for name in MODALITIES
        if "macro_f1_ci_low" in fusion
        and "macro_f1" in (scored := metrics.get(name, {}))
        and "macro_f1_ci_low" not in scored
    ]
    if "tfidf_logreg" not in metrics["baselines"]:
        warnings.append("no training row has text, so no TF-IDF baseline")
    training_rows = int((learned.posts["split"] == "train").sum())
    if len(learned.train) < training_rows:
        warnings.append(f"the baselines were fitted on {len(learned.train)} of {training_rows} training rows")
    return warnings
