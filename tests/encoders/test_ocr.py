"""The stream of written words: order, doubt and repetition with a reader whose answers are known; and the real nets."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from pipeline.core import artifacts
from pipeline.core.errors import InputError
from pipeline.core.files import MediaError
from pipeline.core.layout import Layout
from pipeline.encoders import ocr, streams, text, weights
from pipeline.encoders.ocr import Line, OcrRecogniser
from pipeline.encoders.streams import slices
from pipeline.encoders.words import Words
from pipeline.media.clips import Clip, read_clip
from pipeline.media.kinds import NO_PICTURES, NO_WORDS
from pipeline.params import EmbedTextParams, EmbedWordsParams, Params
from pipeline.stages import embed
from tests import tiny
from tests.posts.test_specialist import posts_table

SILENT = MediaError("no sound")


def line(text: str, top: float = 0.0, left: float = 0.0, confidence: float = 1.0, height: float = 20.0) -> Line:
    return Line(text, confidence, top, top + height, left)


def recogniser(*frames: list[Line], **more: Any) -> tuple[OcrRecogniser, Clip]:
    """A clip whose frames hold these lines, and what reads them: a frame's gray level tells which it is."""
    params = EmbedWordsParams(**more)
    identity = {"name": "made", "revision": "1", "sha256": "0", "width": 0}
    made = OcrRecogniser(identity, params, lambda picture: frames[int(picture[0, 0, 0])])
    shown = {made.frame_request: [np.full((30, 40, 3), at, np.uint8) for at in range(len(frames))]}
    return made, Clip(shown, SILENT)


def words_of(*frames: list[Line], **more: Any) -> str:
    made, clip = recogniser(*frames, **more)
    return made.recognise(clip).text


# --- lines -----------------------------------------------------------------------------------------------------------


def test_lines_are_read_from_the_top_and_from_the_left() -> None:
    lines = [line("right", 103, 200), line("last", 160), line("first", 10, 300), line("left", 108, 20)]
    assert words_of(lines) == "first left right last"
    # Whether they are in one row is a matter of their height, not of pixels.
    low = [line("one", 100, 50, height=8), line("two", 106, 10, height=8)]
    assert words_of(low) == "one two"
    assert words_of([line("one", 100, 50, height=40), line("two", 106, 10, height=40)]) == "two one"
    assert words_of([line("  so \n happy ")]) == "so happy"


def test_a_line_that_stays_counts_once() -> None:
    first = [line("HAPPY TODAY"), line("no", 40), line("no", 80)]
    again = [line("happy  today!"), line("the cat", 40)]
    misread = [line("HAPPY TOOAY"), line("the cat", 40), line("the dog is not", 80)]
    assert words_of(first, again, misread) == "HAPPY TODAY no no the cat the dog is not"


def test_what_is_doubted_and_single_letters_do_not_count() -> None:
    lines = [line("sure", confidence=0.9), line("doubted", 40, confidence=0.7), line("Q.", 80), line("!?", 120)]
    assert words_of(lines) == "sure"
    assert words_of(lines, confidence=0.6) == "sure doubted"


@pytest.mark.parametrize("lines", [[], [line("doubted", confidence=0.1)], [line("I")]])
def test_no_words_are_said_to_be_none(lines: list[Line]) -> None:
    with pytest.raises(MediaError, match="no words: none are read in 2 frames") as error:
        words_of(lines, [])
    assert error.value.kind == NO_WORDS
    made = recogniser(lines)[0]
    with pytest.raises(MediaError, match="no video stream"):
        made.recognise(Clip(MediaError(NO_PICTURES), np.zeros(9, np.float32)))


@pytest.mark.parametrize(
    ("given", "made"),
    [((30, 40), (480, 640)), ((960, 1200), (480, 600)), ((1, 9000), (1, 1920)), ((9000, 1), (1920, 1))],
)
def test_frames_are_brought_to_one_size_and_strips_stay_small(given: tuple[int, int], made: tuple[int, int]) -> None:
    assert ocr.sized(np.zeros((*given, 3), np.uint8), 480).shape == (*made, 3)


# --- nets ------------------------------------------------------------------------------------------------------------


def folder_of(path: Path, at: int = 0) -> Path:
    path.mkdir(exist_ok=True)
    for role, of in ocr.FILES.items():
        (path / of.names[at]).write_bytes(role.encode())
    return path


@pytest.mark.parametrize("at", [0, 1])
def test_the_nets_are_written_as_a_bundle_has_them(tmp_path: Path, at: int) -> None:
    ocr.write(EmbedWordsParams(models=str(folder_of(tmp_path / "nets", at))), tmp_path / "made")
    assert {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()} == {
        "text_detector.onnx": b"detector",
        "text_reader.onnx": b"reader",
    }


def test_what_is_missing_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder_of(tmp_path / "nets") / "text_reader.onnx").unlink()
    with pytest.raises(InputError) as error:
        ocr.write(EmbedWordsParams(models=str(tmp_path / "nets")), tmp_path / "made")
    assert str(error.value) == (
        f"params.yaml: embed.video.words.models: {tmp_path / 'nets'}: holds no text_reader.onnx or "
        "PP-OCRv6_rec_small.onnx; the package rapidocr==3.10.0 has one"
    )
    assert not (tmp_path / "made").exists()
    with pytest.raises(InputError, match=r"words\.models: /no/such: neither `packaged` nor a folder"):
        ocr.write(EmbedWordsParams(models="/no/such"), tmp_path / "made")
    monkeypatch.setitem(sys.modules, "rapidocr.main", None)
    with pytest.raises(InputError, match=r"RapidOCR is not installed; `pip install \"emocare-pipeline\[ocr\]\"`$"):
        ocr.load(EmbedWordsParams())


def picture(*lines: tuple[int, int, str, int]) -> np.ndarray:
    """Black letters on white, each line at so many pixels from the left and the top, and so large."""
    image = Image.new("RGB", (480, 200), "white")
    draw = ImageDraw.Draw(image)
    for left, top, words, size in lines:
        draw.text((left, top), words, font=ImageFont.load_default(size=size), fill="black")
    return np.asarray(image)


@pytest.fixture(scope="module")
def real() -> OcrRecogniser:
    pytest.importorskip("rapidocr")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("socket.socket.connect", offline)
        return ocr.load(EmbedWordsParams())


def offline(*_: Any) -> None:
    raise AssertionError("asked the network")


def test_drawn_words_are_read_without_a_network(real: OcrRecogniser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.socket.connect", offline)
    first = picture((20, 20, "HAPPY TODAY", 40), (250, 102, "right side", 24), (20, 100, "left side", 24))
    second = picture((20, 20, "HAPPY TODAY", 40), (20, 100, "the end", 24))
    told = real.recognise(Clip({real.frame_request: [first, second]}, SILENT))
    assert told == Words("HAPPY TODAY left side right side the end", None)
    assert real.recognise(Clip({real.frame_request: [first, second]}, SILENT)) == told


@pytest.mark.parametrize("shape", [(200, 300), (1, 1), (1, 5000), (5000, 1)])
def test_blank_pictures_of_any_shape_have_no_words(real: OcrRecogniser, shape: tuple[int, int]) -> None:
    with pytest.raises(MediaError, match="no words"):
        real.recognise(Clip({real.frame_request: [np.full((*shape, 3), 200, np.uint8)]}, SILENT))


def test_other_nets_are_refused_in_one_line(real: OcrRecogniser, tmp_path: Path) -> None:
    ocr.write(EmbedWordsParams(), tmp_path / "nets")
    params = EmbedWordsParams(models=str(tmp_path / "nets"))
    copied = ocr.load(params)
    assert copied.identity["sha256"] == real.identity["sha256"]
    assert str(tmp_path) not in json.dumps(copied.identity)
    (tmp_path / "nets" / "text_reader.onnx").write_bytes((tmp_path / "nets" / "text_detector.onnx").read_bytes())
    with pytest.raises(InputError, match=r"cannot be loaded: text_reader\.onnx: its metadata has no `character`"):
        ocr.load(params)
    (tmp_path / "nets" / "text_detector.onnx").write_bytes(b"no net")
    with pytest.raises(InputError, match=r"embed\.video\.words\.models: .*: cannot be loaded: ") as error:
        ocr.load(params)
    assert "\n" not in str(error.value)


def test_an_altered_package_is_refused(real: OcrRecogniser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "content_digest", lambda path: "0" * 64)
    with pytest.raises(InputError, match=r"ppocr-detector: .* is not the file that was released"):
        ocr.load(EmbedWordsParams())


# --- in a project ----------------------------------------------------------------------------------------------------


def animated(path: Path, level: int) -> None:
    """A clip of three frames about so light."""
    first, *others = [Image.fromarray(np.full((64, 64, 3), level + at, np.uint8)) for at in range(3)]
    first.save(path, save_all=True, append_images=others, duration=200)


def by_level(picture: np.ndarray) -> list[Line]:
    """Reads words in what is light."""
    return [line("so happy"), line("today", 40)] if picture.mean() > 128 else []


def standing_in(params: EmbedWordsParams, key: str = "") -> OcrRecogniser:
    identity = {"name": "made", "revision": "1", "sha256": "0", "frames": params.frames, "width": 0}
    return OcrRecogniser(identity, params, by_level)


def test_the_vectors_of_the_stream_are_those_of_the_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMOCARE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ocr, "load", standing_in)
    opened: list[str] = []
    read = read_clip

    def counted(path: Path, **asked: Any) -> Clip:
        opened.append(path.name)
        return read(path, **asked)

    monkeypatch.setattr(streams, "read_clip", counted)
    for name, level in (("light", 230), ("dark", 20)):
        animated(tmp_path / f"{name}.gif", level)
    layout = Layout(tmp_path)
    rows = [{"id": f"p{at}", "label": "x", "video_path": f"{of}.gif"} for at, of in enumerate(["light", "dark"])]
    posts_table(layout, rows)
    small = {"encoder": str(tiny.clip(tmp_path / "clip"))}
    texts = {"encoder": str(tiny.distilbert(tmp_path / "bert"))}
    video = {**small, "frames": 2, "streams": ["frames", "words"]}
    given: dict[str, Any] = {"device": "cpu", "tracks": ["posts"], "posts": {"media": "."}}
    given["embed"] = {"text": texts, "image": small, "video": video}
    embed.run(Params.model_validate(given), layout)
    made = artifacts.read_embeddings(layout.embeddings("posts", "video"))
    own = slices(made.encoder)["words"]
    expected = text.load(EmbedTextParams(encoder=texts["encoder"])).encode(["so happy today"], torch.device("cpu"))[0]
    np.testing.assert_allclose(made.vectors[0, own], expected, atol=1e-6)
    assert np.isnan(made.vectors[1, own]).all()
    assert not np.isnan(made.vectors[1, slices(made.encoder)["frames"]]).any()
    assert artifacts.read_json(layout.details("embed"))["video"]["streams"]["words"]["reasons"] == {"no words": 1}
    assert sorted(opened) == ["dark.gif", "light.gif"]
    # That there are none is kept as the words are, so another encoder of texts has no clip opened again.
    given["embed"]["text"]["max_tokens"] = 8
    embed.run(Params.model_validate(given), layout)
    assert len(opened) == 2
    assert "happy" not in "".join(capsys.readouterr())
