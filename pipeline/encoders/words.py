"""Words of a clip, said or shown, as a stream: whoever recognises them, the encoder of texts makes a vector of them.

Words are kept in a store of their own, so that another encoder of texts asks nobody again, and never printed.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch

from pipeline.core.schemas import Feature, Stream
from pipeline.encoders.text import LEAST_TOKENS, TextEncoder
from pipeline.media.clips import Clip
from pipeline.media.sampling import Frames


@dataclass(frozen=True)
class Words:
    """What is said or shown in a clip; ``language`` is a code such as ``en``, None where nobody tells."""

    text: str
    language: str | None

    def packed(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False).encode()

    @classmethod
    def unpacked(cls, data: bytes) -> "Words":
        return cls(**json.loads(data))


class Recogniser(Protocol):
    """What tells the words of a clip."""

    @property
    def identity(self) -> dict[str, Any]:
        """What tells its words from those of any other; with a ``width`` of 0, for they are no vector."""
        ...

    @property
    def frame_request(self) -> Frames | None:
        """The frames that it looks at."""
        ...

    @property
    def sound_seconds(self) -> float:
        """How much of the sound it listens to."""
        ...

    def recognise(self, clip: Clip) -> Words:
        """The words of a clip; threads call it. Raises MediaError where there are none."""
        ...


@dataclass(frozen=True)
class WordsEncoder:
    """A stream of words by the encoder of texts; see ``streams.StreamEncoder``."""

    stream: Stream
    modality: Feature
    recogniser: Recogniser
    texts: TextEncoder

    @property
    def identity(self) -> dict[str, Any]:
        recogniser = self.recogniser.identity
        return {
            "name": recogniser["name"],
            "revision": recogniser["revision"],
            "sha256": recogniser["sha256"],
            "words": recogniser,
            "text": self.texts.identity,
            "width": self.width,
        }

    @property
    def width(self) -> int:
        return self.texts.width

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"{self.stream}_{at:04d}" for at in range(self.width))

    @property
    def frame_request(self) -> Frames | None:
        return self.recogniser.frame_request

    @property
    def sound_seconds(self) -> float:
        return self.recogniser.sound_seconds

    def prepare(self, clip: Clip) -> str:
        """Raises MediaError where there are no words."""
        return self.recogniser.recognise(clip).text

    def encode(self, items: Sequence[str], device: torch.device) -> np.ndarray:
        """Texts → float32 [N, width], each by itself, so that none depends on what else is encoded."""
        tokens = self.texts.tokenize(items)
        vectors = [self.texts.encode_tokens([row], device, least_tokens=LEAST_TOKENS) for row in tokens]
        return np.concatenate(vectors)
