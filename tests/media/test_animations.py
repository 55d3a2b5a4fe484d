import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.core.files import MediaError
from pipeline.media import animations
from pipeline.media.animations import HELD_BYTES
from pipeline.media.clips import read_frames
from pipeline.media.footage import read_footage
from tests.media.made import STEP, frames_of, halves, reason, saved, which


@pytest.mark.parametrize("held", [0, HELD_BYTES])
@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_animated_pictures_keep_their_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, held: int
) -> None:
    monkeypatch.setattr(animations, "HELD_BYTES", held)
    frames = [Image.new("L", (16, 12), 20 + STEP * at).convert("RGB") for at in range(10)]
    durations = [900, *[100] * 9]
    exact = {"lossless": True} if name == "a.webp" else {}
    path = saved(tmp_path / name, frames[0], save_all=True, append_images=frames[1:], duration=durations, **exact)
    # Of 1.8 seconds the middles of three intervals are 0.3, 0.9 and 1.5: frame 0, frame 1 (from 0.9), frame 7 (1.5).
    assert which(frames_of(path, 3)) == [0, 1, 7]
    assert which(frames_of(path, 20)) == list(range(10))


def test_a_still_picture_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    assert len(frames_of(saved(tmp_path / "a.gif", halves()), 8)) == 1


def test_a_later_frame_without_its_colours_is_damage(tmp_path: Path) -> None:
    black, dotted = Image.new("L", (8, 8)), Image.new("L", (8, 8))
    dotted.putpixel((0, 0), 255)
    path = saved(tmp_path / "a.gif", black, save_all=True, append_images=[dotted], disposal=2)
    content = path.read_bytes()
    colours = 3 * 2 ** ((content[10] & 7) + 1)
    path.write_bytes(content[:10] + b"\0" + content[11:13] + content[13 + colours :])
    assert reason(path) == "corrupt"


def test_frames_that_grow_are_held_no_longer_than_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [Image.new("RGB", (64, 40), color) for color in ("red", "lime", "blue", "white")]
    path = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:], duration=100)
    held = [np.asarray(frame) for frame in read_frames(path, frames=2, max_pixels=10**6)]
    monkeypatch.setattr(animations, "HELD_BYTES", 1)
    again = [np.asarray(frame) for frame in read_frames(path, frames=2, max_pixels=10**6)]
    assert len(held) == 2 and all((a == b).all() for a, b in zip(held, again, strict=True))


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
            read_frames(path, frames=frames_asked, max_pixels=10**6)
    with pytest.raises(MediaError, match="5000x4000 px"):
        read_footage(path, side=8, seconds=10.0, max_pixels=10**6)
