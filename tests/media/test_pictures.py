import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.core.files import MediaError
from pipeline.media.pictures import read_picture
from tests.media.made import BLUE, LIMIT, RED, damaged, halves, saved


def read(path: Path, **options: int) -> np.ndarray:
    picture = read_picture(path, max_pixels=LIMIT, **options)
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    return picture


def assert_halves(picture: np.ndarray, tolerance: int = 12) -> None:
    for column, colour in ((0, BLUE), (-1, RED)):
        np.testing.assert_allclose(picture[:, column].mean(0), colour, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "mode", "tolerance"),
    [
        ("a.jpg", "RGB", 12),
        ("a.png", "RGB", 0),
        ("a.png", "RGBA", 0),
        ("a.png", "P", 60),
        ("a.gif", "P", 60),
        ("a.webp", "RGB", 12),
        ("a.bmp", "RGB", 0),
        ("a.tif", "RGB", 0),
        ("a.jpg", "CMYK", 20),
        ("a.tif", "CMYK", 12),
        ("a.tif", "YCbCr", 12),
    ],
)
def test_every_format_and_mode_becomes_rgb(tmp_path: Path, name: str, mode: str, tolerance: int) -> None:
    picture = read(saved(tmp_path / name, halves(mode)))
    assert picture.shape == (40, 64, 3)
    assert_halves(picture, tolerance)


def test_names_do_not_matter(tmp_path: Path) -> None:
    odd = tmp_path / "naïve ☃ name.txt"
    halves().save(odd, format="PNG")
    assert_halves(read(odd), 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, kind: str) -> None:
    # Upright: blue left, red right. Stored turned so that the tag brings it back; Pillow's names of the inverse turns.
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = halves()
    upright.paste((0, 255, 0), (0, 0, 16, 10))  # a green corner tells turns from mirrors
    stored = upright.transpose(inverse[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    exact = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    picture = read(saved(tmp_path / "a", stored, format=kind, exif=exif, **exact))
    np.testing.assert_allclose(picture[::8, ::8].astype(int), np.asarray(upright)[::8, ::8].astype(int), atol=60)


def test_damaged_exif_leaves_the_picture_as_it_lies(tmp_path: Path) -> None:
    assert_halves(read(saved(tmp_path / "a.jpg", halves(), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\xff\xff")))


def test_transparency_is_white(tmp_path: Path) -> None:
    layer = Image.new("RGBA", (4, 2), (0, 0, 0, 0))
    layer.putpixel((0, 0), (200, 100, 0, 128))
    picture = read(saved(tmp_path / "a.png", layer))
    assert picture[1, 3].tolist() == [255, 255, 255]
    # Half of the colour and half of white.
    np.testing.assert_allclose(picture[0, 0], [227, 177, 127], atol=1)


def test_a_transparent_palette_is_white(tmp_path: Path) -> None:
    palette = Image.new("P", (4, 2), 1)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((0, 0), 0)
    picture = read(saved(tmp_path / "a.png", palette, transparency=1))
    assert picture[0, 0].tolist() == [10, 20, 30]
    assert picture[1, 1].tolist() == [255, 255, 255]


def test_sixteen_bits_keep_the_upper_eight(tmp_path: Path) -> None:
    levels = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    picture = read(saved(tmp_path / "a.png", Image.fromarray(levels)))
    assert picture[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    assert (picture[..., 0] == picture[..., 2]).all()


def test_floating_point_is_stretched(tmp_path: Path) -> None:
    levels = np.array([[-1.0, 0.0, 1.0]], dtype=np.float32)
    assert read(saved(tmp_path / "a.tif", Image.fromarray(levels)))[0, :, 1].tolist() == [0, 127, 255]


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_the_first_of_several_frames(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in (BLUE, RED, RED)]
    path = saved(tmp_path / name, frames[0], save_all=True, append_images=frames[1:], duration=100)
    np.testing.assert_allclose(read(path)[3, 3], BLUE, atol=12)


def test_one_pixel(tmp_path: Path) -> None:
    assert read(saved(tmp_path / "a.png", Image.new("L", (1, 1), 7)), at_least=224).tolist() == [[[7, 7, 7]]]


def test_at_least_halves_a_jpeg_but_not_below(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", halves(size=(800, 600)))
    assert read(path, at_least=224).shape == (300, 400, 3)
    assert read(path, at_least=301).shape == (600, 800, 3)
    assert read(path, at_least=60).shape == (75, 100, 3)
    assert_halves(read(path, at_least=60))


def bomb(path: Path, side: int) -> Path:
    """A PNG that says it is ``side`` pixels wide and high, in some hundred bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))
    return path


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    path = bomb(tmp_path / "a.png", 50_000)
    with pytest.raises(MediaError) as error:
        read_picture(path, max_pixels=1_000_000_000)
    assert str(error.value) == "too large: 50000x50000 px, at most 1000000000 pixels are allowed"
    assert error.value.kind == "too large"


def test_the_limit_is_ours_and_not_pillows(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS
    # 15,000 x 15,000 is beyond what Pillow opens; with a higher limit the header passes and the pixels are found short.
    with pytest.raises(MediaError, match=r"^truncated$"):
        read_picture(bomb(tmp_path / "a.png", 15_000), max_pixels=300_000_000)
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.gif", "a.webp", "a.bmp", "a.tif"])
def test_a_file_cut_short_is_refused(tmp_path: Path, name: str, share: float) -> None:
    rng = np.random.default_rng(0)
    path = saved(tmp_path / name, Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(MediaError, match=r"^(truncated|corrupt)$"):
        read(path)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.gif", "a.webp", "a.bmp", "a.tif"])
def test_random_damage_never_ends_in_another_error(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / name, halves(size=(48, 32)))
    for content in damaged(path.read_bytes(), 150, 6, first=4, seed=1):
        path.write_bytes(content)
        try:
            read(path)
        except MediaError as error:
            assert error.kind in {"truncated", "corrupt", "too large", "no pixels", "not a picture"}


@pytest.mark.skipif(os.name != "posix", reason="pipes are of POSIX")
def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(MediaError, match="not a file"):
        read(tmp_path / "pipe.jpg")
