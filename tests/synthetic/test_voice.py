"""Voices: the feelings differ as they should, measured on the sound itself; clips carry them, or say nothing."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.synthetic.drawing import CLIP_FRAMES, EXPRESSIONS, Mood, render_clip
from pipeline.synthetic.posts import MOODS, plan_posts, voice_of, write_clip
from pipeline.synthetic.voice import MANNERS, RATE, Speaker, speak

SPEAKER = Speaker(pitch=150, formants=1, lively=1, pace=1, gain=0, noise=-80)
SECONDS = 2.0


def spoken(mood: Mood, times: int = 12) -> list[np.ndarray]:
    return [speak(SPEAKER, mood, SECONDS, np.random.default_rng([at, 5])) for at in range(times)]


def pitches(sound: np.ndarray) -> np.ndarray:
    """Hz of each voiced 40 ms, in order of time: the first strong peak of the autocorrelation."""
    frames = np.lib.stride_tricks.sliding_window_view(sound, 640)[::160].astype(float)
    frames = frames[np.sqrt((frames**2).mean(1)) > 0.3 * sound.std()]
    rates = []
    for frame in frames:
        products = np.correlate(frame, frame, "full")[639:] / np.arange(640, 0, -1)
        lags = np.arange(RATE // 500, RATE // 60)
        strong = lags[products[lags] > 0.85 * products[lags].max()]
        peaks = [lag for lag in strong if products[lag] >= max(products[lag - 1], products[lag + 1])]
        if peaks and products[peaks[0]] > 0.5 * products[0]:
            rates.append(RATE / peaks[0])
    return np.array(rates)


def semitones(sound: np.ndarray) -> np.ndarray:
    return 12 * np.log2(pitches(sound) / SPEAKER.pitch)


def level(sound: np.ndarray) -> float:
    return float(20 * np.log10(np.sqrt(np.mean(sound[np.abs(sound) > 1e-3] ** 2))))


def brightness(sound: np.ndarray) -> float:
    """The mean frequency of its spectrum, in Hz."""
    power = np.abs(np.fft.rfft(sound)) ** 2
    return float((power * np.fft.rfftfreq(len(sound), 1 / RATE)).sum() / power.sum())


def test_a_level_voice_has_the_pitch_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MANNERS, "calm", replace(MANNERS["calm"], accent=0, slope=0, breath=0))
    for hertz in (110.0, 220.0):
        means = [
            float(np.median(pitches(speak(replace(SPEAKER, pitch=hertz), "calm", SECONDS, np.random.default_rng(at)))))
            for at in range(8)
        ]
        # A phrase as a whole lies higher or lower with a standard deviation of .7 semitones: 4 % of its pitch.
        assert np.mean(means) == pytest.approx(hertz, rel=0.04)


def test_feelings_sound_as_the_literature_has_them() -> None:
    sounds = {mood: spoken(mood) for mood in EXPRESSIONS}
    loud = {mood: np.mean([level(sound) for sound in many]) for mood, many in sounds.items()}
    high = {mood: np.mean([np.median(semitones(sound)) for sound in many]) for mood, many in sounds.items()}
    wide = {
        mood: np.mean([np.subtract(*np.percentile(semitones(sound), [80, 20])) for sound in many])
        for mood, many in sounds.items()
    }
    bright = {mood: np.mean([brightness(sound) for sound in many]) for mood, many in sounds.items()}
    assert max(loud, key=lambda mood: loud[mood]) == "angry"
    assert min(loud, key=lambda mood: loud[mood]) == "sad"
    assert loud["angry"] - loud["sad"] > 10
    assert min(high, key=lambda mood: high[mood]) == "sad"
    assert high["happy"] > high["calm"] + 2
    assert wide["happy"] > 2 * max(wide["calm"], wide["sad"])
    assert max(bright, key=lambda mood: bright[mood]) == "angry"
    assert min(bright, key=lambda mood: bright[mood]) == "sad"


def test_surprise_rises_and_sadness_falls() -> None:
    def rise(mood: Mood) -> float:
        """Semitones from the first to the last third, on average."""
        tracks = [semitones(sound) for sound in spoken(mood)]
        return float(
            np.mean([np.median(track[-len(track) // 3 :]) - np.median(track[: len(track) // 3]) for track in tracks])
        )

    assert rise("surprised") > 4
    assert rise("sad") < -1
    assert abs(rise("calm")) < 2


def test_a_microphone_and_a_room_are_heard() -> None:
    rng = [np.random.default_rng(3) for _ in range(3)]
    plain, near = speak(SPEAKER, "calm", SECONDS, rng[0]), speak(replace(SPEAKER, gain=6.0), "calm", SECONDS, rng[1])
    assert level(near) - level(plain) == pytest.approx(6, abs=0.5)
    noisy = speak(replace(SPEAKER, noise=-40), "calm", SECONDS, rng[2])
    before = slice(0, RATE // 25)  # nobody speaks in the first 40 ms
    assert 20 * np.log10(noisy[before].std()) == pytest.approx(-40, abs=3)
    assert 20 * np.log10(plain[before].std()) == pytest.approx(-80, abs=3)


def test_a_voice_is_as_long_as_asked_and_never_clips_over() -> None:
    loud = replace(SPEAKER, gain=30.0)
    for seconds in (0.5, 2.0, 3.3):
        sound = speak(loud, "angry", seconds, np.random.default_rng(1))
        assert sound.dtype == np.float32
        assert len(sound) == round(seconds * RATE)
        assert np.abs(sound).max() == 1.0


def test_most_clips_are_spoken_as_meant_and_some_are_not() -> None:
    plan = [post for post in plan_posts(3000, seed=1) if post.modality == "video"]
    voices = [(voice_of(post, np.random.default_rng([1, post.index, 2])), MOODS[post.meaning]) for post in plan]
    kinds = Counter(voice if voice in ("no sound", "muted") else voice == meant for voice, meant in voices)
    shares = {kind: count / len(plan) for kind, count in kinds.items()}
    # Binomial: a standard deviation is at most .017 with 594 clips.
    assert shares == {
        "no sound": pytest.approx(0.08, abs=0.05),
        "muted": pytest.approx(0.04, abs=0.04),
        False: pytest.approx(0.08, abs=0.05),
        True: pytest.approx(0.80, abs=0.06),
    }
    against_the_face = [post for post, (voice, _) in zip(plan, voices, strict=True) if voice != post.mood]
    assert any(post.tone == "ironic" for post in against_the_face)


def test_a_clip_carries_its_sound(tmp_path: Path) -> None:
    def frames():
        return render_clip("happy", "pov", np.random.default_rng(5))

    sound = speak(SPEAKER, "happy", SECONDS, np.random.default_rng(2))
    for name, given in (("a", sound), ("b", sound), ("muted", np.zeros_like(sound)), ("none", None)):
        write_clip(tmp_path / f"{name}.mp4", frames(), given)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    heard = decoded(tmp_path / "a.mp4")
    assert heard is not None
    assert len(heard) == pytest.approx(len(sound), abs=2048)
    assert level(heard) == pytest.approx(level(sound), abs=1)
    assert np.median(pitches(heard)) == pytest.approx(np.median(pitches(sound)), rel=0.03)
    quiet = decoded(tmp_path / "muted.mp4")
    assert quiet is not None
    assert np.abs(quiet).max() < 1e-4
    assert decoded(tmp_path / "none.mp4") is None
    for name in ("a", "none"):
        with av.open(str(tmp_path / f"{name}.mp4")) as clip:
            assert sum(1 for _ in clip.decode(video=0)) == CLIP_FRAMES


def decoded(path: Path) -> np.ndarray | None:
    with av.open(str(path)) as clip:
        if not clip.streams.audio:
            return None
        assert clip.streams.audio[0].rate == RATE
        return np.concatenate([frame.to_ndarray()[0] for frame in clip.decode(audio=0)])
