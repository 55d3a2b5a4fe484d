"""Where faces are in a picture, and the mesh of one: BlazeFace's boxes and the 468 points of FaceMesh.

Nets come in as functions, so that nothing here knows a runtime or a file. Whose face it is nothing here can tell: boxes
and points say where a mouth is, and how far it is open.

Sources: Bazarevsky et al., "BlazeFace: sub-millisecond neural face detection on mobile GPUs", 2019; Kartynnik et al.,
"Real-time facial surface geometry from monocular video on mobile GPUs", 2019; the anchors, thresholds and margins are
those of MediaPipe's graphs ``face_detection_short_range`` and ``face_landmark_front``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

Net = Callable[[np.ndarray], Sequence[np.ndarray]]
"""A batch of one, float32 [1, S, S, 3] → what the net puts out, in its order."""

POINTS = 468
"""Points of the mesh; nets that see irises too put out ten more behind these."""

LIKELY = 0.5
"""From this probability on it is a face."""

OVERLAP = 0.3
"""Boxes that share more than this part of their union are of one face."""

MARGIN = 1.5
"""Side of the square that the mesh is sought in, over that of the face's box."""

RIGHT_EYE, LEFT_EYE = 0, 1
"""Of the six points that come with a box; right and left are the person's own."""


@dataclass(frozen=True)
class Box:
    """A face in a picture, in pixels.

    Attributes:
        corners: float64 [2, 2], upper left and lower right, each x and y.
        points: float64 [6, 2]: eyes, tip of the nose, mouth, ears.
    """

    corners: np.ndarray
    points: np.ndarray

    @property
    def sides(self) -> np.ndarray:
        return self.corners[1] - self.corners[0]

    @property
    def area(self) -> float:
        return float(self.sides.prod())


def anchors(size: int, rows: int) -> np.ndarray:
    """Where the ``rows`` of a detector for pictures of ``size`` pixels sit, float64 [rows, 2], of 1.

    Two a cell on a grid of an eighth (a sixteenth, for pictures of 256 pixels) of the size, six on one half as fine.
    Raises ValueError for a detector of another kind.
    """
    fine = size // 8 if size <= 128 else size // 16
    parts = []
    for cells, times in ((fine, 2), (fine // 2, 6)):
        middles = (np.arange(cells) + 0.5) / cells
        x, y = np.meshgrid(middles, middles)
        parts.append(np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), times, axis=0))
    centres = np.concatenate(parts)
    if len(centres) != rows:
        raise ValueError(f"a detector of {rows} boxes for pictures of {size} pixels is none that is known")
    return centres


def find(picture: np.ndarray, detector: Net, size: int) -> list[Box]:
    """The faces of a picture, uint8 [H, W, 3], the likeliest first; each once."""
    height, width = picture.shape[:2]
    longest = max(height, width)
    left, top = (longest - width) / 2, (longest - height) / 2
    square = Image.fromarray(picture).transform(
        (size, size),
        Image.Transform.EXTENT,
        (-left, -top, longest - left, longest - top),
        Image.Resampling.BILINEAR,
    )
    if longest > 2 * size:  # one pixel in two or more would be looked at; a smaller picture has them all in it
        small = Image.fromarray(picture).resize(
            (max(round(width * size / longest), 1), max(round(height * size / longest), 1)), Image.Resampling.BILINEAR
        )
        square = Image.new("RGB", (size, size))
        square.paste(small, (round(left * size / longest), round(top * size / longest)))
    pixels = np.asarray(square, dtype=np.float32)[None] / 127.5 - 1.0
    outputs = sorted(detector(pixels), key=lambda output: -output.shape[-1])
    raw, scores = outputs[0][0].astype(np.float64), outputs[1][0, :, 0].astype(np.float64)
    likely = np.flatnonzero(scores > np.log(LIKELY / (1 - LIKELY)))
    if not len(likely):
        return []
    values = raw[likely].reshape(len(likely), -1, 2) / size
    middles = anchors(size, len(raw))[likely]
    centre, half = values[:, 0] + middles, values[:, 1] / 2
    points = values[:, 2:] + middles[:, None]
    shift = np.array([left, top])
    corners = np.stack([centre - half, centre + half], axis=1) * longest - shift
    boxes = [Box(box, box_points * longest - shift) for box, box_points in zip(corners, points, strict=True)]
    order = np.argsort(-scores[likely], kind="stable")
    return _once([boxes[at] for at in order])


def _once(boxes: Sequence[Box]) -> list[Box]:
    kept: list[Box] = []
    for box in boxes:
        if (box.sides > 0).all() and all(_overlap(box, other) <= OVERLAP for other in kept):
            kept.append(box)
    return kept


def _overlap(a: Box, b: Box) -> float:
    """Shared area over that of the union."""
    sides = np.minimum(a.corners[1], b.corners[1]) - np.maximum(a.corners[0], b.corners[0])
    shared = float(np.maximum(sides, 0.0).prod())
    return shared / (a.area + b.area - shared)


def cut_out(picture: np.ndarray, centre: np.ndarray, side: float, angle: float, size: int) -> np.ndarray:
    """A turned square of a picture, uint8 [size, size, 3]: what lies at ``angle`` (radians) becomes level."""
    cos, sin = np.cos(angle) * side / size, np.sin(angle) * side / size
    start = centre - np.array([cos - sin, sin + cos]) * size / 2
    image = Image.fromarray(picture)
    factor = int(side // (2 * size))
    if factor > 1:  # far more pixels than are wanted: a mean of them, and not one in many
        image = image.reduce(factor)
        cos, sin, start = cos / factor, sin / factor, start / factor
    turned = image.transform(
        (size, size), Image.Transform.AFFINE, (cos, -sin, start[0], sin, cos, start[1]), Image.Resampling.BILINEAR
    )
    return np.asarray(turned)


def mesh(picture: np.ndarray, box: Box, net: Net, size: int) -> np.ndarray | None:
    """The points of a face's surface, float64 [POINTS, 3], in pixels of the picture but for the origin, and level.

    The face is turned level by its eyes before its mesh is sought, and the points stay so; see ``tilt``. ``z`` grows
    away from the camera. None where the net sees no face.
    """
    side = MARGIN * float(box.sides.max())
    crop = cut_out(picture, box.corners.mean(axis=0), side, tilt(box), size)
    outputs = sorted(net(crop.astype(np.float32)[None] / 255.0), key=lambda output: -output.size)
    points, seen = outputs[0].reshape(-1, 3)[:POINTS].astype(np.float64), float(outputs[1].ravel()[0])
    return points * (side / size) if seen > np.log(LIKELY / (1 - LIKELY)) else None


def tilt(box: Box) -> float:
    """The angle of the line from the person's right eye to the left one, in radians, clockwise as pictures have it."""
    across = box.points[LEFT_EYE] - box.points[RIGHT_EYE]
    return float(np.arctan2(across[1], across[0]))
