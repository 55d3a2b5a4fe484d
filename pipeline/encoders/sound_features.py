"""The sound of a clip → named features of how it sounds: loudness, spectrum, pitch, voice and pauses over time.

Frames of 25 ms every 10 ms; of each the level, the log-mel spectrum, MFCC, and the pitch by YIN. Columns are statistics
over the frames in which something is heard, so that pauses and the length of a clip say nothing of its timbre. No
weights, no network, and nobody is recognised by them.

Sources: Davis and Mermelstein, "Comparison of parametric representations for monosyllabic word recognition", 1980
(MFCC); de Cheveigné and Kawahara, "YIN, a fundamental frequency estimator for speech and music", 2002; Eyben et al.,
"The Geneva minimalistic acoustic parameter set (GeMAPS) for voice research and affective computing", 2016 (which
statistics of which features carry emotion).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
import torch

from pipeline.core.files import MediaError
from pipeline.core.schemas import Feature
from pipeline.media.clips import Clip
from pipeline.media.kinds import NO_SOUND
from pipeline.media.sound import SOUND_RATE
from pipeline.params import EmbedSoundParams

VERSION = 1
"""Raised when the columns mean something else than before, so that vectors kept from before are not used."""

HOP, WINDOW, FFT = SOUND_RATE // 100, SOUND_RATE // 40, 512
"""Samples from frame to frame, in a frame, and in its Fourier transform."""

BANDS, CEPSTRA = 20, 13
LOWEST_HZ, HIGHEST_HZ = 60.0, 7600.0

PITCH_WINDOW = SOUND_RATE // 25
LOWEST_PITCH, HIGHEST_PITCH = 60.0, 500.0
"""YIN's window in samples, and the pitches in Hz that voices have."""

APERIODIC = 0.15
"""YIN's threshold: a dip of its difference function below this is a period."""

VOICED = 0.8
"""Periodicity, 1 less YIN's difference, from which on a frame counts as voiced."""

FEWEST_VOICED = 5
"""Where fewer frames are voiced, the most periodic ones stand for them: of music or noise, pitch says little."""

HEARD_DB = 30.0
"""A frame counts as heard down to so many decibels below the loud ones (the 95th percentile of the levels)."""

SILENT_DB = -80.0
"""A clip is silent if no frame reaches this level; 0 is that of the loudest square wave there is."""

SHORTEST = SOUND_RATE // 10
"""Samples that say anything."""

BLOCK = 3000
"""Frames whose spectra are in memory at once."""

FEATURES: tuple[str, ...] = (
    *(f"mel_{band:02}.{statistic}" for statistic in ("mean", "std", "p10", "p90") for band in range(BANDS)),
    *(f"mfcc_{order:02}.{statistic}" for statistic in ("mean", "std", "delta_std") for order in range(CEPSTRA)),
    *(
        f"f0.{statistic}"
        for statistic in ("mean", "std", "p05", "p25", "p50", "p75", "p95", "range", "slope", "step", "step_std")
    ),
    *("voice.heard_share", "voice.voiced_share", "voice.voiced_of_heard", "voice.runs_per_second", "voice.run_length"),
    *("voice.periodicity_mean", "voice.periodicity_std"),
    *(f"level.{statistic}" for statistic in ("mean", "std", "p95", "p50", "p10", "step")),
)
"""The columns. ``mel`` in nepers of power; ``f0`` in semitones above 100 Hz; ``level`` in decibels of full scale, its
percentiles relative to its mean; a ``slope`` a second, a ``step`` from frame to frame; shares and lengths of frames."""


def features(samples: np.ndarray) -> np.ndarray:
    """What a sound is like: float32 [len(FEATURES)] of float32 [samples], mono, ``SOUND_RATE`` a second.

    Raises MediaError when it is silent, or too short to say anything.
    """
    check_audible(samples)
    level, mel = _spectra(samples)
    pitch, periodicity = pitches(samples)
    audible = level > np.percentile(level, 95) - HEARD_DB
    columns = [
        _spectrum(mel, audible),
        _pitch(pitch, periodicity, audible),
        _voice(periodicity, audible),
        _level(level, audible),
    ]
    return np.concatenate(columns).astype(np.float32)


def check_audible(samples: np.ndarray) -> None:
    """Raises MediaError when a sound is silent, or too short to say anything."""
    if len(samples) < SHORTEST:
        raise MediaError(f"{NO_SOUND}: shorter than {SHORTEST / SOUND_RATE:g} seconds")
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    loudest = (energy[WINDOW:] - energy[:-WINDOW])[::HOP].max() / WINDOW
    if 10 * np.log10(loudest + 1e-12) < SILENT_DB:
        raise MediaError(f"{NO_SOUND}: silence")


def _cut(samples: np.ndarray, size: int) -> np.ndarray:
    """Frames [n, size], one every ``HOP``, as a view; a last one that is not full is left out."""
    return np.lib.stride_tricks.sliding_window_view(samples, size)[::HOP]


def _spectra(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Level in decibels, float64 [n], and log-mel spectrum, float64 [n, BANDS * 2], of each frame."""
    from transformers.audio_utils import mel_filter_bank

    frames = _cut(samples, WINDOW)
    bank = mel_filter_bank(FFT // 2 + 1, 2 * BANDS, LOWEST_HZ, HIGHEST_HZ, SOUND_RATE)
    hann = np.hanning(WINDOW + 1)[:-1]
    level, mel = np.empty(len(frames)), np.empty((len(frames), 2 * BANDS))
    for at in range(0, len(frames), BLOCK):
        block = frames[at : at + BLOCK].astype(np.float64)
        power = np.abs(scipy.fft.rfft(block * hann, FFT, axis=1)) ** 2
        level[at : at + BLOCK] = 10 * np.log10((block**2).mean(axis=1) + 1e-12)
        mel[at : at + BLOCK] = np.log(power @ bank + 1e-8)
    return level, mel


def pitches(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pitch in Hz and periodicity (1: the wave repeats itself) of each frame, float64 [n] each, by YIN.

    Frames are those of the spectra: as many, and about the same moments at their middles.
    """
    longest = int(SOUND_RATE / LOWEST_PITCH) + 1
    size = PITCH_WINDOW + longest
    before = (size - WINDOW) // 2
    frames = _cut(np.pad(samples, (before, size - WINDOW - before)), size)
    blocks = [_yin(frames[at : at + BLOCK].astype(np.float64), longest) for at in range(0, len(frames), BLOCK)]
    return np.concatenate([pitch for pitch, _ in blocks]), np.concatenate([periodicity for _, periodicity in blocks])


def _yin(frames: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps 1 to 5 of the paper: difference function, its cumulative mean, threshold, parabola."""
    normal = _mean_normalised(_differences(frames, longest))
    shortest = int(SOUND_RATE / HIGHEST_PITCH)
    candidates = normal[:, shortest:-1]
    dips = (candidates < APERIODIC) & (normal[:, shortest + 1 :] >= candidates)
    lag = shortest + np.where(dips.any(axis=1), dips.argmax(axis=1), candidates.argmin(axis=1))
    rows = np.arange(len(frames))
    left, middle, right = (normal[rows, lag + shift] for shift in (-1, 0, 1))
    bend = left - 2 * middle + right
    shift = np.where(bend > 1e-12, 0.5 * (left - right) / np.where(bend > 1e-12, bend, 1.0), 0.0).clip(-0.5, 0.5)
    return SOUND_RATE / (lag + shift), 1.0 - middle


def _differences(frames: np.ndarray, longest: int) -> np.ndarray:
    """Squared differences of each frame's window and the window ``lag`` later, [n, longest + 1], by way of FFT."""
    length = scipy.fft.next_fast_len(frames.shape[1] + PITCH_WINDOW, real=True)
    whole = scipy.fft.rfft(frames, length, axis=1)
    window = scipy.fft.rfft(frames[:, :PITCH_WINDOW], length, axis=1)
    products = scipy.fft.irfft(whole * window.conj(), length, axis=1)[:, : longest + 1]
    sums = np.cumsum(np.pad(frames**2, ((0, 0), (1, 0))), axis=1)
    energy = sums[:, PITCH_WINDOW:] - sums[:, : longest + 1]
    return np.maximum(energy[:, :1] + energy - 2 * products, 0.0)


def _mean_normalised(differences: np.ndarray) -> np.ndarray:
    """Each difference over the mean of those of shorter lags; 1 at lag 0, and where nothing is heard."""
    normal = np.ones_like(differences)
    means = np.cumsum(differences[:, 1:], axis=1) / np.arange(1, differences.shape[1])
    np.divide(differences[:, 1:], means, out=normal[:, 1:], where=means > 1e-12)
    return normal


def _spectrum(mel: np.ndarray, audible: np.ndarray) -> np.ndarray:
    """MFCC are of twice as many bands as are columns themselves, whose neighbours are averaged."""
    bands = (mel[:, ::2] + mel[:, 1::2])[audible] / 2
    cepstra = scipy.fft.dct(mel, type=2, norm="ortho", axis=1)[:, :CEPSTRA]
    heard = cepstra[audible]
    parts = [bands.mean(axis=0), bands.std(axis=0), *np.percentile(bands, [10, 90], axis=0)]
    return np.concatenate([*parts, heard.mean(axis=0), heard.std(axis=0), _deltas(cepstra)[audible].std(axis=0)])


def _deltas(rows: np.ndarray) -> np.ndarray:
    """The slope over five frames by least squares, of the same shape; beyond the ends, the last frame goes on."""
    padded = np.pad(rows, ((2, 2), (0, 0)), mode="edge")
    count = len(rows)
    return (2 * (padded[4:] - padded[:count]) + padded[3 : count + 3] - padded[1 : count + 1]) / 10


def _pitch(pitch: np.ndarray, periodicity: np.ndarray, audible: np.ndarray) -> np.ndarray:
    voiced = audible & (periodicity > VOICED)
    if voiced.sum() < FEWEST_VOICED:
        voiced = np.zeros_like(audible)
        voiced[np.argsort(-periodicity, kind="stable")[:FEWEST_VOICED]] = True
    at = np.flatnonzero(voiced)
    tones = 12 * np.log2(pitch[at] / 100)
    low, *middle, high = np.percentile(tones, [5, 25, 50, 75, 95])
    seconds = at * HOP / SOUND_RATE
    seconds = seconds - seconds.mean()
    slope = seconds @ tones / max(seconds @ seconds, 1e-9)
    steps = np.diff(tones)[np.diff(at) == 1]
    moved = (np.abs(steps).mean(), steps.std()) if len(steps) else (0.0, 0.0)
    return np.array([tones.mean(), tones.std(), low, *middle, high, high - low, slope, *moved])


def _voice(periodicity: np.ndarray, audible: np.ndarray) -> np.ndarray:
    voiced = audible & (periodicity > VOICED)
    edges = np.flatnonzero(np.diff(np.pad(voiced.astype(int), 1)))
    runs = edges[1::2] - edges[::2]
    seconds = len(audible) * HOP / SOUND_RATE
    voiced_of_audible = voiced.sum() / audible.sum()
    length = runs.mean() if len(runs) else 0.0
    heard = periodicity[audible]
    return np.array(
        [audible.mean(), voiced.mean(), voiced_of_audible, len(runs) / seconds, length, heard.mean(), heard.std()]
    )


def _level(level: np.ndarray, audible: np.ndarray) -> np.ndarray:
    heard = level[audible]
    mean = heard.mean()
    step = np.abs(np.diff(level)).mean() if len(level) > 1 else 0.0
    return np.array([mean, heard.std(), *(np.percentile(heard, [95, 50, 10]) - mean), step])


@dataclass(frozen=True)
class SoundEncoder:
    """The stream ``sound``; see ``streams.StreamEncoder``."""

    params: EmbedSoundParams

    width = len(FEATURES)
    columns = FEATURES
    modality: Feature = "audio"
    frame_request = None

    @property
    def identity(self) -> dict[str, Any]:
        return {"name": "sound", "version": VERSION, "seconds": self.params.seconds, "width": self.width}

    @property
    def sound_seconds(self) -> float:
        return self.params.seconds

    def prepare(self, clip: Clip) -> np.ndarray:
        """float32 [width]. Raises MediaError when there is nothing to hear."""
        return features(clip.sound()[: int(self.params.seconds * SOUND_RATE)])

    def encode(self, items: Sequence[np.ndarray], device: torch.device) -> np.ndarray:
        """What was prepared is all there is to compute: float32 [N, width]."""
        return np.stack(items)
