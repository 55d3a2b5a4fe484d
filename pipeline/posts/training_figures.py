"""How the models of the posts track were trained, in pictures. `evaluate` draws them: a chart retrains nothing."""

from pathlib import Path

import pandas as pd

from pipeline.core import artifacts
from pipeline.core.layout import Layout
from pipeline.core.schemas import FINAL
from pipeline.figures.training import draw_confusion, draw_history
from pipeline.scoring import emotion

STAGES = {
    "train_text": "text specialist",
    "train_image": "image specialist",
    "train_video": "video specialist",
    "fuse": "fusion",
}


def draw_training(plots: Path, layout: Layout, labels: list[str]) -> None:
    """Loss and score by epoch, and confusion on rows out of fold, of every stage that has trained something."""
    for stage, name in STAGES.items():
        folder = layout.plots(stage)
        folds = folder / "folds.csv"
        if not (folder / "history.csv").is_file():
            continue
        history = pd.read_csv(folds) if folds.is_file() else pd.read_csv(folder / "history.csv").assign(fold=FINAL)
        if len(history):
            draw_history(plots / f"{stage}_history.png", history, name)
        pairs = artifacts.read_csv(folder / "confusion.csv")
        if len(pairs):
            actual, predicted = (
                pd.Categorical(pairs[column], categories=labels).codes for column in ("actual", "predicted")
            )
            matrix = emotion.confusion(actual, predicted, len(labels))
            draw_confusion(plots / f"{stage}_confusion.png", matrix, labels, f"{name}, rows out of fold")
