"""Pictures → arrays, by readers of Pillow that are called directly and checked before they unpack."""

import logging
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from io import BufferedReader
from pathlib import Path

import numpy as np
from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin
from PIL.ExifTags import Base as ExifTag
from PIL.ImageFile import ImageFile

from pipeline.core.files import MediaError, reading
from pipeline.media.limits import check_size, first_bytes

UNREADABLE = (
    *(OSError, SyntaxError, EOFError, ValueError, IndexError, KeyError, TypeError, AssertionError, struct.error),
    zlib.error,
)
"""What Pillow's readers raise on damaged files; each is a bug of the file, and none says so in one way."""


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
    with reading(source) as handle, opened(handle, max_pixels) as image:
        if at_least is not None and isinstance(image, JpegImagePlugin.JpegImageFile):
            image.draft(None, (at_least, at_least))
        return _upright(image)


def picture_reader(head: bytes) -> Callable[[BufferedReader], ImageFile] | None:
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
def opened(handle: BufferedReader, max_pixels: int) -> Iterator[Image.Image]:
    """A picture whose header was read and found to be small enough.

    The reader is called directly: ``Image.open`` has a pixel limit of its own that can only be changed for the whole
    process.
    """
    _silence_pillow()
    reader = picture_reader(first_bytes(handle))
    if reader is None:
        raise MediaError("not a picture: no JPEG, PNG, GIF, WebP, BMP or TIFF")
    with _damage_reported():
        image = reader(handle)
        check_size(*image.size, max_pixels)
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
    pixels = rgb(image)
    turn = TRANSPOSE.get(_orientation(image))
    return np.ascontiguousarray(turn(pixels)) if turn is not None else pixels


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; a picture whose tags are damaged is taken as it lies."""
    try:
        return image.getexif().get(ExifTag.Orientation, 1)
    except UNREADABLE:
        return 1


def rgb(image: Image.Image) -> np.ndarray:
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
