"""A manifest of posts (CSV, JSON Lines or Parquet) → clean rows, and refused rows with their reasons.

Columns: ``id`` and ``label``, and any of ``text image video group split``. Media paths are relative to the manifest.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.core.errors import InputError
from pipeline.core.files import MediaError
from pipeline.core.schemas import SPLITS
from pipeline.corpora.tabular import read_texts
from pipeline.media import inside

REQUIRED = ("id", "label")
OPTIONAL = ("text", "image", "video", "group", "split")
MEDIA = ("image", "video")
SPLIT_ALIASES = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}


@dataclass(frozen=True)
class Manifest:
    """What a manifest holds once read.

    Attributes:
        rows: one row a post with the columns ``row, id, label, text, image, video, group, split``; absent cells are
            None; media paths are relative to the media folder, with ``/``; ``row`` counts the posts of the file from 1.
        refused: ``row, id, reason`` of the posts left out.
        ignored_columns: columns of the file that the pipeline does not use.
    """

    rows: pd.DataFrame
    refused: pd.DataFrame
    ignored_columns: tuple[str, ...]


def read_manifest(path: Path, media: Path, labels: tuple[str, ...] = ()) -> Manifest:
    """Reads and checks a manifest; ``labels``, when given, are the only ones accepted.

    Raises InputError when the file cannot be read, lacks ``id`` or ``label``, or holds no posts.
    """
    (table,) = read_texts(path, REQUIRED + OPTIONAL, None, "; set posts.manifest in params.yaml")
    missing = [name for name in REQUIRED if name not in table.columns]
    if missing:
        raise InputError(
            f"{path}: lacks the column {' and '.join(missing)} (has: {', '.join(table.columns) or 'none'})"
        )
    if not len(table.cells):
        raise InputError(f"{path}: holds no posts")

    ignored = tuple(name for name in table.columns if name not in REQUIRED + OPTIONAL)
    rows = pd.DataFrame({"row": range(1, len(table.cells) + 1)})
    for name in REQUIRED + OPTIONAL:
        rows[name] = table.cells.get(name, None)
    rows["split"] = rows["split"].map(lambda value: SPLIT_ALIASES.get(value.lower(), value.lower()), na_action="ignore")
    for name in MEDIA:
        rows[name] = rows[name].map(_relative_to(media, path.parent), na_action="ignore")
    rows = rows.astype(object).where(rows.notna(), None)

    reasons = _reasons(rows, labels)
    refused = pd.DataFrame({"row": rows["row"], "id": rows["id"], "reason": reasons})
    kept = reasons.isna()
    return Manifest(
        rows.loc[kept].reset_index(drop=True), refused.loc[~kept].reset_index(drop=True), ignored_columns=ignored
    )


def _relative_to(media: Path, base: Path) -> Callable[[str], str]:
    """Maps a path of the manifest to one relative to the media folder, or to one of ``BAD_PATHS``."""
    root = media.resolve()

    def relative(value: str) -> str:
        try:
            return inside(root, value, base=base).relative_to(root).as_posix()
        except MediaError as error:
            return NO_FILE if str(error) == "file not found" else OUTSIDE

    return relative


OUTSIDE, NO_FILE = "\0outside", "\0no file"
BAD_PATHS = {OUTSIDE: "path leads out of posts.media", NO_FILE: "path is a circle of links, or no path at all"}
"""What stands for a path that was refused; no file system allows the character in a name."""


def _reasons(rows: pd.DataFrame, labels: tuple[str, ...]) -> pd.Series:
    """The first thing that is wrong with each row, or None."""
    has_splits = rows["split"].notna().any()
    unique = rows.drop_duplicates("id")
    first = dict(zip(unique["id"], unique["row"], strict=True))

    def reason(row: Mapping[Hashable, Any]) -> str | None:
        if row["id"] is None:
            return "no id"
        if first[row["id"]] != row["row"]:
            return f"id already used in row {first[row['id']]}"
        if row["label"] is None:
            return "no label"
        if labels and row["label"] not in labels:
            return "label not in posts.labels"
        if row["text"] is None and row["image"] is None and row["video"] is None:
            return "no text, image or video"
        bad = [row[name] for name in MEDIA if row[name] in BAD_PATHS]
        if bad:
            return BAD_PATHS[bad[0]]
        if has_splits and row["split"] not in SPLITS:
            return "split is none of train, val, test"
        return None

    names = list(rows)  # one row at a time: a list of all as dictionaries would be larger than the table
    return pd.Series([reason(dict(zip(names, row, strict=True))) for row in rows.itertuples(index=False)], dtype=object)
