"""The stream of speech: transformers' own states, windows, silence after the sound, both ways weights are kept."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperModel

from pipeline.core.errors import InputError
from pipeline.core.files import MediaError
from pipeline.encoders import speech
from pipeline.encoders.speech import SpeechEncoder
from pipeline.media.clips import Clip
from pipeline.media.sound import SOUND_RATE
from pipeline.params import EmbedSpeechParams
from tests import tiny
from tests.encoders.test_sound_features import tone

CPU = torch.device("cpu")
WIDTH = tiny.SPEECH_WIDTH


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.whisper(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> SpeechEncoder:
    return speech.load(EmbedSpeechParams(encoder=str(folder), seconds=20.0))


def states_of(folder: Path, samples: np.ndarray) -> np.ndarray:
    """What transformers itself makes of a window: float64 [states, width]."""
    spectrum, model = WhisperFeatureExtractor.from_pretrained(folder), WhisperModel.from_pretrained(folder).eval()
    inputs: Any = spectrum(samples, sampling_rate=SOUND_RATE, return_tensors="pt")
    with torch.no_grad():
        return model.get_encoder()(inputs["input_features"]).last_hidden_state[0].double().numpy()


def pooled(states: np.ndarray) -> np.ndarray:
    return np.concatenate([states.mean(axis=0), states.std(axis=0)])


def voice(seconds: float, seed: int = 0) -> np.ndarray:
    """A tone in noise that swells, so that no two states are alike."""
    noise = np.random.default_rng(seed).normal(size=round(seconds * SOUND_RATE))
    samples = tone(180.0, seconds) + 0.02 * noise
    return (samples * np.linspace(0.2, 1.0, len(samples))).astype(np.float32)


def test_a_full_window_has_the_states_of_transformers(encoder: SpeechEncoder, folder: Path) -> None:
    samples = voice(tiny.SPEECH_SECONDS)
    expected = states_of(folder, samples)
    assert expected.shape == (100, WIDTH)
    np.testing.assert_allclose(encoder.encode([samples], CPU)[0], pooled(expected), atol=1e-5)


def test_longer_sound_is_pooled_over_its_windows(encoder: SpeechEncoder, folder: Path) -> None:
    first, second, rest = voice(2.0, 1), voice(2.0, 2), voice(1.5, 3)
    expected = np.concatenate([states_of(folder, first), states_of(folder, second)])
    got = encoder.encode([np.concatenate([first, second])], CPU)[0]
    np.testing.assert_allclose(got, pooled(expected), atol=1e-5)
    # Half a second of silence fills up the last window, whose last 25 states do not count.
    more = np.concatenate([expected, states_of(folder, rest)[:75]])
    got = encoder.encode([np.concatenate([first, second, rest])], CPU)[0]
    np.testing.assert_allclose(got, pooled(more), atol=1e-5)


def test_one_window_is_held_at_a_time(folder: Path) -> None:
    found = speech.load(EmbedSpeechParams(encoder=str(folder), seconds=600.0))
    seen: list[tuple[int, ...]] = []

    def states(mel: np.ndarray, _: torch.device) -> np.ndarray:
        seen.append(mel.shape)
        return np.ones((mel.shape[1] // 2, WIDTH), dtype=np.float32)

    short = SpeechEncoder(found.identity, found.width, found.spectrum, states, 600.0)
    assert short.encode([np.zeros(61 * SOUND_RATE, np.float32)], CPU)[0].tolist() == [1.0] * WIDTH + [0.0] * WIDTH
    assert seen == [(20, 200)] * 31


def test_a_clip_has_the_same_vector_alone_and_among_others(encoder: SpeechEncoder) -> None:
    sounds = [voice(0.7), voice(1.9, 5), voice(4.2, 6)]
    together = encoder.encode(sounds, CPU)
    np.testing.assert_array_equal(together, np.stack([encoder.encode([one], CPU)[0] for one in sounds]))
    assert together.shape == (3, encoder.width) == (3, 2 * WIDTH)
    assert len(np.unique(together[:, 0])) == 3


def test_columns_have_names(encoder: SpeechEncoder) -> None:
    assert len(encoder.columns) == encoder.width
    assert (encoder.columns[0], encoder.columns[-1]) == ("speech_0000.mean", "speech_0015.std")


def test_what_is_beyond_the_knob_does_not_count(folder: Path) -> None:
    brief = speech.load(EmbedSpeechParams(encoder=str(folder), seconds=1.0))
    clip = Clip({}, voice(3.0))
    assert len(brief.prepare(clip)) == SOUND_RATE


@pytest.mark.parametrize(
    ("samples", "why"),
    [
        (np.zeros(SOUND_RATE, np.float32), "no sound: silence"),
        (tone(seconds=0.05), "no sound: shorter than 0.1 seconds"),
    ],
)
def test_silence_is_no_speech(encoder: SpeechEncoder, samples: np.ndarray, why: str) -> None:
    with pytest.raises(MediaError, match=why):
        encoder.prepare(Clip({}, samples))
    with pytest.raises(MediaError, match="no sound: no audio track"):
        encoder.prepare(Clip({}, MediaError("no sound: no audio track")))


def test_the_identity_says_what_made_the_vectors(folder: Path, encoder: SpeechEncoder, tmp_path: Path) -> None:
    identity = encoder.identity
    assert identity["name"] == folder.name
    assert (identity["revision"], identity["runtime"], identity["width"]) == ("local", "transformers", 2 * WIDTH)
    other = speech.load(EmbedSpeechParams(encoder=str(tiny.whisper(tmp_path / folder.name, seconds=4)), seconds=20.0))
    assert other.identity != identity
    assert str(folder) not in json.dumps(identity)


def test_another_model_than_whisper_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"embed\.video\.speech\.encoder: .*: a distilbert is not a Whisper"):
        speech.load(EmbedSpeechParams(encoder=str(tiny.distilbert(tmp_path))))


def test_a_spectrum_of_another_model_is_refused(tmp_path: Path) -> None:
    tiny.whisper(tmp_path)
    WhisperFeatureExtractor(feature_size=80, chunk_length=2).save_pretrained(tmp_path)
    with pytest.raises(
        InputError, match=r"preprocessor_config\.json is not of this model, which takes 200 frames of 20"
    ):
        speech.load(EmbedSpeechParams(encoder=str(tmp_path)))


def test_the_hub_out_of_reach_is_one_line() -> None:
    with pytest.raises(
        InputError, match=r"openai/whisper-base: the hub is out of reach .* give a local folder that"
    ) as no:
        speech.load(EmbedSpeechParams())
    assert "packaged" not in str(no.value)


def test_a_folder_without_a_model_names_both_ways(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"holds no model; expected config\.json and .*, or model\.bin, as CTranslate2"
    ):
        speech.load(EmbedSpeechParams(encoder=str(tmp_path)))


def converted(folder: Path) -> Path:
    (folder / "config.json").write_text("{}")
    (folder / "model.bin").write_bytes(b"\0" * 64)
    return folder


def test_without_ctranslate2_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(InputError, match=r"which is not installed; `pip install \"emocare-pipeline\[speech\]\"`") as no:
        speech.load(EmbedSpeechParams(encoder=str(converted(tmp_path))))
    assert "\n" not in str(no.value)


def test_a_damaged_model_for_ctranslate2_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    with pytest.raises(InputError, match=r"embed\.video\.speech\.encoder: .*: cannot be loaded: "):
        speech.load(EmbedSpeechParams(encoder=str(converted(tmp_path))))


def test_both_ways_to_keep_a_model_give_the_same_vectors(tmp_path: Path) -> None:
    ctranslate2 = pytest.importorskip("ctranslate2")
    kept = tiny.whisper(tmp_path / "kept", seconds=30)
    loader = importlib.import_module("ctranslate2.converters.transformers").WhisperLoader()
    spec: Any = loader.get_model_spec(WhisperForConditionalGeneration.from_pretrained(kept))
    spec.register_vocabulary([f"<{at}>" for at in range(50)])
    spec.validate()
    spec.optimize(None)
    (tmp_path / "converted").mkdir()
    spec.save(str(tmp_path / "converted"))
    (tmp_path / "converted" / "preprocessor_config.json").write_bytes((kept / "preprocessor_config.json").read_bytes())
    assert ctranslate2.contains_model(str(tmp_path / "converted"))
    first, second = (speech.load(EmbedSpeechParams(encoder=str(tmp_path / name))) for name in ("kept", "converted"))
    assert [of.identity["runtime"] for of in (first, second)] == ["transformers", "ctranslate2"]
    assert first.width == second.width == 2 * WIDTH
    sounds = [voice(1.3), voice(33.0)]
    np.testing.assert_allclose(first.encode(sounds, CPU), second.encode(sounds, CPU), atol=1e-4)
