"""What copies of clips are found by: all that is shown and heard at the beginning, and a digest of the pictures."""

import hashlib
import math
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from PIL import Image

from pipeline.core.files import MediaError, reading
from pipeline.media.animations import ANIMATED, each_frame
from pipeline.media.containers import open_container, video_stream
from pipeline.media.limits import MediaLimits, check_size, first_bytes
from pipeline.media.pictures import opened, picture_reader, rgb
from pipeline.media.sound import open_sound


@dataclass(frozen=True)
class Footage:
    """The beginning of a clip, small: what is shown, frame by frame, and what is heard.

    Attributes:
        starts: float64 [F], when each frame is shown, in seconds, ascending from 0.
        frames: uint8 [F, side, side], gray, means over the frame's pixels.
        sound: float32 [samples], as of ``Clip.sound``; empty where nothing is heard.
    """

    starts: np.ndarray
    frames: np.ndarray
    sound: np.ndarray


def read_footage(path: Path, *, side: int, seconds: float, max_pixels: int) -> Footage:
    """All frames and the sound of a clip's first ``seconds``, or the frames of an animated picture.

    A frame lies as it is stored, whatever turn the file asks for, and frames that cannot be decoded are left out.

    Raises:
        MediaError: as ``read_clip``; a clip that is cut short gives what there is of it.
    """
    limits = MediaLimits(max_pixels, math.inf, math.inf)
    with reading(path) as handle:
        reader = picture_reader(first_bytes(handle))
        if reader in ANIMATED:
            return _animated_footage(handle, side, seconds, limits)
    if reader is not None:
        raise MediaError("not a clip")
    try:
        with open_container(path) as container:
            return _video_footage(container, side, seconds, limits)
    except FFmpegError:
        raise MediaError("corrupt") from None


def _animated_footage(handle: BufferedReader, side: int, seconds: float, limits: MediaLimits) -> Footage:
    starts, frames, end = [], [], 0.0
    with opened(handle, limits.max_pixels) as image:
        for _ in each_frame(image, limits):
            if end > seconds:
                break
            starts.append(end)
            frames.append(_small_gray(np.asarray(Image.fromarray(rgb(image)).convert("L")), side))
            end += max(float(image.info.get("duration", 0)), 1.0) / 1000
    return Footage(np.array(starts), np.stack(frames), np.zeros(0, dtype=np.float32))


def _video_footage(container: InputContainer, side: int, seconds: float, limits: MediaLimits) -> Footage:
    stream, sound_reader = video_stream(container), open_sound(container, seconds)
    check_size(stream.codec_context.width, stream.codec_context.height, limits.max_pixels)
    starts: list[float] = []
    frames: list[np.ndarray] = []
    for packet in container.demux(stream, *sound_reader.streams):
        if packet.stream is not stream:
            sound_reader.take(packet)
            continue
        for frame in packet.decode():
            assert isinstance(frame, VideoFrame)
            check_size(frame.width, frame.height, limits.max_pixels)  # a stream may change its size on the way
            if frame.pts is not None and (not starts or frame.time > starts[-1]):
                starts.append(frame.time)
                frames.append(_small_gray(frame.reformat(format="gray").to_ndarray(), side))
        if starts and starts[-1] - starts[0] > seconds:
            break
    if not starts:
        raise MediaError("no frames")
    decoded = sound_reader.decoded_sound()
    sound = np.zeros(0, dtype=np.float32) if isinstance(decoded, MediaError) else decoded
    return Footage(np.array(starts) - starts[0], np.stack(frames), sound)


def _small_gray(gray: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(gray).resize((side, side), Image.Resampling.BOX))


def pictures_digest(path: Path) -> str:
    """SHA-256 of a clip's encoded pictures, hexadecimal: the same in whichever container they are, and without sound.

    Nothing is decoded. Raises MediaError where there is no clip, or one without pictures.
    """
    digest = hashlib.sha256()
    try:
        with open_container(path) as container:
            for packet in container.demux(video_stream(container)):
                digest.update(packet.size.to_bytes(8, "big") + bytes(packet) if packet.size else b"")
    except FFmpegError:
        raise MediaError("corrupt") from None
    return digest.hexdigest()
