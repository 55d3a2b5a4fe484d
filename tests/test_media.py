import hashlib
import os
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.video.stream import VideoStream
from PIL import Image

from pipeline import media
from pipeline.core.files import MediaError, content_digest

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


def read(path: Path, **options: int) -> np.ndarray:
    picture = media.read_picture(path, max_pixels=LIMIT, **options)
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    return picture


def assert_halves(picture: np.ndarray, tolerance: int = 12) -> None:
    for column, colour in ((0, BLUE), (-1, RED)):
        np.testing.assert_allclose(picture[:, column].mean(0), colour, atol=tolerance)


# --- pictures ------------------------------------------------------------------------------------------------------


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
from pipeline import media
from pipeline.core.files import MediaError
for path in sorted(Path(sys.argv[1]).iterdir()):
    for read in (media.read_picture, lambda path, max_pixels: media.read_frames(path, frames=2, max_pixels=max_pixels)):
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
        media.read_picture(path, max_pixels=1_000_000_000)
    assert str(error.value) == "too large: 50000x50000 px, at most 1000000000 pixels are allowed"
    assert error.value.kind == "too large"


def test_the_limit_is_ours_and_not_pillows(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS
    # 15,000 x 15,000 is beyond what Pillow opens; with a higher limit the header passes and the pixels are found short.
    with pytest.raises(MediaError, match=r"^truncated$"):
        media.read_picture(bomb(tmp_path / "a.png", 15_000), max_pixels=300_000_000)
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
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(150):
        damaged = bytearray(whole)
        for at in rng.integers(4, len(whole), 6):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read(path)
        except MediaError as error:
            assert error.kind in {"truncated", "corrupt", "too large", "no pixels", "not a picture"}


@pytest.mark.parametrize(
    "reader", [media.read_picture, lambda path, **limits: media.read_frames(path, frames=2, **limits)]
)
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


@pytest.mark.skipif(os.name != "posix", reason="pipes are of POSIX")
def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(MediaError, match="not a file"):
        read(tmp_path / "pipe.jpg")


def test_content_digest(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"bytes" * 100_000)
    assert content_digest(tmp_path / "a") == hashlib.sha256(b"bytes" * 100_000).hexdigest()
    with pytest.raises(MediaError, match="file not found"):
        content_digest(tmp_path / "b")


def test_reading_media_needs_no_torch() -> None:
    code = "import sys; from pipeline import media; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- clips ---------------------------------------------------------------------------------------------------------

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
    frames = media.read_frames(path, frames=count, max_pixels=LIMIT, **options)
    assert all(frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3 for frame in frames)
    return frames


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mov", "libx264"),
        ("a.mkv", "libx264"),
        ("a.webm", "libvpx-vp9"),
        ("a.webm", "libvpx"),
        ("a.avi", "mpeg4"),
    ],
)
def test_frames_are_those_on_screen_at_the_middles_of_equal_intervals(tmp_path: Path, name: str, codec: str) -> None:
    path = encode(tmp_path / name, 40, codec=codec)
    # Intervals of 10 frames have their middles at 5, 15, 25, 35; of 5 frames at 2.5, 7.5, ...
    assert which(frames_of(path, 4)) == [5, 15, 25, 35]
    assert which(frames_of(path, 8)) == [2, 7, 12, 17, 22, 27, 32, 37]
    assert which(frames_of(path, 1)) == [20]


@pytest.mark.parametrize("gop", [1, 2, 7, 250])
@pytest.mark.parametrize("options", [{"bf": "0"}, {"bf": "3", "b-pyramid": "normal"}, {"x264-params": "open-gop=1"}])
def test_jumping_finds_what_sequential_decoding_finds(tmp_path: Path, gop: int, options: dict[str, str]) -> None:
    path = encode(tmp_path / "a.mp4", 50, gop=gop, options=options)
    with av.open(str(path)) as container:
        assert isinstance(container, InputContainer)
        every = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for count in (1, 3, 8, 50, 80):
        expected = [every[int((at + 0.5) * 50 / count)] for at in range(count)] if count <= 50 else every
        found = frames_of(path, count)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one.astype(int), other.astype(int), atol=2)


def decoded_for(path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many frames are decoded for so many."""
    decoded = []
    original = media._play
    monkeypatch.setattr(
        media, "_play", lambda *given: (decoded.append(frame.pts) or frame for frame in original(*given))
    )
    frames_of(path, count)
    return len(decoded)


def test_long_clips_are_not_decoded_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "a.mp4", 300, gop=10)
    assert which(frames_of(path, 4)) == [at % 55 for at in (37, 112, 187, 262)]
    assert decoded_for(path, 4, monkeypatch) <= 4 * 10


def test_a_jump_lands_on_the_last_keyframe_at_a_variable_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Every third frame stays four times as long; asked for a keyframe's own time, mp4 goes back to the one before: 59.
    path = encode(tmp_path / "a.mp4", 300, gop=20, times=[2 * at + (0, -1, 1)[at % 3] for at in range(300)])
    assert decoded_for(path, 7, monkeypatch) <= 45


def test_a_variable_frame_rate_is_done_justice(tmp_path: Path) -> None:
    # Frame 0 stands for 3 seconds, then 25 frames pass in one: middles at 0.5, 1.5, 2.5 and 3.5 seconds.
    path = encode(tmp_path / "a.mp4", 26, times=[0, *range(75, 100)])
    assert which(frames_of(path, 4)) == [0, 13]


@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_fewer_frames_than_asked(tmp_path: Path, name: str) -> None:
    path = encode(tmp_path / name, 3, codec="libx264" if name == "a.mp4" else "libvpx-vp9")
    assert which(frames_of(path, 8)) == [0, 1, 2]
    assert which(frames_of(encode(tmp_path / f"one {name}", 1, codec="libvpx-vp9"), 8)) == [0]


@pytest.mark.parametrize(("rotation", "bar"), [(90, "bottom"), (-90, "top"), (180, "right")])
def test_rotation_is_applied(tmp_path: Path, rotation: int, bar: str) -> None:
    # The display matrix turns anticlockwise: what is on the left comes to the bottom.
    picture = frames_of(encode(tmp_path / "a.mp4", 4, rotation=rotation), 1)[0]
    edges = {"top": picture[0], "bottom": picture[-1], "left": picture[:, 0], "right": picture[:, -1]}
    assert picture.shape == ((64, 48, 3) if abs(rotation) == 90 else (48, 64, 3))
    assert max(edges, key=lambda edge: float(np.median(edges[edge]))) == bar


def test_at_least_shrinks_large_frames_by_a_whole_factor(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", 4, size=(640, 360))
    whole, small = frames_of(path, 1)[0], frames_of(path, 1, at_least=100)[0]
    assert small.shape == (120, 213, 3)
    assert frames_of(path, 1, at_least=400)[0].shape == whole.shape == (360, 640, 3)
    assert which([small]) == which([whole])


@pytest.mark.parametrize("held", [0, media.HELD_BYTES])
@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_animated_pictures_keep_their_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, held: int
) -> None:
    monkeypatch.setattr(media, "HELD_BYTES", held)
    frames = [Image.new("L", (16, 12), 20 + STEP * at).convert("RGB") for at in range(10)]
    durations = [900, *[100] * 9]
    exact = {"lossless": True} if name == "a.webp" else {}
    path = saved(tmp_path / name, frames[0], save_all=True, append_images=frames[1:], duration=durations, **exact)
    # Of 1.8 seconds the middles of three intervals are 0.3, 0.9 and 1.5: frame 0, frame 1 (from 0.9), frame 7 (1.5).
    assert which(frames_of(path, 3)) == [0, 1, 7]
    assert which(frames_of(path, 20)) == list(range(10))


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx"), ("a.avi", "mpeg4"), ("a.gif", "")],
)
def test_the_bytes_of_a_clip_are_as_good_as_its_file(tmp_path: Path, name: str, codec: str) -> None:
    path = encode(tmp_path / name, 30, codec=codec) if codec else animation(tmp_path / name, 9)
    whole, half = path.read_bytes(), path.read_bytes()[: path.stat().st_size // 2]
    assert len(known := outcome(path)) == 4
    assert all(map(np.array_equal, known, outcome(whole)))
    path.write_bytes(half)
    assert np.array_equal(outcome(half), outcome(path))  # as a rule a refusal, in the same words


def outcome(source: Path | bytes) -> list[np.ndarray] | str:
    try:
        return media.read_frames(source, frames=4, max_pixels=LIMIT)
    except MediaError as error:
        return str(error)


def animation(path: Path, count: int) -> Path:
    """Ten frames a second."""
    frames = [Image.new("L", (16, 12), 20 + STEP * at).convert("RGB") for at in range(count)]
    return saved(path, frames[0], save_all=True, append_images=frames[1:], duration=100)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_a_clip_longer_than_allowed_is_refused(tmp_path: Path, name: str) -> None:
    """Two seconds of either."""
    path = animation(tmp_path / name, 20) if name == "a.gif" else encode(tmp_path / name, 2 * RATE)
    assert media.read_frames(path, frames=2, max_pixels=LIMIT, max_seconds=2.05)
    with pytest.raises(MediaError, match=r"^too long: at most 1\.9 seconds are allowed$"):
        media.read_frames(path, frames=2, max_pixels=LIMIT, max_seconds=1.9)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_reading_stops_at_the_deadline(tmp_path: Path, name: str) -> None:
    path = animation(tmp_path / name, 20) if name == "a.gif" else encode(tmp_path / name, 40)
    assert media.read_frames(path, frames=2, max_pixels=LIMIT, deadline=time.monotonic() + 60)
    with pytest.raises(MediaError, match="takes too long to read"):
        media.read_frames(path, frames=2, max_pixels=LIMIT, deadline=time.monotonic() - 1)


def test_a_still_picture_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    assert len(frames_of(saved(tmp_path / "a.gif", halves()), 8)) == 1


def reason(path: Path, limit: int = LIMIT) -> str:
    with pytest.raises(MediaError) as error:
        media.read_frames(path, frames=4, max_pixels=limit)
    return error.value.kind


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("name", ["a.mp4", "front.mp4", "a.mkv", "a.webm", "a.mov"])
def test_a_clip_cut_short_is_refused(tmp_path: Path, name: str, share: float) -> None:
    codec = "libvpx-vp9" if name == "a.webm" else "libx264"
    index_first = {"movflags": "faststart"} if name == "front.mp4" else None
    path = encode(tmp_path / name, 100, codec=codec, container_options=index_first)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert reason(path) in {"truncated", "no frames"}


def test_too_large_is_seen_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "a.mp4", 4, size=(640, 360))
    monkeypatch.setattr(media, "_play", None)
    assert reason(path, 640 * 360 - 1) == "too large"


def test_sound_alone_is_no_clip(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), dtype=np.float32), format="fltp", layout="mono")
        frame.rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert reason(path) == "no video stream"


def test_a_later_frame_without_its_colours_is_damage(tmp_path: Path) -> None:
    black, dotted = Image.new("L", (8, 8)), Image.new("L", (8, 8))
    dotted.putpixel((0, 0), 255)
    path = saved(tmp_path / "a.gif", black, save_all=True, append_images=[dotted], disposal=2)
    content = path.read_bytes()
    colours = 3 * 2 ** ((content[10] & 7) + 1)
    path.write_bytes(content[:10] + b"\0" + content[11:13] + content[13 + colours :])
    assert reason(path) == "corrupt"


def test_playlists_do_not_lead_to_other_files(tmp_path: Path) -> None:
    encode(tmp_path / "secret.mp4", 4)
    (tmp_path / "a.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nsecret.mp4\n#EXT-X-ENDLIST\n")
    (tmp_path / "b.mp4").write_text("ffconcat version 1.0\nfile secret.mp4\n")
    assert [reason(tmp_path / name) for name in ("a.mp4", "b.mp4")] == ["not a clip", "not a clip"]
    assert reason(saved(tmp_path / "a.jpg", halves())) == "not a clip"


def test_random_damage_of_a_clip_never_ends_in_another_error(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.mkv", "a.gif"):
        path = tmp_path / name
        if name == "a.gif":
            saved(path, halves("P"), save_all=True, append_images=[halves("P").rotate(9)] * 3)
        else:
            encode(path, 12, options={"preset": "ultrafast"})
        whole = path.read_bytes()
        rng = np.random.default_rng(2)
        for _ in range(60):
            damaged = bytearray(whole)
            for at in rng.integers(0, len(whole), 8):
                damaged[at] = rng.integers(256)
            path.write_bytes(damaged)
            try:
                media.read_frames(path, frames=4, max_pixels=LIMIT)
            except MediaError as error:
                assert len(str(error)) < 100


def test_a_frame_that_makes_an_animation_larger_than_allowed_is_refused(tmp_path: Path) -> None:
    """A GIF says its size at the beginning, and any of its frames may be larger."""
    frames = [Image.new("RGB", (64, 40), color) for color in ("red", "lime", "blue", "white")]
    path = saved(tmp_path / "grows.gif", frames[0], save_all=True, append_images=frames[1:], duration=100)
    gif = bytearray(path.read_bytes())
    at = gif.rfind(b",\0\0\0\0\x40\0\x28\0")
    assert gif[:at].count(b",\0\0\0\0\x40\0\x28\0") == 3
    gif[at + 5 : at + 9] = struct.pack("<HH", 5_000, 4_000)
    path.write_bytes(gif)
    for frames_asked in (1, 2, 4):
        with pytest.raises(MediaError, match="5000x4000 px"):
            media.read_frames(path, frames=frames_asked, max_pixels=10**6)
    with pytest.raises(MediaError, match="5000x4000 px"):
        media.read_footage(path, side=8, seconds=10.0, max_pixels=10**6)


def test_frames_that_grow_are_held_no_longer_than_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [Image.new("RGB", (64, 40), color) for color in ("red", "lime", "blue", "white")]
    path = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:], duration=100)
    held = [np.asarray(frame) for frame in media.read_frames(path, frames=2, max_pixels=10**6)]
    monkeypatch.setattr(media, "HELD_BYTES", 1)
    again = [np.asarray(frame) for frame in media.read_frames(path, frames=2, max_pixels=10**6)]
    assert len(held) == 2 and all((a == b).all() for a, b in zip(held, again, strict=True))


# --- what browsers record ------------------------------------------------------------------------------------------


class Pipe:
    """A file that is written front to back, as a browser's recorder does it: nothing is gone back to."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self.parts.append(bytes(data))
        return len(data)


def recorded(kind: str, count: int, gop: int) -> bytes:
    """Chrome and Firefox record WebM without duration or cues, Safari fragmented mp4; here with sound."""
    options = {"webm": {"live": "1"}, "mp4": {"movflags": "frag_keyframe+empty_moov+default_base_moof"}}[kind]
    codecs = {"webm": ("libvpx", "libopus"), "mp4": ("libx264", "aac")}[kind]
    pipe = Pipe()
    with av.open(pipe, "w", format=kind, options=options) as container:
        stream = container.add_stream(codecs[0], rate=RATE, options={"g": str(gop)})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, "yuv420p", 3_000_000
        track = container.add_stream(codecs[1], rate=48_000, layout="mono")
        assert isinstance(track, AudioStream)
        tone = np.sin(np.arange(48_000 * count // RATE) * 2 * np.pi * 220 / 48_000).astype(np.float32)
        sound = av.AudioFrame.from_ndarray(tone[None], format="fltp" if kind == "mp4" else "flt", layout="mono")
        sound.sample_rate = 48_000
        container.mux([*track.encode(sound), *track.encode(None)])
        for at in range(count):
            picture = np.full((48, 64, 3), 20 + STEP * at, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return b"".join(pipe.parts)


@pytest.mark.parametrize("gop", [5, 1000])
@pytest.mark.parametrize("kind", ["webm", "mp4"])
def test_what_a_browser_records_is_read(tmp_path: Path, kind: str, gop: int) -> None:
    content = recorded(kind, 40, gop)
    path = tmp_path / f"a.{kind}"
    path.write_bytes(content)
    if kind == "webm":
        with av.open(str(path)) as container:
            assert container.duration is None
    for source in (content, path):
        frames = media.read_frames(source, frames=8, max_pixels=LIMIT, max_seconds=2)
        assert which(frames) == [2, 7, 12, 17, 22, 27, 32, 37]
        with pytest.raises(MediaError, match="too long"):
            media.read_frames(source, frames=8, max_pixels=LIMIT, max_seconds=1)


def test_a_clip_in_another_container_is_the_same_clip(tmp_path: Path) -> None:
    made = {}
    for name, shift in (("one.mp4", 0), ("two.mp4", 40)):
        with av.open(str(tmp_path / name), "w") as file:
            stream = file.add_stream("mpeg4", rate=10)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for at in range(8):
                picture = np.full((48, 64, 3), 20 * at + shift, dtype=np.uint8)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            file.mux(stream.encode(None))
        made[name] = media.pictures_digest(tmp_path / name)
    with av.open(str(tmp_path / "one.mp4")) as before, av.open(str(tmp_path / "one.mkv"), "w") as after:
        copied = after.add_stream_from_template(before.streams.video[0])
        for packet in before.demux(before.streams.video[0]):
            if packet.dts is not None:
                packet.stream = copied
                after.mux(packet)
    assert media.pictures_digest(tmp_path / "one.mkv") == made["one.mp4"] != made["two.mp4"]
    (tmp_path / "none.mp4").write_bytes(b"no clip")
    with pytest.raises(MediaError, match="not a clip"):
        media.pictures_digest(tmp_path / "none.mp4")
