"""Numbers to pictures: every figure of every stage in one hand. No metric is computed here.

Pictures stand alone, without a network or a legend to look up: values and names are written where they belong. Blue and
orange are told apart by the colour-blind, and in print by their brightness and by filled and hollow markers. The same
numbers give the same bytes.
"""

import re
import textwrap
import unicodedata
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from pipeline.core import artifacts

INK, GREY, FAINT = "#1f2933", "#6b7680", "#d5dadf"
BLUE, ORANGE = "#0b5a94", "#e08a00"
SHARES = LinearSegmentedColormap.from_list("shares", ["#ffffff", "#b9d3e8", "#5b98c6", "#0b5a94", "#063a63"])

FONT = "DejaVu Sans"
"""Comes with matplotlib, so that pictures are the same on every machine."""

STYLE: dict[Any, Any] = {
    "font.family": FONT,
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # a post may hold dollar signs
    "axes.edgecolor": FAINT,
    "axes.labelcolor": GREY,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "grid.color": "#e9ecef",
    "grid.linewidth": 0.8,
}

DPI = 120
TILES_ACROSS = 4
SMALL_WIDTH, LARGE_WIDTH, LARGE_LINES = 42, 33, 11
"""Letters in a line of a tile, and lines of a text that stands alone."""


@dataclass(frozen=True)
class Tile:
    """One post on a contact sheet; ``pictures`` are none, one, or frames of a clip, each uint8 HWC."""

    pictures: list[np.ndarray]
    text: str
    caption: str


def history(path: Path, rows: pd.DataFrame, title: str, score: str = "macro-F1") -> None:
    """Losses and validation ``score`` over the epochs of every fold, the final model in front.

    ``rows`` has the columns ``fold, epoch, train_loss, val_loss, val_score``; a missing value is not drawn.
    """
    with _drawing(path, (9.0, 3.6), title) as figure:
        losses, scores = figure.subplots(1, 2)
        for fold, epochs in rows.sort_values("epoch").groupby("fold", sort=True):
            front = fold == "final" or rows["fold"].nunique() == 1
            _history_lines(losses, scores, epochs, front)
        losses.set_title("loss")
        scores.set_title(f"{score} on validation rows")
        for axes in (losses, scores):
            axes.set_xlabel("epoch")
            axes.grid(axis="y")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.margins(x=0.02)
        losses.set_ylim(bottom=0)
        if rows["fold"].nunique() > 1:
            _note(scores, "thin lines: models of the folds")


def _history_lines(losses: Axes, scores: Axes, epochs: pd.DataFrame, front: bool) -> None:
    width, alpha = (2.0, 1.0) if front else (0.8, 0.35)
    for name, column, colour, style in (
        ("train", "train_loss", GREY, "--"),
        ("validation", "val_loss", BLUE, "-"),
    ):
        line = epochs.dropna(subset=[column])
        losses.plot(line["epoch"], line[column], style, color=colour, linewidth=width, alpha=alpha)
        if front and len(line):
            _beside(losses, line["epoch"].iloc[-1], line[column].iloc[-1], name, colour)
    line = epochs.dropna(subset=["val_score"])
    scores.plot(line["epoch"], line["val_score"], color=BLUE, linewidth=width, alpha=alpha)
    if front and len(line):
        best = int(line["val_score"].to_numpy().argmax())
        epoch, score = line["epoch"].iloc[best], line["val_score"].iloc[best]
        scores.plot(epoch, score, "o", color=BLUE, clip_on=False)
        text = f"best {score:.3f}\nepoch {epoch:.0f}"
        side = "right" if 2 * best > len(line) else "left"
        scores.annotate(text, (epoch, score), (0, -8), textcoords="offset points", color=BLUE, ha=side, va="top")


def adapters(path: Path, history: pd.DataFrame, report: Mapping[str, Mapping[str, Any]], title: str) -> None:
    """Each modality's loss by epoch, above how far its output was from the source before and after.

    ``history`` has the columns ``modality, step`` (``zero_shot`` or ``adapted``) ``, epoch, train_loss, val_loss``;
    ``report`` is step → modality → the scalars of `train_adapters`.
    """
    modalities = list(dict.fromkeys(history["modality"])) or list(report["adapted"])
    with _drawing(path, (3.4 * len(modalities) + 0.6, 5.6), title) as figure:
        grid = figure.subplots(2, len(modalities), squeeze=False, height_ratios=[1.5, 1.0])
        for name, losses, distances in zip(modalities, grid[0], grid[1], strict=True):
            losses.set_title(_plain(name))
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
        _note(grid[1][0], "○ before  ● after")


def _moved(axes: Axes, report: Mapping[str, Any], place: float, colour: str) -> None:
    before, after = report["mean_distance_before"], report["mean_distance_after"]
    axes.plot([before, after], [place, place], color=colour, linewidth=1.2)
    axes.plot(before, place, "o", color=colour, markerfacecolor="white", markersize=6)
    axes.plot(after, place, "o", color=colour, markersize=6)


def confusion(path: Path, matrix: np.ndarray, labels: Sequence[str], title: str) -> None:
    """Counts and row shares of ``matrix``, int [K, K]: row the actual class, column the predicted one."""
    matrix = np.asarray(matrix)
    rows = matrix.sum(axis=1)
    shares = np.divide(matrix, rows[:, None], out=np.zeros(matrix.shape), where=rows[:, None] > 0)
    names = [_plain(label) for label in labels]
    few = len(names) <= 8
    side = (0.95 if few else 0.62) * len(names)
    margin = 0.085 * max(map(len, names))
    slanted = margin > side / len(names)
    with _drawing(path, (max(4.6, side + margin + 2.0), side + (margin if slanted else 0.0) + 1.2), title) as figure:
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


def reliability(path: Path, before: pd.DataFrame, after: pd.DataFrame, title: str) -> None:
    """Accuracy against confidence before and after the temperature, above the number of rows in each bin.

    Both tables are those of ``scoring.calibration.reliability``.
    """
    with _drawing(path, (5.6, 6.0), title) as figure:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1.0])
        top.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
        top.text(0.03, 0.06, "perfectly calibrated", color=GREY, fontsize=9, rotation=40, rotation_mode="anchor")
        top.text(0.03, 0.95, "○ before temperature", color=ORANGE)
        top.text(0.03, 0.88, "● after temperature", color=BLUE)
        _reliability_line(top, bottom, before, ORANGE, "white", "--")
        _reliability_line(top, bottom, after, BLUE, BLUE, "-")
        top.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
        bottom.set(xlim=(0, 1), xlabel="confidence", ylabel="rows")
        for axes in (top, bottom):
            axes.grid(axis="y")


def _reliability_line(top: Axes, bottom: Axes, table: pd.DataFrame, colour: str, face: str, style: str) -> None:
    filled = table[table["count"] > 0]
    line = {"color": colour, "linestyle": style, "marker": "o", "markerfacecolor": face, "markersize": 5}
    top.plot(filled["confidence"], filled["accuracy"], **line, clip_on=False, zorder=3)
    edges = [*table["bin_low"], table["bin_high"].iloc[-1]]
    bottom.stairs(table["count"], edges, color=colour, linestyle=style, linewidth=1.4)


def ablation(path: Path, rows: pd.DataFrame, title: str) -> None:
    """Macro-F1 with each subset of the modalities, hidden from the one fusion or with a fusion retrained on them.

    ``rows`` has the columns ``subset, kind`` (``masked`` or ``retrained``) ``, value, low, high``; drawn in its order.
    """
    subsets = list(dict.fromkeys(rows["subset"]))
    with _drawing(path, (7.6, 1.5 + 0.62 * len(subsets)), title) as figure:
        axes = figure.subplots()
        for kind, colour, face, shift in (("retrained", BLUE, BLUE, -0.17), ("masked", ORANGE, "white", 0.17)):
            for row in rows[rows["kind"] == kind].to_dict("records"):
                _interval(axes, subsets.index(row["subset"]) + shift, row, colour, face)
        _ranked(axes, [_plain(str(subset)).replace("_", " + ") for subset in subsets])
        legend = (("● retrained on the subset", BLUE, 0.0), ("○ others masked in the one fusion", ORANGE, 0.36))
        for text, colour, at in legend:
            axes.text(at, 1.02, text, color=colour, transform=axes.transAxes, va="bottom", fontsize=9)


def systems(path: Path, rows: pd.DataFrame, title: str) -> None:
    """Macro-F1 of systems with intervals: columns ``name, value, low, high``, drawn in order, ``fusion`` in colour."""
    with _drawing(path, (7.6, 1.3 + 0.42 * len(rows)), title) as figure:
        axes = figure.subplots()
        for place, row in enumerate(rows.to_dict("records")):
            own = row["name"] == "fusion"
            _interval(axes, place, row, BLUE if own else GREY, BLUE if own else "white")
            if own:
                axes.axvline(row["value"], color=BLUE, linewidth=0.8, alpha=0.4, zorder=0)
        _ranked(axes, [_plain(str(name)) for name in rows["name"]])


def _interval(axes: Axes, place: float, row: Mapping[Hashable, Any], colour: str, face: str) -> None:
    axes.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=1.6, solid_capstyle="butt", zorder=2)
    axes.plot(row["value"], place, "o", color=colour, markerfacecolor=face, markersize=7, zorder=3)
    text = f"{row['value']:.3f}"
    axes.text(1.01, place, text, transform=axes.get_yaxis_transform(), color=colour, va="center", fontsize=9)


def _ranked(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel("macro-F1, with its interval")
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)


def transfer(path: Path, rows: pd.DataFrame, title: str) -> None:
    """Pearson's r of each step on unseen rows with its interval, and hollow, on the rows that it was trained on.

    ``rows`` has the columns ``name, step, value, low, high, resubstitution``, NaN where there is none; drawn in order,
    the step ``finetuned`` in colour.
    """
    if rows.empty:
        _nothing(path, title)
        return
    with _drawing(path, (8.2, 1.5 + 0.46 * len(rows)), title) as figure:
        axes = figure.subplots()
        for place, row in enumerate(rows.to_dict("records")):
            colour = BLUE if row["step"] == "finetuned" else GREY
            if np.isfinite(row["resubstitution"]):
                ends = [row["value"], row["resubstitution"]]
                axes.plot(ends, [place, place], ":", color=ORANGE, linewidth=1.2, zorder=1)
                hollow = {"color": ORANGE, "markerfacecolor": "white", "markersize": 6, "clip_on": False}
                axes.plot(row["resubstitution"], place, "o", **hollow, zorder=2)
            _interval(axes, place, row, colour, colour)
        _correlations(axes, [_plain(str(name)) for name in rows["name"]], rows)
        for text, colour, at in (
            ("● unseen rows", GREY, 0.0),
            ("○ rows it was trained on: not a result", ORANGE, 0.22),
        ):
            axes.text(at, 1.02, text, color=colour, transform=axes.transAxes, va="bottom", fontsize=9)


def sentiment_subsets(path: Path, rows: pd.DataFrame, title: str) -> None:
    """Pearson's r with each subset of the modalities: columns ``subset, step, value, low, high``, drawn in order."""
    if rows.empty:
        _nothing(path, title)
        return
    subsets = list(dict.fromkeys(rows["subset"]))
    looks = {
        "finetuned": ("● fine-tuned", BLUE, BLUE, -0.27),
        "adapted": ("○ adapted", BLUE, "white", -0.09),
        "zero_shot": ("○ adapted without labels", ORANGE, "white", 0.09),
        "ridge": ("● ridge on the target alone", GREY, GREY, 0.27),
    }
    with _drawing(path, (8.2, 1.6 + 0.95 * len(subsets)), title) as figure:
        axes = figure.subplots()
        for row in rows.to_dict("records"):
            _, colour, face, shift = looks[row["step"]]
            _interval(axes, subsets.index(row["subset"]) + shift, row, colour, face)
        _correlations(axes, [_plain(str(subset)).replace("_", " + ") for subset in subsets], rows)
        for (text, colour, _, _), at in zip(looks.values(), (0.0, 0.17, 0.31, 0.63), strict=True):
            axes.text(at, 1.02, text, color=colour, transform=axes.transAxes, va="bottom", fontsize=9)


def _correlations(axes: Axes, names: Sequence[str], rows: pd.DataFrame) -> None:
    """An axis of correlations that reaches below zero where a value, or an interval, does."""
    _ranked(axes, list(names))
    lowest = float(np.nanmin(rows.select_dtypes("number").to_numpy(dtype=np.float64)))
    axes.set_xlim(min(0.0, np.floor(lowest * 5) / 5), 1)
    axes.set_xlabel("Pearson's r, with its interval")
    axes.axvline(0, color=GREY, linewidth=0.8, zorder=0)


def learning_curve(path: Path, rows: pd.DataFrame, title: str) -> None:
    """Pearson's r over the number of labelled target groups, ``with`` and ``without`` the source.

    ``rows`` has the columns ``kind, groups, value, low, high``.
    """
    if rows.empty:
        _nothing(path, title)
        return
    looks = {"with": ("with the source", BLUE, BLUE, -1), "without": ("without", ORANGE, "white", 1)}
    sizes = sorted(set(rows["groups"]))
    nudge = 0.006 * (max(sizes) - min(sizes) or 1)
    ends = rows[rows["groups"] == sizes[-1]].set_index("kind")["value"]
    with _drawing(path, (6.4, 4.0), title) as figure:
        axes = figure.subplots()
        for kind, (text, colour, face, side) in looks.items():
            line = rows[rows["kind"] == kind].sort_values("groups")
            if line.empty:
                continue
            at, value = line["groups"] + side * nudge, line["value"]
            axes.vlines(at, line["low"], line["high"], color=colour, linewidth=1.4, alpha=0.6)
            style = "-" if kind == "with" else "--"
            axes.plot(at, value, style, color=colour, marker="o", markerfacecolor=face, markersize=6)
            # The higher name above its point and the lower one below it, so that near ends can be read.
            above = ends.get(kind, value.iloc[-1]) >= ends.max()
            axes.annotate(
                f"{text} {value.iloc[-1]:.3f}",
                (max(sizes) + nudge, value.iloc[-1]),
                (8, 5 if above else -5),
                textcoords="offset points",
                color=colour,
                va="bottom" if above else "top",
                annotation_clip=False,
            )
        axes.set_xticks(sizes)
        axes.set(xlabel="labelled target groups", ylabel="Pearson's r on unseen rows")
        axes.grid(axis="y")
        axes.margins(x=0.08)
        axes.set_ylim(top=1)
        if axes.get_ylim()[0] < 0:
            axes.axhline(0, color=GREY, linewidth=0.8, zorder=0)


def predicted_against_actual(path: Path, frame: pd.DataFrame, title: str) -> None:
    """Each row of ``frame``, columns ``actual, predicted``, against the line where both are equal, and the spreads."""
    actual, predicted = (frame[name].to_numpy(dtype=np.float64) for name in ("actual", "predicted"))
    with _drawing(path, (5.6, 5.6), title) as figure:
        axes = figure.subplots()
        both = np.concatenate([actual, predicted])
        low, high = np.floor(both.min() * 2) / 2, np.ceil(both.max() * 2) / 2
        axes.plot([low, high], [low, high], color=GREY, linewidth=0.8)
        axes.axhline(0, color=FAINT, linewidth=0.8, zorder=0)
        axes.axvline(0, color=FAINT, linewidth=0.8, zorder=0)
        few = len(actual) <= 300
        axes.plot(actual, predicted, "o", color=BLUE, alpha=0.55 if few else 0.25, markersize=5 if few else 3.5, mew=0)
        axes.set(xlim=(low, high), ylim=(low, high), xlabel="actual score", ylabel="predicted score", aspect="equal")
        _note(axes, f"standard deviation: actual {actual.std():.2f}, predicted {predicted.std():.2f}")


def modality_gap(path: Path, rows: pd.DataFrame, title: str) -> None:
    """Pearson's r of each modality on ``train``, ``val`` and ``test`` rows: columns ``modality, part, value``.

    What is high on the first two and gone on the last was made with the labels of the first two.
    """
    looks = {
        "train": ("○ training", GREY, "white"),
        "val": ("○ validation", ORANGE, "white"),
        "test": ("● test", BLUE, BLUE),
    }
    if rows.empty:
        _nothing(path, title)
        return
    names = list(dict.fromkeys(rows["modality"]))
    with _drawing(path, (7.6, 1.5 + 0.5 * len(names)), title) as figure:
        axes = figure.subplots()
        for place, name in enumerate(names):
            part = rows[rows["modality"] == name].set_index("part")["value"]
            axes.plot([part.min(), part.max()], [place, place], color=FAINT, linewidth=1.6, zorder=1)
            for key, value in part.items():
                _, colour, face = looks[str(key)]
                look = {"color": colour, "markerfacecolor": face, "markersize": 8, "clip_on": False}
                axes.plot(value, place, "o", **look, zorder=3)
        _correlations(axes, [_plain(str(name)) for name in names], rows)
        axes.set_xlabel("Pearson's r")
        for (text, colour, _), at in zip(looks.values(), (0.0, 0.16, 0.34), strict=True):
            axes.text(at, 1.02, text, color=colour, transform=axes.transAxes, va="bottom", fontsize=9)


def split_bars(path: Path, counts: pd.DataFrame, title: str) -> None:
    """How alike the splits are: the share of each class and of each set of modalities, with counts.

    ``counts`` has the columns ``split, kind`` (``class`` or ``modalities``) ``, name, rows``; drawn in its order.
    """
    kinds = list(dict.fromkeys(counts["kind"]))
    splits = list(dict.fromkeys(counts["split"]))
    names = {kind: list(dict.fromkeys(counts.loc[counts["kind"] == kind, "name"])) for kind in kinds}
    heights = [len(names[kind]) + 1.6 for kind in kinds]
    with _drawing(path, (9.0, 0.9 + 0.32 * sum(heights)), title) as figure:
        grid = figure.subplots(len(kinds), len(splits), squeeze=False, sharex=True, sharey="row", height_ratios=heights)
        for kind, line in zip(kinds, grid, strict=True):
            for split, axes in zip(splits, line, strict=True):
                part = counts[(counts["kind"] == kind) & (counts["split"] == split)]
                found = part.set_index("name")["rows"].reindex(names[kind], fill_value=0)
                _share_bars(axes, found)
                if kind == kinds[0]:
                    axes.set_title(f"{_plain(str(split))}  ({found.sum():,} rows)")


def _share_bars(axes: Axes, found: "pd.Series[int]") -> None:
    shares = found / max(1, found.sum())
    axes.barh(range(len(found)), shares, height=0.7, color=BLUE)
    for place, (count, share) in enumerate(zip(found, shares, strict=True)):
        axes.text(share + 0.02, place, f"{count:,}  {share:.0%}", va="center", fontsize=8, color=GREY)
    axes.set_yticks(range(len(found)), [_plain(str(name)).replace("_", " + ") for name in found.index])
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.set_xlim(0, 1.3)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)


def contact_sheet(path: Path, tiles: Sequence[Tile]) -> None:
    """Posts side by side, in order; a clip shows its frames, a post without pictures shows its text large.

    Signs that the font lacks, such as emoji, are spelled out by their Unicode name.
    """
    if not tiles:
        _nothing(path, "")
        return
    down = -(-len(tiles) // TILES_ACROSS)
    with _drawing(path, (3.1 * TILES_ACROSS, 3.5 * down), "") as figure:
        for place, tile in enumerate(tiles):
            _tile(figure.add_subplot(down, TILES_ACROSS, place + 1), tile)


def _tile(axes: Axes, tile: Tile) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=FAINT)
    _tile_text(axes, 0.975, _wrapped(tile.caption, SMALL_WIDTH, 3), 8.0, BLUE)
    if not tile.pictures:
        _tile_text(axes, 0.83, _wrapped(tile.text, LARGE_WIDTH, LARGE_LINES), 9.5, INK)
        return
    across = 1 if len(tile.pictures) == 1 else 2
    down = -(-len(tile.pictures) // across)
    for place, picture in enumerate(tile.pictures):
        row, column = divmod(place, across)
        box = (0.03 + 0.94 * column / across, 0.19 + 0.65 * (down - 1 - row) / down, 0.93 / across, 0.64 / down)
        inset = axes.inset_axes(box)
        inset.imshow(picture)
        inset.set_axis_off()
    _tile_text(axes, 0.165, _wrapped(tile.text, SMALL_WIDTH, 3), 7.5, INK)


def _tile_text(axes: Axes, height: float, text: str, size: float, colour: str) -> None:
    drawn = axes.text(0.03, height, text, va="top", fontsize=size, color=colour, linespacing=1.3, clip_on=True)
    drawn.set_in_layout(False)  # a line of wide letters must not move the neighbours


@contextmanager
def _drawing(path: Path, inches: tuple[float, float], title: str) -> Iterator[Figure]:
    """A figure in the house style, written as PNG when the block ends."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=inches, dpi=DPI, layout="constrained", facecolor="white")
        if title:
            figure.suptitle(_plain(title), x=0.01, ha="left", fontsize=12)
        yield figure
        FigureCanvasAgg(figure)
        with artifacts.replacing(path) as aside:
            # Neither matplotlib's version nor a date, so that the same numbers give the same bytes.
            figure.savefig(aside, format="png", metadata={"Software": None})


def _nothing(path: Path, title: str) -> None:
    with _drawing(path, (4.0, 1.0), f"{title}: nothing to show" if title else "nothing to show"):
        pass


def _beside(axes: Axes, x: float, y: float, text: str, colour: str) -> None:
    axes.annotate(text, (x, y), (5, 0), textcoords="offset points", color=colour, va="center", annotation_clip=False)


def _note(axes: Axes, text: str) -> None:
    axes.text(1.0, 0.02, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=8, color=GREY)


def _wrapped(text: str, width: int, lines: int) -> str:
    """At most ``lines`` lines of at most ``width`` signs; line breaks in the text stay."""
    wrapped = [part for line in text.splitlines() for part in textwrap.wrap(_plain(line), width)]
    return "\n".join(wrapped if len(wrapped) <= lines else [*wrapped[: lines - 1], wrapped[lines - 1] + " …"])


def _plain(text: str) -> str:
    """Text that the font can draw: one line, signs that it lacks by name, ``[fire]``, or as a box without one."""
    text = re.sub(r"\s+", " ", "".join(_drawn(sign) for sign in text))
    return re.sub(r"(\[[^\]]+\])( ?\1)+", r"\1", text).strip()


def _drawn(sign: str) -> str:
    category = unicodedata.category(sign)
    if sign.isspace():
        return " "
    if category[0] == "C" or category == "Mn" or category == "Sk":  # joiners, variation selectors, skin tones
        return ""
    if ord(sign) in _charmap():
        return sign
    name = unicodedata.name(sign, "").lower()
    return f"[{name}]" if category == "So" and name else "□"


@cache
def _charmap() -> dict[int, int]:
    return dict(font_manager.get_font(font_manager.findfont(FONT)).get_charmap())
