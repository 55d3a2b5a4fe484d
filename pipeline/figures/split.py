"""How alike the parts of a corpus are."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from pipeline.figures.style import BLUE, GREY, drawing, plain, short


def draw_split(path: Path, counts: pd.DataFrame, title: str) -> None:
    """How alike the splits are: the share of each class and of each set of modalities, with counts.

    ``counts`` has the columns ``split, kind`` (``class`` or ``modalities``) ``, name, rows``; drawn in its order.
    """
    kinds = list(dict.fromkeys(counts["kind"]))
    splits = list(dict.fromkeys(counts["split"]))
    names = {kind: list(dict.fromkeys(counts.loc[counts["kind"] == kind, "name"])) for kind in kinds}
    heights = [len(names[kind]) + 1.6 for kind in kinds]
    with drawing(path, (9.0, 0.9 + 0.32 * sum(heights)), title) as figure:
        grid = figure.subplots(len(kinds), len(splits), squeeze=False, sharex=True, sharey="row", height_ratios=heights)
        for kind, line in zip(kinds, grid, strict=True):
            for split, axes in zip(splits, line, strict=True):
                part = counts[(counts["kind"] == kind) & (counts["split"] == split)]
                rows = part.set_index("name")["rows"].reindex(names[kind], fill_value=0)
                _share_bars(axes, rows)
                if kind == kinds[0]:
                    axes.set_title(f"{plain(str(split))}  ({rows.sum():,} rows)")


def _share_bars(axes: Axes, counts: "pd.Series[int]") -> None:
    shares = counts / max(1, counts.sum())
    axes.barh(range(len(counts)), shares, height=0.7, color=BLUE)
    for place, (count, share) in enumerate(zip(counts, shares, strict=True)):
        axes.text(share + 0.02, place, f"{count:,}  {share:.0%}", va="center", fontsize=8, color=GREY)
    axes.set_yticks(range(len(counts)), [short(str(name)).replace("_", " + ") for name in counts.index])
    axes.set_ylim(len(counts) - 0.4, -0.6)
    axes.set_xlim(0, 1.3)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
