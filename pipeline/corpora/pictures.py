"""What identifies a picture, and which pictures are copies of one another."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pipeline import media
from pipeline.core.files import MediaError, content_digest
from pipeline.core.prefetch import ahead
from pipeline.core.progress import progress
from pipeline.corpora.duplicates import Edges
from pipeline.corpora.looks import look, same_looks


@dataclass(frozen=True)
class Fingerprint:
    """What identifies a picture: the digest of its bytes, and its ``look`` (None when it cannot be decoded)."""

    content: str
    look: np.ndarray | None


def content_or_none(path: Path) -> str | None:
    try:
        return content_digest(path)
    except MediaError:  # `embed` records what is wrong with the file
        return None


def clip_or_none(path: Path) -> str | None:
    """What copies of a clip have in common, put into another container or not: the digest of its encoded pictures.

    Of a file that is no clip, an animated picture among them, that of its bytes; None when there is no file.
    """
    try:
        return media.pictures_digest(path)
    except MediaError:
        return content_or_none(path)


def fingerprints(paths: Sequence[Path], max_pixels: int, workers: int) -> list[Fingerprint | None]:
    prints: list[Fingerprint | None] = []
    with progress("comparing pictures", len(paths)) as advance:
        for item in ahead(partial(fingerprint, max_pixels=max_pixels), paths, workers=workers, depth=4 * workers):
            prints.append(item)
            advance(1)
    return prints


def fingerprint(path: Path, *, max_pixels: int) -> Fingerprint | None:
    """None when there is no file; the digest alone when it is no picture."""
    content = content_or_none(path)
    if content is None:
        return None
    try:
        return Fingerprint(content, look(media.read_picture(path, max_pixels=max_pixels, at_least=64)))
    except MediaError:
        return Fingerprint(content, None)


def near_pairs(prints: Sequence[Fingerprint | None], agreement: float) -> Edges:
    """Pairs of different files that look the same, as in ``same_looks``; of equal files the first stands for all."""
    first: dict[str, int] = {}
    looks: list[np.ndarray] = []
    for at, item in enumerate(prints):
        if item and item.look is not None and first.setdefault(item.content, at) == at:
            looks.append(item.look)
    if len(looks) < 2:
        return []
    shown = list(first.values())
    return [(shown[a], shown[b]) for a, b in same_looks(np.stack(looks), agreement)]
