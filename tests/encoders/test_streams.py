"""The streams of a clip as one encoder: what several clips share is encoded once, and `frames` are asked for first."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from pipeline.core.files import MediaError
from pipeline.core.schemas import Feature
from pipeline.encoders.streams import ClipEncoder, slices
from pipeline.media.clips import Clip
from pipeline.media.sampling import Frames


@dataclass
class Doubling:
    """A stream of one number: twice what it was given."""

    frame_request: Frames | None = None
    sound_seconds: float = 0.0
    width: int = 1
    columns: tuple[str, ...] = ("twice",)
    modality: Feature = "visual"
    encoded: list[int] = field(default_factory=list)

    @property
    def identity(self) -> dict[str, Any]:
        return {"name": "doubling", "width": self.width}

    def prepare(self, clip: Clip) -> np.ndarray:
        return clip.sound()

    def encode(self, items: Sequence[np.ndarray], device: torch.device) -> np.ndarray:
        self.encoded.append(len(items))
        return 2 * np.stack(items)


def test_what_several_clips_share_is_encoded_once() -> None:
    seen, heard = Doubling(), Doubling()
    encoder = ClipEncoder({"sound": heard, "frames": seen}, batch=4)
    shared = np.array([5.0], np.float32)
    clips = [
        {"frames": np.array([1.0], np.float32), "sound": shared},
        {"frames": MediaError("no frames"), "sound": shared},
        {"frames": np.array([3.0], np.float32), "sound": MediaError("no sound")},
    ]
    vectors = encoder.encode(clips, torch.device("cpu"))  # pyright: ignore[reportArgumentType]
    np.testing.assert_array_equal(vectors, [[2, 10], [np.nan, 10], [6, np.nan]])
    assert (seen.encoded, heard.encoded) == ([2], [1])
    assert slices(encoder.identity) == {"frames": slice(0, 1), "sound": slice(1, 2)}


def test_frames_are_asked_for_first() -> None:
    encoder = ClipEncoder({"faces": Doubling((8, 480)), "frames": Doubling((8, 224)), "sound": Doubling(None, 9.0)}, 4)
    assert encoder.read_request() == {"frames": [(8, 224), (8, 480)], "sound_seconds": 9.0}
    assert encoder.read_request(["faces"]) == {"frames": [(8, 480)], "sound_seconds": 0.0}
