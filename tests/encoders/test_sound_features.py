"""The stream of sound: known answers of known waves, and clips whose sound is odd or not there."""

import io
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipeline.core.files import MediaError
from pipeline.encoders import sound_features
from pipeline.encoders.sound_features import FEATURES, SoundEncoder
from pipeline.media.clips import read_clip
from pipeline.media.sound import SOUND_RATE
from pipeline.params import EmbedSoundParams

LIMIT = 1_000_000


def tone(hertz: float = 220.0, seconds: float = 1.0, rate: int = SOUND_RATE, harmonics: int = 4) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    waves = [np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, harmonics + 1)]
    return (0.2 * np.sum(waves, axis=0)).astype(np.float32)


def named(samples: np.ndarray) -> dict[str, float]:
    return dict(zip(FEATURES, sound_features.features(samples).tolist(), strict=True))


def clip(
    path: Path | io.IOBase, samples: np.ndarray | None, rate: int = SOUND_RATE, seconds: float = 1.0, **options: str
) -> None:
    """A clip of gray frames for so many ``seconds`` (0: none) with these samples [channels, n] as its sound."""
    codec = options.get("codec", "pcm_s16le")
    target: Any = str(path) if isinstance(path, Path) else path
    with av.open(target, "w", format=options.get("format")) as container:
        video: Any = container.add_stream(options.get("video", "mpeg4"), rate=10) if seconds else None
        if video is not None:
            video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        audio: Any = None
        if samples is not None:
            audio = container.add_stream(codec, rate=rate, layout="mono" if len(samples) == 1 else "stereo")
        if video is not None:
            for at in range(round(seconds * 10)):
                frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 100 + at, np.uint8))
                frame.pts, frame.time_base = at, Fraction(1, 10)
                container.mux(video.encode(frame))
            container.mux(video.encode())
        if audio is not None and samples is not None:
            for at in range(0, samples.shape[1], 960):
                part = np.ascontiguousarray(samples[:, at : at + 960])
                frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=audio.layout.name)
                frame.sample_rate, frame.pts, frame.time_base = rate, at, Fraction(1, rate)
                container.mux(audio.encode(frame))
            container.mux(audio.encode())


def heard(path: Path, seconds: float = 60.0) -> np.ndarray:
    return read_clip(path, frames=[(2, None)], sound_seconds=seconds, max_pixels=LIMIT).sound()


def test_fifty_channels_are_their_mean(tmp_path: Path) -> None:
    """PyAV gives at most eight planes, and reading a ninth ended the process."""
    channels = tone(220.0, 0.5)[:, None] * np.linspace(0, 1, 50, dtype=np.float32)
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        audio: Any = container.add_stream("pcm_s16le", rate=SOUND_RATE, layout="50 channels")
        samples = (32767 * channels).astype(np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="50 channels")
        frame.sample_rate = SOUND_RATE
        container.mux(audio.encode(frame))
        container.mux(audio.encode())
    np.testing.assert_allclose(heard(tmp_path / "a.mkv"), channels.mean(axis=1), atol=1e-4)


@pytest.mark.parametrize("hertz", [90.0, 220.0, 440.0])
def test_pitch_of_a_tone_is_its_frequency(hertz: float) -> None:
    pitch, periodicity = sound_features.pitches(tone(hertz))
    np.testing.assert_allclose(pitch[5:-5], hertz, rtol=0.005)
    assert periodicity[5:-5].min() > 0.99
    found = named(tone(hertz))
    assert found["f0.p50"] == pytest.approx(12 * np.log2(hertz / 100), abs=0.1)
    assert found["f0.range"] < 0.3
    assert found["voice.voiced_share"] > 0.9


def test_pitch_equals_yin_written_out() -> None:
    rng = np.random.default_rng(0)
    samples = tone(150.0, 0.2) + 0.05 * rng.normal(size=3200).astype(np.float32)
    longest, window = int(SOUND_RATE / sound_features.LOWEST_PITCH) + 1, sound_features.PITCH_WINDOW
    frame = samples[500 : 500 + window + longest].astype(np.float64)
    slow = [((frame[:window] - frame[lag : lag + window]) ** 2).sum() for lag in range(longest + 1)]
    np.testing.assert_allclose(sound_features._differences(frame[None], longest)[0], slow, atol=1e-9)
    normal = [1.0] + [slow[lag] * lag / sum(slow[1 : lag + 1]) for lag in range(1, longest + 1)]
    np.testing.assert_allclose(sound_features._mean_normalised(np.array([slow]))[0], normal, rtol=1e-9)


def test_a_rising_tone_has_the_slope_that_it_rises_by() -> None:
    time = np.arange(SOUND_RATE) / SOUND_RATE
    rising = 0.3 * np.sin(2 * np.pi * 150 * (2**time - 1) / np.log(2))  # an octave in a second
    assert named(rising.astype(np.float32))["f0.slope"] == pytest.approx(12.0, rel=0.05)


def test_level_is_in_decibels_of_full_scale() -> None:
    sine = np.sin(2 * np.pi * 200 * np.arange(SOUND_RATE) / SOUND_RATE).astype(np.float32)
    assert named(sine)["level.mean"] == pytest.approx(-3.01, abs=0.05)
    loud, quiet = named(tone()), named(0.1 * tone())
    assert loud["level.mean"] - quiet["level.mean"] == pytest.approx(20.0, abs=0.01)
    same = [name for name in FEATURES if not name.startswith(("mel", "mfcc_00.mean", "level.mean", "mfcc_"))]
    np.testing.assert_allclose([quiet[name] for name in same], [loud[name] for name in same], atol=1e-2)


def test_pauses_are_counted() -> None:
    samples = np.concatenate([tone(seconds=0.5), np.zeros(SOUND_RATE // 2, np.float32)] * 2)
    found = named(samples)
    assert found["voice.heard_share"] == pytest.approx(0.5, abs=0.05)
    assert found["voice.runs_per_second"] == pytest.approx(1.0, abs=0.05)
    assert found["voice.run_length"] == pytest.approx(50, abs=6)


def test_noise_has_columns_too_and_is_not_voiced() -> None:
    found = named(0.1 * np.random.default_rng(0).normal(size=SOUND_RATE).astype(np.float32))
    assert np.isfinite(list(found.values())).all()
    assert found["voice.voiced_share"] < 0.05
    assert found["voice.periodicity_mean"] < named(tone())["voice.periodicity_mean"]


@pytest.mark.parametrize(
    ("samples", "why"),
    [
        (np.zeros(SOUND_RATE, np.float32), "no sound: silence"),
        (tone(seconds=0.05), "no sound: shorter than 0.1 seconds"),
    ],
)
def test_nothing_to_hear_is_said(samples: np.ndarray, why: str) -> None:
    with pytest.raises(MediaError, match=why):
        sound_features.features(samples)


def test_stereo_is_mono(tmp_path: Path) -> None:
    clip(tmp_path / "mono.mkv", tone()[None])
    clip(tmp_path / "stereo.mkv", np.stack([tone(), tone()]))
    np.testing.assert_allclose(heard(tmp_path / "stereo.mkv"), heard(tmp_path / "mono.mkv"), atol=1e-4)
    np.testing.assert_allclose(heard(tmp_path / "mono.mkv"), tone(), atol=1e-4)


@pytest.mark.parametrize("rate", [44_100, 48_000, 8_000])
def test_another_rate_gives_the_same_columns(tmp_path: Path, rate: int) -> None:
    clip(tmp_path / "a.mkv", tone(rate=rate)[None], rate=rate)
    samples = heard(tmp_path / "a.mkv")
    assert len(samples) == pytest.approx(SOUND_RATE, abs=40)
    np.testing.assert_allclose(samples[500:-500], tone()[: len(samples)][500:-500], atol=0.01)
    found, expected = named(samples), named(tone())
    for name in ("f0.mean", "level.mean", "mel_03.mean", "voice.voiced_share"):
        assert found[name] == pytest.approx(expected[name], abs=0.1), name


def test_sound_longer_than_the_pictures_counts_and_is_cut_at_the_limit(tmp_path: Path) -> None:
    clip(tmp_path / "a.mkv", tone(seconds=3.0)[None], seconds=0.5)
    assert len(heard(tmp_path / "a.mkv")) == 3 * SOUND_RATE
    np.testing.assert_array_equal(heard(tmp_path / "a.mkv", 1.25), heard(tmp_path / "a.mkv")[:20_000])
    encoder = SoundEncoder(EmbedSoundParams(seconds=1.0))
    whole = read_clip(tmp_path / "a.mkv", sound_seconds=3.0, max_pixels=LIMIT)
    np.testing.assert_array_equal(encoder.prepare(whole), sound_features.features(heard(tmp_path / "a.mkv", 1.0)))


def test_without_an_audio_track_there_are_frames_and_a_reason(tmp_path: Path) -> None:
    clip(tmp_path / "a.mkv", None)
    found = read_clip(tmp_path / "a.mkv", frames=[(2, None)], sound_seconds=9.0, max_pixels=LIMIT)
    assert len(found.frames(2)) == 2
    with pytest.raises(MediaError, match="no sound: no audio track"):
        SoundEncoder(EmbedSoundParams()).prepare(found)


def test_without_pictures_there_is_sound_and_a_reason(tmp_path: Path) -> None:
    clip(tmp_path / "a.mkv", tone()[None], seconds=0)
    found = read_clip(tmp_path / "a.mkv", frames=[(2, None)], sound_seconds=9.0, max_pixels=LIMIT)
    np.testing.assert_allclose(found.sound(), tone(), atol=1e-4)
    with pytest.raises(MediaError, match="no video stream"):
        found.frames(2)


def test_a_recording_of_a_browser_without_duration_or_index_is_heard(tmp_path: Path) -> None:
    """As MediaRecorder writes WebM: to a stream that cannot be rewound."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.parts: list[bytes] = []

        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
            self.parts.append(bytes(data))
            return len(data)

    pipe = Pipe()
    clip(pipe, tone(rate=48_000)[None], rate=48_000, codec="libopus", video="libvpx", format="webm")
    (tmp_path / "a.webm").write_bytes(b"".join(pipe.parts))
    samples = heard(tmp_path / "a.webm")
    assert named(samples)["f0.p50"] == pytest.approx(12 * np.log2(2.2), abs=0.1)


def test_memory_does_not_follow_the_length_of_the_sound(tmp_path: Path) -> None:
    clip(tmp_path / "a.mkv", np.tile(tone(seconds=10.0), 60)[None], seconds=0.5)
    code = (
        "import resource, sys; from pathlib import Path; from pipeline.media.clips import read_clip\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "clip = read_clip(Path(sys.argv[1]), sound_seconds=5.0, max_pixels=10**6)\n"
        "print(len(clip.sound()), peak() - before)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.mkv")], capture_output=True, text=True, check=True
    )
    samples, kilobytes = map(int, found.stdout.split())
    assert samples == 5 * SOUND_RATE
    assert kilobytes < 20_000  # ten minutes are 38 MB
