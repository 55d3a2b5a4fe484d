"""What identifies a picture, and which pictures are nearly the same."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image

from pipeline import media
from pipeline.core.files import MediaError, content_digest
from pipeline.core.prefetch import ahead
from pipeline.core.progress import progress
from pipeline.corpora.duplicates import Edges

HASH_BITS = 64
THUMBNAIL = 8
SAME_THUMBNAIL = 12.0
"""Largest mean difference, in gray levels of 255, between the thumbnails of two pictures that count as one."""
FLAT_THUMBNAIL = 8.0
"""A picture whose thumbnail varies less than this has a perceptual hash of noise: only its exact copies are found."""
PAIRS_AT_ONCE = 2000


@dataclass(frozen=True)
class Fingerprint:
    """What identifies a picture: the digest of its bytes, and how it looks (None when it cannot be decoded)."""

    content: str
    phash: int | None
    thumbnail: np.ndarray | None


def content_or_none(path: Path) -> str | None:
    try:
        return content_digest(path)
    except MediaError:  # `embed` records what is wrong with the file
        return None


def fingerprints(paths: Sequence[Path], max_pixels: int, workers: int) -> list[Fingerprint | None]:
    prints: list[Fingerprint | None] = []
    with progress("comparing pictures", len(paths)) as advance:
        for item in ahead(partial(fingerprint, max_pixels=max_pixels), paths, workers=workers, depth=4 * workers):
            prints.append(item)
            advance(1)
    return prints


def fingerprint(path: Path, *, max_pixels: int) -> Fingerprint | None:
    """None when there is no file; the digest alone when it is no picture.

    The perceptual hash is imagehash's pHash: signs of the 8 by 8 lowest DCT coefficients of a 32 by 32 gray version.
    """
    content = content_or_none(path)
    if content is None:
        return None
    try:
        picture = Image.fromarray(media.read_picture(path, max_pixels=max_pixels, at_least=64))
    except MediaError:
        return Fingerprint(content, None, None)
    bits = imagehash.phash(picture).hash.reshape(-1)
    thumbnail = np.asarray(picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), dtype=np.float32)
    return Fingerprint(content, int(np.packbits(bits).view(">u8")[0]), thumbnail.reshape(-1))


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
