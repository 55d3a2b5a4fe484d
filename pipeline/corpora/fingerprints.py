"""What identifies a picture or a clip, and which of them are copies of one another.

What a file looks like is kept by the digest of its content, so that it is decoded once however often posts are divided.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import av
import numpy as np
import PIL

from pipeline.core.content_store import ContentStore
from pipeline.core.files import MediaError, content_digest
from pipeline.core.prefetch import prefetch_map
from pipeline.core.progress import progress
from pipeline.corpora.duplicates import Edges
from pipeline.corpora.looks import SIDE, look, same_looks
from pipeline.corpora.motion import SECONDS, ClipPrint, clip_print, same_clips
from pipeline.media.footage import pictures_digest, read_footage
from pipeline.media.pictures import read_picture

LOOKS_VERSION = 2
"""Raised when a look or a clip's print is made otherwise."""

CHUNK = 256
"""Looks put into the store at once."""


@dataclass(frozen=True)
class Fingerprint:
    """What identifies a picture: the digest of its bytes, and its ``look`` (None when it cannot be decoded)."""

    content: str
    look: np.ndarray | None


@dataclass(frozen=True)
class ClipFingerprint:
    """What identifies a clip: its content, and its ``print`` (None when it cannot be decoded).

    Its content is what copies of it have in common, put into another container or not: the digest of its encoded
    pictures; of what is none, an animated picture among them, that of its bytes.
    """

    content: str
    print: ClipPrint | None


def content_or_none(path: Path) -> str | None:
    try:
        return content_digest(path)
    except MediaError:  # `embed` records what is wrong with the file
        return None


def fingerprints(paths: Sequence[Path], max_pixels: int, workers: int, cache: Path) -> list[Fingerprint | None]:
    """Those of pictures; None where there is no file. Raises InputError as ``ContentStore``, kept in ``cache``."""
    prints: list[Fingerprint | None] = []
    for digest, blob in _kept("pictures", paths, partial(_look, max_pixels=max_pixels), max_pixels, workers, cache):
        seen = None if blob is None else np.frombuffer(blob, dtype=np.uint8).reshape(2, SIDE, SIDE)
        prints.append(None if digest is None else Fingerprint(digest, seen))
    return prints


def clip_fingerprints(
    paths: Sequence[Path], max_pixels: int, workers: int, cache: Path
) -> list[ClipFingerprint | None]:
    """Those of clips, as ``fingerprints``."""
    prints: list[ClipFingerprint | None] = []
    for digest, blob in _kept("clips", paths, partial(_clip, max_pixels=max_pixels), max_pixels, workers, cache):
        if digest is None:
            prints.append(None)
        elif blob is None:
            prints.append(ClipFingerprint(digest, None))
        else:
            prints.append(ClipFingerprint(blob[:64].decode(), ClipPrint.unpacked(blob[64:])))
    return prints


def _look(path: Path, *, max_pixels: int) -> bytes:
    return look(read_picture(path, max_pixels=max_pixels, at_least=64)).tobytes()


def _clip(path: Path, *, max_pixels: int) -> bytes:
    """64 hexadecimal digits of its content, and its print."""
    try:
        content = pictures_digest(path)
    except MediaError:
        content = content_digest(path)
    footage = read_footage(path, side=SIDE, seconds=SECONDS, max_pixels=max_pixels)
    return content.encode() + clip_print(footage).packed()


def _kept(
    what: str,
    paths: Sequence[Path],
    make: Callable[[Path], bytes],
    max_pixels: int,
    workers: int,
    cache: Path,
) -> Iterator[tuple[str | None, bytes | None]]:
    """The digest of each file and what is made of it, from the store or put there; None where there is none."""
    identity = {"what": what, "version": LOOKS_VERSION, "max_pixels": max_pixels}
    versions = {"pillow": PIL.__version__, "av": av.__version__, "numpy": np.__version__}
    digests = list(prefetch_map(content_or_none, paths, workers=workers, depth=16 * workers))
    first = {digest: path for digest, path in reversed(list(zip(digests, paths, strict=True))) if digest is not None}
    with ContentStore(cache / "looks", identity | versions, f"looks of {what}") as store:
        blobs = store.blobs(list(first))
        pending = {digest: path for digest, path in sorted(first.items()) if digest not in blobs}
        for some in _made(what, pending, make, workers):
            store.keep(some)
            blobs |= some
    for digest in digests:
        yield digest, None if digest is None else blobs.get(digest)


def _made(
    what: str, pending: Mapping[str, Path], make: Callable[[Path], bytes], workers: int
) -> Iterator[dict[str, bytes]]:
    def made_or_none(path: Path) -> bytes | None:
        try:
            return make(path)
        except MediaError:
            return None

    some: dict[str, bytes] = {}
    with progress(f"comparing {what}", len(pending)) as advance:
        blobs = prefetch_map(made_or_none, pending.values(), workers=workers, depth=4 * workers)
        for digest, blob in zip(pending, blobs, strict=True):
            some |= {} if blob is None else {digest: blob}
            if len(some) == CHUNK:
                yield some
                some = {}
            advance(1)
    yield some


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


def near_clips(prints: Sequence[ClipFingerprint | None], clip_agreement: float, picture_agreement: float) -> Edges:
    """Pairs of different clips that are copies, as in ``same_clips``; of equal ones the first stands for all."""
    first: dict[str, int] = {}
    compared: list[ClipPrint] = []
    for at, item in enumerate(prints):
        if item and item.print is not None and first.setdefault(item.content, at) == at:
            compared.append(item.print)
    shown = list(first.values())
    return [(shown[a], shown[b]) for a, b in same_clips(compared, clip_agreement, picture_agreement)]
