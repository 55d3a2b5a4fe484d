"""Posts side by side, each with what it shows and what it was taken for."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from pipeline.figures.style import BLUE, FAINT, INK, draw_nothing, drawing, plain

TILES_ACROSS = 4
SMALL_WIDTH, LARGE_WIDTH, LARGE_LINES = 42, 33, 11
"""Letters in a line of a tile, and lines of a text that stands alone."""


@dataclass(frozen=True)
class Tile:
    """One post on a contact sheet; ``pictures`` are none, one, or frames of a clip, each uint8 HWC."""

    pictures: list[np.ndarray]
    text: str
    caption: str


def draw_contact_sheet(path: Path, tiles: Sequence[Tile]) -> None:
    """Posts side by side, in order; a clip shows its frames, a post without pictures shows its text large.

    Signs that the font lacks, such as emoji, are spelled out by their Unicode name.
    """
    if not tiles:
        draw_nothing(path, "")
        return
    down = -(-len(tiles) // TILES_ACROSS)
    with drawing(path, (3.1 * TILES_ACROSS, 3.5 * down), "") as figure:
        for place, tile in enumerate(tiles):
            _tile(figure.add_subplot(down, TILES_ACROSS, place + 1), tile)


def _tile(axes: Axes, tile: Tile) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=FAINT)
    _tile_text(axes, 0.975, wrapped(tile.caption, SMALL_WIDTH, 3), 8.0, BLUE)
    if not tile.pictures:
        _tile_text(axes, 0.83, wrapped(tile.text, LARGE_WIDTH, LARGE_LINES), 9.5, INK)
        return
    across = 1 if len(tile.pictures) == 1 else 2
    down = -(-len(tile.pictures) // across)
    for place, picture in enumerate(tile.pictures):
        row, column = divmod(place, across)
        box = (0.03 + 0.94 * column / across, 0.19 + 0.65 * (down - 1 - row) / down, 0.93 / across, 0.64 / down)
        inset = axes.inset_axes(box)
        inset.imshow(picture)
        inset.set_axis_off()
    _tile_text(axes, 0.165, wrapped(tile.text, SMALL_WIDTH, 3), 7.5, INK)


def _tile_text(axes: Axes, height: float, text: str, size: float, colour: str) -> None:
    drawn = axes.text(0.03, height, text, va="top", fontsize=size, color=colour, linespacing=1.3, clip_on=True)
    drawn.set_in_layout(False)  # a line of wide letters must not move the neighbours


def wrapped(text: str, width: int, lines: int) -> str:
    """At most ``lines`` lines of at most ``width`` signs; line breaks in the text stay."""
    wrapped = [part for line in text.splitlines() for part in textwrap.wrap(plain(line), width)]
    return "\n".join(wrapped if len(wrapped) <= lines else [*wrapped[: lines - 1], wrapped[lines - 1] + " …"])
