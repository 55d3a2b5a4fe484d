"""Which posts are copies of each other: same text, same file, near-identical pictures or clips."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.corpora.duplicates import Edges, Groups, components, linked, named_groups, same_keys, same_texts
from pipeline.corpora.fingerprints import clip_fingerprints, fingerprints, near_clips, near_pairs
from pipeline.corpora.stored_rows import StoredRows
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


def find_links(rows: StoredRows, folder: Path, params: Params, cache: Path) -> Links:
    """Finds the copies among rows with the columns ``text, image, video, group``, None where a row has none.

    Paths are relative to ``folder``; how often its text stands in which groups says whether a short one is a copy.
    What pictures and clips look like is kept in ``cache``. Raises InputError where that cannot be used.
    """
    how = params.embed.max_pixels, params.embed.workers, cache
    pictures, paths = _media(rows, "image", folder)
    prints = fingerprints(paths, *how)
    clips, paths = _media(rows, "video", folder)
    footage = clip_fingerprints(paths, *how)
    alike, moving = params.split.picture_agreement, params.split.clip_agreement
    return Links(
        text=same_texts(rows),
        picture=_of_rows(same_keys([item.content if item else None for item in prints]), pictures),
        near_picture=_of_rows(near_pairs(prints, alike), pictures),
        clip=_of_rows(same_keys([item.content if item else None for item in footage]), clips),
        near_clip=_of_rows(near_clips(footage, moving, alike), clips),
    )


def _media(rows: StoredRows, column: str, folder: Path) -> tuple[list[int], list[Path]]:
    """The rows that have such a file, and the files."""
    cells = ((at, path) for at, path in enumerate(chain.from_iterable(rows.texts(column))) if path is not None)
    files = [(at, folder / path) for at, path in cells]
    return [at for at, _ in files], [path for _, path in files]


def _of_rows(edges: Edges, rows: Sequence[int]) -> Edges:
    return [(rows[a], rows[b]) for a, b in edges]


def linked_groups(
    given: pa.ChunkedArray, ids: pa.ChunkedArray, numbers: np.ndarray, sets: Mapping[str, np.ndarray]
) -> Groups:
    """Given groups whole, and joined where rows of theirs are in one of the ``sets``.

    Args:
        given, ids: of N rows; null where no group is given.
        numbers: int [N], equal where the given group is, however it is spelt; -1 without one.
    """
    edges = [linked(names) for names in (numbers, *sets.values())]
    return named_groups(components(np.concatenate(edges), len(ids)), given, ids)


GIVEN_SHARE = 1 / 3
"""A group that is given may have so many of the rows before it looks like a word for none."""


def grown_groups(
    groups: Groups, given: np.ndarray, ids: pa.ChunkedArray, sets: Mapping[str, np.ndarray], share: float
) -> Iterator[str]:
    """A warning for each group that links have grown beyond a ``share`` of the rows, naming the one that joins most;
    and for one that is given and has more than ``GIVEN_SHARE``.

    Args:
        given: int [N]: equal where the given group is spelt alike, and another for each row without one.
        sets: as of ``linked_groups``.
    """
    sizes = np.bincount(groups.codes)
    grown = int((sizes > max(share * len(ids), 1)).sum())  # of a few posts, one alone is a large share
    for name in np.argsort(-sizes, kind="stable")[:grown].tolist():
        inside = groups.codes == name
        if len(np.unique(given[inside])) == 1:
            if sizes[name] > GIVEN_SHARE * len(ids):
                first = ids[int(np.flatnonzero(inside)[0])]
                yield (
                    f"a given group has {sizes[name]} of {len(ids)} rows, that of {first}; if its name means that "
                    "there is none (nan, unknown), leave the cell blank"
                )
            continue
        joined = {what: pd.Series(given[inside]).groupby(key[inside]).nunique() for what, key in sets.items()}
        what = max(joined, key=lambda kind: joined[kind].max())
        some = np.flatnonzero(inside & (sets[what] == joined[what].idxmax()))
        yield (  # by an id: what a post says, and whose it is, belongs in no metrics file
            f"a group has {sizes[name]} of {len(ids)} rows, more than split.max_group_share {share}, since copies are "
            f"one group: {len(some)} rows of {joined[what].max()} groups have {what}, that of {ids[int(some[0])]}"
        )
