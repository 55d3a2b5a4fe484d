"""Pictures, animations and clips that say what they are: halves of two colours, frames of known levels of gray."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.container import OutputContainer
from av.video.stream import VideoStream
from PIL import Image

from pipeline.core.files import MediaError
from pipeline.media.clips import read_frames

LIMIT = 1_000_000


BLUE, RED = (20, 40, 200), (210, 30, 30)


def halves(mode: str = "RGB", size: tuple[int, int] = (64, 40)) -> Image.Image:
    """Blue on the left, red on the right."""
    picture = Image.new("RGB", size, BLUE)
    picture.paste(RED, (size[0] // 2, 0, *size))
    return picture.convert(mode)


def saved(path: Path, picture: Image.Image, **options: Any) -> Path:
    picture.save(path, **options)
    return path


RATE = 25


STEP = 4
"""Gray levels from one frame to the next: enough to tell which one was read."""


def encode(
    path: Path,
    count: int,
    *,
    codec: str = "libx264",
    gop: int = 12,
    times: Sequence[int] | None = None,
    rotation: int | None = None,
    size: tuple[int, int] = (64, 48),
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """A clip whose frame k is gray of level 20 + STEP * k, shown from ``times[k]`` (or k) twenty-fifths of a second."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        assert isinstance(container, OutputContainer)
        stream = container.add_stream(codec, rate=RATE, options=options or {})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.gop_size = gop
        stream.bit_rate = 3_000_000
        stream.codec_context.time_base = Fraction(1, RATE)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for at in range(count):
            picture = np.full((size[1], size[0], 3), 20 + STEP * (at % 55), dtype=np.uint8)
            picture[:, : size[0] // 4] = 235  # a white bar on the left shows how it is turned
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = times[at] if times else at, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def which(frames: list[np.ndarray]) -> list[int]:
    """The number of each frame, by its gray level right of the bar."""
    return [round((float(np.median(frame[:, frame.shape[1] // 2 :])) - 20) / STEP) for frame in frames]


def frames_of(path: Path, count: int, **options: int) -> list[np.ndarray]:
    frames = read_frames(path, frames=count, max_pixels=LIMIT, **options)
    assert all(frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3 for frame in frames)
    return frames


def animation(path: Path, count: int) -> Path:
    """Ten frames a second."""
    frames = [Image.new("L", (16, 12), 20 + STEP * at).convert("RGB") for at in range(count)]
    return saved(path, frames[0], save_all=True, append_images=frames[1:], duration=100)


def damaged(whole: bytes, times: int, places: int, *, first: int = 0, seed: int) -> Iterator[bytes]:
    """The file so many times, each with other bytes drawn at so many places from the ``first`` on."""
    rng = np.random.default_rng(seed)
    for _ in range(times):
        content = bytearray(whole)
        for at in rng.integers(first, len(whole), places):
            content[at] = rng.integers(256)
        yield bytes(content)


def reason(path: Path, limit: int = LIMIT) -> str:
    with pytest.raises(MediaError) as error:
        read_frames(path, frames=4, max_pixels=limit)
    return error.value.kind
