"""Scores of several experiments side by side, with their intervals."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pipeline.figures.style import BLUE, GREY, draw_nothing, drawing, plain

ACROSS = 4
"""Panels in a row."""

ROOM, LEAST = 1.16, 0.1
"""Panels are so much wider than the widest range of a score, and never narrower than ``LEAST``."""


def draw_comparison(path: Path, rows: pd.DataFrame, title: str) -> None:
    """A panel for each score, in it a line for each experiment, the best in colour.

    ``rows`` has the columns ``score, experiment, value, low, high, best``; ``low`` and ``high`` are NaN where a score
    has no interval, a missing value is no row. Panels and lines stand in the order of the rows. All panels are of one
    scale, so that a difference looks as large in each.
    """
    if rows.empty:
        draw_nothing(path, title)
        return
    scores, names = list(dict.fromkeys(rows["score"])), list(dict.fromkeys(rows["experiment"]))
    across = min(ACROSS, len(scores))
    down = -(-len(scores) // across)
    ranges = {score: _range(rows[rows["score"] == score]) for score in scores}
    half = ROOM * max(LEAST, *(high - low for low, high in ranges.values())) / 2
    inches = (1.6 + 2.3 * across, 0.5 + down * (0.75 + 0.3 * len(names)))
    with drawing(path, inches, title) as figure:
        grid = figure.subplots(down, across, sharey=True, squeeze=False).flatten()
        for axes, score in zip(grid, scores, strict=False):
            _panel(axes, rows[rows["score"] == score], names, plain(score))
            middle = sum(ranges[score]) / 2
            axes.set_xlim(middle - half, middle + half)
        for axes in grid[len(scores) :]:
            axes.set_axis_off()


def _range(rows: pd.DataFrame) -> tuple[float, float]:
    """The lowest and the highest number of a score, ends of intervals among them."""
    ends = rows[["value", "low", "high"]].to_numpy(dtype=np.float64)
    return float(np.nanmin(ends)), float(np.nanmax(ends))


def _panel(axes: Axes, rows: pd.DataFrame, names: list[str], title: str) -> None:
    for row in rows.to_dict("records"):
        place, colour = names.index(row["experiment"]), BLUE if row["best"] else GREY
        axes.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=1.6, zorder=2)
        axes.plot(row["value"], place, "o", color=colour, markerfacecolor=colour if row["best"] else "white", zorder=3)
        axes.annotate(
            f"{row['value']:.3f}",
            (row["value"], place),
            (0, 5),
            textcoords="offset points",
            color=colour,
            ha="center",
            va="bottom",
            fontsize=8,
        )
    axes.set_title(title)
    axes.set_yticks(range(len(names)), [plain(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.7)
    axes.locator_params(axis="x", nbins=4)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
