"""How a clip moves and sounds, whatever was done to its file: which clips are one that was encoded anew, cut or turned.

Two takes of one speaker before one wall look the same in any one frame, so it is the motion that tells clips apart. A
clip is compared by, in turn:

1. Moments: what changes in the second around each, in terms that no turn and no mirror alters. A moment meets only
   those near it, in a k-d tree, and two that meet say how far the clips are shifted against each other.
2. The coarse shades of the changes while both clips run, which must be alike in one of eight turns.
3. The frames that both share once they lie upon each other in time and space: how they look (``looks.agreement``), how
   they change from one tenth of a second to the next, and how the sound changes in the meantime.

So time follows the seconds of film, and not the pairs of clips. A clip in which nothing moves is compared as a picture,
and by its sound; one that moves, but for less than a second, by its content alone.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from scipy.spatial import cKDTree

from pipeline.corpora import looks
from pipeline.corpora.looks import COARSE, SIDE
from pipeline.media.footage import Footage
from pipeline.media.sound import SOUND_RATE

SECONDS = 60.0
"""So much of a clip's beginning is looked at."""
RATE, SHUTTER = 10, 0.2
"""Samples a second, each the mean over so many seconds, so that it hardly matters where between frames they begin."""
CELLS = 16
"""Of a sample, along each side."""
STILL_SECONDS = 1.0
"""A still is the mean over so many seconds."""
FLAT = 1.0
"""What changes less from sample to sample, in gray levels, may be noise."""
RESTS = 0.1
"""A clip whose evened out motion never reaches this, of about .8 at most, rests."""

REACH = 4
"""Samples before and after a moment that describe it."""
WIDTH, NEAR, NEIGHBOURS = 24, 0.35, 32
"""Principal components of a moment, how far apart two may be, and how many of the nearest are looked at."""
QUERY_EVERY, LAGS = 2, 2
"""Of so many moments one is looked for among all; and how many lags are tried of two clips."""
COARSE_ALIKE = 0.3
"""Smallest correlation of the coarse motion of two clips that may be copies; one may be cropped."""

SHARED, FEWEST = 0.5, 8
"""Copies share this part of the shorter one, and so many samples."""

SOUND_STEP, SOUND_WINDOW = SOUND_RATE // 40, SOUND_RATE // 10
BANDS = np.geomspace(150, 6000, 13)
"""Edges of bands of equal width in octaves, in hertz."""
SOUNDS_ALIKE = 0.7
"""Smallest correlation of the sounds of copies: above .95 in copies, below .3 in others."""
SILENT = -1.0
SHIFT = 8
"""Steps of sound by which it may be off the pictures, .2 seconds."""


@dataclass(frozen=True)
class ClipPrint:
    """What clips are compared by.

    Attributes:
        samples: uint16 [T, CELLS, CELLS], in 256ths of a gray level, ``RATE`` a second, T of at least 1.
        stills: uint8 [S, SIDE, SIDE], gray, one for each ``STILL_SECONDS``.
        sound: float16 [U, bands - 1], 40 a second, how the loudness of neighbouring bands changes; U of 0 in silence.
    """

    samples: np.ndarray
    stills: np.ndarray
    sound: np.ndarray

    def packed(self) -> bytes:
        parts = (self.samples.astype("<u2"), self.stills, self.sound.astype("<f2"))
        return b"".join([*(len(part).to_bytes(4, "little") for part in parts), *(part.tobytes() for part in parts)])

    @classmethod
    def unpacked(cls, blob: bytes) -> "ClipPrint":
        """Of what ``packed`` gave; read-only."""
        parts, at = [], 12
        for place, (kind, shape) in enumerate(
            (("<u2", (CELLS, CELLS)), ("u1", (SIDE, SIDE)), ("<f2", (len(BANDS) - 2,)))
        ):
            count = int.from_bytes(blob[4 * place : 4 * place + 4], "little")
            part = np.frombuffer(blob, kind, count * math.prod(shape), at).reshape(count, *shape)
            parts.append(part)
            at += part.nbytes
        return cls(*parts)


def clip_print(footage: Footage) -> ClipPrint:
    """``footage`` as of ``media.read_footage`` with a side of ``SIDE``."""
    block = SIDE // CELLS
    cells = footage.frames.reshape(-1, CELLS, block, CELLS, block).mean((2, 4), dtype=np.float32)
    samples = _means(footage.starts, cells, SHUTTER, 1 / RATE)
    stills = _means(footage.starts, footage.frames, STILL_SECONDS, STILL_SECONDS)
    small = np.rint(256 * samples).astype(np.uint16)  # in whole gray levels, slight motion would be lost
    return ClipPrint(small, np.rint(stills).astype(np.uint8), sound_changes(footage.sound))


def _means(starts: np.ndarray, frames: np.ndarray, width: float, step: float) -> np.ndarray:
    """float32 [T, ...]: means over ``width`` seconds each ``step``, every frame shown until the next; one at least."""
    ends = np.append(starts[1:], starts[-1] + (np.median(np.diff(starts)) if len(starts) > 1 else width))
    length = max(ends[-1], width)
    ends[-1] = length
    low = np.arange(0, length - width + step / 2, step)[:, None]
    shown = np.maximum(np.minimum(ends, low + width) - np.maximum(starts, low), 0)
    weights = (shown / np.maximum(shown.sum(axis=1, keepdims=True), 1e-9)).astype(np.float32)
    return np.tensordot(weights, frames.astype(np.float32), 1)


def sound_changes(sound: np.ndarray) -> np.ndarray:
    """float16 [U, bands - 1]: changes over time of the differences of log energy between neighbouring bands.

    Of these, Haitsma and Kalker keep the signs ("A highly robust audio fingerprinting system", ISMIR 2002).
    """
    if len(sound) < 2 * SOUND_WINDOW or not sound.any():
        return np.zeros((0, len(BANDS) - 2), dtype=np.float16)
    windows = np.lib.stride_tricks.sliding_window_view(sound, SOUND_WINDOW)[::SOUND_STEP]
    window = np.hanning(SOUND_WINDOW).astype(np.float32)
    bins = np.searchsorted(np.fft.rfftfreq(SOUND_WINDOW, 1 / SOUND_RATE), BANDS)
    energy = np.concatenate(
        [_band_energy(windows[at : at + 1000] * window, bins) for at in range(0, len(windows), 1000)]
    )
    log = np.log(energy + 1e-4 * energy.mean() + 1e-8)
    return np.diff(np.diff(log, axis=0), axis=1).astype(np.float16)


def _band_energy(windows: np.ndarray, bins: np.ndarray) -> np.ndarray:
    power = np.abs(np.fft.rfft(windows, axis=1)) ** 2
    return np.add.reduceat(power, bins, axis=1)[:, :-1]


# --- motion --------------------------------------------------------------------------------------------------------


def motion(samples: np.ndarray) -> np.ndarray:
    """float32 [T - 1, CELLS, CELLS]: changes from sample to sample, evened out over neighbouring cells and samples.

    Else a flicker of the light or a cut, which many clips have, would outweigh all that moves in between.
    """
    change = np.diff(samples.astype(np.float32) / 256, axis=0)
    change /= np.sqrt(gaussian_filter(change**2, 1) + FLAT)
    return change - change.mean(axis=(1, 2), keepdims=True)


def _energy(changes: np.ndarray) -> np.ndarray:
    return gaussian_filter1d(np.abs(changes).mean(axis=(1, 2)), 1.0)


def _rests(changes: np.ndarray) -> bool:
    return len(changes) == 0 or _energy(changes).max() < RESTS


_WAVES = looks.cosines(0, 1, COARSE, CELLS)


def coarse_motion(changes: np.ndarray) -> np.ndarray:
    """float32 [T, COARSE, COARSE]: the lowest cosines of changes [T, CELLS, CELLS], without the mean."""
    values = _WAVES @ changes @ _WAVES.T
    values[..., 0, 0] = 0
    return values


def _moments(changes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int [K] and float32 [K, (2 REACH + 1) (COARSE² - 1)] of length 1: the coarse shades of the changes around each.

    None of a clip that rests or is too short.
    """
    if _rests(changes) or len(changes) <= 2 * REACH:
        return np.zeros(0, dtype=int), np.zeros((0, (2 * REACH + 1) * (COARSE**2 - 1)), dtype=np.float32)
    at = np.arange(REACH, len(changes) - REACH)
    values = gaussian_filter1d(looks.descriptors(coarse_motion(changes)), 0.7, axis=0)
    values = values[at[:, None] + np.arange(-REACH, REACH + 1)].reshape(len(at), -1)
    return at, values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)


@dataclass(frozen=True)
class CandidatePairs:
    """Clips ``left`` and ``right`` that move alike at some moment, the left one ``lag`` samples later; each int [M]."""

    left: np.ndarray
    right: np.ndarray
    lag: np.ndarray


def candidate_pairs(changes: Sequence[np.ndarray]) -> CandidatePairs:
    """Which of the clips may share a part, each pair at the lags of its nearest moments, left before right."""
    moments = [_moments(clip) for clip in changes]
    places = np.concatenate([np.zeros(0, dtype=int), *(at for at, _ in moments)])
    if not len(places):
        return CandidatePairs(*np.zeros((3, 0), dtype=int))
    clips = np.repeat(np.arange(len(moments)), [len(at) for at, _ in moments])
    points = _principal(np.concatenate([values for _, values in moments]))
    queries = np.flatnonzero(places % QUERY_EVERY == 0)
    tree = cKDTree(points, balanced_tree=False)
    parts = []
    for some in (queries[at : at + looks.CHUNK] for at in range(0, len(queries), looks.CHUNK)):
        apart, near = tree.query(points[some], k=NEIGHBOURS, distance_upper_bound=NEAR)
        apart, near = np.asarray(apart), np.asarray(near)
        row, column = np.nonzero(near < len(points))
        one, other = some[row], near[row, column]
        keep = clips[one] != clips[other]
        one, other = np.where(clips[one] < clips[other], (one, other), (other, one))
        parts.append(np.stack([clips[one], clips[other], places[one] - places[other], apart[row, column]])[:, keep])
    left, right, lag, apart = np.concatenate(parts, axis=1)
    nearest = pd.DataFrame({"left": left, "right": right, "lag": lag, "apart": apart}).astype({"left": int})
    nearest = nearest.sort_values(["left", "right", "apart", "lag"]).drop_duplicates(["left", "right", "lag"])
    nearest = nearest.groupby(["left", "right"]).head(LAGS).astype(int)
    return CandidatePairs(*(nearest[column].to_numpy() for column in ("left", "right", "lag")))


def _principal(values: np.ndarray) -> np.ndarray:
    """float32 [N, at most WIDTH]: principal components."""
    values = values - values.mean(axis=0)
    vectors = np.linalg.eigh((values.T @ values).astype(np.float64))[1]
    return values @ vectors[:, -WIDTH:].astype(np.float32)


# --- pairs ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Likeness:
    """How alike two clips are where they lie upon each other.

    Attributes:
        look: the smallest correlation of the details of their mean picture, in any window of it.
        motion: correlation of their motion.
        sound: correlation of the changes of their sound, at least 0; ``SILENT`` where one is.
    """

    look: float
    motion: float
    sound: float

    def same(self, clip_agreement: float, picture_agreement: float) -> bool:
        """Where the sound agrees too, half of the agreement in motion is enough; where it does not, more is needed."""
        needed = clip_agreement
        if self.sound >= 0:
            needed = clip_agreement / 2 if self.sound >= SOUNDS_ALIKE else (1 + clip_agreement) / 2
        return self.look >= picture_agreement and self.motion >= needed


def likeness(one: ClipPrint, other: ClipPrint, lag: int, turn: int) -> Likeness:
    """Of two clips where the first is ``lag`` samples later and the second is turned; either may be the cropped one."""
    start, stop = _span(len(one.samples), len(other.samples), lag)
    pictures = np.stack([_picture(one, start, stop), looks.turned(_picture(other, start - lag, stop - lag), turn)])
    which = looks.best_cut(pictures, pictures[::-1])
    look = looks.agreement(pictures, pictures[::-1], np.zeros(2, dtype=int))
    best = int(look.argmax())
    samples = [one.samples[start:stop], looks.turned(other.samples[start - lag : stop - lag], turn)]
    samples[best] = looks.cut(samples[best], np.repeat(which[best : best + 1], len(samples[best]), axis=0))
    left, right = (motion(sample) for sample in samples)
    moved = max(_correlation(left, right, shift) for shift in (-1, 0, 1))
    return Likeness(float(look[best]), moved, sounds_alike(one.sound, other.sound, lag))


def _span(one: int, other: int, lag: int) -> tuple[int, int]:
    """The samples of the first that both have; none where these are too few."""
    start, stop = max(0, lag), min(one, other + lag)
    return (start, stop) if stop - start >= max(FEWEST, SHARED * min(one, other)) else (0, 0)


def _picture(item: ClipPrint, start: int, stop: int) -> np.ndarray:
    """float32 [SIDE, SIDE]: the mean over some samples, to the second."""
    first = min(int(start / (RATE * STILL_SECONDS)), len(item.stills) - 1)
    last = max(int(np.ceil(stop / (RATE * STILL_SECONDS))), first + 1)
    return item.stills[first:last].mean(axis=0, dtype=np.float32)


def _correlation(left: np.ndarray, right: np.ndarray, shift: int) -> float:
    """Of rows [T, ...] of both, the right ones so many places later."""
    a = left[max(shift, 0) : len(left) + min(shift, 0)].astype(np.float32)
    b = right[max(-shift, 0) : len(right) + min(-shift, 0)].astype(np.float32)
    return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum() + 1e-9))


def sounds_alike(one: np.ndarray, other: np.ndarray, lag: int) -> float:
    """Correlation of the changes of two sounds, the first ``lag`` samples later, at least 0; ``SILENT`` if one is."""
    steps = round(lag * SOUND_RATE / SOUND_STEP / RATE)
    best = SILENT
    for shift in range(steps - SHIFT, steps + SHIFT + 1):
        length = min(len(one) - max(shift, 0), len(other) - max(-shift, 0))
        if length >= FEWEST * SOUND_RATE // SOUND_STEP // RATE:
            a, b = one[max(shift, 0) :][:length], other[max(-shift, 0) :][:length]
            best = max(best, _correlation(a, b, 0), 0.0)
    return best


def likenesses(prints: Sequence[ClipPrint]) -> Iterator[tuple[int, int, Likeness]]:
    """Clips that may be copies: the numbers of both, and how alike they are in one turn."""
    changes = [motion(item.samples) for item in prints]
    pairs = candidate_pairs(changes)
    coarse = [coarse_motion(clip) for clip in changes]
    for a, b, lag in zip(pairs.left.tolist(), pairs.right.tolist(), pairs.lag.tolist(), strict=True):
        start, stop = _span(len(changes[a]), len(changes[b]), lag)
        if start == stop:
            continue
        fit = _turns_alike(coarse[a][start:stop], coarse[b][start - lag : stop - lag])
        for turn in np.flatnonzero(fit >= COARSE_ALIKE).tolist():
            yield a, b, likeness(prints[a], prints[b], lag, turn)


def _turns_alike(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """float [8]: correlation of two coarse motions [T, COARSE, COARSE], the right one in each turn."""
    size = np.sqrt((left**2).sum() * (right**2).sum() + 1e-9)
    return np.einsum("nuv,tnuv->t", left, looks.turned_shades(right)) / size


def same_clips(prints: Sequence[ClipPrint], clip_agreement: float, picture_agreement: float) -> list[tuple[int, int]]:
    """Pairs of clips that are copies, encoded anew, rescaled, cropped, turned or without their beginning or end.

    Args:
        prints: of N clips.
        clip_agreement: the smallest correlation of their motion; see ``Likeness.same``.
        picture_agreement: the smallest correlation of the details of what they show, in any window.
    """
    if not prints:
        return []
    pairs = {(a, b) for a, b, how in likenesses(prints) if how.same(clip_agreement, picture_agreement)}
    return sorted(pairs | set(_resting(prints, picture_agreement)))


def _resting(prints: Sequence[ClipPrint], picture_agreement: float) -> Iterator[tuple[int, int]]:
    """Pairs of clips in which nothing moves that look the same, and sound the same if both are heard."""
    rest = [at for at, item in enumerate(prints) if _rests(motion(item.samples))]
    if len(rest) < 2:
        return
    pictures = np.stack([np.rint(prints[at].stills.mean(axis=0)).astype(np.uint8) for at in rest])
    for left, right in looks.same_looks(np.stack([pictures, pictures], axis=1), picture_agreement):
        one, other = prints[rest[left]].sound, prints[rest[right]].sound
        lags = range(-len(other), len(one)) if len(one) and len(other) else ()
        steps = [round(lag * RATE * SOUND_STEP / SOUND_RATE) for lag in lags]
        if not steps or max(map(partial(sounds_alike, one, other), sorted(set(steps)))) >= SOUNDS_ALIKE:
            yield rest[left], rest[right]
