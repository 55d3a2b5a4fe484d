"""Which posts are copies of each other: same text, same file, near-identical pictures or clips."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.corpora.duplicates import Edges, components, merge_groups, same_keys, same_texts
from pipeline.corpora.pictures import clip_fingerprints, fingerprints, near_clips, near_pairs
from pipeline.params import Params


@dataclass(frozen=True)
class Links:
    """Pairs of row numbers that must share a group, by what links them."""

    text: Edges
    picture: Edges
    near_picture: Edges
    clip: Edges
    near_clip: Edges

    def sets(self, count: int) -> dict[str, np.ndarray]:
        """What copies have in common → int [count], equal numbers for rows that have it in common."""
        return {
            "the same text": components(self.text, count),
            "the same picture": components(self.picture, count),
            "nearly the same picture": components(self.picture + self.near_picture, count),
            "the same clip": components(self.clip, count),
            "nearly the same clip": components(self.clip + self.near_clip, count),
        }


def find_links(rows: pd.DataFrame, folder: Path, params: Params, cache: Path) -> Links:
    """Finds the copies among rows with the columns ``text, image, video, group``, None where a row has none.

    Paths are relative to ``folder``; how often its text stands in which groups says whether a short one is a copy.
    What pictures and clips look like is kept in ``cache``. Raises InputError where that cannot be used.
    """
    pictures, clips = (np.flatnonzero(rows[column].notna()) for column in ("image", "video"))
    how = params.embed.max_pixels, params.embed.workers, cache
    prints = fingerprints([folder / path for path in rows["image"].iloc[pictures]], *how)
    footage = clip_fingerprints([folder / path for path in rows["video"].iloc[clips]], *how)
    alike, moving = params.split.picture_agreement, params.split.clip_agreement
    return Links(
        text=same_texts(rows["text"].tolist(), rows["group"].tolist()),
        picture=_of_rows(same_keys([item.content if item else None for item in prints]), pictures),
        near_picture=_of_rows(near_pairs(prints, alike), pictures),
        clip=_of_rows(same_keys([item.content if item else None for item in footage]), clips),
        near_clip=_of_rows(near_clips(footage, moving, alike), clips),
    )


def _of_rows(edges: Edges, rows: np.ndarray) -> Edges:
    return [(int(rows[a]), int(rows[b])) for a, b in edges]


def linked_groups(rows: pd.DataFrame, sets: dict[str, np.ndarray]) -> np.ndarray:
    """The group of each row, [N]: given groups whole, and joined where rows of theirs are in one of the ``sets``."""
    edges = [edge for names in sets.values() for edge in same_keys(names.tolist())]
    return merge_groups(rows["group"].tolist(), rows["id"].tolist(), edges)


def grown_groups(rows: pd.DataFrame, sets: dict[str, np.ndarray], share: float) -> Iterator[str]:
    """A warning for each group that links have grown beyond a ``share`` of the rows, naming the one that joins most.

    ``rows`` has the columns of ``find_links``, ``id`` and ``group_id``; ``sets`` are those of its rows.
    """
    given = rows["group"].where(rows["group"].notna(), rows["id"])
    sizes = rows["group_id"].value_counts()
    for name, size in sizes[sizes > share * len(rows)].items():
        inside = (rows["group_id"] == name).to_numpy()
        if given[inside].nunique() == 1:
            continue
        joined = {what: given[inside].groupby(names[inside]).nunique() for what, names in sets.items()}
        what = max(joined, key=lambda kind: joined[kind].max())
        some = rows.loc[inside & (sets[what] == joined[what].idxmax())]
        yield (  # by an id: what a post says, and whose it is, belongs in no metrics file
            f"a group has {size} of {len(rows)} rows, more than split.max_group_share {share}, since copies are "
            f"one group: {len(some)} rows of {joined[what].max()} groups have {what}, that of {some['id'].iloc[0]}"
        )
