"""A clip's streams from training to prediction: a bundle carries the encoders of those it uses, and no others."""

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.core import artifacts
from pipeline.core.errors import DamagedError, InputError
from pipeline.core.layout import Layout
from pipeline.encoders import face_models, ocr
from pipeline.params import EmbedVideoParams, EmbedWordsParams, Params
from pipeline.serving import bundle, intake
from pipeline.serving.posts import Post
from pipeline.serving.predictor import Predictor
from pipeline.stages import embed, fuse, train_image, train_text, train_video
from tests import tiny
from tests.encoders import test_ocr
from tests.encoders.test_faces import folder_of, nets
from tests.encoders.test_sound_features import clip as sounding
from tests.encoders.test_sound_features import tone
from tests.posts.test_specialist import posts_table
from tests.serving.conftest import SCORED, SPLIT, Trained

LOGREG = {"candidates": ["logreg"], "folds": 2}
POSTS = 28


def heard(root: Path, count: int) -> list[dict[str, Any]]:
    """Clips whose label is how high their tone is; every seventh is silent."""
    rng = np.random.default_rng(0)
    rows = []
    for at in range(count):
        samples = tone((150.0, 420.0)[at % 2], 0.6) + 0.02 * rng.normal(size=9600).astype(np.float32)
        sounding(root / f"{at}.mkv", None if at % 7 == 3 else samples[None], seconds=0.6)
        rows.append({"id": f"p{at:03d}", "label": ("low", "high")[at % 2], "video_path": f"{at}.mkv"})
    return rows


def trained(settings: dict[str, Any], layout: Layout, absent: tuple[str, str]) -> Trained:
    """Posts of one modality, through the stages up to ``fuse``; ``absent`` are the other two."""
    params = Params.model_validate(settings)
    for stage in (embed, train_text, train_image, train_video, fuse):
        stage.run(params, layout)
    artifacts.write_json(layout.details("split"), {"posts": SPLIT})
    scored = {name: of for name, of in SCORED.items() if name not in absent}
    artifacts.write_json(layout.details("evaluate"), {"posts": scored | {key: {"n": 0} for key in absent}})
    return Trained(params, layout)


def train(root: Path, streams: list[str], **more: Any) -> Trained:
    layout = Layout(root)
    root.mkdir(parents=True)
    posts_table(layout, heard(root, POSTS))
    small = {"encoder": str(tiny.clip(root / "clip"))}
    video = {**small, "frames": 2, "streams": streams, "speech": {"encoder": str(tiny.whisper(root / "whisper"))}}
    settings = {
        "tracks": ["posts"],
        "posts": {"media": "."},
        "embed": {"text": {"encoder": str(tiny.distilbert(root / "bert"))}, "image": small, "video": video | more},
        "train_video": LOGREG,
        "fuse": {"candidates": ["best_specialist"], "folds": 2},
    }
    return trained(settings, layout, absent=("text", "image"))


@pytest.fixture(scope="module", params=[["speech"], ["frames", "sound", "speech"]], ids="+".join)
def spoken(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOCARE_CACHE", str(tmp_path_factory.mktemp("cache")))
        return train(tmp_path_factory.mktemp("spoken") / "project", request.param)


def test_a_bundle_carries_the_encoder_of_speech(spoken: Trained, tmp_path: Path) -> None:
    bundle.export(spoken.params, spoken.layout, tmp_path / "made")
    assert (tmp_path / "made" / "encoders" / "speech" / "model.safetensors").is_file()
    for path in (tmp_path / "made").rglob("*"):
        assert not path.is_file() or str(spoken.layout.root).encode() not in path.read_bytes()
    moved = Path(shutil.move(tmp_path / "made", tmp_path / "elsewhere"))
    clips = [Post(video=spoken.layout.root / f"{at}.mkv") for at in (0, 1, 3)]
    expected = [answer.as_json() for answer in spoken.predictor().predict(clips)]
    assert [answer.as_json() for answer in Predictor.load(moved).predict(clips)] == expected
    silent = expected[2]["modalities"]["video"]
    if len(spoken.params.embed.video.streams) == 1:
        assert (silent["state"], silent["reason"]) == ("absent", "no sound: no audio track")
    else:
        assert silent["streams"]["speech"] == {"present": False, "reason": "no sound: no audio track", "change": 0.0}
        assert expected[0]["modalities"]["video"]["streams"]["speech"]["present"]


def test_the_card_names_the_encoder_of_speech(spoken: Trained, tmp_path: Path) -> None:
    bundle.export(spoken.params, spoken.layout, tmp_path / "made")
    lines = (tmp_path / "made" / "README.md").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("| video speech")]
    assert line.startswith("| video speech | whisper | local | `")


def test_another_encoder_of_speech_is_refused(spoken: Trained, tmp_path: Path) -> None:
    bundle.export(spoken.params, spoken.layout, tmp_path / "made")
    settings = json.loads((tmp_path / "made" / "predictor.json").read_text())
    settings["embed"]["video"]["speech"]["encoder"] = str(spoken.layout.root / "whisper")
    (tmp_path / "made" / "predictor.json").write_text(json.dumps(settings))
    index = json.loads((tmp_path / "made" / "bundle.json").read_text())
    index["files"]["predictor.json"] = bundle.content_digest(tmp_path / "made" / "predictor.json")
    (tmp_path / "made" / "bundle.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="is no encoder of the bundle; copy or export the bundle again"):
        Predictor.load(tmp_path / "made")


def test_a_bundle_carries_what_hears_words_and_what_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOCARE_CACHE", str(tmp_path / "cache"))
    folder = tiny.speaking(tmp_path / "speaking")
    words = train(tmp_path / "project", ["sound", "transcript"], transcript={"encoder": str(folder)})
    bundle.export(words.params, words.layout, tmp_path / "made")
    assert (tmp_path / "made" / "encoders" / "transcript" / "tokenizer.json").is_file()
    assert (tmp_path / "made" / "encoders" / "text" / "model.safetensors").is_file()
    assert str(tmp_path) not in (tmp_path / "made" / "predictor.json").read_text()
    assert "what is said, by the words" in (tmp_path / "made" / "README.md").read_text()
    clips = [Post(video=words.layout.root / f"{at}.mkv") for at in (0, 3)]
    expected = [answer.as_json() for answer in words.predictor().predict(clips)]
    moved = Path(shutil.move(tmp_path / "made", tmp_path / "elsewhere"))
    assert [answer.as_json() for answer in Predictor.load(moved).predict(clips)] == expected
    assert expected[0]["modalities"]["video"]["streams"]["transcript"]["present"]
    assert expected[1]["modalities"]["video"] | {"streams": None} == {
        **expected[1]["modalities"]["video"],
        "state": "absent",
        "reason": "no sound: no audio track",
        "streams": None,
    }


def test_a_bundle_carries_the_nets_of_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOCARE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(face_models, "load", lambda params, key="": made_of(face_models.read(params)[0]))
    models = folder_of(tmp_path / "nets", "detector", "mesh", "expression")
    seen = train(tmp_path / "project", ["faces", "sound"], faces={"models": str(models), "frames": 3})
    bundle.export(seen.params, seen.layout, tmp_path / "made")
    assert not (tmp_path / "made" / "encoders" / "video").exists()
    assert (tmp_path / "made" / "encoders" / "faces" / "face_detector.tflite").read_bytes() == b"detector"
    assert str(tmp_path) not in (tmp_path / "made" / "predictor.json").read_text()
    card = (tmp_path / "made" / "README.md").read_text()
    assert "what the largest face of each picture or frame does" in card
    assert "Nobody is identified" in card
    clips = [Post(video=seen.layout.root / f"{at}.mkv") for at in (0, 3)]
    expected = [answer.as_json() for answer in seen.predictor().predict(clips)]
    assert [answer.as_json() for answer in Predictor.load(tmp_path / "made").predict(clips)] == expected
    assert expected[1]["modalities"]["video"]["streams"]["faces"]["present"]
    assert not expected[1]["modalities"]["video"]["streams"]["sound"]["present"]
    # The page is told where the face is that was measured, in each frame in which it was sought.
    asked = intake.PredictRequest(clips[0], looked_at=True)
    looked_at = intake.prepare(Predictor.load(tmp_path / "made"), asked, 60.0, math.inf).looked_at
    assert looked_at is not None
    assert [of["frame"][:23] for of in looked_at["faces"]] == ["data:image/jpeg;base64,"] * len(looked_at["faces"])
    assert looked_at["faces"][0]["box"][2] > 0.2
    deaf = intake.prepare(seen.predictor(), intake.PredictRequest(Post(text="so")), 60.0, math.inf)
    assert deaf.looked_at is None


def test_a_bundle_carries_the_nets_of_written_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOCARE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ocr, "load", reading)
    models = test_ocr.folder_of(tmp_path / "nets")
    read = train(tmp_path / "project", ["sound", "words"], words={"models": str(models), "frames": 2})
    bundle.export(read.params, read.layout, tmp_path / "made")
    assert (tmp_path / "made" / "encoders" / "words" / "text_reader.onnx").read_bytes() == b"reader"
    assert (tmp_path / "made" / "encoders" / "text" / "tokenizer.json").is_file()
    assert str(tmp_path) not in (tmp_path / "made" / "predictor.json").read_text()
    card = (tmp_path / "made" / "README.md").read_text()
    assert "what is written there" in card
    assert "| video words | made | 1 | `0…` |" in card
    rng = np.random.default_rng(0)
    sounding(tmp_path / "wordless.mkv", (0.1 * rng.normal(size=(1, 9600))).astype(np.float32), seconds=0.0)
    clips = [Post(video=path) for path in (read.layout.root / "0.mkv", read.layout.root / "3.mkv")]
    clips.append(Post(video=tmp_path / "wordless.mkv"))
    expected = [answer.as_json() for answer in read.predictor().predict(clips)]
    predictor = Predictor.load(tmp_path / "made")
    assert [answer.as_json() for answer in predictor.predict(clips)] == expected
    told = [answer["modalities"]["video"]["streams"]["words"] for answer in expected]
    assert [of["present"] for of in told] == [True, True, False]
    assert told[2] == {"present": False, "reason": "no video stream", "change": 0.0}
    assert "happy" not in json.dumps(expected)
    # Without one of its frames, words are read anew.
    assert predictor.explain(clips[0]).frames == pytest.approx([0.0, 0.0], abs=1e-5)
    settings = json.loads((tmp_path / "made" / "predictor.json").read_text())
    settings["embed"]["video"]["words"]["models"] = str(models)
    with pytest.raises(DamagedError, match="is no encoder of the bundle"):
        bundle._own_streams(tmp_path / "made", EmbedVideoParams.model_validate(settings["embed"]["video"]))


def reading(params: EmbedWordsParams) -> ocr.OcrRecogniser:
    """Reads the same words in every frame, with nets that hold their names."""
    assert {path.read_bytes() for path in Path(params.models).iterdir()} == {b"detector", b"reader"}
    identity = {"name": "made", "revision": "1", "sha256": "0", "width": 0}
    return ocr.OcrRecogniser(identity, params, lambda _: [test_ocr.line("so happy")])


def made_of(files: dict[face_models.Role, bytes]) -> face_models.FaceNets:
    """Nets that see a face in every frame, from files that hold their names."""
    assert files == {role: role.encode() for role in files}
    return nets(((0.5, 0.5), 0.4, 3.0))


def test_what_is_not_read_is_not_carried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOCARE_CACHE", str(tmp_path / "cache"))
    deaf = train(tmp_path / "project", ["sound"])
    bundle.export(deaf.params, deaf.layout, tmp_path / "made")
    assert not (tmp_path / "made" / "encoders").exists()
    settings = (tmp_path / "made" / "predictor.json").read_text()
    assert str(tmp_path) not in settings
    clips = [Post(video=deaf.layout.root / "0.mkv")]
    expected = [answer.as_json() for answer in deaf.predictor().predict(clips)]
    assert [answer.as_json() for answer in Predictor.load(tmp_path / "made").predict(clips)] == expected


# --- pictures --------------------------------------------------------------------------------------------------------


def shown(root: Path, count: int) -> list[dict[str, Any]]:
    """Pictures whose label is how light they are, as words are written in the light ones; every seventh is damaged."""
    rng, rows = np.random.default_rng(0), []
    for at in range(count):
        level = (70, 200)[at % 2] + int(rng.integers(-20, 20))
        pixels = np.clip(rng.normal(level, 8, size=(70, 90, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{at}.png")
        if at % 7 == 3:
            (root / f"{at}.png").write_bytes((root / f"{at}.png").read_bytes()[:300])
        rows.append({"id": f"p{at:03d}", "label": ("dark", "light")[at % 2], "image_path": f"{at}.png"})
    return rows


def train_pictures(
    root: Path, streams: list[str], candidates: Sequence[str] = ("logreg",), posts: int = POSTS, **more: Any
) -> Trained:
    layout = Layout(root)
    root.mkdir(parents=True)
    posts_table(layout, shown(root, posts))
    small = {"encoder": str(tiny.clip(root / "clip"))}
    settings = {
        "tracks": ["posts"],
        "posts": {"media": "."},
        "embed": {
            "text": {"encoder": str(tiny.distilbert(root / "bert"))},
            "image": small | {"streams": streams} | more,
            "video": small,
            "max_bad_share": 0.5,
        },
        "train_image": {
            "candidates": list(candidates),
            "folds": 2,
            "tuned": {"epochs": 1, "least_steps": 0, "batch": 16, "folds": 2, "encoder_learning_rate": 0.01},
        },
        "fuse": {"candidates": ["best_specialist"], "folds": 2},
    }
    return trained(settings, layout, absent=("text", "video"))


@pytest.fixture
def seeing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Words are read in light pictures, and a face is seen in each, by nets that hold their names."""
    monkeypatch.setenv("EMOCARE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(face_models, "load", lambda params, key: made_of(face_models.read(params, key)[0]))

    def load(params: EmbedWordsParams, key: str = "") -> ocr.OcrRecogniser:
        assert key == "embed.image.words"
        return ocr.OcrRecogniser(reading(params).identity, params, test_ocr.by_level)

    monkeypatch.setattr(ocr, "load", load)
    faces = folder_of(tmp_path / "face nets", "detector", "mesh", "expression")
    return {"faces": {"models": str(faces)}, "words": {"models": str(test_ocr.folder_of(tmp_path / "nets"))}}


def test_a_bundle_carries_what_reads_pictures(tmp_path: Path, seeing: dict[str, Any]) -> None:
    read = train_pictures(tmp_path / "project", ["faces", "pixels", "words"], posts=48, **seeing)
    told = artifacts.read_json(read.layout.details("embed"))["image"]["streams"]
    assert (told["words"]["present"], told["words"]["reasons"]["no words"]) == (20, 21)
    assert (told["faces"]["present"], told["pixels"]["present"], told["pixels"]["unreadable"]) == (41, 41, 7)
    bundle.export(read.params, read.layout, tmp_path / "made", onnx=True)
    names = {path.name for path in (tmp_path / "made" / "encoders").iterdir()}
    assert names == {"image", "picture_faces", "picture_words", "text"}
    assert {path.name for path in (tmp_path / "made" / "onnx").iterdir()} == {"image.onnx"}
    assert str(tmp_path) not in (tmp_path / "made" / "predictor.json").read_text()
    card = (tmp_path / "made" / "README.md").read_text()
    assert "| image words | made | 1 |" in card
    assert "Of a picture it computes what the largest face" in card
    posts = [Post(image=read.layout.root / f"{at}.png") for at in (0, 1, 3)]
    expected = [answer.as_json() for answer in read.predictor().predict(posts)]
    predictor = Predictor.load(tmp_path / "made")
    assert [answer.as_json() for answer in predictor.predict(posts)] == expected
    dark, light, damaged = (answer["modalities"]["image"] for answer in expected)
    assert dark["streams"]["words"] == {"present": False, "reason": "no words", "change": 0.0}
    assert light["streams"]["words"]["present"]
    assert light["streams"]["pixels"]["change"] != 0.0
    assert (damaged["state"], damaged["streams"]) == ("unreadable", None)
    # What is asked for has the vectors that `embed` wrote, prepared beforehand or not.
    rows = artifacts.read_embeddings(read.layout.embeddings("posts", "image"))
    given = [posts[0].image, predictor.prepared(predictor.read(posts[1])).image]
    np.testing.assert_allclose(predictor._look("image", given).vectors, rows.vectors[:2], atol=1e-5)
    # A patch takes words away where it darkens; the page is told where the face is that was measured.
    patches = predictor.explain(posts[1]).patches
    assert patches is not None
    assert patches.shape == (5, 5)
    looked_at = intake.prepare(predictor, intake.PredictRequest(posts[1], looked_at=True), 60.0, math.inf).looked_at
    assert looked_at is not None
    assert looked_at["faces"][0]["box"][2] > 0.2


@pytest.mark.parametrize("alike", [True, False])
def test_nets_that_clips_and_pictures_are_read_by_are_carried_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alike: bool
) -> None:
    monkeypatch.setenv("EMOCARE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(face_models, "load", lambda params, key="": made_of(face_models.read(params)[0]))
    asked: list[Path] = []

    def load(params: EmbedWordsParams, key: str = "") -> ocr.OcrRecogniser:
        asked.append(Path(params.models))
        identity = {"name": "made", "revision": "1", "sha256": "0", "width": 0}
        return ocr.OcrRecogniser(identity, params, test_ocr.by_level)

    monkeypatch.setattr(ocr, "load", load)
    faces = {"models": str(folder_of(tmp_path / "face nets", "detector", "mesh", "expression"))}
    nets_of = {name: test_ocr.folder_of(tmp_path / name) for name in ("image", "video")}
    if not alike:
        (nets_of["image"] / "text_reader.onnx").write_bytes(b"of pictures")
    root = tmp_path / "project"
    root.mkdir()
    pairs = zip(heard(root, POSTS), shown(root, POSTS), strict=True)
    posts_table(Layout(root), [clip | {"image_path": of["image_path"]} for clip, of in pairs])
    small = {"encoder": str(tiny.clip(root / "clip"))}
    words = {name: {"words": {"models": str(of)}, "faces": faces} for name, of in nets_of.items()}
    settings = {
        "tracks": ["posts"],
        "posts": {"media": "."},
        "embed": {
            "text": {"encoder": str(tiny.distilbert(root / "bert"))},
            "image": small | words["image"] | {"streams": ["faces", "pixels", "words"]},
            "video": small | words["video"] | {"frames": 2, "streams": ["faces", "sound", "words"]},
            "max_bad_share": 0.5,
        },
        "train_image": LOGREG,
        "train_video": LOGREG,
        "fuse": {"candidates": ["vectors_logreg"], "folds": 2},
    }
    both = trained(settings, Layout(root), absent=("text", "text"))
    bundle.export(both.params, both.layout, tmp_path / "made")
    names = {path.name for path in (tmp_path / "made" / "encoders").iterdir()}
    assert names == {"faces", "image", "text", "words"} | (set() if alike else {"picture_words"})
    posts = [Post(image=root / f"{at}.png", video=root / f"{at}.mkv") for at in (0, 1)]
    expected = [answer.as_json() for answer in both.predictor().predict(posts)]
    moved, asked[:] = Path(shutil.move(tmp_path / "made", tmp_path / "elsewhere")), []
    assert [answer.as_json() for answer in Predictor.load(moved).predict(posts)] == expected
    assert {path.name for path in asked} == names & {"picture_words", "words"}
    assert expected[1]["modalities"]["image"]["streams"]["words"]["present"]


def test_pixels_alone_are_read_as_they_always_were(tmp_path: Path, seeing: dict[str, Any]) -> None:
    plain = train_pictures(tmp_path / "project", ["pixels"], **seeing)
    assert "streams" not in artifacts.read_embeddings(plain.layout.embeddings("posts", "image")).encoder
    bundle.export(plain.params, plain.layout, tmp_path / "made")
    assert {path.name for path in (tmp_path / "made" / "encoders").iterdir()} == {"image"}
    assert str(tmp_path) not in (tmp_path / "made" / "predictor.json").read_text()
    answer = Predictor.load(tmp_path / "made").predict([Post(image=plain.layout.root / "0.png")])[0].as_json()
    assert answer["modalities"]["image"]["streams"] is None


def test_words_of_pictures_alone_need_no_encoder_of_pictures(tmp_path: Path, seeing: dict[str, Any]) -> None:
    read = train_pictures(tmp_path / "project", ["faces", "words"], **seeing)
    bundle.export(read.params, read.layout, tmp_path / "made")
    names = {path.name for path in (tmp_path / "made" / "encoders").iterdir()}
    assert names == {"picture_faces", "picture_words", "text"}
    Image.new("RGB", (40, 40)).save(tmp_path / "black.png")
    posts = [Post(image=tmp_path / "black.png"), Post(image=read.layout.root / "1.png")]
    answers = [answer.as_json()["modalities"]["image"] for answer in Predictor.load(tmp_path / "made").predict(posts)]
    assert [(of["state"], of["reason"]) for of in answers] == [("absent", "no face"), ("present", None)]


def test_a_tuned_encoder_of_pictures_looks_at_their_pixels(tmp_path: Path, seeing: dict[str, Any]) -> None:
    read = train_pictures(tmp_path / "project", ["pixels", "words"], ["full"], **seeing)
    assert artifacts.read_json(read.layout.model("train_image") / "model.json")["candidate"] == "full"
    posts = [Post(image=read.layout.root / f"{at}.png") for at in (0, 1)]
    expected = [answer.as_json() for answer in read.predictor().predict(posts)]
    bundle.export(read.params, read.layout, tmp_path / "made")
    assert [answer.as_json() for answer in Predictor.load(tmp_path / "made").predict(posts)] == expected
