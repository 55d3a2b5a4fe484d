"""What a file may ask of who reads it: how large, how long, and until when; and its first bytes, which judge it."""

import time
from dataclasses import dataclass
from io import BufferedReader

from pipeline.core.files import MediaError


def first_bytes(handle: BufferedReader) -> bytes:
    """The first 16 bytes or fewer, after which the file stands at its beginning. Raises MediaError when it is empty."""
    head = handle.read(16)
    handle.seek(0)
    if not head:
        raise MediaError("0 bytes")
    return head


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raises MediaError when there are more pixels than that, or none."""
    if width * height > max_pixels:
        raise MediaError(f"too large: {width}x{height} px, at most {max_pixels} pixels are allowed")
    if width < 1 or height < 1:
        raise MediaError("no pixels")


@dataclass(frozen=True)
class MediaLimits:
    """As ``clips.read_clip`` takes them; its checks raise MediaError."""

    max_pixels: int
    max_seconds: float
    deadline: float

    def check_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise MediaError("takes too long to read")

    def check_duration(self, seconds: float) -> None:
        if seconds > self.max_seconds:
            raise MediaError(f"too long: at most {self.max_seconds:g} seconds are allowed")
