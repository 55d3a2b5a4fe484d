"""Drawn pictures, and what people do to a picture before they post it again."""

from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps


def scene(seed: int) -> Image.Image:
    """Discs of any shade, RGB, 240 by 180."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (240, 180), tuple(rng.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(picture)
    for _ in range(12):
        x, y, size = rng.integers([0, 0, 20], [200, 140, 90]).tolist()
        draw.ellipse((x, y, x + size, y + size), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return picture


def _crop(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Without a twentieth of either side, taken from the edges as it falls."""
    width, height = picture.size
    left, top = (rng.uniform(0, 0.05, 2) * picture.size).round().astype(int).tolist()
    return picture.crop((left, top, left + round(0.95 * width), top + round(0.95 * height)))


def _trim(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Without a twentieth at each of the four edges."""
    return ImageOps.crop(picture, tuple(round(0.05 * side) for side in picture.size * 2))


def _frame(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """With a white, a black or a coloured border of 3 to 12 % of the longer side."""
    shade = [(255, 255, 255), (0, 0, 0), tuple(rng.integers(0, 256, 3).tolist())][rng.integers(3)]
    return ImageOps.expand(picture, round(rng.uniform(0.03, 0.12) * max(picture.size)), fill=shade)


ALTERED: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "mirrored": lambda picture, rng: ImageOps.mirror(picture),
    "flipped": lambda picture, rng: ImageOps.flip(picture),
    "rotated by 90°": lambda picture, rng: picture.transpose(Image.Transpose.ROTATE_90),
    "rotated by 180°": lambda picture, rng: picture.transpose(Image.Transpose.ROTATE_180),
    "rotated by 270°": lambda picture, rng: picture.transpose(Image.Transpose.ROTATE_270),
    "cropped by 5 % of each side": _crop,
    "cropped by 5 % at each edge": _trim,
    "brightened by 40 %": lambda picture, rng: ImageEnhance.Brightness(picture).enhance(1.4),
    "darkened by 40 %": lambda picture, rng: ImageEnhance.Brightness(picture).enhance(0.6),
    "greyed": lambda picture, rng: ImageOps.grayscale(picture).convert("RGB"),
    "framed": _frame,
    "half the size": lambda picture, rng: picture.resize((picture.width // 2, picture.height // 2)),
    "twice the size": lambda picture, rng: picture.resize((picture.width * 2, picture.height * 2)),
    "JPEG at quality 30": lambda picture, rng: picture,
}
"""Kind → how it is done; ``jpeg`` saves it."""


def jpeg(picture: Image.Image, kind: str) -> bytes:
    """The bytes of a JPEG, at quality 85 unless the kind says otherwise."""
    file = BytesIO()
    picture.save(file, "JPEG", quality=30 if kind == "JPEG at quality 30" else 85)
    return file.getvalue()
