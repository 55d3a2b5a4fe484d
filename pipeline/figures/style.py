"""The house style of every figure: colours, fonts, signs that the font lacks.

The same numbers give the same bytes; figures compute no metric.
"""

import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipeline.core import artifacts

INK, GREY, FAINT = "#1f2933", "#6b7680", "#d5dadf"
BLUE, ORANGE = "#0b5a94", "#e08a00"


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

LONGEST = 48
"""Letters of a name beside an axis."""


@contextmanager
def drawing(path: Path, inches: tuple[float, float], title: str) -> Iterator[Figure]:
    """A figure in the house style, written as PNG when the block ends."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=inches, dpi=DPI, layout="constrained", facecolor="white")
        if title:
            figure.suptitle(plain(title), x=0.01, ha="left", fontsize=12)
        yield figure
        FigureCanvasAgg(figure)
        with artifacts.replacing(path) as aside:
            # Neither matplotlib's version nor a date, so that the same numbers give the same bytes.
            figure.savefig(aside, format="png", metadata={"Software": None})


def draw_nothing(path: Path, title: str) -> None:
    with drawing(path, (4.0, 1.0), f"{title}: nothing to show" if title else "nothing to show"):
        pass


def beside(axes: Axes, x: float, y: float, text: str, colour: str) -> None:
    axes.annotate(text, (x, y), (5, 0), textcoords="offset points", color=colour, va="center", annotation_clip=False)


def note(axes: Axes, text: str) -> None:
    axes.text(1.0, 0.02, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=8, color=GREY)


def plain(text: str) -> str:
    """Text that the font can draw: one line, signs that it lacks by name, ``[fire]``, or as a box without one."""
    text = re.sub(r"\s+", " ", "".join(_drawn(sign) for sign in text))
    return re.sub(r"(\[[^\]]+\])( ?\1)+", r"\1", text).strip()


def short(text: str) -> str:
    """The same beside an axis, where a class of thousands of letters would leave no room for the rest."""
    text = plain(text)
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]}…{text[-half + 1 :]}"


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
