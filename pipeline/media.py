"""Pictures, clips and their sound on disk → arrays, safely: no file may crash, hang or exhaust who reads it.

Each file is judged by its bytes, never by its name. Only formats of two short lists are opened, sizes are checked in
the header before anything is unpacked, and a file that is cut short is refused rather than half read. Every refusal is
a MediaError; what stands before its colon is one of few kinds, fit for counting.
"""

import hashlib
import logging
import math
import struct
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from io import BufferedReader, BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin
from PIL.ExifTags import Base as ExifTag
from PIL.ImageFile import ImageFile

from pipeline.core.files import MediaError, reading

CLIP_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi"
"""What FFmpeg may take a file for. Left to itself it also follows playlists, which name other files and addresses."""

TOLERANT: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
"""A title that is no UTF-8 is no reason to refuse a clip; from 19 on PyAV lets it pass by itself."""

SOUND_RATE = 16_000
"""Samples of sound a second, as encoders of speech have it: what carries a voice lies below half of that."""

NO_SOUND = "no sound"
"""The kind of a MediaError where nothing is to be heard, which is no fault of the file."""

NO_WORDS = "no words"
"""The kind of a MediaError where nobody is heard to speak, or nothing is written."""

NO_FACE = "no face"
"""The kind of a MediaError where no face is to be seen, which is no fault of the file either."""

NO_PICTURES = "no video stream"
"""The kind of a MediaError where a clip is heard and not seen."""

UNKNOWN_CODEC, UNDECODED = "unknown codec", "its audio track cannot be decoded"
"""What lies behind the colon where another release of FFmpeg may know better."""

UNREADABLE = (
    *(OSError, SyntaxError, EOFError, ValueError, IndexError, KeyError, TypeError, AssertionError, struct.error),
    zlib.error,
)
"""What Pillow's readers raise on damaged files; each is a bug of the file, and none says so in one way."""

ANIMATED = (GifImagePlugin.GifImageFile, PngImagePlugin.PngImageFile, WebPImagePlugin.WebPImageFile)
"""Pillow's readers of pictures that may have several frames, and so be clips."""

TRANSPOSE: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda picture: picture[:, ::-1],
    3: lambda picture: picture[::-1, ::-1],
    4: lambda picture: picture[::-1],
    5: lambda picture: picture.swapaxes(0, 1),
    6: lambda picture: np.rot90(picture, -1),
    7: lambda picture: picture[::-1, ::-1].swapaxes(0, 1),
    8: lambda picture: np.rot90(picture),
}
"""EXIF orientation → the turn that sets the picture upright (Exif 2.32, tag 0x0112)."""


def _head(handle: BufferedReader) -> bytes:
    head = handle.read(16)
    handle.seek(0)
    if not head:
        raise MediaError("0 bytes")
    return head


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise MediaError(f"too large: {width}x{height} px, at most {max_pixels} pixels are allowed")
    if width < 1 or height < 1:
        raise MediaError("no pixels")


# --- pictures ------------------------------------------------------------------------------------------------------


def read_picture(source: Path | bytes, *, max_pixels: int, at_least: int | None = None) -> np.ndarray:
    """A picture as uint8 [H, W, 3], RGB: upright by its EXIF tag, transparency on white, the first of several frames.

    Args:
        source: a file, or the bytes of one.
        max_pixels: a larger picture is refused by its header, before it is unpacked.
        at_least: the shortest side that is needed. A larger JPEG is then decoded at a half, a quarter or an eighth of
            its size, but no smaller than this, which takes less than half the time.

    Raises:
        MediaError: no readable JPEG, PNG, GIF, WebP, BMP or TIFF, or too large.
    """
    with reading(source) as handle, _opened(handle, max_pixels) as image:
        if at_least is not None and isinstance(image, JpegImagePlugin.JpegImageFile):
            image.draft(None, (at_least, at_least))
        return _upright(image)


def _picture_reader(head: bytes) -> Callable[[BufferedReader], ImageFile] | None:
    """Pillow's reader for these first bytes; EPS, PDF and other formats that run programs are not among them."""
    magic = {
        b"\xff\xd8\xff": JpegImagePlugin.JpegImageFile,
        b"\x89PNG\r\n\x1a\n": PngImagePlugin.PngImageFile,
        b"GIF87a": GifImagePlugin.GifImageFile,
        b"GIF89a": GifImagePlugin.GifImageFile,
        b"BM": BmpImagePlugin.BmpImageFile,
        b"II*\0": TiffImagePlugin.TiffImageFile,
        b"MM\0*": TiffImagePlugin.TiffImageFile,
        b"II+\0": TiffImagePlugin.TiffImageFile,
        b"MM\0+": TiffImagePlugin.TiffImageFile,
    }
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    return next((reader for start, reader in magic.items() if head.startswith(start)), None)


@contextmanager
def _opened(handle: BufferedReader, max_pixels: int) -> Iterator[Image.Image]:
    """A picture whose header was read and found to be small enough.

    The reader is called directly: ``Image.open`` has a pixel limit of its own that can only be changed for the whole
    process.
    """
    _silence_pillow()
    reader = _picture_reader(_head(handle))
    if reader is None:
        raise MediaError("not a picture: no JPEG, PNG, GIF, WebP, BMP or TIFF")
    with _damage_reported():
        image = reader(handle)
        _check_size(*image.size, max_pixels)
        with image:
            yield image


@cache
def _silence_pillow() -> None:
    """What Pillow warns of, large pictures and damaged tags, is read or refused by us, and told in our own words.

    Once for the process: files are read by threads, and what ``catch_warnings`` puts back in one alters the others.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").addHandler(logging.NullHandler())


@contextmanager
def _damage_reported() -> Iterator[None]:
    try:
        yield
    except Image.DecompressionBombError:
        raise MediaError("too large: a part of it unpacks beyond Pillow's limit") from None
    except UNREADABLE as error:
        raise MediaError("truncated" if "truncated" in str(error).lower() else "corrupt") from None


def _upright(image: Image.Image) -> np.ndarray:
    image.load()
    pixels = _rgb(image)
    turn = TRANSPOSE.get(_orientation(image))
    return np.ascontiguousarray(turn(pixels)) if turn is not None else pixels


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; a picture whose tags are damaged is taken as it lies."""
    try:
        return image.getexif().get(ExifTag.Orientation, 1)
    except UNREADABLE:
        return 1


def _rgb(image: Image.Image) -> np.ndarray:
    """The loaded frame as uint8 [H, W, 3]: 16 bits cut to 8, other depths stretched from darkest to brightest."""
    if image.mode.startswith("I;16"):
        return _gray(np.asarray(image).astype(np.uint16) >> 8)
    if image.mode in ("I", "F"):
        largest = float(np.finfo(np.float32).max)  # stands for infinity: the difference of two stays a number
        values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=largest, neginf=-largest)
        low, high = values.min(), values.max()
        return _gray((values - low) * (255.0 / (high - low) if high > low else 0.0))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGBA", layer.size, "white")
        image.alpha_composite(layer)
    # A copy: asarray would hand out Pillow's own buffer, read-only.
    return np.array(image.convert("RGB"))


def _gray(values: np.ndarray) -> np.ndarray:
    return np.repeat(values.astype(np.uint8)[:, :, None], 3, axis=2)


@dataclass(frozen=True)
class MediaLimits:
    """See ``read_clip``."""

    max_pixels: int
    max_seconds: float
    deadline: float

    def check_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise MediaError("takes too long to read")

    def check_duration(self, seconds: float) -> None:
        if seconds > self.max_seconds:
            raise MediaError(f"too long: at most {self.max_seconds:g} seconds are allowed")


# --- sound ---------------------------------------------------------------------------------------------------------


@dataclass
class Hearing:
    """The beginning of a clip's sound as its packets pass by: at most so many ``seconds``, whatever the clip's length.

    Channels are averaged here and not by FFmpeg, which for floats adds them, so that stereo would be louder than mono.

    Attributes:
        stream: the one that players take; None where nothing is to be heard.
        silence: why there is nothing.
    """

    stream: AudioStream | None
    seconds: float
    silence: str
    parts: list[np.ndarray] = field(default_factory=list)
    samples: int = 0
    resampler: AudioResampler | None = None

    @property
    def streams(self) -> list[AudioStream]:
        return [] if self.stream is None else [self.stream]

    def take(self, packet: Packet) -> None:
        """A packet that is damaged is left out, as players do: MP3's first one often refers to sound cut away."""
        if self.samples >= self.seconds * SOUND_RATE:
            return
        try:
            frames = packet.decode()
        except FFmpegError:
            return
        for frame in frames:
            assert isinstance(frame, AudioFrame)
            self._add(frame)
        if packet.size == 0:
            self._add(None)

    def _add(self, frame: AudioFrame | None) -> None:
        """``None`` ends the sound; a stream that changes its rate or its channels on the way gets a new resampler."""
        if self.resampler is None:
            if frame is None:
                return None
            # Channels side by side in one plane: of more planes than eight PyAV reads memory that is not theirs.
            self.resampler = AudioResampler("flt", frame.layout, SOUND_RATE)
        try:
            resampled = self.resampler.resample(frame)
        except ValueError:
            resampled, self.resampler = self.resampler.resample(None), None
            self._keep(resampled)
            return self._add(frame)
        return self._keep(resampled)

    def _keep(self, frames: Sequence[AudioFrame]) -> None:
        for frame in frames:
            part = frame.to_ndarray().reshape(-1, frame.layout.nb_channels).mean(axis=1, dtype=np.float32)
            self.parts.append(part)
            self.samples += len(part)

    def heard(self) -> np.ndarray | MediaError:
        """float32 [samples], or why there is no sound."""
        if not self.samples:
            return MediaError(f"{NO_SOUND}: {self.silence}")
        return np.nan_to_num(np.concatenate(self.parts)[: int(self.seconds * SOUND_RATE)])


def _hearing(container: InputContainer, seconds: float) -> Hearing:
    stream = container.streams.best("audio") if seconds > 0 else None
    if not isinstance(stream, AudioStream):
        return Hearing(None, seconds, "no audio track")
    if stream.codec_context is None:
        return Hearing(None, seconds, UNKNOWN_CODEC)
    stream.codec_context.thread_count = 1
    return Hearing(stream, seconds, UNDECODED)


def _listen(container: InputContainer, hearing: Hearing, limits: MediaLimits) -> None:
    """Takes in the sound of a clip without pictures."""
    if hearing.stream is None:
        return
    read = 0
    for packet in container.demux(hearing.stream):
        limits.check_time()
        read += packet.size > 0
        if packet.pts is not None:
            limits.check_duration(float(packet.pts * (hearing.stream.time_base or 0)))
        hearing.take(packet)
    if read < len(hearing.stream.index_entries):
        raise MediaError("truncated")


# --- clips ---------------------------------------------------------------------------------------------------------


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
    wanted = (frames, at_least)
    clip = read_clip(source, frames=[wanted], max_pixels=max_pixels, max_seconds=max_seconds, deadline=deadline)
    return clip.frames(*wanted)


HELD_BYTES = 64_000_000
"""Of the frames of an animated picture, which are all held while it is unpacked once, instead of twice."""

Frames = tuple[int, int | None]
"""Frames as they are asked for: how many, and the shortest side that is needed."""


@dataclass(frozen=True)
class Clip:
    """What was asked for of a clip: the frames that are ``shown``, and the sound that is ``heard``.

    A MediaError in place of either says why there is none of it.
    """

    shown: Mapping[Frames, Sequence[np.ndarray]] | MediaError
    heard: np.ndarray | MediaError

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
        if isinstance(self.heard, MediaError):
            raise self.heard
        return self.heard


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
        reader = _picture_reader(_head(handle))
        if reader in ANIMATED:
            return Clip(_animation_frames(handle, frames, limits), MediaError(f"{NO_SOUND}: an animated picture"))
    if reader is not None:
        raise MediaError("not a clip")
    return _video_clip(source, frames, sound_seconds, limits)


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
        reader = _picture_reader(_head(handle))
        if reader in ANIMATED:
            return _animated_footage(handle, side, seconds, limits)
    if reader is not None:
        raise MediaError("not a clip")
    try:
        with _container(path) as container:
            return _video_footage(container, side, seconds, limits)
    except FFmpegError:
        raise MediaError("corrupt") from None


def _animated_footage(handle: BufferedReader, side: int, seconds: float, limits: MediaLimits) -> Footage:
    starts, frames, end = [], [], 0.0
    with _opened(handle, limits.max_pixels) as image:
        for _ in _each_frame(image, limits):
            if end > seconds:
                break
            starts.append(end)
            frames.append(_small_gray(np.asarray(Image.fromarray(_rgb(image)).convert("L")), side))
            end += max(float(image.info.get("duration", 0)), 1.0) / 1000
    return Footage(np.array(starts), np.stack(frames), np.zeros(0, dtype=np.float32))


def _video_footage(container: InputContainer, side: int, seconds: float, limits: MediaLimits) -> Footage:
    stream, hearing = _video_stream(container), _hearing(container, seconds)
    _check_size(stream.codec_context.width, stream.codec_context.height, limits.max_pixels)
    starts: list[float] = []
    frames: list[np.ndarray] = []
    for packet in container.demux(stream, *hearing.streams):
        if packet.stream is not stream:
            hearing.take(packet)
            continue
        for frame in packet.decode():
            assert isinstance(frame, VideoFrame)
            _check_size(frame.width, frame.height, limits.max_pixels)  # a stream may change its size on the way
            if frame.pts is not None and (not starts or frame.time > starts[-1]):
                starts.append(frame.time)
                frames.append(_small_gray(frame.reformat(format="gray").to_ndarray(), side))
        if starts and starts[-1] - starts[0] > seconds:
            break
    if not starts:
        raise MediaError("no frames")
    heard = hearing.heard()
    sound = np.zeros(0, dtype=np.float32) if isinstance(heard, MediaError) else heard
    return Footage(np.array(starts) - starts[0], np.stack(frames), sound)


def _small_gray(gray: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(gray).resize((side, side), Image.Resampling.BOX))


def pictures_digest(path: Path) -> str:
    """SHA-256 of a clip's encoded pictures, hexadecimal: the same in whichever container they are, and without sound.

    Nothing is decoded. Raises MediaError where there is no clip, or one without pictures.
    """
    digest = hashlib.sha256()
    try:
        with _container(path) as container:
            for packet in container.demux(_video_stream(container)):
                digest.update(packet.size.to_bytes(8, "big") + bytes(packet) if packet.size else b"")
    except FFmpegError:
        raise MediaError("corrupt") from None
    return digest.hexdigest()


def _uniform(starts: np.ndarray, end: float, frames: int) -> np.ndarray:
    """Which frames are on screen at the middles of ``frames`` equal intervals; ``starts`` ascends, in any unit."""
    if len(starts) <= frames:
        return np.arange(len(starts))
    middles = starts[0] + (end - starts[0]) * (np.arange(frames) + 0.5) / frames
    return np.unique(np.searchsorted(starts, middles, side="right") - 1)


def _animation_frames(
    handle: BufferedReader, asked: Sequence[Frames], limits: MediaLimits
) -> dict[Frames, list[np.ndarray]]:
    """These formats build each frame on the one before, so they are unpacked from the start: for the times, which say
    what frames are wanted, and, where all of them would be too many to hold, again for the pixels."""
    with _opened(handle, limits.max_pixels) as image:
        held = getattr(image, "n_frames", 1) * image.width * image.height * 3 <= HELD_BYTES
        starts, end, pixels, size = [], 0.0, {}, 0
        for at in _each_frame(image, limits):
            starts.append(end)
            end += max(float(image.info.get("duration", 0)), 1.0)
            limits.check_duration(end / 1000)
            size += image.width * image.height * 3  # a frame may be larger than those before
            held = held and size <= HELD_BYTES
            if held:
                pixels[at] = _rgb(image)
        chosen = {of: _uniform(np.array(starts), end, of[0]).tolist() for of in asked}
        if not held:
            wanted = {at for those in chosen.values() for at in those}
            pixels = {at: _rgb(image) for at in _each_frame(image, limits) if at in wanted}
        return {of: [pixels[at] for at in those] for of, those in chosen.items()}


def _each_frame(image: Image.Image, limits: MediaLimits) -> Iterator[int]:
    for at in range(getattr(image, "n_frames", 1)):
        limits.check_time()
        image.seek(at)
        _check_size(image.width, image.height, limits.max_pixels)  # a frame may enlarge the picture
        image.load()
        yield at


@dataclass(frozen=True)
class Timeline:
    """When the frames of a clip are shown, in ticks of its stream: ascending ``starts``, those of its keyframes."""

    starts: np.ndarray
    keyframes: np.ndarray
    end: int


def _video_clip(source: Path | bytes, asked: Sequence[Frames], sound_seconds: float, limits: MediaLimits) -> Clip:
    try:
        with _container(source) as container:
            hearing = _hearing(container, sound_seconds)
            try:
                stream = _video_stream(container)
            except MediaError as error:
                _listen(container, hearing, limits)
                return Clip(error, hearing.heard())
            timeline = _timeline(container, stream, hearing, limits)
            return Clip(_shown(container, stream, timeline, asked, limits), hearing.heard())
    except FFmpegError:
        raise MediaError("corrupt") from None


def _shown(
    container: InputContainer, stream: VideoStream, timeline: Timeline, asked: Sequence[Frames], limits: MediaLimits
) -> dict[Frames, list[np.ndarray]]:
    """A frame that cannot be decoded is stood in for by the next one, which is taken once if it is wanted as well."""
    chosen = {of: timeline.starts[_uniform(timeline.starts, timeline.end, of[0])] for of in asked}
    shown: dict[Frames, list[np.ndarray]] = {of: [] for of in asked}
    wanted = np.unique(np.concatenate([np.array([], dtype=timeline.starts.dtype), *chosen.values()]))
    before = -math.inf
    for frame in _shown_at(wanted, container, stream, timeline, limits):
        for of, starts in chosen.items():
            if ((starts > before) & (starts <= frame.pts)).any():
                shown[of].append(_frame_rgb(frame, of[1]))
        before = frame.pts or 0
    if not all(shown.values()):
        raise MediaError("corrupt")
    return shown


@contextmanager
def _container(source: Path | bytes) -> Iterator[InputContainer]:
    in_memory = isinstance(source, bytes)
    # What is read from memory has no business with any file or address, so no protocol is allowed there.
    options = {"format_whitelist": CLIP_FORMATS, "protocol_whitelist": "none" if in_memory else "file"}
    try:
        file = BytesIO(source) if in_memory else str(source.absolute())
        container = av.open(file, "r", options=options, **TOLERANT)
    except FFmpegError:
        raise MediaError(_unopened(source)) from None
    with container:
        if not container.streams:
            raise MediaError(_unopened(source))
        yield container


def _video_stream(container: InputContainer) -> VideoStream:
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
        raise MediaError(NO_PICTURES)
    if stream.codec_context is None:
        raise MediaError(f"{NO_PICTURES}: {UNKNOWN_CODEC}")
    # One thread a clip: clips are decoded side by side, and frame threads would multiply the frames in memory.
    stream.codec_context.thread_count = 1
    return stream


def _unopened(source: Path | bytes) -> str:
    """Why FFmpeg made nothing of a file: most often an mp4 that lacks its end, where the index is."""
    with reading(source) as handle:
        head = _head(handle)
    if head[4:8] == b"ftyp":
        return "truncated: its index is missing or damaged"
    return "corrupt" if head.startswith(b"\x1aE\xdf\xa3") else "not a clip: no mp4, mov, mkv, WebM or AVI"


def _timeline(container: InputContainer, stream: VideoStream, hearing: Hearing, limits: MediaLimits) -> Timeline:
    """Reads all packets without decoding pictures, which finds every frame's time, and the keyframes, in any container.

    What is heard on the way is decoded at once, so that the file is read and its sound decoded once.
    """
    _check_size(stream.codec_context.width, stream.codec_context.height, limits.max_pixels)
    read, shown, cut = 0, [], False
    for packet in container.demux(stream, *hearing.streams):
        limits.check_time()
        if packet.stream is not stream:
            hearing.take(packet)
            continue
        start = _start(packet)
        if start is None:
            continue  # the empty packet that ends the stream
        read += 1
        cut = cut or packet.is_corrupt
        if not packet.is_discard:
            shown.append((start, packet.is_keyframe, packet.duration or 0))
    if cut or read < len(stream.index_entries):
        raise MediaError("truncated")
    if not shown:
        raise MediaError("no frames")
    starts = np.unique([start for start, _, _ in shown])
    keyframes = np.unique([start for start, is_keyframe, _ in shown if is_keyframe or start == starts[0]])
    timeline = Timeline(starts, keyframes, _end(starts, max(shown)[2], stream))
    if _ends_early(timeline, stream):
        raise MediaError("truncated")
    limits.check_duration(float((timeline.end - starts[0]) * (stream.time_base or 0)))
    return timeline


def _end(starts: np.ndarray, duration: int, stream: VideoStream) -> int:
    """When the last frame leaves the screen; its ``duration`` may be wrong, for mp4 measures it by decoding time."""
    end = int(starts[-1]) + (duration or int(np.median(np.diff(starts, prepend=starts[0] - 1))))
    declared = int(starts[0]) + stream.duration if stream.duration else end
    return max(min(end, declared), int(starts[-1]) + 1)


def _ends_early(timeline: Timeline, stream: VideoStream) -> bool:
    """Whether Matroska or WebM, which have no index to compare with, hold less than the stream says that it lasts."""
    longest = int(np.diff(timeline.starts).max(initial=0))
    last = float((timeline.end + longest) * (stream.time_base or 0))
    return last + 0.1 < 0.99 * _declared(stream)


def _start(packet: Packet) -> int | None:
    """When a packet's frame is shown; AVI knows only when it is decoded, which is within a frame or two of it."""
    return packet.pts if packet.pts is not None else packet.dts


def _declared(stream: VideoStream) -> float:
    """When a Matroska or WebM stream says that it ends, in seconds; 0 when it does not say."""
    hours, _, rest = stream.metadata.get("DURATION", "0:0:0").partition(":")
    minutes, _, seconds = rest.partition(":")
    try:
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        return 0.0


def _shown_at(
    wanted: np.ndarray, container: InputContainer, stream: VideoStream, timeline: Timeline, limits: MediaLimits
) -> Iterator[VideoFrame]:
    """The frames shown from the ticks ``wanted`` on, ascending.

    Jumps only when a keyframe lies between here and the next wanted frame: a jump back to the keyframe that is being
    played from would decode the same frames again.
    """
    here, playing = -math.inf, iter(())
    for want in wanted.tolist():
        if want <= here:
            continue
        keyframes = timeline.keyframes[: np.searchsorted(timeline.keyframes, want, side="right")]
        if keyframes[-1] > here:
            playing = _jump(want, keyframes, container, stream, set(wanted.tolist()), limits)
        frame = next((frame for frame in playing if frame.pts is not None and frame.pts >= want), None)
        if frame is None:
            return
        _check_size(frame.width, frame.height, limits.max_pixels)  # a stream may change its size on the way
        here = frame.pts
        yield frame


def _jump(
    want: int,
    keyframes: np.ndarray,
    container: InputContainer,
    stream: VideoStream,
    wanted: set[int],
    limits: MediaLimits,
) -> Iterator[VideoFrame]:
    """Plays from the last of ``keyframes`` on, or from an earlier one if the container lands beyond ``want``.

    Containers are searched by decoding time, which runs ahead of presentation time by as much as the codec reorders;
    mp4, asked for a keyframe's own time, may go back to the one before, and asked for ``want`` does so only if it must.
    """
    for ticks in [want, *reversed(keyframes.tolist())]:
        container.seek(ticks, stream=stream)
        playing = _play(container, stream, wanted, limits)
        first = next(playing, None)
        if first is not None and first.pts is not None and (first.pts <= want or ticks == keyframes[0]):
            return chain([first], playing)
    return iter(())


def _play(
    container: InputContainer, stream: VideoStream, wanted: set[int], limits: MediaLimits
) -> Iterator[VideoFrame]:
    """Decodes on from where the container stands, except frames that nobody wants and no other frame refers to."""
    for packet in container.demux(stream):
        limits.check_time()
        stream.codec_context.skip_frame = "DEFAULT" if _start(packet) in wanted else "NONREF"
        yield from packet.decode()


def _frame_rgb(frame: VideoFrame, at_least: int | None) -> np.ndarray:
    factor = max(min(frame.width, frame.height) // at_least, 1) if at_least else 1
    small = frame.reformat(frame.width // factor, frame.height // factor, "rgb24", interpolation="AREA")
    picture = small.to_ndarray()
    turns = round(frame.rotation / 90) % 4  # the display matrix's angle, anticlockwise as numpy's
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


# --- paths ---------------------------------------------------------------------------------------------------------
