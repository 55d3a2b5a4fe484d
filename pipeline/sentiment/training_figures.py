"""How the models of the track were trained, in pictures. `evaluate` draws them: a chart retrains nothing."""

from pathlib import Path

import pandas as pd

from pipeline.core.layout import Layout
from pipeline.core.schemas import FINAL
from pipeline.figures.training import draw_adapters, draw_history
from pipeline.sentiment.track import ADAPTERS, FINETUNED, SOURCE, Track

HISTORIES = {
    (SOURCE, "history"): "source model, features: mean of the inner folds",
    (SOURCE, "history_text"): "source model, texts",
    (FINETUNED, "history"): "fine-tuning, phase after phase",
}


def draw_training(plots: Path, layout: Layout, track: Track) -> None:
    """Loss and score by epoch of source model and fine-tuning; the adapters' losses and distances to the source."""
    for (stage, table), title in HISTORIES.items():
        path = layout.plots(stage) / f"{table}.csv"
        history = pd.read_csv(path).assign(fold=FINAL) if path.is_file() else None
        if history is not None and len(history):
            draw_history(plots / f"{stage}_{table}.png", history, title, "concordance")
    path = layout.plots(ADAPTERS) / "history.csv"
    if path.is_file():
        description = track.stages[ADAPTERS].description
        trained = {"adapted": description.adapters, "zero_shot": description.zero_shot_adapters}
        report = {step: {name: adapter.arguments() for name, adapter in by.items()} for step, by in trained.items()}
        title = "adapters: losses, and distance to the source"
        draw_adapters(plots / f"{ADAPTERS}.png", pd.read_csv(path), report, title)
