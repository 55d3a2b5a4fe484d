"""What identifies a picture or a clip, and which of them are copies of one another."""

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
from pipeline.corpora.looks import SIDE, look, same_looks
from pipeline.corpora.motion import SECONDS, ClipPrint, clip_print, same_clips


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


@dataclass(frozen=True)
class ClipFingerprint:
    """What identifies a clip: what ``clip_content`` says, and its ``print`` (None when it cannot be decoded)."""

    content: str
    print: ClipPrint | None


def clip_content(path: Path) -> str | None:
    """What copies of a clip have in common, put into another container or not: the digest of its encoded pictures.

    Of a file that is no clip, an animated picture among them, that of its bytes; None when there is no file.
    """
    try:
        return media.pictures_digest(path)
    except MediaError:
        return content_or_none(path)


def clip_fingerprints(paths: Sequence[Path], max_pixels: int, workers: int) -> list[ClipFingerprint | None]:
    prints: list[ClipFingerprint | None] = []
    with progress("comparing clips", len(paths)) as advance:
        for item in ahead(partial(clip_fingerprint, max_pixels=max_pixels), paths, workers=workers, depth=4 * workers):
            prints.append(item)
            advance(1)
    return prints


def clip_fingerprint(path: Path, *, max_pixels: int) -> ClipFingerprint | None:
    """None when there is no file; what identifies its content alone when it is no clip."""
    content = clip_content(path)
    if content is None:
        return None
    try:
        footage = media.read_footage(path, side=SIDE, seconds=SECONDS, max_pixels=max_pixels)
    except MediaError:
        return ClipFingerprint(content, None)
    return ClipFingerprint(content, clip_print(footage))


def near_clips(prints: Sequence[ClipFingerprint | None], clip_agreement: float, picture_agreement: float) -> Edges:
    """Pairs of different clips that are copies, as in ``same_clips``; of equal ones the first stands for all."""
    first: dict[str, int] = {}
    for at, item in enumerate(prints):
        if item and item.print is not None:
            first.setdefault(item.content, at)
    shown = list(first.values())
    compared = [item.print for item in (prints[at] for at in shown) if item and item.print is not None]
    return [(shown[a], shown[b]) for a, b in same_clips(compared, clip_agreement, picture_agreement)]
