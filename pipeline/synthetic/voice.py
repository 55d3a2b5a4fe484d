"""Speaks nonsense in a feeling, for the clips of the example posts: pulses of a glottis through the formants of vowels.

Source and filter as in Klatt, "Software for a cascade/parallel formant synthesizer" (1980). What a feeling does to a
voice has the directions that Banse and Scherer (1996) and Juslin and Laukka (2003) found in acted speech: anger is
loud, high, fast and bright; joy high with a wide range; sadness low, soft, slow and dull, its pitch falling; surprise
rises; a calm voice is flat. Speakers differ in more than feelings do, so none of it can be read off a single number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from pipeline.synthetic.drawing import Mood

RATE = 16_000
"""Samples a second."""


@dataclass(frozen=True, slots=True)
class Manner:
    """What a feeling does to a voice, beside the speaker's own.

    Attributes:
        pitch: semitones above the speaker's mean.
        accent: standard deviation of the syllables' pitches, in semitones.
        slope: semitones from the phrase's start to its end.
        level: decibels.
        syllables: a second.
        dull: pole of the low-pass behind the glottis, from 0 (bright) to below 1.
        breath: amplitude of the noise in the source, beside that of the pulses.
        pause: seconds of silence after a word.
    """

    pitch: float
    accent: float
    slope: float
    level: float
    syllables: float
    dull: float
    breath: float
    pause: float


MANNERS: dict[Mood, Manner] = {
    "calm": Manner(pitch=0, accent=0.4, slope=-1, level=0, syllables=4.2, dull=0.5, breath=0.03, pause=0.10),
    "happy": Manner(pitch=5, accent=4.5, slope=0, level=4, syllables=5, dull=0.25, breath=0.03, pause=0.06),
    "angry": Manner(pitch=3, accent=2, slope=-3, level=10, syllables=6.2, dull=0.0, breath=0.02, pause=0.03),
    "surprised": Manner(pitch=4, accent=1.5, slope=12, level=3, syllables=3.8, dull=0.3, breath=0.08, pause=0.12),
    "sad": Manner(pitch=-3, accent=0.8, slope=-4, level=-8, syllables=2.5, dull=0.8, breath=0.15, pause=0.28),
}

VOWELS = (
    (270, 2290, 3010),
    (530, 1840, 2480),
    (660, 1720, 2410),
    (730, 1090, 2440),
    (570, 840, 2410),
    (300, 870, 2240),
)
"""First three formants in Hz, means of men (Peterson and Barney, 1952)."""

BANDWIDTHS = (60.0, 90.0, 150.0)
LEVEL = -30.0
"""Of a calm voice, in decibels below full scale."""


@dataclass(frozen=True, slots=True)
class Speaker:
    """A voice and the microphone before it.

    Attributes:
        pitch: mean, in Hz.
        formants: factor of the formants, larger for a shorter vocal tract.
        lively: factor of everything that pitch does in a phrase.
        pace: factor of the syllables a second.
        gain: of the microphone, in decibels.
        noise: of the room, in decibels below full scale.
    """

    pitch: float
    formants: float
    lively: float
    pace: float
    gain: float
    noise: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Speaker:
        size = rng.uniform(0, 1)  # from a large throat to a small one
        return cls(
            pitch=100 * 2.1 ** (size + rng.normal(0, 0.1)),
            formants=0.95 + 0.25 * size,
            lively=rng.uniform(0.75, 1.25),
            pace=math.exp(rng.normal(0, 0.08)),
            gain=rng.normal(0, 3),
            noise=rng.uniform(-66, -44),
        )


def speak(speaker: Speaker, mood: Mood, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """A phrase in a feeling, in the noise of a room: float32 [seconds * RATE], within ±1."""
    manner = MANNERS[mood]
    starts, lengths = _rhythm(manner, speaker.pace * math.exp(rng.normal(0, 0.06)), seconds, rng)
    middle = (starts + lengths / 2 - starts[0]) / (starts[-1] + lengths[-1] - starts[0])
    moves = manner.slope * (middle - 0.5) + rng.normal(0, manner.accent, len(starts))
    semitones = manner.pitch + rng.normal(0, 0.7) + speaker.lively * moves
    voice = np.zeros(round(seconds * RATE))
    for start, length, semitone in zip(starts, lengths, semitones, strict=True):
        pitch = speaker.pitch * 2 ** ((semitone + np.array([0.3, -0.3]) * manner.accent) / 12)
        syllable = _syllable(pitch, round(length * RATE), manner, speaker.formants, rng)
        at = round(start * RATE)
        voice[at : at + len(syllable)] += syllable[: len(voice) - at]
    loud = np.sqrt(np.mean(voice[voice != 0] ** 2))
    level = LEVEL + manner.level + speaker.gain + rng.normal(0, 1)
    room = lfilter([1.0], [1.0, -0.9], rng.normal(0, 1, len(voice)))  # low frequencies are stronger
    heard = voice * (_amplitude(level) / loud) + room * (_amplitude(speaker.noise) / room.std())
    return np.clip(heard, -1, 1).astype(np.float32)


def _amplitude(decibels: float) -> float:
    return 10 ** (decibels / 20)


def _rhythm(manner: Manner, pace: float, seconds: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """When each syllable starts and how long it lasts, in seconds: words of one to three syllables, then a pause."""
    starts, lengths, at = [], [], rng.uniform(0.05, 0.25)
    while not starts or at < seconds - 0.25:
        for _ in range(int(rng.integers(1, 4))):
            length = math.exp(rng.normal(0, 0.15)) / (manner.syllables * pace)
            if at + length <= seconds or not starts:
                starts.append(at)
                lengths.append(min(length, seconds - at))
            at += length
        at += manner.pause * rng.uniform(0.5, 1.5)
    return np.array(starts), np.array(lengths)


def _syllable(pitch: np.ndarray, samples: int, manner: Manner, formants: float, rng: np.random.Generator) -> np.ndarray:
    """float64 [samples]: a vowel whose pitch glides from the first of ``pitch`` to the second, in Hz."""
    track = np.geomspace(pitch[0], pitch[1], samples) * (1 + rng.normal(0, 0.01))
    phase = np.cumsum(track / RATE) % 1
    # Rosenberg's pulse (1971): opens over 40 % of a period, closes over 16 %; its slope is what leaves the lips.
    opening, closing = 0.5 - 0.5 * np.cos(np.pi * phase / 0.4), np.cos(np.pi * (phase - 0.4) / 0.32)
    flow = np.where(phase < 0.4, opening, np.where(phase < 0.56, closing, 0.0))
    source = np.diff(flow, prepend=0.0) / (track / RATE) / 6 + manner.breath * rng.normal(0, 1, samples)
    sound = lfilter([1 - manner.dull], [1.0, -manner.dull], source)
    for formant, width in zip(VOWELS[int(rng.integers(len(VOWELS)))], BANDWIDTHS, strict=True):
        sound = _resonator(sound, formant * formants, width)
    return sound * np.sin(np.pi * (np.arange(samples) + 0.5) / samples) ** 0.7


def _resonator(sound: np.ndarray, frequency: float, bandwidth: float) -> np.ndarray:
    """Klatt's second-order digital resonator, of unit gain at zero frequency."""
    radius = math.exp(-math.pi * bandwidth / RATE)
    first, second = 2 * radius * math.cos(2 * math.pi * frequency / RATE), -(radius**2)
    return lfilter([1 - first - second], [1.0, -first, -second], sound)
