"""What a Whisper says of a window of sound, by transformers or by CTranslate2: which language, and which tokens.

Both decode greedily, so that the same sound has the same words, and both leave out the tokens that the model's own
settings suppress (signs of music, brackets).

Source: Radford et al., "Robust speech recognition via large-scale weak supervision", 2022.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipeline.core.errors import InputError
from pipeline.encoders import weights
from pipeline.encoders.weights import Weights
from pipeline.media.sound import SOUND_RATE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, WhisperFeatureExtractor

WINDOW = 3000
"""Frames of the spectrum in a full window, which a model for CTranslate2 does not tell."""

NO_SPEECH = ("<|nospeech|>", "<|nocaptions|>")
"""How the token is called that stands where nobody speaks; older releases called it the other."""

LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")

MOST_TOKENS = 224
"""Tokens of a window, at most: half of what Whisper's decoder takes, as in its own release."""


@dataclass(frozen=True)
class Decoded:
    """What was decoded of a window.

    Attributes:
        tokens: without marks of start and end.
        log_prob: mean of the tokens' log-probabilities, that of the end among them.
        no_speech: how likely it is that nobody speaks.
    """

    tokens: list[int]
    log_prob: float
    no_speech: float


@dataclass(frozen=True)
class Marks:
    """A Whisper's tokens that are no words, by their numbers."""

    start: int
    end: int
    transcribe: int
    no_timestamps: int
    no_speech: int
    languages: dict[str, int]

    def prompt(self, language: str | None) -> list[int]:
        """What decoding begins with; without a language, as models of English alone have it."""
        spoken = [] if language is None else [self.languages[language], self.transcribe]
        return [self.start, *spoken, self.no_timestamps]


@dataclass(frozen=True)
class Whisper:
    """A model, ready on the processor.

    Attributes:
        runtime: ``transformers`` or ``ctranslate2``.
        spectrum: its log-mel spectrum; its ``n_samples`` are those of a window.
        encode: log-mel spectrum of a full window, float32 [bands, frames] → states, as the two below take them.
        detect: states → the likeliest language.
        decode: states, prompt → what was said.
    """

    runtime: str
    spectrum: WhisperFeatureExtractor
    tokenizer: PreTrainedTokenizerFast
    marks: Marks
    multilingual: bool
    encode: Callable[[np.ndarray], Any]
    detect: Callable[[Any], str]
    decode: Callable[[Any, list[int]], Decoded]


def load(resolved: Weights, where: str) -> Whisper:
    """Raises InputError, which begins with ``where``, when it is damaged, or no Whisper."""
    tokenizer = _tokenizer(resolved.path, where)
    marks = _marks(tokenizer, where)
    if is_converted(resolved.path):
        return _by_ctranslate2(resolved.path, tokenizer, marks, where)
    return _by_transformers(resolved, tokenizer, marks, where)


def is_converted(folder: Path) -> bool:
    """Whether a folder holds a model for CTranslate2, and none for transformers."""
    return (folder / weights.CT2_WEIGHTS).is_file() and not any(folder.glob(weights.SAFE_WEIGHTS))


def _tokenizer(folder: Path, where: str) -> PreTrainedTokenizerFast:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InputError(f"{where}: {folder}: holds no tokenizer.json, without which no words can be told")
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_file=str(path))


def _marks(tokenizer: PreTrainedTokenizerFast, where: str) -> Marks:
    known = tokenizer.get_vocab()
    no_speech = next((name for name in NO_SPEECH if name in known), NO_SPEECH[0])
    names = ("<|startoftranscript|>", "<|endoftext|>", "<|transcribe|>", "<|notimestamps|>", no_speech)
    if lacking := [name for name in names if name not in known]:
        raise InputError(f"{where}: its tokenizer.json lacks {lacking[0]}, and is none of a Whisper")
    languages = {matched[1]: at for name, at in known.items() if (matched := LANGUAGE.fullmatch(name))}
    start, end, transcribe, no_timestamps, nobody = (known[name] for name in names)
    return Marks(start, end, transcribe, no_timestamps, nobody, dict(sorted(languages.items())))


# --- transformers ----------------------------------------------------------------------------------------------------


def _by_transformers(resolved: Weights, tokenizer: PreTrainedTokenizerFast, marks: Marks, where: str) -> Whisper:
    from transformers import AutoConfig, GenerationConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    config = AutoConfig.from_pretrained(resolved.path, local_files_only=True, trust_remote_code=False)
    check_family(config, where)
    net: Any = weights.load_model(WhisperForConditionalGeneration, resolved).eval()
    spectrum = WhisperFeatureExtractor.from_pretrained(resolved.path, local_files_only=True)
    check_spectrum(spectrum, config.num_mel_bins, 2 * config.max_source_positions, where)
    settings: Any = net.generation_config
    if (resolved.path / "generation_config.json").is_file():
        settings = GenerationConfig.from_pretrained(resolved.path, local_files_only=True)
    multilingual = bool(getattr(settings, "is_multilingual", True))
    ids, names = list(marks.languages.values()), list(marks.languages)

    @torch.inference_mode()
    def encode(mel: np.ndarray) -> Any:
        return net.get_encoder()(torch.from_numpy(mel[None])).last_hidden_state

    @torch.inference_mode()
    def detect(states: Any) -> str:
        logits = net(encoder_outputs=(states,), decoder_input_ids=torch.tensor([[marks.start]])).logits[0, -1]
        return names[int(logits[ids].argmax())]

    most = min(MOST_TOKENS, config.max_target_positions)
    decode = _greedy(net, marks, settings, most)
    return Whisper("transformers", spectrum, tokenizer, marks, multilingual, encode, detect, decode)


def _greedy(net: Any, marks: Marks, settings: Any, most: int) -> Callable[[Any, list[int]], Decoded]:
    never = torch.tensor(list(getattr(settings, "suppress_tokens", None) or []), dtype=torch.int64)
    not_first = torch.tensor(list(getattr(settings, "begin_suppress_tokens", None) or []), dtype=torch.int64)

    @torch.inference_mode()
    def decode(states: Any, prompt: list[int]) -> Decoded:
        output = net(encoder_outputs=(states,), decoder_input_ids=torch.tensor([prompt]), use_cache=True)
        no_speech = float(output.logits[0, 0].softmax(-1)[marks.no_speech])
        tokens: list[int] = []
        total = 0.0
        for _ in range(most - len(prompt)):
            logits = output.logits[0, -1].clone()
            logits[never] = -torch.inf
            if not tokens:
                logits[not_first] = -torch.inf
            log_probs = logits.log_softmax(-1)
            token = int(log_probs.argmax())
            total += float(log_probs[token])
            if token == marks.end:
                break
            tokens.append(token)
            output = net(
                encoder_outputs=(states,),
                decoder_input_ids=torch.tensor([[token]]),
                past_key_values=output.past_key_values,
                use_cache=True,
            )
        return Decoded(tokens, total / (len(tokens) + 1), no_speech)

    return decode


def check_family(config: Any, where: str) -> None:
    if config.model_type != "whisper":
        raise InputError(f"{where}: a {config.model_type} is not a Whisper")


def check_spectrum(spectrum: WhisperFeatureExtractor, bands: int, frames: int, where: str) -> None:
    settings = (spectrum.sampling_rate, spectrum.feature_size, spectrum.nb_max_frames, spectrum.dither)
    if settings != (SOUND_RATE, bands, frames, 0.0):
        raise InputError(
            f"{where}: preprocessor_config.json is not of this model, which takes {frames} frames of {bands} bands at "
            f"{SOUND_RATE} Hz"
        )


# --- CTranslate2 -----------------------------------------------------------------------------------------------------


def _by_ctranslate2(folder: Path, tokenizer: PreTrainedTokenizerFast, marks: Marks, where: str) -> Whisper:
    runtime, model, spectrum = open_converted(folder, where)

    def encode(mel: np.ndarray) -> Any:
        return model.encode(runtime.StorageView.from_array(np.ascontiguousarray(mel[None])))

    def detect(states: Any) -> str:
        matched = LANGUAGE.fullmatch(model.detect_language(states)[0][0][0])
        assert matched is not None
        return matched[1]

    def decode(states: Any, prompt: list[int]) -> Decoded:
        (output,) = model.generate(
            states, [prompt], beam_size=1, max_length=MOST_TOKENS, return_scores=True, return_no_speech_prob=True
        )
        tokens = [token for token in output.sequences_ids[0] if token != marks.end]
        # Its score is the sum over the tokens, the end among them, divided by their number without it.
        return Decoded(tokens, output.scores[0] * len(tokens) / (len(tokens) + 1), output.no_speech_prob)

    return Whisper("ctranslate2", spectrum, tokenizer, marks, model.is_multilingual, encode, detect, decode)


def open_converted(folder: Path, where: str) -> tuple[Any, Any, WhisperFeatureExtractor]:
    """CTranslate2, its model, and the spectrum that this takes.

    It computes on the processor, whatever the device: its wheels find no CUDA libraries of torch's.
    """
    try:
        runtime: Any = importlib.import_module("ctranslate2")
    except ImportError:
        raise InputError(
            f"{where}: was converted for CTranslate2, which is not installed; "
            '`pip install "emocare-pipeline[speech]"`, or name a Whisper as transformers keeps it'
        ) from None
    threads = torch.get_num_threads()
    model = runtime.models.Whisper(
        str(folder), device="cpu", compute_type="float32", intra_threads=threads, inter_threads=1
    )
    spectrum = _spectrum_of(folder, model.n_mels)
    check_spectrum(spectrum, model.n_mels, WINDOW, where)
    return runtime, model, spectrum


def _spectrum_of(folder: Path, bands: int) -> WhisperFeatureExtractor:
    """Folders for CTranslate2 often come without a description of the spectrum, which is then Whisper's usual one."""
    from transformers import WhisperFeatureExtractor

    if (folder / "preprocessor_config.json").is_file():
        return WhisperFeatureExtractor.from_pretrained(folder, local_files_only=True)
    return WhisperFeatureExtractor(feature_size=bands)
