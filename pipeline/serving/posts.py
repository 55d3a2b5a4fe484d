"""What is asked and what is answered: posts, predictions, explanations."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.core import artifacts
from pipeline.core.files import MediaError
from pipeline.core.schemas import Modality, Stream
from pipeline.encoders.streams import Ready
from pipeline.media.clips import Clip

State = Literal["present", "absent", "unreadable"]


@dataclass(frozen=True)
class Prepared:
    """A picture, float32 [3, S, S], or a clip or picture stream by stream, as their encoders take them."""

    values: np.ndarray | Ready


@dataclass(frozen=True)
class Post:
    """What is predicted from: any of the three.

    Attributes:
        image: a file, the bytes of one, or pixels, uint8 [H, W, 3], RGB, upright.
        video: a file, the bytes of one, what was read of one, or frames in order, each as such pixels.

    A MediaError in place of a picture or clip says beforehand why there is none.
    """

    text: str | None = None
    image: Path | bytes | np.ndarray | Prepared | MediaError | None = None
    video: Path | bytes | Clip | Sequence[np.ndarray] | Prepared | MediaError | None = None


@dataclass(frozen=True)
class StreamAnswer:
    """What one stream of a clip or picture did, its frames or its sound, say; ``reason`` says why it is not there.

    ``change`` is the log-odds of the predicted label less what they are without the stream.
    """

    present: bool
    reason: str | None
    change: float


@dataclass(frozen=True)
class ModalityAnswer:
    """What became of one modality of a post, and what it did.

    Attributes:
        reason: why it is absent or unreadable, where there is more to say than that nothing was given.
        change: log-odds of the predicted label less what they are with the modality masked; above 0 it spoke for the
            label.
        share: ``|change|`` as a share of that of all modalities that are there; 0 where it is not there.
        alone: label → probability by the specialist, which sees this modality only; None where it is not there.
        streams: of a clip that is there, and of a picture that is read by streams, by stream; None of others.
    """

    state: State
    reason: str | None
    change: float
    share: float
    alone: dict[str, float] | None
    streams: dict[Stream, StreamAnswer] | None = None

    def as_json(self) -> dict[str, Any]:
        streams = None if self.streams is None else {name: vars(answer) for name, answer in self.streams.items()}
        return vars(self) | {"streams": streams}


@dataclass(frozen=True)
class Prediction:
    """Attributes:
    label: the class that is decided for; a rare one is at a lower probability, so it need not be the likeliest.
    probabilities: label → calibrated probability, in the model's order of labels.
    parts: modality → what became of it, for all of ``MODALITIES``.
    labels_in_set: labels that cannot be ruled out at the coverage that was asked for; None where none was.
    """

    label: str
    probabilities: dict[str, float]
    parts: dict[Modality, ModalityAnswer]
    labels_in_set: list[str] | None

    @property
    def reasons(self) -> str | None:
        """``image: truncated; video: not a clip``; None where all that was given, and something was, could be used."""
        reasons = [f"{name}: {part.reason}" for name, part in self.parts.items() if part.reason]
        if not reasons and all(part.state == "absent" for part in self.parts.values()):
            return "nothing given"
        return "; ".join(reasons) or None

    @property
    def refusal(self) -> str | None:
        """Why this is no answer, but what the model says of a post of which it knows nothing; None where it is one."""
        if any(part.state == "present" for part in self.parts.values()):
            return None
        return f"nothing to predict from: {self.reasons}"

    def as_json(self) -> dict[str, Any]:
        return artifacts.rounded(
            {
                "label": self.label,
                "probabilities": self.probabilities,
                "set": self.labels_in_set,
                "modalities": {name: part.as_json() for name, part in self.parts.items()},
            }
        )


@dataclass(frozen=True)
class Explanation:
    """What the log-odds of ``label`` lose when a piece is taken away; above 0, the piece spoke for the label.

    Occlusion as in Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014.

    Attributes:
        words: (word, where it starts in the text, change), for the first words of the text.
        patches: float64 [rows, columns], changes with that patch of the picture painted in its mean colour.
        frames: changes with that frame of the clip left out.
    """

    label: str
    words: list[tuple[str, int, float]] | None
    patches: np.ndarray | None
    frames: list[float] | None

    def as_json(self) -> dict[str, Any]:
        words = self.words and [{"word": word, "start": start, "change": change} for word, start, change in self.words]
        patches = None if self.patches is None else self.patches.tolist()
        return artifacts.rounded({"label": self.label, "words": words, "patches": patches, "frames": self.frames})

    def as_field(self) -> dict[str, Any]:
        return {"explanation": self.as_json()}
