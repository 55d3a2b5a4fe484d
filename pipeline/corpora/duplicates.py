"""Which posts are copies of each other: same normalised text, same file, or near-identical pictures.

Copies end in one group, so that none is trained on while its twin is scored.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline import media
from pipeline.encoders.prefetch import ahead
from pipeline.progress import progress

HASH_BITS = 64
THUMBNAIL = 8
SAME_THUMBNAIL = 12.0
"""Largest mean difference, in gray levels of 255, between the thumbnails of two pictures that count as one."""
FLAT_THUMBNAIL = 8.0
"""A picture whose thumbnail varies less than this has a perceptual hash of noise: only its exact copies are found."""
PAIRS_AT_ONCE = 2000

Edges = list[tuple[int, int]]


@dataclass(frozen=True)
class Fingerprint:
    """What identifies a picture: the digest of its bytes, and how it looks (None when it cannot be decoded)."""

    content: str
    phash: int | None
    thumbnail: np.ndarray | None


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
    prints = _fingerprints([folder / path for path in rows["image"].iloc[pictures]], max_pixels, workers)
    clips = [None if path is None else _content(folder / path) for path in rows["video"]]
    near = near_pairs(prints, distance)
    return Links(
        text=_same([None if text is None else normalised(text) for text in rows["text"]]),
        picture=[(pictures[a], pictures[b]) for a, b in _same([item.content if item else None for item in prints])],
        near_picture=[(pictures[a], pictures[b]) for a, b in near],
        clip=_same(clips),
    )


def normalised(text: str) -> str | None:
    """Case, accents of width, links, names, punctuation and spacing removed; None when nothing is left.

    A text of emoji alone stays as it is: it says something, and says the same in two posts.
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    plain = re.sub(r"https?://\S+|@\w+", " ", plain)
    words = re.sub(r"[\W_]+", " ", plain).strip()
    return words or "".join(plain.split()) or None


def _content(path: Path) -> str | None:
    try:
        return media.content_digest(path)
    except media.MediaError:  # `embed` records what is wrong with the file
        return None


def _fingerprints(paths: Sequence[Path], max_pixels: int, workers: int) -> list[Fingerprint | None]:
    found: list[Fingerprint | None] = []
    with progress("comparing pictures", len(paths)) as advance:
        for item in ahead(partial(fingerprint, max_pixels=max_pixels), paths, workers=workers, depth=4 * workers):
            found.append(item)
            advance(1)
    return found


def fingerprint(path: Path, *, max_pixels: int) -> Fingerprint | None:
    """None when there is no file; the digest alone when it is no picture.

    The perceptual hash is imagehash's pHash: signs of the 8 by 8 lowest DCT coefficients of a 32 by 32 gray version.
    """
    content = _content(path)
    if content is None:
        return None
    try:
        picture = Image.fromarray(media.read_picture(path, max_pixels=max_pixels, at_least=64))
    except media.MediaError:
        return Fingerprint(content, None, None)
    bits = imagehash.phash(picture).hash.reshape(-1)
    thumbnail = np.asarray(picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), dtype=np.float32)
    return Fingerprint(content, int(np.packbits(bits).view(">u8")[0]), thumbnail.reshape(-1))


def _same(keys: Sequence[str | None]) -> Edges:
    """Links each row to the first one with its key; rows without a key are linked to none."""
    first: dict[str, int] = {}
    return [(first[key], at) for at, key in enumerate(keys) if key is not None and first.setdefault(key, at) != at]


def near_pairs(prints: Sequence[Fingerprint | None], distance: int) -> Edges:
    """Pairs of different files that look the same: hashes within ``distance`` bits, and alike thumbnails.

    Two hashes that differ in at most d of 64 bits agree whole in one of d + 1 bands, so only pictures that share a band
    are compared (multi-index hashing; Norouzi, Punjani and Fleet 2012).
    """
    usable = [
        at
        for at, item in enumerate(prints)
        if item and item.thumbnail is not None and item.thumbnail.std() > FLAT_THUMBNAIL
    ]
    if len(usable) < 2:
        return []
    chosen = [prints[at] for at in usable]
    hashes = np.array([item.phash for item in chosen if item], dtype=np.uint64)
    thumbnails = np.stack([item.thumbnail for item in chosen if item and item.thumbnail is not None])
    digests = np.array([item.content for item in chosen if item])
    pairs: set[tuple[int, int]] = set()
    for left, right in _candidates(hashes, distance):
        close = np.bitwise_count(hashes[left] ^ hashes[right]) <= distance
        left, right = left[close], right[close]
        alike = np.abs(thumbnails[left] - thumbnails[right]).mean(axis=1) <= SAME_THUMBNAIL
        keep = alike & (digests[left] != digests[right])
        pairs.update(zip(left[keep].tolist(), right[keep].tolist(), strict=True))
    return sorted((usable[a], usable[b]) for a, b in pairs)


def _candidates(hashes: np.ndarray, distance: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Index pairs that share a band, in blocks small enough for memory."""
    edges = np.linspace(0, HASH_BITS, distance + 2).astype(int)
    for start, stop in itertools.pairwise(edges):
        keys = (hashes >> np.uint64(start)) & np.uint64((1 << int(stop - start)) - 1)
        order = np.argsort(keys, kind="stable")
        for bucket in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
            for at in range(0, len(bucket) - 1, PAIRS_AT_ONCE):
                some = bucket[at : at + PAIRS_AT_ONCE]
                left, right = np.meshgrid(some, bucket[at:], indexing="ij")
                ahead_of = left < right
                yield left[ahead_of], right[ahead_of]


def merge_groups(given: Sequence[str | None], ids: Sequence[str], edges: Edges) -> np.ndarray:
    """One group name a row: rows with the same given group, and linked rows, are one group.

    A group takes its alphabetically first given name, or ``post:<first id>`` when none of its rows has one.
    """
    edges = edges + _same(given)
    left, right = np.array(edges, dtype=int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(left)), (left, right)), shape=(len(ids), len(ids)))
    component = connected_components(graph, directed=False)[1]
    names: dict[int, str] = {}
    for part, name, sample in sorted(
        zip(component.tolist(), given, ids, strict=True), key=lambda item: (item[1] is None, item[1] or "", item[2])
    ):
        names.setdefault(part, name if name is not None else f"post:{sample}")
    return np.array([names[part] for part in component.tolist()], dtype=object)
