"""Words of clips: what was said, in which language; silence, noise and repetition have none; kept and heard once."""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import WhisperForConditionalGeneration
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.core import artifacts
from pipeline.core.errors import InputError
from pipeline.core.files import MediaError
from pipeline.core.layout import Layout
from pipeline.encoders import streams, text, transcription
from pipeline.encoders.streams import slices
from pipeline.encoders.transcription import WhisperRecogniser, is_sure, windows
from pipeline.encoders.whisper import Decoded
from pipeline.encoders.words import Words
from pipeline.media.clips import Clip, read_clip
from pipeline.media.sound import SOUND_RATE
from pipeline.params import EmbedTextParams, EmbedTranscriptParams, Params
from pipeline.stages import embed
from tests import tiny
from tests.encoders.test_sound_features import clip as sounding
from tests.encoders.test_sound_features import tone
from tests.posts.test_specialist import posts_table

SAID = " ".join(tiny.SAYS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.speaking(tmp_path_factory.mktemp("speaking"))


def load(folder: Path, **more: Any) -> WhisperRecogniser:
    return transcription.load(EmbedTranscriptParams(encoder=str(folder), **more))


def test_words_and_their_language_are_heard(folder: Path) -> None:
    assert load(folder).recognise(Clip({}, tone())) == Words(SAID, "de")
    # Two windows of two seconds; the beginning alone where the knob says so.
    assert load(folder).recognise(Clip({}, tone(seconds=3.5))).text == f"{SAID} {SAID}"
    assert load(folder, seconds=1.0).recognise(Clip({}, tone(seconds=3.5))).text == SAID


def test_a_language_that_is_said_is_not_sought(folder: Path) -> None:
    assert load(folder, language="en").recognise(Clip({}, tone())).language == "en"
    with pytest.raises(InputError, match=r"transcript\.language: xx: .* knows de, en"):
        load(folder, language="xx")


@pytest.mark.parametrize(
    ("samples", "why"),
    [
        (np.zeros(SOUND_RATE, np.float32), "no sound: silence"),
        (np.full(SOUND_RATE, 1e-5, np.float32), "no sound: silence"),
        (tone(seconds=0.05), "no sound: shorter than"),
        (MediaError("no sound: no audio track"), "no sound: no audio track"),
    ],
)
def test_silence_is_never_shown_to_the_model(folder: Path, samples: Any, why: str) -> None:
    """The model would hear words in it, as it does in anything."""
    with pytest.raises(MediaError, match=why):
        load(folder).recognise(Clip({}, samples))


def test_where_nobody_speaks_what_is_made_up_does_not_count(tmp_path: Path) -> None:
    recogniser = load(tiny.speaking(tmp_path, nobody=True))
    music = (tone(220.0, 1.5) + tone(277.2, 1.5) + tone(329.6, 1.5)).astype(np.float32)
    states = recogniser.model.encode(recogniser._mel(music))
    assert recogniser.model.decode(states, recogniser.model.marks.prompt("de")).tokens  # it does make words up
    with pytest.raises(MediaError, match="no words: nobody is heard to speak"):
        recogniser.recognise(Clip({}, music))


def test_words_that_the_model_doubts_or_repeats_do_not_count(tmp_path: Path) -> None:
    assert is_sure(Decoded([1], -0.9, 0.0), "so happy")
    assert not is_sure(Decoded([1], -1.1, 0.0), "so happy")
    assert not is_sure(Decoded([1], -0.1, 0.0), "so happy " * 20)
    with pytest.raises(MediaError, match="no words: none that are sure"):
        load(tiny.speaking(tmp_path, says=("today",) * 40)).recognise(Clip({}, tone()))


def test_long_sound_is_cut_where_it_is_quiet() -> None:
    samples = np.ones(25 * SOUND_RATE, np.float32)
    samples[9 * SOUND_RATE : 9 * SOUND_RATE + SOUND_RATE // 2] = 0.0
    parts = list(windows(samples, 10 * SOUND_RATE))
    np.testing.assert_array_equal(np.concatenate(parts), samples)
    assert max(map(len, parts)) <= 10 * SOUND_RATE
    assert 9 * SOUND_RATE < len(parts[0]) < 9.5 * SOUND_RATE
    assert [len(part) for part in windows(samples[:10], 10)] == [10]


def test_a_model_without_its_tokens_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    tiny.speaking(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"embed\.video\.transcript\.encoder: .*: holds no tokenizer\.json"):
        load(tmp_path)
    other = tiny.distilbert(tmp_path / "bert")
    with pytest.raises(
        InputError, match=r"its tokenizer\.json lacks <\|startoftranscript\|>, and is none of a Whisper"
    ):
        load(other)


def test_both_ways_to_keep_a_model_give_the_same_words(folder: Path, tmp_path: Path) -> None:
    ctranslate2 = pytest.importorskip("ctranslate2")
    kept = tiny.speaking(tmp_path / "kept", seconds=30)
    loader = importlib.import_module("ctranslate2.converters.transformers").WhisperLoader()
    net = WhisperForConditionalGeneration.from_pretrained(kept)
    spec: Any = loader.get_model_spec(net)
    known = json.loads((kept / "tokenizer.json").read_text())["model"]["vocab"]
    spec.register_vocabulary(sorted(known, key=known.get))
    spec.config.lang_ids = [known["<|de|>"], known["<|en|>"]]
    spec.config.suppress_ids, spec.config.suppress_ids_begin = [], []
    spec.validate()
    spec.optimize(None)
    (tmp_path / "converted").mkdir()
    spec.save(str(tmp_path / "converted"))
    for name in ("preprocessor_config.json", "tokenizer.json"):
        (tmp_path / "converted" / name).write_bytes((kept / name).read_bytes())
    assert ctranslate2.contains_model(str(tmp_path / "converted"))
    first, second = load(kept), load(tmp_path / "converted")
    assert [of.identity["runtime"] for of in (first, second)] == ["transformers", "ctranslate2"]
    assert first.recognise(Clip({}, tone())).text == second.recognise(Clip({}, tone())).text == SAID
    a, b = (of.model.decode(of.model.encode(of._mel(tone())), of.model.marks.prompt("de")) for of in (first, second))
    assert a.tokens == b.tokens
    assert (a.log_prob, a.no_speech) == pytest.approx((b.log_prob, b.no_speech), abs=1e-3)


# --- in a project ----------------------------------------------------------------------------------------------------


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    real = read_clip

    def counted(path: Path, **asked: Any) -> Clip:
        names.append(path.name)
        return real(path, **asked)

    monkeypatch.setattr(streams, "read_clip", counted)
    return names


def settings(folder: Path, root: Path, streams: list[str]) -> dict[str, Any]:
    small = {"encoder": str(tiny.clip(root / "clip"))}
    return {
        "device": "cpu",
        "tracks": ["posts"],
        "posts": {"media": "."},
        "embed": {
            "text": {"encoder": str(tiny.distilbert(root / "bert"))},
            "image": small,
            "video": {**small, "frames": 2, "streams": streams, "transcript": {"encoder": str(folder)}},
        },
    }


def test_the_vectors_of_the_stream_are_those_of_the_words(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMOCARE_CACHE", str(tmp_path / "cache"))
    layout = Layout(tmp_path)
    sounding(tmp_path / "a.mkv", tone()[None])
    sounding(tmp_path / "silent.mkv", None)
    posts_table(
        layout, [{"id": f"p{at}", "label": "x", "video_path": f"{of}.mkv"} for at, of in enumerate(["a", "silent"])]
    )
    given = settings(folder, tmp_path, ["frames", "transcript"])
    embed.run(Params.model_validate(given), layout)
    made = artifacts.read_embeddings(layout.embeddings("posts", "video"))
    own = slices(made.encoder)["transcript"]
    words = text.load(EmbedTextParams(encoder=given["embed"]["text"]["encoder"]))
    np.testing.assert_allclose(made.vectors[0, own], words.encode([SAID], torch.device("cpu"))[0], atol=1e-6)
    assert np.isnan(made.vectors[1, own]).all()
    assert artifacts.read_json(layout.details("embed"))["video"]["streams"]["transcript"]["reasons"] == {"no sound": 1}
    assert sorted(opened) == ["a.mkv", "silent.mkv"]
    # Another encoder of texts reads the words that were kept: no clip is opened again.
    given["embed"]["text"]["max_tokens"] = 8
    embed.run(Params.model_validate(given), layout)
    assert len(opened) == 2
    assert "happy" not in "".join(capsys.readouterr())


def test_extract_fills_the_words_that_the_table_lacks(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    monkeypatch.setenv("EMOCARE_CACHE", str(tmp_path / "cache"))
    sounding(tmp_path / "a.mkv", tone()[None])
    sounding(tmp_path / "b.mkv", tone(300.0)[None])
    sounding(tmp_path / "silent.mkv", None)
    (tmp_path / "clips.csv").write_text("id,video,text\n1,a.mkv,typed\n2,b.mkv,\n3,silent.mkv,\n")
    artifacts.write_json(tmp_path / "params.yaml", settings(folder, tmp_path, ["sound"]))
    command = ["extract", str(tmp_path / "clips.csv"), "--out", str(tmp_path / "c.parquet"), "--project", str(tmp_path)]
    result = CliRunner().invoke(app, [*command, "--transcribe"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "words of 1 heard" in result.output
    assert "happy" not in result.output
    made = pd.read_parquet(tmp_path / "c.parquet")
    assert made["text"].fillna("").tolist() == ["typed", SAID, ""]
    assert made["language"].fillna("").tolist() == ["", "de", ""]
    assert made["reason"].fillna("").tolist() == ["", "", "no sound: no audio track"]
    assert sorted(opened) == ["a.mkv", "b.mkv", "silent.mkv"]
    before = (tmp_path / "c.parquet").read_bytes()
    assert CliRunner().invoke(app, [*command, "--transcribe"], catch_exceptions=False).exit_code == 0
    assert (tmp_path / "c.parquet").read_bytes() == before
    assert len(opened) == 3
    # Without the option nothing is heard.
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    assert pd.read_parquet(tmp_path / "c.parquet")["text"].fillna("").tolist() == ["typed", "", ""]
