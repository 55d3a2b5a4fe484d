"""Which posts are copies of each other: same text, same file, near-identical pictures."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.corpora.duplicates import Edges, normalised, same_keys
from pipeline.corpora.pictures import content_or_none, fingerprints, near_pairs


@dataclass(frozen=True)
class Links:
    """Pairs of row numbers that must share a group, by what links them."""

    text: Edges
    picture: Edges
    near_picture: Edges
    clip: Edges


def find_links(rows: pd.DataFrame, folder: Path, *, distance: int, max_pixels: int, workers: int) -> Links:
    """Finds the copies among rows with the columns ``text, image, video`` (paths relative to ``folder``, or None)."""
    pictures = np.flatnonzero(rows["image"].notna())
    prints = fingerprints([folder / path for path in rows["image"].iloc[pictures]], max_pixels, workers)
    clips = [None if path is None else content_or_none(folder / path) for path in rows["video"]]
    near = near_pairs(prints, distance)
    return Links(
        text=same_keys([None if text is None else normalised(text) for text in rows["text"]]),
        picture=[(pictures[a], pictures[b]) for a, b in same_keys([item.content if item else None for item in prints])],
        near_picture=[(pictures[a], pictures[b]) for a, b in near],
        clip=same_keys(clips),
    )
