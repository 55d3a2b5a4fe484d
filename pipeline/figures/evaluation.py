"""How models do on test rows: intervals, ablation, calibration, transfer."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pipeline.figures.style import BLUE, FAINT, GREY, ORANGE, draw_nothing, drawing, note, plain


def draw_reliability(path: Path, before: pd.DataFrame, after: pd.DataFrame, title: str) -> None:
    """Accuracy against confidence before and after calibration, above the number of rows in each bin.

    Both tables are those of ``scoring.calibration.reliability``.
    """
    with drawing(path, (5.6, 6.0), title) as figure:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1.0])
        top.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
        top.text(0.03, 0.06, "perfectly calibrated", color=GREY, fontsize=9, rotation=40, rotation_mode="anchor")
        top.text(0.03, 0.95, "○ before calibration", color=ORANGE)
        top.text(0.03, 0.88, "● after calibration", color=BLUE)
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


def draw_ablation(path: Path, rows: pd.DataFrame, title: str) -> None:
    """Macro-F1 with each subset of the modalities, hidden from the one fusion or with a fusion retrained on them.

    ``rows`` has the columns ``subset, kind`` (``masked`` or ``retrained``) ``, value, low, high``; drawn in its order.
    """
    subsets = list(dict.fromkeys(rows["subset"]))
    with drawing(path, (7.6, 1.5 + 0.62 * len(subsets)), title) as figure:
        axes = figure.subplots()
        for kind, colour, face, shift in (("retrained", BLUE, BLUE, -0.17), ("masked", ORANGE, "white", 0.17)):
            for row in rows[rows["kind"] == kind].to_dict("records"):
                _interval(axes, subsets.index(row["subset"]) + shift, row, colour, face)
        _ranked(axes, [plain(str(subset)).replace("_", " + ") for subset in subsets])
        legend = (("● retrained on the subset", BLUE, 0.0), ("○ others masked in the one fusion", ORANGE, 0.36))
        for text, colour, at in legend:
            axes.text(at, 1.02, text, color=colour, transform=axes.transAxes, va="bottom", fontsize=9)


def draw_systems(path: Path, rows: pd.DataFrame, title: str) -> None:
    """Macro-F1 of systems with intervals: columns ``name, value, low, high``, drawn in order, ``fusion`` in colour."""
    with drawing(path, (7.6, 1.3 + 0.42 * len(rows)), title) as figure:
        axes = figure.subplots()
        for place, row in enumerate(rows.to_dict("records")):
            is_fusion = row["name"] == "fusion"
            _interval(axes, place, row, BLUE if is_fusion else GREY, BLUE if is_fusion else "white")
            if is_fusion:
                axes.axvline(row["value"], color=BLUE, linewidth=0.8, alpha=0.4, zorder=0)
        _ranked(axes, [plain(str(name)) for name in rows["name"]])


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


def draw_transfer(path: Path, rows: pd.DataFrame, title: str) -> None:
    """Pearson's r of each step on unseen rows with its interval, and hollow, on the rows that it was trained on.

    ``rows`` has the columns ``name, step, value, low, high, resubstitution``, NaN where there is none; drawn in order,
    the step ``finetuned`` in colour.
    """
    if rows.empty:
        draw_nothing(path, title)
        return
    with drawing(path, (8.2, 1.5 + 0.46 * len(rows)), title) as figure:
        axes = figure.subplots()
        for place, row in enumerate(rows.to_dict("records")):
            colour = BLUE if row["step"] == "finetuned" else GREY
            if np.isfinite(row["resubstitution"]):
                ends = [row["value"], row["resubstitution"]]
                axes.plot(ends, [place, place], ":", color=ORANGE, linewidth=1.2, zorder=1)
                hollow = {"color": ORANGE, "markerfacecolor": "white", "markersize": 6, "clip_on": False}
                axes.plot(row["resubstitution"], place, "o", **hollow, zorder=2)
            _interval(axes, place, row, colour, colour)
        _correlations(axes, [plain(str(name)) for name in rows["name"]], rows)
        for text, colour, at in (
            ("● unseen rows", GREY, 0.0),
            ("○ rows it was trained on: not a result", ORANGE, 0.22),
        ):
            axes.text(at, 1.02, text, color=colour, transform=axes.transAxes, va="bottom", fontsize=9)


def draw_sentiment_subsets(path: Path, rows: pd.DataFrame, title: str) -> None:
    """Pearson's r with each subset of the modalities: columns ``subset, step, value, low, high``, drawn in order."""
    if rows.empty:
        draw_nothing(path, title)
        return
    subsets = list(dict.fromkeys(rows["subset"]))
    looks = {
        "finetuned": ("● fine-tuned", BLUE, BLUE, -0.27),
        "adapted": ("○ adapted", BLUE, "white", -0.09),
        "zero_shot": ("○ adapted without labels", ORANGE, "white", 0.09),
        "ridge": ("● ridge on the target alone", GREY, GREY, 0.27),
    }
    with drawing(path, (8.2, 1.6 + 0.95 * len(subsets)), title) as figure:
        axes = figure.subplots()
        for row in rows.to_dict("records"):
            _, colour, face, shift = looks[row["step"]]
            _interval(axes, subsets.index(row["subset"]) + shift, row, colour, face)
        _correlations(axes, [plain(str(subset)).replace("_", " + ") for subset in subsets], rows)
        for (text, colour, _, _), at in zip(looks.values(), (0.0, 0.17, 0.31, 0.63), strict=True):
            axes.text(at, 1.02, text, color=colour, transform=axes.transAxes, va="bottom", fontsize=9)


def _correlations(axes: Axes, names: Sequence[str], rows: pd.DataFrame) -> None:
    """An axis of correlations that reaches below zero where a value, or an interval, does."""
    _ranked(axes, list(names))
    lowest = float(np.nanmin(rows.select_dtypes("number").to_numpy(dtype=np.float64)))
    axes.set_xlim(min(0.0, np.floor(lowest * 5) / 5), 1)
    axes.set_xlabel("Pearson's r, with its interval")
    axes.axvline(0, color=GREY, linewidth=0.8, zorder=0)


def draw_learning_curve(path: Path, rows: pd.DataFrame, title: str) -> None:
    """Pearson's r over the number of labelled target groups, ``with`` and ``without`` the source.

    ``rows`` has the columns ``kind, groups, value, low, high``.
    """
    if rows.empty:
        draw_nothing(path, title)
        return
    looks = {"with": ("with the source", BLUE, BLUE, -1), "without": ("without", ORANGE, "white", 1)}
    sizes = sorted(set(rows["groups"]))
    nudge = 0.006 * (max(sizes) - min(sizes) or 1)
    ends = rows[rows["groups"] == sizes[-1]].set_index("kind")["value"]
    with drawing(path, (6.4, 4.0), title) as figure:
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


def draw_predicted_against_actual(path: Path, frame: pd.DataFrame, title: str) -> None:
    """Each row of ``frame``, columns ``actual, predicted``, against the line where both are equal, and the spreads."""
    actual, predicted = (frame[name].to_numpy(dtype=np.float64) for name in ("actual", "predicted"))
    with drawing(path, (5.6, 5.6), title) as figure:
        axes = figure.subplots()
        both = np.concatenate([actual, predicted])
        low, high = np.floor(both.min() * 2) / 2, np.ceil(both.max() * 2) / 2
        axes.plot([low, high], [low, high], color=GREY, linewidth=0.8)
        axes.axhline(0, color=FAINT, linewidth=0.8, zorder=0)
        axes.axvline(0, color=FAINT, linewidth=0.8, zorder=0)
        few = len(actual) <= 300
        axes.plot(actual, predicted, "o", color=BLUE, alpha=0.55 if few else 0.25, markersize=5 if few else 3.5, mew=0)
        axes.set(xlim=(low, high), ylim=(low, high), xlabel="actual score", ylabel="predicted score", aspect="equal")
        note(axes, f"standard deviation: actual {actual.std():.2f}, predicted {predicted.std():.2f}")


def draw_modality_gap(path: Path, rows: pd.DataFrame, title: str) -> None:
    """Pearson's r of each modality on ``train``, ``val`` and ``test`` rows: columns ``modality, part, value``.

    What is high on the first two and gone on the last was made with the labels of the first two.
    """
    looks = {
        "train": ("○ training", GREY, "white"),
        "val": ("○ validation", ORANGE, "white"),
        "test": ("● test", BLUE, BLUE),
    }
    if rows.empty:
        draw_nothing(path, title)
        return
    names = list(dict.fromkeys(rows["modality"]))
    with drawing(path, (7.6, 1.5 + 0.5 * len(names)), title) as figure:
        axes = figure.subplots()
        for place, name in enumerate(names):
            part = rows[rows["modality"] == name].set_index("part")["value"]
            axes.plot([part.min(), part.max()], [place, place], color=FAINT, linewidth=1.6, zorder=1)
            for key, value in part.items():
                _, colour, face = looks[str(key)]
                look = {"color": colour, "markerfacecolor": face, "markersize": 8, "clip_on": False}
                axes.plot(value, place, "o", **look, zorder=3)
        _correlations(axes, [plain(str(name)) for name in names], rows)
        axes.set_xlabel("Pearson's r")
        for (text, colour, _), at in zip(looks.values(), (0.0, 0.16, 0.34), strict=True):
            axes.text(at, 1.02, text, color=colour, transform=axes.transAxes, va="bottom", fontsize=9)
