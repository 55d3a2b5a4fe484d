"""A manifest of posts (CSV, JSON Lines or Parquet) → clean rows, and refused rows with their reasons.

Columns: ``id`` and ``label``, and any of ``text image video group split``. Media paths are relative to the manifest.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core.errors import InputError
from pipeline.core.files import NOT_FOUND, MediaError, inside
from pipeline.core.schemas import SPLITS
from pipeline.corpora.refusals import cell_shown
from pipeline.corpora.stored_rows import AT_ONCE, StoredRows, digests, firsts
from pipeline.corpora.tabular import listed, read_texts

REQUIRED = ("id", "label")
OPTIONAL = ("text", "image", "video", "group", "split")
COLUMNS = REQUIRED + OPTIONAL
MEDIA = ("image", "video")
SPLIT_ALIASES = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}


@dataclass(frozen=True)
class Manifest:
    """What a manifest holds once read.

    Attributes:
        rows: one row a post with the columns ``id, label, text, image, video, group, split``; absent cells are None;
            media paths are relative to the media folder, with ``/``.
        numbers: int64 [N], which posts of the manifest these are, counted from 1.
        refused: ``row, id, reason`` of the posts left out.
        ignored_columns: columns of the manifest that the pipeline does not use.
    """

    rows: StoredRows
    numbers: np.ndarray
    refused: pd.DataFrame
    ignored_columns: tuple[str, ...]


def split_name(value: str) -> str:
    """A cell of the split column as the project names it, in small letters; what is no split stays as it is."""
    return SPLIT_ALIASES.get(value.lower(), value.lower())


def read_manifest(path: Path, media: Path, labels: tuple[str, ...] = (), scratch: Path | None = None) -> Manifest:
    """Reads and checks a manifest; ``labels``, when given, are the only ones accepted.

    Some rows at a time are in memory; all are in a file in the folder ``scratch``. Raises InputError when the manifest
    cannot be read, lacks ``id`` or ``label``, or holds no posts.
    """
    rows, columns = StoredRows(COLUMNS, scratch), ()
    of_ids = []
    for table in read_texts(path, COLUMNS, AT_ONCE, "; set posts.manifest in params.yaml"):
        columns, cells = table.columns, table.cells
        if "split" in cells:
            cells["split"] = cells["split"].map(split_name, "ignore")
        for name in MEDIA:
            if name in cells:
                cells[name] = cells[name].map(_relative_to(media, path.parent), "ignore")
        rows.add(cells)
        of_ids.append(digests(cells["id"] if "id" in cells else [None] * len(cells)))
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise InputError(f"{path}: lacks the column {' and '.join(missing)} (has: {listed(columns)})")
    if not len(rows):
        raise InputError(f"{path}: holds no posts")
    ignored = tuple(name for name in columns if name not in COLUMNS)
    refused = _refused(rows, firsts(np.concatenate(of_ids)), labels)
    numbers = np.setdiff1d(np.arange(1, len(rows) + 1), refused["row"].to_numpy())
    kept = np.zeros(len(rows), dtype=bool)
    kept[numbers - 1] = True
    return Manifest(rows.where(kept), numbers, refused, ignored)


def _relative_to(media: Path, base: Path) -> Callable[[str], str]:
    """Maps a path of the manifest to one relative to the media folder, or to one of ``BAD_PATHS``."""
    root = media.resolve()

    def relative(value: str) -> str:
        try:
            return inside(root, value, base=base).relative_to(root).as_posix()
        except MediaError as error:
            return NO_FILE if str(error) == NOT_FOUND else OUTSIDE

    return relative


OUTSIDE, NO_FILE = "\0outside", "\0no file"
BAD_PATHS = {OUTSIDE: "path leads out of posts.media", NO_FILE: "path is a circle of links, or no path at all"}
"""What stands for a path that was refused; no file system allows the character in a name."""


def _refused(rows: StoredRows, first: np.ndarray, labels: tuple[str, ...]) -> pd.DataFrame:
    """``row, id, reason``: the first thing that is wrong with each row that has something wrong.

    Args:
        first: int64 [N], the first row with the id of each.
    """
    has_splits = any(split is not None for part in rows.texts("split") for split in part)

    def reason(row: Mapping[str, Any], before: int, at: int) -> str | None:
        if row["id"] is None:
            return "no id"
        if before != at:
            return f"id already used in row {before + 1}"
        if row["label"] is None:
            return "no label"
        if labels and row["label"] not in labels:
            return f"label not in posts.labels{cell_shown(row['label'])}"
        if row["text"] is None and row["image"] is None and row["video"] is None:
            return "no text, image or video"
        bad = [row[name] for name in MEDIA if row[name] in BAD_PATHS]
        if bad:
            return BAD_PATHS[bad[0]]
        if has_splits and row["split"] not in SPLITS:
            return f"split is none of train, val, test{cell_shown(row['split'])}"
        return None

    faults: dict[str, list[Any]] = {"row": [], "id": [], "reason": []}
    done = 0
    for part in rows.parts():
        before = first[done : done + len(part)].tolist()
        for at, cells in enumerate(part.itertuples(index=False)):
            row: dict[str, Any] = dict(zip(COLUMNS, cells, strict=True))
            if (why := reason(row, before[at], done + at)) is not None:
                for name, value in (("row", done + at + 1), ("id", row["id"]), ("reason", why)):
                    faults[name].append(value)
        done += len(part)
    frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in faults.items()})
    return frame.astype({"row": int})
