from pathlib import Path

import av
import numpy as np
import pytest
from av.container import InputContainer

from pipeline.media import decoding
from tests.media.made import encode, frames_of, reason, which


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
    original = decoding._play
    monkeypatch.setattr(
        decoding, "_play", lambda *given: (decoded.append(frame.pts) or frame for frame in original(*given))
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


def test_too_large_is_seen_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "a.mp4", 4, size=(640, 360))
    monkeypatch.setattr(decoding, "_play", None)
    assert reason(path, 640 * 360 - 1) == "too large"
