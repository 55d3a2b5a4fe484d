"""What a clip, or a picture, is read by: streams, each an encoder of its own, side by side in one vector.

A clip that lacks a stream has NaN in its columns, which every net takes for the mean of the training rows. A new stream
is one module with a ``StreamEncoder``, its name in ``core.schemas.Stream``, its block in params, and a line in
``of_streams`` or ``of_pictures``.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from pipeline.core.files import MediaError
from pipeline.core.schemas import IN_WORDS, Feature, Modality, Stream
from pipeline.encoders import faces, image, ocr, speech, text, transcription, video
from pipeline.encoders.faces import FaceEncoder
from pipeline.encoders.image import ImageEncoder
from pipeline.encoders.pixels import PixelsEncoder
from pipeline.encoders.sound_features import SoundEncoder
from pipeline.encoders.text import TextEncoder
from pipeline.encoders.video import VideoEncoder
from pipeline.encoders.words import Recogniser, WordsEncoder
from pipeline.media.clips import Clip, read_clip
from pipeline.media.kinds import NO_SOUND
from pipeline.media.pictures import read_picture
from pipeline.media.sampling import Frames
from pipeline.params import EmbedImageParams, EmbedParams, EmbedVideoParams

FEWEST_OF_GROUP = 3
"""Clips of a group, at least, by which its streams can be standardised."""

STILL = MediaError(f"{NO_SOUND}: a picture")


class StreamEncoder(Protocol):
    """One stream of a clip."""

    @property
    def identity(self) -> dict[str, Any]:
        """What tells its vectors from those of any other encoder."""
        ...

    @property
    def width(self) -> int: ...

    @property
    def columns(self) -> tuple[str, ...]:
        """What its numbers are called."""
        ...

    @property
    def modality(self) -> Feature:
        """As which features of a corpus its numbers count."""
        ...

    @property
    def frame_request(self) -> Frames | None:
        """The frames that ``prepare`` looks at."""
        ...

    @property
    def sound_seconds(self) -> float:
        """How much of the sound it listens to."""
        ...

    def prepare(self, clip: Clip) -> Any:
        """What ``encode`` takes of a clip; threads call it. Raises MediaError when the clip has nothing of it."""
        ...

    def encode(self, items: Sequence[Any], device: torch.device, /) -> np.ndarray:
        """float32 [len(items), width]."""
        ...


Ready = Mapping[Stream, np.ndarray | str | MediaError]
"""A clip as its encoders take it, stream by stream: arrays, and words as they are; or why a stream is not there."""


@dataclass(frozen=True)
class ClipEncoder:
    """The streams of a clip, in the order of their columns, which is that of their names.

    Attributes:
        picture_side: of pictures, which are clips of one frame that nobody hears, the shortest side that they keep when
            they are read, in pixels, for all of their streams; None of clips.
    """

    streams: Mapping[Stream, StreamEncoder]
    batch: int
    per_group: bool = False
    picture_side: int | None = None

    @property
    def identity(self) -> dict[str, Any]:
        identities = {name: stream.identity for name, stream in self.streams.items()}
        return {"name": "+".join(identities), "width": self.width, "per_group": self.per_group, "streams": identities}

    @property
    def width(self) -> int:
        return sum(stream.width for stream in self.streams.values())

    @property
    def frames(self) -> VideoEncoder | None:
        """The stream of pictures, which can be tuned."""
        stream = self.streams.get("frames")
        return stream if isinstance(stream, VideoEncoder) else None

    @property
    def pixels(self) -> ImageEncoder | None:
        """What encodes a picture as it is, which can be tuned."""
        stream = self.streams.get("pixels")
        return stream.image if isinstance(stream, PixelsEncoder) else None

    @property
    def faces(self) -> FaceEncoder | None:
        """The stream of faces, which can say where they are."""
        stream = self.streams.get("faces")
        return stream if isinstance(stream, FaceEncoder) else None

    @property
    def recognisers(self) -> dict[Stream, Recogniser]:
        """What tells the words of the streams that are made of words, which are kept by themselves."""
        return {name: stream.recogniser for name, stream in self.streams.items() if isinstance(stream, WordsEncoder)}

    def read_request(
        self, names: Sequence[Stream] | None = None, recognisers: Sequence[Recogniser] = ()
    ) -> dict[str, Any]:
        """What ``read_clip`` is to read for these streams, or for all of them, and for these ``recognisers``;
        first what `frames` looks at."""
        requested = sorted(self.streams if names is None else names, key=lambda name: name != "frames")
        some = [*(self.streams[name] for name in requested), *recognisers]
        frames = list(dict.fromkeys(reader.frame_request for reader in some if reader.frame_request is not None))
        return {"frames": frames, "sound_seconds": max((reader.sound_seconds for reader in some), default=0.0)}

    def read(
        self,
        source: Path | bytes,
        max_pixels: int,
        names: Sequence[Stream] | None = None,
        recognisers: Sequence[Recogniser] = (),
        **limits: float,
    ) -> Clip:
        """What these streams look at and listen to, from one opening; ``limits`` as ``read_clip`` takes them.

        Raises MediaError.
        """
        if self.picture_side is None:
            return read_clip(source, max_pixels=max_pixels, **limits, **self.read_request(names, recognisers))
        return self.of_picture(read_picture(source, max_pixels=max_pixels, at_least=self.picture_side))

    def of_picture(self, picture: np.ndarray) -> Clip:
        """A picture that was read, uint8 [H, W, 3], as streams of pictures take it."""
        return Clip({(1, self.picture_side): [picture]}, STILL)

    def prepare(self, clip: Clip, names: Sequence[Stream] | None = None) -> Ready:
        """Each stream of the clip, ready to be encoded, or why it is not there; see ``first_reason``."""
        ready: dict[Stream, np.ndarray | str | MediaError] = {}
        for name in self.streams if names is None else names:
            try:
                ready[name] = self.streams[name].prepare(clip)
            except MediaError as error:
                ready[name] = error
        return ready

    def encode(self, clips: Sequence[Ready], device: torch.device) -> np.ndarray:
        """float32 [N, width], with NaN where a stream is not there. What several clips share is encoded once."""
        vectors = np.full((len(clips), self.width), np.nan, dtype=np.float32)
        for name, columns in slices(self.identity).items():
            have = [at for at, clip in enumerate(clips) if isinstance(clip.get(name), np.ndarray | str)]
            if have:
                items: dict[int, Any] = {id(clips[at][name]): clips[at][name] for at in have}
                encoded = dict(zip(items, self.streams[name].encode(list(items.values()), device), strict=True))
                vectors[have, columns] = np.stack([encoded[id(clips[at][name])] for at in have])
        return vectors


def first_reason(ready: Ready) -> MediaError | None:
    """Why nothing of a clip can be used; None where something can."""
    reasons = [error for error in ready.values() if isinstance(error, MediaError)]
    return reasons[0] if len(reasons) == len(ready) else None


def slices(identity: Mapping[str, Any]) -> dict[Stream, slice]:
    """The columns of each stream in the vector of a clip, by its encoder's ``identity``; none of any other encoder."""
    widths = {name: stream["width"] for name, stream in sorted(identity.get("streams", {}).items())}
    ends = list(accumulate(widths.values()))
    return {name: slice(end - width, end) for (name, width), end in zip(widths.items(), ends, strict=True)}


def load(embed: EmbedParams, texts: TextEncoder | None = None) -> ClipEncoder:
    """Loads the encoders of the streams that params ``embed.video`` names, but ``texts`` where it is loaded already.

    Raises InputError as ``image.load``.
    """
    names = embed.video.streams
    pictures = image.load(embed.video, "embed.video") if "frames" in names else None
    if texts is None and set(names) & set(IN_WORDS):
        texts = text.load(embed.text)
    return of_streams(embed.video, pictures, texts)


def reads_words(embed: EmbedParams, modalities: Collection[Modality]) -> bool:
    """Whether the encoder of texts is needed for streams of these modalities."""
    read: dict[Modality, Sequence[Stream]] = {"image": embed.image.streams, "video": embed.video.streams}
    return any(set(its) & set(IN_WORDS) for name, its in read.items() if name in modalities)


def of_pictures(
    params: EmbedImageParams, pixels: ImageEncoder | None, texts: TextEncoder | None
) -> ImageEncoder | ClipEncoder:
    """What pictures are read by: ``pixels`` as it is, where params name no stream beside it.

    Raises InputError as ``faces.load`` and ``ocr.load``.
    """
    if params.streams == ("pixels",):
        assert pixels is not None
        return pixels
    sides: dict[Stream, int] = {"faces": faces.AT_LEAST, "words": params.words.shortest}
    if pixels is not None:
        sides["pixels"] = pixels.at_least
    picture_side = max(sides[name] for name in params.streams)
    streams: dict[Stream, StreamEncoder] = {}
    if "faces" in params.streams:
        streams["faces"] = faces.of_pictures(params.faces, picture_side)
    if "pixels" in params.streams:
        assert pixels is not None
        streams["pixels"] = PixelsEncoder(pixels, picture_side)
    if "words" in params.streams:
        assert texts is not None
        streams["words"] = WordsEncoder("words", "visual", ocr.of_pictures(params.words, picture_side), texts)
    return ClipEncoder(streams, params.batch, picture_side=picture_side)


def of_streams(params: EmbedVideoParams, pictures: ImageEncoder | None, texts: TextEncoder | None) -> ClipEncoder:
    """The streams that params name; ``pictures`` encodes frames, and ``texts`` words, where they are among them."""
    streams: dict[Stream, StreamEncoder] = {}
    if "faces" in params.streams:
        streams["faces"] = faces.load(params.faces)
    if "frames" in params.streams:
        assert pictures is not None
        streams["frames"] = video.on_frames(pictures, params)
    if "sound" in params.streams:
        streams["sound"] = SoundEncoder(params.sound)
    if "speech" in params.streams:
        streams["speech"] = speech.load(params.speech)
    if "transcript" in params.streams:
        assert texts is not None
        streams["transcript"] = WordsEncoder("transcript", "text", transcription.load(params.transcript), texts)
    if "words" in params.streams:
        assert texts is not None
        streams["words"] = WordsEncoder("words", "visual", ocr.load(params.words), texts)
    return ClipEncoder(streams, max(params.batch // params.frames, 1), params.per_group)


def per_group(vectors: np.ndarray, groups: np.ndarray, columns: Mapping[Stream, slice]) -> np.ndarray:
    """Each stream's columns, float32 [N, width], standardised within every group by the group's own clips alone.

    A stream of which a group has fewer than ``FEWEST_OF_GROUP`` clips is not there: NaN.
    """
    standardised = np.full_like(vectors, np.nan)
    codes = np.unique(groups, return_inverse=True)[1]
    for code in range(int(codes.max(initial=-1)) + 1):
        rows = np.flatnonzero(codes == code)
        for part in columns.values():
            values = vectors[rows, part].astype(np.float64)
            have = ~np.isnan(values).any(axis=1)
            if have.sum() >= FEWEST_OF_GROUP:
                spread = values[have].std(axis=0)
                values[have] = (values[have] - values[have].mean(axis=0)) / np.where(spread > 1e-6, spread, 1.0)
                standardised[rows[have], part] = values[have]
    return standardised
