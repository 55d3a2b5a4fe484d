"""Templates to HTML: a page in one file, every text in it escaped, the same bytes from the same inputs.

Pictures come in as data URIs and the style inline, so a page opens from disk, without a network, for as long as there
are browsers. A policy in its head keeps the browser from loading or running anything else.
"""

import base64
import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from pipeline.core import artifacts
from pipeline.core.errors import InputError
from pipeline.figures.style import DPI
from pipeline.reporting import TEMPLATES

PNG = b"\x89PNG\r\n\x1a\n"
JPEG_QUALITY = 78


@dataclass(frozen=True)
class Picture:
    """An image as a data URI, and its size in CSS pixels."""

    uri: str
    width: int
    height: int


def write(path: Path, template: str, **values: Any) -> None:
    """Renders a template to ``path``. A name that the template uses and ``values`` lack is an error, not a gap."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": number, "coded": coded}
    html = environment.get_template(template).render(values)
    with artifacts.replacing(path) as aside:
        aside.write_text(html, encoding="utf-8", newline="\n")


def number(value: float, form: str = ".3f") -> Markup:
    """A metric, short to read; ``value`` of the ``data`` element is what the metrics file says, digit by digit."""
    return Markup('<data value="{}">{}</data>').format(value, typeset(format(value, form)))


def typeset(figure: str) -> str:
    """A formatted number with a true minus and a narrow space before its percent sign."""
    return figure.replace("-", "−").replace("%", "\N{NARROW NO-BREAK SPACE}%")


def coded(text: str) -> Markup:
    """A sentence whose words between backticks are code."""
    parts = enumerate(text.split("`"))
    return Markup("").join(Markup("<code>{}</code>").format(part) if at % 2 else part for at, part in parts)


def png(path: Path) -> Picture | None:
    """A picture as it lies in ``plots/``, byte by byte; None where there is none.

    Raises InputError when the file is no PNG.
    """
    if not path.is_file():
        return None
    content = path.read_bytes()
    if not content.startswith(PNG) or len(content) < 24:
        raise InputError(f"{path}: not a PNG picture; delete it and run `dvc repro`")
    width, height = struct.unpack(">II", content[16:24])
    return Picture(_uri("image/png", content), width * 96 // DPI, height * 96 // DPI)


def thumbnail(pixels: np.ndarray, side: int) -> Picture:
    """``pixels``, uint8 [H, W, 3], as a JPEG that is no longer than ``side`` on either side."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return Picture(_uri("image/jpeg", content.getvalue()), *image.size)


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
