"""What the largest face of each frame does: named numbers of its mesh, and how likely each of seven expressions is.

Where there are several faces the largest counts, which is most often the nearest to the camera; who speaks nobody looks
for. The numbers are statistics over the frames that have a face. They say what a face does, never whose it is: no mesh,
picture or box is kept, and nobody is identified. Yet a face is personal, and in places its measuring needs consent: so
this stream is off unless it is asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pipeline.core.files import MediaError
from pipeline.core.schemas import Feature
from pipeline.encoders import face_finding, face_models, face_shape
from pipeline.encoders.face_finding import Box
from pipeline.encoders.face_models import EXPRESSIONS, FaceNets
from pipeline.media.clips import Clip
from pipeline.media.kinds import NO_FACE
from pipeline.media.sampling import Frames
from pipeline.params import EmbedFacesParams, EmbedPictureFacesParams

VERSION = 1
"""Raised when the columns mean something else than before, so that vectors kept from before are not used."""

AT_LEAST = 480
"""The shortest side that a frame must keep when it is read, in pixels: a face takes up a part of it."""

ROOM = 1.25
"""Side of the square that an expression is read from, over that of the face's box."""

GRAY = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""ITU-R BT.601: the net of expressions takes gray pictures, three times the same."""


@dataclass(frozen=True)
class FaceEncoder:
    """The stream ``faces``; see ``streams.StreamEncoder``.

    Attributes:
        picture_side: of pictures, the shortest side that they keep when they are read, in pixels; None of clips.
            Numbers of a picture are those of its largest face, and no statistics.
    """

    params: EmbedFacesParams
    nets: FaceNets
    picture_side: int | None = None

    sound_seconds = 0.0
    modality: Feature = "visual"

    @property
    def columns(self) -> tuple[str, ...]:
        if self.picture_side is not None:
            expressions = EXPRESSIONS if self.nets.expression is not None else ()
            return (*(f"mesh_{name}" for name in face_shape.NAMES), *(f"expression_{name}" for name in expressions))
        names = [f"mesh_{name}.{statistic}" for statistic in ("mean", "std", "p10", "p90") for name in face_shape.NAMES]
        if self.nets.expression is not None:
            names += [f"expression_{name}.{statistic}" for statistic in ("mean", "std") for name in EXPRESSIONS]
        return (*names, "face.share")

    @property
    def width(self) -> int:
        return len(self.columns)

    @property
    def identity(self) -> dict[str, Any]:
        identity = self.nets.identity | {"version": VERSION, "frames": self.params.frames, "width": self.width}
        return identity if self.picture_side is None else identity | {"picture": self.picture_side}

    @property
    def frame_request(self) -> Frames:
        return (self.params.frames, AT_LEAST) if self.picture_side is None else (1, self.picture_side)

    def prepare(self, clip: Clip) -> np.ndarray:
        """float32 [width]. Raises MediaError when there are no frames, or no face in any of them."""
        frames = clip.frames(*self.frame_request)
        seen = [numbers for frame in frames if (numbers := self._numbers(frame)) is not None]
        if not seen:
            raise MediaError(
                NO_FACE if self.picture_side is not None else f"{NO_FACE}: in none of {len(frames)} frames"
            )
        if self.picture_side is not None:
            return seen[0].astype(np.float32)
        mesh, expressions = np.split(np.stack(seen), [len(face_shape.NAMES)], axis=1)
        parts = [mesh.mean(axis=0), mesh.std(axis=0), *np.percentile(mesh, [10, 90], axis=0)]
        parts += [expressions.mean(axis=0), expressions.std(axis=0), [len(seen) / len(frames)]]
        return np.concatenate(parts).astype(np.float32)

    def encode(self, items: Sequence[np.ndarray], device: torch.device) -> np.ndarray:
        """What was prepared is all there is to compute: float32 [N, width]."""
        return np.stack(items)

    def _numbers(self, frame: np.ndarray) -> np.ndarray | None:
        """Of the largest face in a frame, uint8 [H, W, 3]; None where there is none."""
        seen = self._largest(frame)
        if seen is None:
            return None
        box, mesh = seen
        numbers = face_shape.measures(mesh[None], np.array([face_finding.tilt(box)]))[0]
        if self.nets.expression is None:
            return numbers
        return np.concatenate([numbers, self._expressions(frame, box)])

    def box(self, frame: np.ndarray) -> tuple[float, float, float, float] | None:
        """Where the face that is measured lies in a frame, uint8 [H, W, 3]: left, top, width and height, as shares.

        It serves to be shown to who gave the frame, and is not kept. None where there is none.
        """
        seen = self._largest(frame)
        if seen is None:
            return None
        (left, top), (right, bottom) = (seen[0].corners / (frame.shape[1], frame.shape[0])).clip(0.0, 1.0)
        return float(left), float(top), float(right - left), float(bottom - top)

    def _largest(self, frame: np.ndarray) -> tuple[Box, np.ndarray] | None:
        """The largest face and its mesh."""
        nets, sizes = self.nets, self.nets.sizes
        boxes = face_finding.find(frame, nets.detector, sizes["detector"])
        if not boxes:
            return None
        box = max(boxes, key=lambda box: box.area)
        mesh = face_finding.mesh(frame, box, nets.mesh, sizes["mesh"])
        return None if mesh is None else (box, mesh)

    def _expressions(self, frame: np.ndarray, box: Box) -> np.ndarray:
        """Probabilities, float64 [len(EXPRESSIONS)]."""
        assert self.nets.expression is not None
        size = self.nets.sizes["expression"]
        crop = face_finding.cut_out(frame, box.corners.mean(axis=0), ROOM * float(box.sides.max()), 0.0, size)
        gray = crop.astype(np.float32) @ GRAY / 255.0
        return self.nets.expression(np.repeat(gray[None, :, :, None], 3, axis=3))[0].ravel().astype(np.float64)


def load(params: EmbedFacesParams) -> FaceEncoder:
    """Loads the nets that params name, for clips. Raises InputError as ``face_models.load``."""
    return FaceEncoder(params, face_models.load(params))


def of_pictures(params: EmbedPictureFacesParams, picture_side: int) -> FaceEncoder:
    """The same for pictures, which keep so short a side; see ``FaceEncoder``."""
    return FaceEncoder(
        EmbedFacesParams(frames=1, **dict(params)), face_models.load(params, "embed.image.faces"), picture_side
    )
