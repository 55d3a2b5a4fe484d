"""Containers of clips, opened so that they lead to no other file, and their stream of pictures."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream

from pipeline.core.files import MediaError, reading
from pipeline.media.kinds import NO_PICTURES, UNKNOWN_CODEC
from pipeline.media.limits import first_bytes

CLIP_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi"
"""What FFmpeg may take a file for. Left to itself it also follows playlists, which name other files and addresses."""


TOLERANT: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
"""A title that is no UTF-8 is no reason to refuse a clip; from 19 on PyAV lets it pass by itself."""


@contextmanager
def open_container(source: Path | bytes) -> Iterator[InputContainer]:
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


def video_stream(container: InputContainer) -> VideoStream:
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
        head = first_bytes(handle)
    if head[4:8] == b"ftyp":
        return "truncated: its index is missing or damaged"
    return "corrupt" if head.startswith(b"\x1aE\xdf\xa3") else "not a clip: no mp4, mov, mkv, WebM or AVI"
