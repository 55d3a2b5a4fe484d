"""The words of a clip, as a Whisper hears them: which, and in which language. They are kept, and never printed.

A Whisper that hears nobody speak makes words up, most often such as end films. So silence is never shown to it, and
what it says counts only where it finds it likely itself that somebody speaks, trusts its own words, and does not repeat
itself, by the thresholds of its first release but each for itself: there, words that were trusted counted even where
most likely nobody spoke.

Longer sound than a window takes is cut where it is quietest, so that few words are cut.

Source: Radford et al., "Robust speech recognition via large-scale weak supervision", 2022, section 4.5.
"""

import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.core.errors import InputError
from pipeline.core.files import MediaError
from pipeline.encoders import weights, whisper
from pipeline.encoders.sound_features import check_audible
from pipeline.encoders.whisper import Decoded, Whisper
from pipeline.encoders.words import Words
from pipeline.media.clips import Clip
from pipeline.media.kinds import NO_WORDS
from pipeline.media.sound import SOUND_RATE
from pipeline.params import EmbedTranscriptParams

VERSION = 1
"""Raised when the same sound would have other words than before, so that those kept are not used."""

NOBODY, DOUBTED, REPEATED = 0.6, -1.0, 2.4
"""Words do not count if it is likelier than this that nobody speaks, if their mean log-probability is below, or if they
can be packed to less than one part in so many."""

QUIET = SOUND_RATE // 10
"""Samples over which loudness is measured where long sound is to be cut, in the last sixth of a window."""


@dataclass(frozen=True)
class WhisperRecogniser:
    """What hears words; see ``words.Recogniser``.

    Attributes:
        identity: what tells its words from those of any other.
        language: which is spoken; None where it is to be heard.
        sound_seconds: how much of a clip's sound it listens to.
    """

    identity: dict[str, Any]
    model: Whisper
    language: str | None
    sound_seconds: float
    lock: threading.Lock = field(default_factory=threading.Lock, compare=False)

    frame_request = None

    def recognise(self, clip: Clip) -> Words:
        """The words of a clip; threads may call it. Raises MediaError where there is no sound, or nobody speaks."""
        samples = clip.sound()[: int(self.sound_seconds * SOUND_RATE)]
        check_audible(samples)
        language, doubted, parts = self.language, False, list[str]()
        with self.lock:  # one after another, so that memory holds the states of one window
            for window in windows(samples, self.model.spectrum.n_samples):
                states = self.model.encode(self._mel(window))
                if language is None and self.model.multilingual:
                    language = self.model.detect(states)
                decoded = self.model.decode(states, self.model.marks.prompt(language))
                text = " ".join(str(self.model.tokenizer.decode(decoded.tokens, skip_special_tokens=True)).split())
                if any(map(str.isalnum, text)) and decoded.no_speech <= NOBODY:
                    sure = is_sure(decoded, text)
                    parts += [text] if sure else []
                    doubted = doubted or not sure
        if not parts:
            raise MediaError(f"{NO_WORDS}: {'none that are sure' if doubted else 'nobody is heard to speak'}")
        return Words(" ".join(parts), language)

    def _mel(self, window: np.ndarray) -> np.ndarray:
        features: Any = self.model.spectrum(window, sampling_rate=SOUND_RATE, return_tensors="np")
        return features["input_features"][0].astype(np.float32)


def is_sure(decoded: Decoded, text: str) -> bool:
    """Whether the model trusts its words, and does not repeat itself, as it does where it has lost the thread."""
    data = text.encode()
    return decoded.log_prob >= DOUBTED and len(data) / len(zlib.compress(data)) <= REPEATED


def windows(samples: np.ndarray, longest: int) -> Iterator[np.ndarray]:
    """Sound cut into pieces of at most ``longest`` samples, each, but the last, where it is quietest near its end."""
    while len(samples) > longest:
        late = samples[longest - longest // 6 : longest]
        energy = np.cumsum(np.pad(np.square(late, dtype=np.float64), (1, 0)))
        size = min(QUIET, len(late))
        at = longest - longest // 6 + int((energy[size:] - energy[:-size]).argmin()) + size // 2
        yield samples[:at]
        samples = samples[at:]
    if len(samples):
        yield samples


def load(params: EmbedTranscriptParams, key: str = "embed.video.transcript") -> WhisperRecogniser:
    """Loads the model that params name, on the processor.

    Raises InputError when it cannot be found, is damaged or no Whisper, knows no such language, or CTranslate2 is not
    installed.
    """
    resolved = weights.resolve(key, params.encoder, params.revision, None, ct2=True)
    where = f"params.yaml: {key}.encoder: {params.encoder}"
    with weights.loading(where):
        model = whisper.load(resolved, where)
    language = params.language
    if language is not None and (not model.multilingual or language not in model.marks.languages):
        known = ", ".join(model.marks.languages) if model.multilingual else "English alone; give null"
        raise InputError(f"params.yaml: {key}.language: {language}: {params.encoder} knows {known}")
    identity = resolved.identity | {
        "runtime": model.runtime,
        "version": VERSION,
        "seconds": params.seconds,
        "language": language,
        "width": 0,
    }
    return WhisperRecogniser(identity, model, language, params.seconds)
