"""How a picture looks, whatever was done to its file: which pictures are one that was turned, cropped or framed.

A look is two gray thumbnails: the whole picture, and what lies within its plain border. It is compared by, in turn:

1. A descriptor of its coarsest shades that no turn and no mirror changes: a look meets only those near it. Of either
   picture some crops meet the others, so that a cropped copy meets its original.
2. The same shades with the turn and the crop that fit best, which tells most others apart.
3. The details: both thumbnails less what is coarse, whose correlation is near 1 in copies and near 0 in other pictures,
   in every window of the picture: two screenshots of one site agree in its bars alone, two memes in their template.

Only the first step looks at all pairs, at a few nanoseconds each; what follows grows with the number of pictures.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

SIDE = 32
"""Of a thumbnail, in pixels: a crop by a twentieth moves its edge by two of them at most."""
SCANNED = 96
"""The largest side of the picture in which a border is looked for."""
PLAIN, ALIKE = 8, 0.9
"""This share of each line of a border is no more gray levels off the middle shade of the first line."""
LARGEST_BORDER, BORDERS = 0.4, 3
"""No border is thicker than this share of the picture, and so many at most lie in one another."""
FLAT_WINDOW = 0.004
"""A window of a quarter of the thumbnail with a smaller share of its details (of .25 on average) hardly counts."""
FLAT = 4.0
"""What varies less, in gray levels, shows nothing by which it could be told, but noise."""

COARSE = 5
"""Cosines along each side that make the coarse shades, the mean included."""
CROP = 0.05
"""Largest share of each side that a crop may lack, of each edge."""
NEAR, NEIGHBOURS = 0.3, 16
"""How far apart two descriptors may be, which have length 1, and how many of the nearest are looked at."""
COARSE_ALIKE = 0.85
"""Smallest cosine of the coarse shades of copies."""
FINE = 10
"""Cosines along each side by which a crop is fitted."""
CHUNK, PAIRS_AT_ONCE = 4096, 512
ROWS, COLUMNS = 256, 2048
"""Of a block of pairs."""

Box = tuple[float, float, float, float]

_EDGES = (0.0, CROP / 2, CROP)
CROPS: tuple[Box, ...] = (
    (0, 1, 0, 1),
    (CROP / 2, 1 - CROP / 2, CROP / 2, 1 - CROP / 2),
    (CROP, 1 - CROP, CROP, 1 - CROP),
    *((t, t + 1 - CROP, x, x + 1 - CROP) for t in (0, CROP) for x in (0, CROP)),
)
"""Top, bottom, left and right as shares of the sides.

These meet other pictures: a descriptor hardly changes where the edges are off by half of ``CROP``.
"""


def look(picture: np.ndarray) -> np.ndarray:
    """uint8 [2, SIDE, SIDE]: the whole of a picture, uint8 [H, W, 3], and what lies within its border.

    The border is plain, and nothing or part of the picture may look like one: a copy that was made brighter or darker,
    or was cropped, may show another border than its original, and is known by the whole.
    """
    gray = Image.fromarray(picture).convert("L")
    width, height = gray.size
    small = gray.resize((min(width, SCANNED), min(height, SCANNED)), Image.Resampling.BOX)
    scanned = np.asarray(small)
    top, bottom, left, right = _content(scanned)
    whole = thumbnail(small)
    if (bottom - top) * (right - left) == scanned.size:
        return np.stack([whole, whole])
    down, across = height / scanned.shape[0], width / scanned.shape[1]
    return np.stack([whole, thumbnail(gray, (left * across, top * down, right * across, bottom * down))])


def thumbnail(gray: Image.Image, box: Box | None = None) -> np.ndarray:
    """uint8 [SIDE, SIDE]: means over the gray picture, or over a box of it: left, top, right and bottom in pixels."""
    return np.asarray(gray.resize((SIDE, SIDE), Image.Resampling.BOX, box=box))


def _content(gray: np.ndarray) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of what lies within plain borders; a line more is taken, where both are mixed."""
    top, bottom, left, right = 0, gray.shape[0], 0, gray.shape[1]
    for _ in range(BORDERS):
        inside = gray[top:bottom, left:right]
        up, down = _border(inside), _border(inside[::-1])
        before, after = _border(inside.T), _border(inside.T[::-1])
        if not (up or down or before or after):
            break
        top, bottom, left, right = top + up, bottom - down, left + before, right - after
    return top, bottom, left, right


def _border(lines: np.ndarray) -> int:
    """How many of the first lines are of one shade, and one more if there are any."""
    some = lines[: int(LARGEST_BORDER * len(lines))].astype(np.int16)
    if not len(some):
        return 0
    plain = (np.abs(some - np.median(some[0])) <= PLAIN).mean(axis=1) >= ALIKE
    thick = len(plain) if plain.all() else int(plain.argmin())
    return thick + 1 if thick else 0


# --- coarse shades -------------------------------------------------------------------------------------------------


def cosines(low: float, high: float, count: int = COARSE, side: int = SIDE) -> np.ndarray:
    """float32 [count, side]: integrals of the first cosines over the interval, by pixel."""
    at = np.clip((np.linspace(0, 1, side + 1) - low) / (high - low), 0, 1)
    waves = [at] + [np.sqrt(2) * np.sin(np.pi * k * at) / (np.pi * k) for k in range(1, count)]
    return np.diff(np.stack(waves), axis=1).astype(np.float32)


def shades(thumbnails: np.ndarray, box: Box = (0, 1, 0, 1)) -> np.ndarray:
    """float32 [N, COARSE, COARSE]: the lowest cosines within the box, without the mean, of length 1."""
    values = cosines(*box[:2]) @ thumbnails.astype(np.float32) @ cosines(*box[2:]).T
    return without_mean(values)


def without_mean(values: np.ndarray) -> np.ndarray:
    values[..., 0, 0] = 0
    return values / np.maximum(np.linalg.norm(values, axis=(-2, -1), keepdims=True), 1e-6)


def descriptors(coarse: np.ndarray) -> np.ndarray:
    """float32 [N, COARSE² - 1] of shades: the same for all eight turns and mirror images, and as far apart at most.

    A mirror changes signs, and a quarter turn swaps the sides: of each swapped pair stand sum and difference.
    """
    size = np.abs(coarse)
    row, column = np.triu_indices(COARSE, 1)
    pairs = size[:, row, column], size[:, column, row]
    diagonal = size[:, range(1, COARSE), range(1, COARSE)]
    return np.concatenate([(pairs[0] + pairs[1]) / 2**0.5, np.abs(pairs[0] - pairs[1]) / 2**0.5, diagonal], axis=1)


def turned(values: np.ndarray, turn: int) -> np.ndarray:
    """Thumbnails [..., H, W] in one of eight ways: bit 0 mirrors, bit 1 flips, bit 2 then swaps the sides."""
    values = values[..., ::-1] if turn & 1 else values
    values = values[..., ::-1, :] if turn & 2 else values
    return values.swapaxes(-1, -2) if turn & 4 else values


def turn_fit(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """float32 [8, N]: cosine of the shades [N, COARSE, COARSE] of the left ones and of the right ones in each turn."""
    return np.einsum("nuv,tnuv->tn", left, turned_shades(right))


def turned_shades(coarse: np.ndarray) -> np.ndarray:
    """[N, COARSE, COARSE] → [8, N, COARSE, COARSE]: the shades of the picture in each turn."""
    sign = (-1.0) ** np.arange(COARSE, dtype=np.float32)
    ways = [coarse * (sign if turn & 1 else 1) * (sign[:, None] if turn & 2 else 1) for turn in range(4)]
    return np.stack([*ways, *(way.swapaxes(-1, -2) for way in ways)])


# --- details -------------------------------------------------------------------------------------------------------


def details(thumbnails: np.ndarray) -> np.ndarray:
    """float32 [N, SIDE, SIDE]: what is left without the coarse shades, mean 0 and length 1.

    Contrast is evened out (local contrast normalisation: Jarrett et al., "What is the best multi-stage architecture for
    object recognition?", ICCV 2009), or the bars of a screenshot would outweigh the picture that it shows.
    """
    values = thumbnails.astype(np.float32)
    values = values - gaussian_filter(values, (0, 1.5, 1.5), mode="nearest")
    values /= np.sqrt(gaussian_filter(values**2, (0, 2, 2), mode="nearest")) + FLAT
    values -= values.mean(axis=(-2, -1), keepdims=True)
    return values / np.maximum(np.linalg.norm(values, axis=(-2, -1), keepdims=True), 1e-6)


def _resampling(low: float, high: float, side: int = SIDE) -> np.ndarray:
    """float32 [side, side]: a side cut to the interval, as means over the pixels that it covers."""
    edges = np.linspace(0, 1, side + 1)
    target = low + (high - low) * edges
    shared = np.minimum(edges[1:], target[1:, None]) - np.maximum(edges[:-1], target[:-1, None])
    return (np.maximum(shared, 0) / np.diff(target)[:, None]).astype(np.float32)


_INTERVALS = [(low, 1 - high) for low in _EDGES for high in _EDGES]
_WHOLE = cosines(0, 1, FINE)
_FINE = np.concatenate([cosines(*interval, FINE) for interval in _INTERVALS])


def best_cut(thumbnails: np.ndarray, others: np.ndarray) -> np.ndarray:
    """int [N, 2]: which interval of rows and of columns of each thumbnail fits the whole of the other best."""
    every = _FINE @ thumbnails.astype(np.float32) @ _FINE.T
    count = len(_INTERVALS)
    boxes = without_mean(np.ascontiguousarray(every.reshape(-1, count, FINE, count, FINE).swapaxes(2, 3)))
    other = without_mean(_WHOLE @ others.astype(np.float32) @ _WHOLE.T)
    fit = np.einsum("nabuv,nuv->nab", boxes, other, optimize=True)
    return np.stack(np.unravel_index(fit.reshape(len(fit), -1).argmax(axis=1), (count, count)), axis=1)


@cache
def _cuts(side: int) -> np.ndarray:
    return np.stack([_resampling(*interval, side) for interval in _INTERVALS])


def cut(thumbnails: np.ndarray, which: np.ndarray) -> np.ndarray:
    """float32 [N, side, side]: each thumbnail, of any side, cut to the intervals that ``best_cut`` gives."""
    every = _cuts(thumbnails.shape[-1])
    return every[which[:, 0]] @ thumbnails.astype(np.float32) @ every[which[:, 1]].swapaxes(-1, -2)


# --- pairs ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Matches:
    """Thumbnails ``left``, once they are cropped, that may be ``right`` in one of eight turns; each int [M].

    ``turn`` is what makes the right one lie as the left one does.
    """

    left: np.ndarray
    right: np.ndarray
    turn: np.ndarray


def matches(thumbnails: np.ndarray, neighbours: int = NEIGHBOURS) -> Iterator[Matches]:
    """Which of N thumbnails, uint8 [N, SIDE, SIDE], have coarse shades alike; in blocks small enough for memory.

    Those that show nothing match none.
    """
    known = np.flatnonzero(thumbnails.std(axis=(1, 2)) > FLAT)
    if len(known) < 2:
        return
    whole = np.concatenate([shades(thumbnails[some]) for some in _chunks(known)])
    points = descriptors(whole)
    for (at, some), box in itertools.product(enumerate(_chunks(known)), CROPS):
        cropped = shades(thumbnails[some], box)
        row, other = nearest(descriptors(cropped), points, NEAR, neighbours + 1)
        keep = other != at * CHUNK + row
        row, other = row[keep], other[keep]
        fit = turn_fit(cropped[row], whole[other])
        alike = np.flatnonzero(fit.max(axis=0, initial=-1) >= COARSE_ALIKE)
        yield Matches(some[row[alike]], known[other[alike]], fit[:, alike].argmax(axis=0))


def nearest(queries: np.ndarray, points: np.ndarray, radius: float, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of N points lie within a radius of each of M others, at most so many of the nearest: int [K], int [K].

    All are compared with all, by products of matrices in blocks that a processor's cache holds: 2 ns a pair. In as many
    dimensions as a descriptor has, a tree looks at almost every point as well, and takes 15 times as long.

    Args:
        asked, points: float32 [M, width] and [N, width].
    """
    left = np.concatenate([-2 * queries, np.ones((len(queries), 1), dtype=np.float32)], axis=1)
    right = np.concatenate([points, (points**2).sum(axis=1, keepdims=True)], axis=1).T
    limit = radius**2 - (queries**2).sum(axis=1, keepdims=True)
    parts = []
    for at in range(0, len(left), ROWS):
        some = slice(at, at + ROWS)
        hits = []
        for to in range(0, len(points), COLUMNS):
            near = left[some] @ right[:, to : to + COLUMNS] <= limit[some]
            down, across = np.divmod(np.flatnonzero(near), near.shape[1])
            hits.append(np.stack([down + at, across + to]))
        row, column = np.concatenate(hits, axis=1)
        apart = np.linalg.norm(queries[row] - points[column], axis=1)
        order = np.lexsort((column, apart, row))
        row, column = row[order], column[order]
        place = np.arange(len(row)) - np.searchsorted(row, row)
        parts.append(np.stack([row, column])[:, place < most])
    row, column = np.concatenate([np.zeros((2, 0), dtype=int), *parts], axis=1)
    return row, column


def _chunks(rows: np.ndarray) -> Sequence[np.ndarray]:
    return [rows[at : at + CHUNK] for at in range(0, len(rows), CHUNK)]


def agreement(left: np.ndarray, right: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """float32 [M]: how far thumbnails [M, SIDE, SIDE] agree, the left cut and the right turned to fit.

    It is the smallest correlation of their details in a window, near 1 in copies; windows that are flat in both agree.
    """
    right = np.stack([turned(values, way) for values, way in zip(right, turn.tolist(), strict=True)])
    left = cut(left, best_cut(left, right))
    pair = np.stack([details(left), details(right)])
    half, steps = SIDE // 2, range(0, SIDE // 2 + 1, SIDE // 4)
    lowest = np.full(len(left), np.inf, dtype=np.float32)
    for window in (pair[..., y : y + half, x : x + half] for y, x in itertools.product(steps, steps)):
        a, b = window - window.mean(axis=(-2, -1), keepdims=True)
        shared = (a * b).sum(axis=(1, 2)) + FLAT_WINDOW
        norms = np.sqrt((a**2).sum(axis=(1, 2)) * (b**2).sum(axis=(1, 2))) + FLAT_WINDOW
        lowest = np.minimum(lowest, shared / norms)
    return lowest


def same_looks(looks: np.ndarray, least: float) -> list[tuple[int, int]]:
    """Pairs of pictures that look the same, turned, cropped by up to ``CROP`` at each edge or framed as they may be.

    Of a picture with very many copies only the ``NEIGHBOURS`` nearest are looked at, which link it to the others.

    Args:
        looks: uint8 [N, 2, SIDE, SIDE] of ``look``.
        least: the smallest correlation of their details in any window.
    """
    views = looks.reshape(-1, SIDE, SIDE)
    # A picture without a border has one thumbnail, and not the same one twice.
    distinct = np.flatnonzero((np.arange(len(views)) % 2 == 0) | (looks[:, 0] != looks[:, 1]).any((1, 2)).repeat(2))
    pairs: set[tuple[int, int]] = set()
    for match in matches(views[distinct]):
        left, right = distinct[match.left], distinct[match.right]
        for at in range(0, len(left), PAIRS_AT_ONCE):
            block = slice(at, at + PAIRS_AT_ONCE)
            apart = left[block] // 2 != right[block] // 2
            a, b, turn = left[block][apart], right[block][apart], match.turn[block][apart]
            same = agreement(views[a], views[b], turn) >= least if len(a) else np.zeros(0, dtype=bool)
            ends = np.sort(np.stack([a[same], b[same]]) // 2, axis=0)
            pairs.update(zip(*ends.tolist(), strict=True))
    return sorted(pairs)
