"""Frames and sound of clips and animated pictures, from one opening of the file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from av.error import FFmpegError

from pipeline.core.files import MediaError, reading
from pipeline.media.animations import ANIMATED, animation_frames
from pipeline.media.containers import open_container, video_stream
from pipeline.media.decoding import shown_frames
from pipeline.media.kinds import NO_SOUND
from pipeline.media.limits import MediaLimits, first_bytes
from pipeline.media.pictures import picture_reader
from pipeline.media.sampling import Frames
from pipeline.media.sound import open_sound, read_sound
from pipeline.media.timeline import read_timeline


@dataclass(frozen=True)
class Clip:
    """What was asked for of a clip: the frames that are ``shown``, and its ``decoded_sound``.

    A MediaError in place of either says why there is none of it.
    """

    shown: Mapping[Frames, Sequence[np.ndarray]] | MediaError
    decoded_sound: np.ndarray | MediaError

    def frames(self, count: int, at_least: int | None = None) -> list[np.ndarray]:
        """Uniformly spaced frames that were asked for, each uint8 [H, W, 3], RGB, in order of time.

        The clip's duration is cut into ``count`` equal intervals; taken is what is on screen at the middle of each, by
        presentation time, so a variable frame rate is done justice. A frame that is on screen at several of these
        moments is taken once. A clip with no more frames than asked gives all it has. A video's frames are shrunk by a
        whole factor to a shortest side of no less than ``at_least``.

        Raises MediaError when there are none.
        """
        if isinstance(self.shown, MediaError):
            raise self.shown
        return list(self.shown[count, at_least])

    def sound(self) -> np.ndarray:
        """The clip's own sound, float32 [samples], mono, ``SOUND_RATE`` a second. Raises MediaError without any."""
        if isinstance(self.decoded_sound, MediaError):
            raise self.decoded_sound
        return self.decoded_sound


def read_clip(
    source: Path | bytes,
    *,
    frames: Sequence[Frames] = (),
    sound_seconds: float = 0.0,
    max_pixels: int,
    max_seconds: float = math.inf,
    deadline: float = math.inf,
) -> Clip:
    """Frames and sound of a clip, or the frames of an animated picture, from one opening of the file.

    Args:
        source: a file, or the bytes of one.
        frames: which are wanted; none is decoded twice, and held are only those that are returned.
        sound_seconds: how much of the sound's beginning is wanted, whether or not there are pictures to it.
        max_pixels: a clip whose frames are larger is refused before any is decoded.
        max_seconds: a clip that is shown for longer is refused before any frame of a video is decoded.
        deadline: a moment of ``time.monotonic``; looked at between packets and frames.

    Raises:
        MediaError: no readable mp4, mov, mkv, WebM or AVI, GIF, PNG or WebP; cut short; too large or too long; not read
            by the deadline. A clip without pictures, or without sound, is none of these: see ``Clip``.
    """
    limits = MediaLimits(max_pixels, max_seconds, deadline)
    with reading(source) as handle:
        reader = picture_reader(first_bytes(handle))
        if reader in ANIMATED:
            return Clip(animation_frames(handle, frames, limits), MediaError(f"{NO_SOUND}: an animated picture"))
    if reader is not None:
        raise MediaError("not a clip")
    return _video_clip(source, frames, sound_seconds, limits)


def read_frames(
    source: Path | bytes,
    *,
    frames: int,
    max_pixels: int,
    at_least: int | None = None,
    max_seconds: float = math.inf,
    deadline: float = math.inf,
) -> list[np.ndarray]:
    """Uniformly spaced frames of a clip or an animated picture, as of ``Clip.frames``.

    Arguments and errors as of ``read_clip``.
    """
    request = (frames, at_least)
    clip = read_clip(source, frames=[request], max_pixels=max_pixels, max_seconds=max_seconds, deadline=deadline)
    return clip.frames(*request)


def _video_clip(source: Path | bytes, requests: Sequence[Frames], sound_seconds: float, limits: MediaLimits) -> Clip:
    try:
        with open_container(source) as container:
            sound_reader = open_sound(container, sound_seconds)
            try:
                stream = video_stream(container)
            except MediaError as error:
                read_sound(container, sound_reader, limits)
                return Clip(error, sound_reader.decoded_sound())
            timeline = read_timeline(container, stream, sound_reader, limits)
            return Clip(shown_frames(container, stream, timeline, requests, limits), sound_reader.decoded_sound())
    except FFmpegError:
        raise MediaError("corrupt") from None
