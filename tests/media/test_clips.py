import time
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from pipeline.core.files import MediaError
from pipeline.media.clips import read_frames
from tests.media.made import LIMIT, RATE, STEP, animation, damaged, encode, halves, reason, saved, which


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
        return read_frames(source, frames=4, max_pixels=LIMIT)
    except MediaError as error:
        return str(error)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_a_clip_longer_than_allowed_is_refused(tmp_path: Path, name: str) -> None:
    """Two seconds of either."""
    path = animation(tmp_path / name, 20) if name == "a.gif" else encode(tmp_path / name, 2 * RATE)
    assert read_frames(path, frames=2, max_pixels=LIMIT, max_seconds=2.05)
    with pytest.raises(MediaError, match=r"^too long: at most 1\.9 seconds are allowed$"):
        read_frames(path, frames=2, max_pixels=LIMIT, max_seconds=1.9)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_reading_stops_at_the_deadline(tmp_path: Path, name: str) -> None:
    path = animation(tmp_path / name, 20) if name == "a.gif" else encode(tmp_path / name, 40)
    assert read_frames(path, frames=2, max_pixels=LIMIT, deadline=time.monotonic() + 60)
    with pytest.raises(MediaError, match="takes too long to read"):
        read_frames(path, frames=2, max_pixels=LIMIT, deadline=time.monotonic() - 1)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("name", ["a.mp4", "front.mp4", "a.mkv", "a.webm", "a.mov"])
def test_a_clip_cut_short_is_refused(tmp_path: Path, name: str, share: float) -> None:
    codec = "libvpx-vp9" if name == "a.webm" else "libx264"
    index_first = {"movflags": "faststart"} if name == "front.mp4" else None
    path = encode(tmp_path / name, 100, codec=codec, container_options=index_first)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert reason(path) in {"truncated", "no frames"}


def test_sound_alone_is_no_clip(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), dtype=np.float32), format="fltp", layout="mono")
        frame.rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert reason(path) == "no video stream"


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
        for content in damaged(path.read_bytes(), 60, 8, seed=2):
            path.write_bytes(content)
            try:
                read_frames(path, frames=4, max_pixels=LIMIT)
            except MediaError as error:
                assert len(str(error)) < 100


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
        frames = read_frames(source, frames=8, max_pixels=LIMIT, max_seconds=2)
        assert which(frames) == [2, 7, 12, 17, 22, 27, 32, 37]
        with pytest.raises(MediaError, match="too long"):
            read_frames(source, frames=8, max_pixels=LIMIT, max_seconds=1)
