"""A table of raw clips: ``id`` and ``video``; any of ``text`` (or ``transcript``), ``group``, ``score``, ``split``."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core.errors import InputError
from pipeline.core.files import MediaError, inside
from pipeline.core.outputs import check_output
from pipeline.core.schemas import SPLITS
from pipeline.corpora.manifest import split_name
from pipeline.corpora.raw_features import MAX_VALUE
from pipeline.corpora.tabular import TextRows, listed, read_texts

COLUMNS = ("id", "video", "text", "transcript", "group", "score", "split")

NO_CLIP = "no clip"
ROWS = 1024
"""Rows read at once."""


@dataclass(frozen=True)
class ClipTablePart:
    """Some rows of the table.

    Attributes:
        rows: ``id, group, score, split, text``; texts, and None where absent; ``score`` is float64, NaN where absent.
        files: the clip of each row relative to the folder of clips, or why there is none.
    """

    rows: pd.DataFrame
    files: list[Path | MediaError]


def check_clips(path: Path, folder: Path, out: Path) -> int:
    """How many rows the table has.

    Raises InputError, which names the first row that is not as it should be: it has no id, or one that stood before, a
    score that is no number up to ``MAX_VALUE``, a split that is none of train, val and test; or its clip is where
    ``out`` is to be.
    """
    first: dict[str, int] = {}
    for part in _parts(path):
        for at, name in enumerate(part.cells["id"], start=len(first) + 1):
            if name is None:
                raise InputError(f"{path}: row {at} has no id; give each clip one of its own")
            if first.setdefault(name, at) != at:
                raise InputError(f"{path}: row {at} has the id {name!r} of row {first[name]}; give each clip its own")
        done = len(first) - len(part.cells)
        _scores(part, path, done)
        for at, split in enumerate(_column(part, "split"), start=done + 1):
            if split is not None and split_name(split) not in SPLITS:
                raise InputError(f"{path}: row {at} has the split {split!r}; give train, val or test, or none")
        for file in _files(part, folder):
            if isinstance(file, Path):
                check_output(out, [file])
    if not first:
        raise InputError(f"{path}: holds no rows")
    return len(first)


def read_clips(path: Path, folder: Path) -> Iterator[ClipTablePart]:
    """The table, ``ROWS`` at a time; ``check_clips`` says whether it is as it should be."""
    done = 0
    for part in _parts(path):
        kept = {name: _column(part, name) for name in ("id", "group", "split", "text")}
        if "transcript" in part.columns:
            kept["text"] = _column(part, "transcript")
        frame = pd.DataFrame(kept, dtype=object)
        frame["split"] = [split if split is None else split_name(split) for split in kept["split"]]
        yield ClipTablePart(frame.assign(score=_scores(part, path, done)), _files(part, folder))
        done += len(part.cells)


def _parts(path: Path) -> Iterator[TextRows]:
    for part in read_texts(path, COLUMNS, ROWS):
        missing = " and ".join(name for name in ("id", "video") if name not in part.columns)
        if missing:
            raise InputError(f"{path}: lacks the column {missing} (has: {listed(part.columns)})")
        if "text" in part.columns and "transcript" in part.columns:
            raise InputError(f"{path}: has the columns text and transcript, which are one; rename or leave out one")
        yield part


def _column(part: TextRows, name: str) -> list[str | None]:
    return part.cells[name].tolist() if name in part.cells else [None] * len(part.cells)


def _scores(part: TextRows, path: Path, done: int) -> np.ndarray:
    """float64 [N], NaN for blank cells. Raises InputError for what no corpus may hold; ``done`` rows stand before."""
    cells = pd.Series(_column(part, "score"), dtype=object)
    scores = pd.to_numeric(cells, errors="coerce").to_numpy(np.float64)
    wrong = np.flatnonzero(~(np.abs(scores) <= MAX_VALUE) & cells.notna().to_numpy())
    if len(wrong):
        at = int(wrong[0])
        raise InputError(
            f"{path}: row {done + at + 1} has the score {cells[at]!r}; give a number up to {MAX_VALUE:.0e}, or none"
        )
    return scores


def _files(part: TextRows, folder: Path) -> list[Path | MediaError]:
    root = folder.resolve()

    def file(value: str | None) -> Path | MediaError:
        if value is None:
            return MediaError(NO_CLIP)
        try:
            return inside(root, value, name="the folder of the clips")
        except MediaError as error:
            return error

    return [file(value) for value in _column(part, "video")]
