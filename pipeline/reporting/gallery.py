"""Posts to look at, one card each: what they show, what they are labelled, what they were taken for, and why."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core import artifacts
from pipeline.core.errors import InputError
from pipeline.core.files import MediaError
from pipeline.core.layout import Layout
from pipeline.core.schemas import MODALITIES
from pipeline.corpora.stored_rows import StoredRows
from pipeline.media.clips import read_frames
from pipeline.media.pictures import read_picture
from pipeline.params import Params
from pipeline.posts.copies import find_links
from pipeline.reporting.page import Picture, thumbnail, typeset

PICTURE_SIDE, FRAME_SIDE, FRAMES = 320, 160, 4
"""Thumbnails in pixels, and how many frames of a clip are shown."""

LETTERS = 600
"""A longer text is cut."""

COPIES = {
    "text": "same text as",
    "picture": "same picture as",
    "near_picture": "nearly the same picture as",
    "clip": "same clip as",
    "near_clip": "nearly the same clip as",
}


@dataclass(frozen=True)
class Card:
    """One post of a gallery.

    Attributes:
        other: the class that it was taken for, or that its label should rather be.
        strength: how much speaks for ``other``: a probability, or evidence.
        reasons: what each modality has to do with it.
        flags: its copies, which are worth a look before the model is blamed.
        family: how many posts of the same part are in its group, itself included.
        unreadable: why nothing is shown of its media; empty where they are shown, or it has none.
    """

    id: str
    label: str
    other: str
    strength: float
    reasons: tuple[str, ...]
    flags: tuple[str, ...]
    family: int
    text: str
    pictures: tuple[Picture, ...]
    moving: bool
    unreadable: str


def read_errors(layout: Layout) -> pd.DataFrame:
    """The misclassified test rows as `evaluate` wrote them, the most confident first.

    Raises InputError when there is no such table.
    """
    path = layout.plots("evaluate") / "errors.csv"
    if not path.is_file():
        raise InputError(f"{path}: not found; run `dvc repro evaluate`")
    errors = artifacts.read_csv(path)
    for name in errors.columns.drop(["id", "label", "prediction"]):
        errors[name] = pd.to_numeric(errors[name])
    return errors


def of_errors(errors: pd.DataFrame, params: Params, layout: Layout) -> list[Card]:
    """Cards of rows of ``read_errors``, in their order."""
    rows = [
        {
            "id": error["id"],
            "label": error["label"],
            "other": error["prediction"],
            "strength": error["confidence"],
            "reasons": tuple(
                f"{name} {typeset(f'{pull:+.1f}')}"
                for name in MODALITIES
                if np.isfinite(pull := error.get(f"pull_{name}", np.nan))
            ),
        }
        for error in errors.to_dict("records")
    ]
    return cards(rows, params, layout)


def cards(rows: Sequence[dict[str, Any]], params: Params, layout: Layout) -> list[Card]:
    """Adds to ``rows``, the first five fields of cards, what the posts show and which copies they have.

    Raises InputError when the sample table does not know a row, so that it is of another run.
    """
    posts = artifacts.read_posts(layout.table("posts")).set_index("sample_id", drop=False)
    unknown = [row["id"] for row in rows if row["id"] not in posts.index]
    if unknown:
        raise InputError(f"{layout.table('posts')}: has no post {unknown[0]!r}; run `dvc repro`")
    folder = layout.root / params.posts.media
    families = posts.groupby(["split", "group_id"])["sample_id"].transform("size")
    flags = _copies(posts, [row["id"] for row in rows], params, layout)
    return [
        Card(
            **row,
            flags=tuple(flags[row["id"]]),
            family=int(families[row["id"]]),
            **_shown(posts.loc[row["id"]], folder, params.embed.max_pixels),
        )
        for row in rows
    ]


def _shown(post: pd.Series, folder: Path, max_pixels: int) -> dict[str, Any]:
    """Text and media of a post. What cannot be read is said, as `embed` has said it."""
    size = {"max_pixels": max_pixels, "at_least": PICTURE_SIDE}
    text = post["text"] or ""
    shown = {
        "text": text if len(text) <= LETTERS else f"{text[:LETTERS].rstrip()}…",
        "pictures": (),
        "moving": not post["image_path"] and bool(post["video_path"]),
        "unreadable": "",
    }
    try:
        if post["image_path"]:
            shown["pictures"] = (thumbnail(read_picture(folder / post["image_path"], **size), PICTURE_SIDE),)
        elif post["video_path"]:
            frames = read_frames(folder / post["video_path"], frames=FRAMES, **size)
            shown["pictures"] = tuple(thumbnail(frame, FRAME_SIDE) for frame in frames)
    except MediaError as error:
        shown["unreadable"] = str(error)
    return shown


def _copies(posts: pd.DataFrame, ids: Sequence[str], params: Params, layout: Layout) -> dict[str, list[str]]:
    """What each post is a copy of, in words; `split` has put copies into one group, so only there is searched."""
    near = posts[posts["group_id"].isin(posts.loc[list(ids), "group_id"])]
    columns = {"text": "text", "image_path": "image", "video_path": "video", "group_id": "group"}
    links = find_links(
        StoredRows.of(near[list(columns)].rename(columns=columns)),
        layout.root / params.posts.media,
        params,
        layout.cache,
    )
    copies: dict[str, list[str]] = defaultdict(list)
    for kind, words in COPIES.items():
        for pair in getattr(links, kind):
            for here, there in (pair, pair[::-1]):
                other = near.iloc[there]
                copies[near.iloc[here]["sample_id"]].append(f"{words} {other['sample_id']} ({other['label']})")
    return copies
