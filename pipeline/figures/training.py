"""How a training went: losses, what the adapters moved, confusion on validation rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from pipeline.figures.style import BLUE, GREY, INK, ORANGE, beside, drawing, note, plain, short

SHARES = LinearSegmentedColormap.from_list("shares", ["#ffffff", "#b9d3e8", "#5b98c6", "#0b5a94", "#063a63"])


def draw_history(path: Path, rows: pd.DataFrame, title: str, score: str = "macro-F1") -> None:
    """Losses and validation ``score``, where there is one, over the epochs of every fold, the final model in front.

    ``rows`` has the columns ``fold, epoch, train_loss, val_loss, val_score``; a missing value is not drawn.
    """
    judged = bool(rows["val_score"].notna().any())
    with drawing(path, (9.0 if judged else 4.6, 3.6), title) as figure:
        panels = figure.subplots(1, 2 if judged else 1, squeeze=False)[0]
        losses, scores = panels[0], panels[1] if judged else None
        for fold, epochs in rows.sort_values("epoch").groupby("fold", sort=True):
            front = fold == "final" or rows["fold"].nunique() == 1
            _history_lines(losses, scores, epochs, front)
        losses.set_title("loss")
        if scores is not None:
            scores.set_title(f"{score} on validation rows")
        for axes in panels:
            axes.set_xlabel("epoch")
            axes.grid(axis="y")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.margins(x=0.02)
        losses.set_ylim(bottom=0)
        if rows["fold"].nunique() > 1:
            note(panels[-1], "thin lines: models of the folds")


def _history_lines(losses: Axes, scores: Axes | None, epochs: pd.DataFrame, front: bool) -> None:
    width, alpha = (2.0, 1.0) if front else (0.8, 0.35)
    for name, column, colour, style in (
        ("train", "train_loss", GREY, "--"),
        ("validation", "val_loss", BLUE, "-"),
    ):
        line = epochs.dropna(subset=[column])
        losses.plot(line["epoch"], line[column], style, color=colour, linewidth=width, alpha=alpha)
        if front and len(line):
            beside(losses, line["epoch"].iloc[-1], line[column].iloc[-1], name, colour)
    if scores is None:
        return
    line = epochs.dropna(subset=["val_score"])
    scores.plot(line["epoch"], line["val_score"], color=BLUE, linewidth=width, alpha=alpha)
    if front and len(line):
        best = int(line["val_score"].to_numpy().argmax())
        epoch, score = line["epoch"].iloc[best], line["val_score"].iloc[best]
        scores.plot(epoch, score, "o", color=BLUE, clip_on=False)
        text = f"best {score:.3f}\nepoch {epoch:.0f}"
        side = "right" if 2 * best > len(line) else "left"
        scores.annotate(text, (epoch, score), (0, -8), textcoords="offset points", color=BLUE, ha=side, va="top")


def draw_adapters(path: Path, history: pd.DataFrame, report: Mapping[str, Mapping[str, Any]], title: str) -> None:
    """Each modality's loss by epoch, above how far its output was from the source before and after.

    ``history`` has the columns ``modality, step`` (``zero_shot`` or ``adapted``) ``, epoch, train_loss, val_loss``;
    ``report`` is step → modality → the scalars of `train_adapters`.
    """
    modalities = list(dict.fromkeys(history["modality"])) or list(report["adapted"])
    with drawing(path, (3.4 * len(modalities) + 0.6, 5.6), title) as figure:
        grid = figure.subplots(2, len(modalities), squeeze=False, height_ratios=[1.5, 1.0])
        for name, losses, distances in zip(modalities, grid[0], grid[1], strict=True):
            losses.set_title(plain(name))
            for step, colour, style in (("zero_shot", ORANGE, "--"), ("adapted", BLUE, "-")):
                lines = history[(history["modality"] == name) & (history["step"] == step)]
                losses.plot(lines["epoch"], lines["val_loss"], style, color=colour)
                _moved(distances, report[step][name], 0.0 if step == "adapted" else 1.0, colour)
            losses.set(xlabel="epoch", ylabel="validation loss" if name == modalities[0] else "")
            losses.set_ylim(bottom=0)
            losses.grid(axis="y")
            distances.set_yticks([0.0, 1.0], ["with labels", "without"] if name == modalities[0] else ["", ""])
            distances.set(ylim=(1.6, -0.6), xlabel="distance of means to the source")
            distances.set_xlim(left=0)
            distances.grid(axis="x")
        grid[0][0].text(
            0.98, 0.97, "— with target labels", color=BLUE, transform=grid[0][0].transAxes, ha="right", va="top"
        )
        grid[0][0].text(0.98, 0.89, "-- without", color=ORANGE, transform=grid[0][0].transAxes, ha="right", va="top")
        note(grid[1][0], "○ before  ● after")


def _moved(axes: Axes, report: Mapping[str, Any], place: float, colour: str) -> None:
    before, after = report["mean_distance_before"], report["mean_distance_after"]
    axes.plot([before, after], [place, place], color=colour, linewidth=1.2)
    axes.plot(before, place, "o", color=colour, markerfacecolor="white", markersize=6)
    axes.plot(after, place, "o", color=colour, markersize=6)


def draw_confusion(path: Path, matrix: np.ndarray, labels: Sequence[str], title: str) -> None:
    """Counts and row shares of ``matrix``, int [K, K]: row the actual class, column the predicted one."""
    matrix = np.asarray(matrix)
    rows = matrix.sum(axis=1)
    shares = np.divide(matrix, rows[:, None], out=np.zeros(matrix.shape), where=rows[:, None] > 0)
    names = [short(label) for label in labels]
    few = len(names) <= 8
    side = (0.95 if few else 0.62) * len(names)
    margin = 0.085 * max(map(len, names))
    slanted = margin > side / len(names)
    with drawing(path, (max(4.6, side + margin + 2.0), side + (margin if slanted else 0.0) + 1.2), title) as figure:
        axes = figure.subplots()
        axes.imshow(shares, cmap=SHARES, vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(matrix):
            share = shares[row, column]
            text = f"{count}\n{share:.0%}" if count else "·"
            colour = "white" if share > 0.45 else INK
            axes.text(column, row, text, ha="center", va="center", fontsize=10 if few else 7, color=colour)
        axes.set_yticks(range(len(names)), [f"{name}  ({count})" for name, count in zip(names, rows, strict=True)])
        axes.set_xticks(range(len(names)), names)
        if slanted:
            for label in axes.get_xticklabels():
                label.set(rotation=35, ha="right", rotation_mode="anchor")
        axes.set(xlabel="predicted", ylabel="actual (rows)")
        _cell_gaps(axes, len(names), 2.0 if few else 1.0)


def _cell_gaps(axes: Axes, cells: int, width: float) -> None:
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(-0.5, cells), minor=True)
    axes.set_yticks(np.arange(-0.5, cells), minor=True)
    axes.grid(which="minor", color="white", linewidth=width)
    axes.tick_params(which="both", length=0)
