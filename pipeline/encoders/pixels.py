"""What a picture shows, as a stream beside its faces and its words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pipeline.core.schemas import Feature
from pipeline.encoders.image import ImageEncoder
from pipeline.media.clips import Clip
from pipeline.media.sampling import Frames


@dataclass(frozen=True)
class PixelsEncoder:
    """The stream ``pixels``; see ``streams.StreamEncoder``.

    Attributes:
        picture_side: the shortest side that a picture keeps when it is read, in pixels.
    """

    image: ImageEncoder
    picture_side: int

    sound_seconds = 0.0
    modality: Feature = "visual"

    @property
    def identity(self) -> dict[str, Any]:
        return self.image.identity | {"picture": self.picture_side}

    @property
    def width(self) -> int:
        return self.image.width

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"pixels_{at:04d}" for at in range(self.width))

    @property
    def frame_request(self) -> Frames:
        return 1, self.picture_side

    def prepare(self, clip: Clip) -> np.ndarray:
        """float32 [3, S, S]."""
        return self.image.preprocess(clip.frames(*self.frame_request)[0])

    def encode(self, items: Sequence[np.ndarray], device: torch.device) -> np.ndarray:
        """Preprocessed pictures → float32 [N, width]."""
        return self.image.encode(np.stack(items), device, fixed=True)
