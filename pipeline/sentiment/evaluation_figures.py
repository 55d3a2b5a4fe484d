"""Tables and pictures of the source → target evaluation."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core import artifacts
from pipeline.figures.evaluation import (
    draw_learning_curve,
    draw_modality_gap,
    draw_predicted_against_actual,
    draw_sentiment_subsets,
    draw_transfer,
)
from pipeline.sentiment.metrics import CURVES, Measured, curve_point
from pipeline.sentiment.scored import STEP_NAMES, Scored


def draw_evaluation(plots: Path, measured: Measured, metrics: dict[str, Any]) -> None:
    scored = measured.target
    unit = "groups" if scored.block.sentiment_per == "group" else "rows"
    steps = [
        {
            "name": label,
            "step": name,
            **_bar(metrics[name], "pearson_"),
            "resubstitution": scored.train.get(scored.whole(name), np.nan),
        }
        for name, label in STEP_NAMES.items()
        if "pearson" in metrics.get(name, {})
    ]
    title = f"Pearson's r on {metrics['n']} unseen target {unit}"
    draw_transfer(plots / "transfer.png", pd.DataFrame(steps), title)
    draw_learning_curve(
        plots / "curve.png", _curve_rows(scored, metrics.get("curve", {})), "with and without the source"
    )
    draw_sentiment_subsets(plots / "sentiment_subsets.png", _subset_rows(metrics), "what each modality brings")
    title = "ridge on one modality: does it hold on unseen rows?"
    draw_modality_gap(plots / "modality_gap.png", _gap_rows(metrics), title)
    predicted = pd.DataFrame(
        {
            "sample_id": scored.ids,
            "group_id": scored.groups,
            "actual": scored.actual,
            "predicted": scored.systems[scored.whole("finetuned")].mean(axis=0),
        }
    )
    artifacts.write_csv(plots / "predicted.csv", predicted.round(artifacts.DECIMALS))
    draw_predicted_against_actual(plots / "predicted.png", predicted, f"fine-tuned, {metrics['n']} unseen {unit}")


def _bar(scores: dict[str, float], prefix: str = "") -> dict[str, float]:
    ends = {end: scores.get(f"{prefix}ci_{end}", np.nan) for end in ("low", "high")}
    return {"value": scores["pearson"], **ends}


def _curve_rows(scored: Scored, metrics: dict[str, Any]) -> pd.DataFrame:
    rows = []
    for variant in scored.curve:
        scores = metrics[curve_point(variant)]
        if "pearson" in scores:
            kind = CURVES[0] if variant.with_source else CURVES[1]
            rows.append({"kind": kind, "groups": variant.groups, **_bar(scores)})
    return pd.DataFrame(rows, columns=["kind", "groups", "value", "low", "high"])


def _subset_rows(metrics: dict[str, Any]) -> pd.DataFrame:
    rows = [
        {"subset": subset, "step": step, **_bar(scores)}
        for subset, steps in metrics["subsets"].items()
        for step, scores in steps.items()
        if scores
    ]
    return pd.DataFrame(rows)


def _gap_rows(metrics: dict[str, Any]) -> pd.DataFrame:
    rows = [
        {"modality": name, "part": part, "value": r}
        for name, scores in metrics.get("modality_gap", {}).items()
        for part in ("train", "val", "test")
        if (r := scores.get(f"{part}_pearson")) is not None
    ]
    return pd.DataFrame(rows)
