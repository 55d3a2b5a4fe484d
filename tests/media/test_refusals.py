"""What holds of pictures and clips alike: what is refused, and what reading says and imports beside."""

import hashlib
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.core.files import MediaError, content_digest
from pipeline.media.clips import read_frames
from pipeline.media.pictures import read_picture
from tests.media.made import LIMIT, halves, saved


@pytest.mark.parametrize("reader", [read_picture, lambda path, **limits: read_frames(path, frames=2, **limits)])
def test_what_is_no_media_file_at_all(tmp_path: Path, reader) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("hello, this is no picture" * 10)
    (tmp_path / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    found = {}
    for name in ("empty.jpg", "text.jpg", "a.eps", "none.jpg", "text.jpg/inside.jpg", ".", "nul\0l.jpg"):
        with pytest.raises(MediaError) as error:
            reader(tmp_path / name, max_pixels=LIMIT)
        found[name] = error.value.kind
    assert found.pop("text.jpg") in {"not a picture", "not a clip"}
    assert found.pop("a.eps") in {"not a picture", "not a clip"}
    assert found == {
        "empty.jpg": "0 bytes",
        "none.jpg": "file not found",
        "text.jpg/inside.jpg": "file not found",
        ".": "not a file",
        "nul\0l.jpg": "cannot be opened",
    }


def test_content_digest(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"bytes" * 100_000)
    assert content_digest(tmp_path / "a") == hashlib.sha256(b"bytes" * 100_000).hexdigest()
    with pytest.raises(MediaError, match="file not found"):
        content_digest(tmp_path / "b")


def test_reading_media_needs_no_torch() -> None:
    code = "import sys; from pipeline.media import clips, footage\n"
    code += "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def odd_pictures(folder: Path) -> None:
    """Pictures of which Pillow warns, or says a word in a log: damaged tags, odd palettes, frames beyond its limit."""
    tiff = bytearray(saved(folder / "whole.tiff", halves()).read_bytes())
    for tag in (b"\x16\x01\x03\0", b"\x1a\x01\x05\0", b"\x28\x01\x03\0", b"\x15\x01\x03\0"):
        at = tiff.find(tag)
        many, samples = tiff.copy(), tiff.copy()
        many[at + 4 : at + 8] = struct.pack("<I", 2**20)
        samples[at + 8 : at + 10] = struct.pack("<H", 2048)
        (folder / f"many-{at}.tiff").write_bytes(many)
        (folder / f"value-{at}.tiff").write_bytes(samples)
    for at in range(8, len(tiff), 97):
        (folder / f"cut-{at}.tiff").write_bytes(tiff[:at])
    exif = Image.Exif()
    exif[274], exif[271], exif[306] = 6, "a camera", "2020:01:01 00:00:00"
    for name in ("tags.jpg", "tags.webp", "tags.png", "tags.tiff"):
        whole = saved(folder / name, halves(), exif=exif.tobytes()).read_bytes()
        at = whole.find(b"a camera")
        (folder / f"cut-{name}").write_bytes(whole[: at - 30] + b"\xff" * 20 + whole[at - 10 :])
    saved(folder / "shades.png", halves("P"), transparency=bytes(range(0, 200, 10)))
    saved(folder / "float.tiff", Image.fromarray(np.array([[np.nan, np.inf], [-1e38, 1e38]], dtype=np.float32)))
    gif = bytearray(saved(folder / "small.gif", halves("P")).read_bytes())
    at = gif.rfind(b",\0\0\0\0\x40\0\x28\0")
    gif[at + 5 : at + 9] = struct.pack("<HH", 11_000, 9_000)
    (folder / "bomb.gif").write_bytes(gif)


READ_ALL = """
import sys
from pathlib import Path
from pipeline.core.files import MediaError
from pipeline.media.clips import read_frames
from pipeline.media.pictures import read_picture
for path in sorted(Path(sys.argv[1]).iterdir()):
    for read in (read_picture, lambda path, max_pixels: read_frames(path, frames=2, max_pixels=max_pixels)):
        try:
            read(path, max_pixels=10**6)
            print(path.name, "was read")
        except MediaError as error:
            print(path.name, error)
"""


def test_libraries_say_nothing_of_odd_pictures_beside_what_we_say(tmp_path: Path):
    odd_pictures(tmp_path)
    done = subprocess.run([sys.executable, "-c", READ_ALL, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout.splitlines()
    assert len(said) == 2 * len(list(tmp_path.iterdir())) > 40
    assert "bomb.gif too large: 11000x9000 px, at most 1000000 pixels are allowed" in said
    assert {"tags.tiff was read", "shades.png was read", "float.tiff was read"} <= set(said)
