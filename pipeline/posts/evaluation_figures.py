"""Tables and pictures of the posts' evaluation."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core import artifacts
from pipeline.core.schemas import Modality
from pipeline.figures.evaluation import draw_ablation, draw_reliability, draw_systems
from pipeline.figures.training import draw_confusion
from pipeline.posts.held_out import HeldOut
from pipeline.scoring import calibration, emotion

BASELINE_NAMES = {
    "majority": "majority class",
    "tfidf_logreg": "TF-IDF + logistic regression",
    "embeddings_logreg": "embeddings + logistic regression",
}


def write_confusion(plots: Path, test: HeldOut, predicted: np.ndarray) -> None:
    names = np.array(test.labels, dtype=object)
    artifacts.write_csv(
        plots / "confusion.csv", pd.DataFrame({"actual": names[test.codes], "predicted": names[predicted]})
    )
    matrix = emotion.confusion(test.codes, predicted, len(test.labels))
    draw_confusion(plots / "confusion.png", matrix, test.labels, f"fusion, {len(test.codes)} test rows")


def write_reliability(plots: Path, test: HeldOut, raw: np.ndarray, calibrated: np.ndarray) -> None:
    before, after = (
        calibration.reliability(emotion.softmax(logits), test.codes, test.block.calibration_bins)
        for logits in (raw, calibrated)
    )
    both = pd.concat([before.assign(calibration="before"), after.assign(calibration="after")])
    artifacts.write_csv(plots / "reliability.csv", both.round(artifacts.DECIMALS))
    title = f"fusion, {len(test.codes)} test rows"
    draw_reliability(plots / "reliability.png", before, after, title)


def write_ablation(plots: Path, ablation: dict[str, Any]) -> None:
    rows = pd.DataFrame(
        [
            {"subset": subset, "kind": kind, **_bar(by_kind[kind])}
            for subset, by_kind in ablation.items()
            for kind in by_kind
        ]
    )
    artifacts.write_csv(plots / "ablation.csv", rows.round(artifacts.DECIMALS))
    draw_ablation(plots / "ablation.png", rows, "what each modality brings")


def write_systems(plots: Path, metrics: dict[str, Any], modalities: list[Modality]) -> None:
    named = {
        "fusion": metrics["fusion"],
        **{f"{name} alone ({metrics[name]['n']} rows)": metrics[name] for name in modalities if metrics[name]["n"]},
        **{BASELINE_NAMES[name]: scores for name, scores in metrics["baselines"].items()},
    }
    rows = pd.DataFrame([{"name": name, **_bar(scores)} for name, scores in named.items()])
    artifacts.write_csv(plots / "systems.csv", rows.round(artifacts.DECIMALS))
    draw_systems(plots / "systems.png", rows, f"macro-F1 on {metrics['n']} test rows")


def _bar(scores: dict[str, float]) -> dict[str, float]:
    ends = {end: scores.get(f"macro_f1_ci_{end}", np.nan) for end in ("low", "high")}
    return {"value": scores["macro_f1"], **ends}
