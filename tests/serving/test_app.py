"""The API: what it answers, what it refuses and in which words, and that nothing sent to it breaks it or stays."""

import base64
import io
import json
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from pipeline.serving.app import build
from pipeline.serving.examples import examples
from pipeline.serving.intake import RequestLimits
from pipeline.serving.pages import FILES
from pipeline.serving.posts import Post
from pipeline.serving.predictor import Predictor
from pipeline.serving.score_predictor import Sample, ScorePredictor
from tests import tracks
from tests.serving import scores
from tests.serving.conftest import Trained

LIMITS = RequestLimits(bytes=200_000, characters=500, clip_seconds=5.0, seconds=20.0, queue=8, batch=4)
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> Iterator[TestClient]:
    with TestClient(build(predictor, None, LIMITS), base_url="http://localhost") as client:
        yield client


def png(colour: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (40, 30)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def clip(frames: int = 4, duration: int = 200) -> bytes:
    file = io.BytesIO()
    first, *rest = (Image.new("RGB", (32, 32), (60 * at % 256, 0, 0)) for at in range(frames))
    first.save(file, "GIF", save_all=True, append_images=rest, duration=duration)
    return file.getvalue()


def ask(client: TestClient, **fields: Any) -> Any:
    """As a form: bytes as files."""
    files = {name: (f"../../{name}", value) for name, value in fields.items() if isinstance(value, bytes)}
    texts = {name: (None, value) for name, value in fields.items() if isinstance(value, str)}
    return client.post("/api/predict", files={**texts, **files})


def test_a_form_and_json_get_what_the_predictor_says(client: TestClient, predictor: Predictor) -> None:
    (known,) = predictor.predict([Post("so happy", png())], coverage=0.8)
    form = ask(client, text="so happy", image=png(), coverage="0.8")
    assert form.status_code == 200
    encoded = base64.b64encode(png()).decode()
    asked = {"text": "so happy", "image": encoded, "video": None, "coverage": 0.8, "explain": False}
    as_json = client.post("/api/predict", json=asked)
    assert form.json() == as_json.json()
    assert set(form.json()) == {"label", "probabilities", "set", "modalities"}
    assert form.json()["set"] == known.labels_in_set
    assert form.json()["probabilities"] == pytest.approx(known.probabilities, abs=1e-6)
    assert form.json()["modalities"]["video"]["state"] == "absent"
    assert form.headers["x-content-type-options"] == "nosniff"


def test_what_was_looked_at_and_why(client: TestClient, predictor: Predictor) -> None:
    answer = ask(client, text="so happy", image=png(), video=clip(), looked_at="true", explain="on").json()
    uri = answer["looked_at"]["image"]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,")))))
    assert picture.shape == (30, 40, 3)
    assert picture.mean(axis=(0, 1)) == pytest.approx([200, 30, 30], abs=4)
    assert len(answer["looked_at"]["frames"]) == 3  # as many as the model looks at
    explained = answer["explanation"]
    known = predictor.explain(Post("so happy", png(), clip())).as_json()
    assert [word["word"] for word in explained["words"]] == ["so", "happy"]
    assert explained["words"][1]["change"] == pytest.approx(known["words"][1]["change"], abs=1e-5)
    assert np.shape(explained["patches"]) == (5, 5)
    assert len(explained["frames"]) == 3


def test_what_cannot_be_read_is_said_and_the_rest_used(client: TestClient) -> None:
    answer = ask(client, text="so sad", image=b"no picture at all").json()
    assert answer["modalities"]["image"]["state"] == "unreadable"
    assert answer["modalities"]["image"]["reason"].startswith("not a picture")
    assert answer["modalities"]["text"]["state"] == "present"
    long = ask(client, text="so sad", video=clip(frames=10, duration=1000)).json()
    assert long["modalities"]["video"]["reason"] == "too long: at most 5 seconds are allowed"


@pytest.mark.parametrize(
    ("fields", "status", "told"),
    [
        ({"image": b"\x00\x01"}, 422, "nothing to predict from: image: not a picture"),
        ({"text": "   "}, 422, "nothing to predict from: text: empty"),
        ({"colour": "red"}, 422, "unknown field 'colour'; known are text, image, video, coverage, explain, looked_at"),
        ({"coverage": "0.9"}, 422, "gives none of text, image, video"),
        ({"text": "a", "coverage": "1.5"}, 422, "coverage is not a number above 0 and below 1"),
        ({"text": "a", "coverage": "nan"}, 422, "coverage is not a number above 0 and below 1"),
        ({"text": "a", "explain": "perhaps"}, 422, "explain is neither true nor false"),
        ({"text": "x" * 501}, 422, "the text has 501 characters, at most 500 are allowed"),
        ({"text": "a", "image": "/etc/passwd"}, 422, "image is not a file (in JSON: base64)"),
        ({"text": b"a file"}, 422, "text is not a text"),
        ({"image": bytes(250_000)}, 413, "larger than 0.2 MB"),
    ],
)
def test_a_wrong_form_is_refused_in_one_line(
    client: TestClient, fields: dict[str, Any], status: int, told: str
) -> None:
    answer = ask(client, **fields)
    assert answer.status_code == status
    assert answer.json()["error"].startswith(told)
    assert "\n" not in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "headers", "status", "told"),
    [
        (b"{", JSON, 400, "not JSON"),
        (b"\xff\xfe", JSON, 400, "not JSON"),
        (b"[" * 100_000, JSON, 400, "not JSON"),
        (b"[1]", JSON, 400, "not a JSON object"),
        (b'{"text": 7}', JSON, 422, "text is not a text"),
        (b'{"text": "a", "image": "%%%"}', JSON, 422, "image is not base64"),
        (b'{"text": "a", "image": ["b"]}', JSON, 422, "image is not a file"),
        (b'{"text": "a", "coverage": true}', JSON, 422, "coverage is not a number"),
        (b'{"text": "a", "coverage": 1e999}', JSON, 422, "coverage is not a number"),
        (b"hello", {"content-type": "text/plain"}, 415, "send multipart/form-data or application/json"),
        (b"hello", {}, 415, "send multipart/form-data or application/json"),
        (b"hello", {"content-type": "multipart/form-data"}, 400, "not a multipart form"),
        (b"hello", {"content-type": "multipart/form-data; boundary=x"}, 400, "not a multipart form"),
        (b"", {"content-type": "multipart/form-data; boundary=x"}, 422, "gives none of"),
        (b"--x\r\nno header\r\n\r\n--x--", {"content-type": "multipart/form-data; boundary=x"}, 400, "not a multipart"),
    ],
)
def test_a_wrong_body_is_refused_in_one_line(
    client: TestClient, body: bytes, headers: dict[str, str], status: int, told: str
) -> None:
    answer = client.post("/api/predict", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"][: len(told)]) == (status, told)


def test_wrong_addresses_and_methods(client: TestClient) -> None:
    assert client.get("/../../etc/passwd").status_code == 404
    assert (client.get("/api/predict").status_code, client.get("/docs").status_code) == (405, 404)
    assert client.get("/nothing").json() == {"error": "Not Found"}


def test_when_full_it_refuses_and_then_goes_on(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(posts: Sequence[Post], coverage: float | None) -> Any:
        begun.set()
        assert go_on.wait(20)
        return Predictor.predict(predictor, posts, coverage)

    monkeypatch.setattr(predictor, "predict", slow)
    statuses: list[int] = []
    with TestClient(build(predictor, None, replace(LIMITS, queue=2, batch=1)), base_url="http://localhost") as client:
        waiting = [
            threading.Thread(target=lambda: statuses.append(ask(client, text="so sad").status_code)) for _ in range(2)
        ]
        for thread in waiting:
            thread.start()
        assert begun.wait(20)
        while "emocare_requests_under_way 2.0" not in client.get("/metrics").text:
            pass
        full = ask(client, text="so sad")
        assert (full.status_code, full.headers["retry-after"]) == (503, "1")
        go_on.set()
        for thread in waiting:
            thread.join()
        assert ask(client, text="so sad").status_code == 200
    assert statuses == [200, 200]


def test_a_prediction_that_takes_too_long_is_given_up(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(predictor, "predict", lambda posts, coverage: go_on.wait(20) and [])
    with TestClient(build(predictor, None, replace(LIMITS, seconds=0.2)), base_url="http://localhost") as client:
        answer = ask(client, text="so sad")
        go_on.set()
    assert (answer.status_code, answer.json()) == (504, {"error": "no answer within 0.2 seconds"})


def test_a_failure_of_ours_is_told_without_its_inside(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor, "predict", lambda posts, coverage: 1 / 0)
    with TestClient(build(predictor, None, LIMITS), "http://localhost", raise_server_exceptions=False) as client:
        answer = ask(client, text="so sad")
        assert (answer.status_code, answer.json()) == (500, {"error": "failed; the server's log says more"})
        assert 'emocare_requests_total{status="500"} 1.0' in client.get("/metrics").text


def test_health_and_metrics(predictor: Predictor) -> None:
    with TestClient(build(predictor, None, LIMITS), base_url="http://localhost") as client:
        assert client.get("/health").json() == {
            "status": "ok",
            "model": predictor.model.identity,
            "labels": ["happy", "sad"],
            "modalities": ["text", "image", "video"],
            "scores": None,
            "limits": vars(LIMITS),
        }
        ask(client, text="so sad")
        ask(client, colour="red")
        told = client.get("/metrics").text
        for line in (
            'emocare_requests_total{status="200"} 1.0',
            'emocare_requests_total{status="422"} 1.0',
            "emocare_request_seconds_count 2.0",
            "emocare_batch_posts_sum 1.0",
            "emocare_requests_under_way 0.0",
        ):
            assert line in told
        described = client.get("/openapi.json").json()["paths"]["/api/predict"]["post"]
        assert set(described["requestBody"]["content"]) == {"multipart/form-data", "application/json"}


def test_every_file_and_example_of_the_page_is_there(client: TestClient) -> None:
    for path, (file, kind) in FILES.items():
        answer = client.get(path)
        assert (answer.content, answer.headers["content-type"]) == (file.read_bytes(), kind)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    listed = client.get("/api/examples").json()
    assert [example["name"] for example in listed] == [
        "A text", "Text and picture", "Words against picture", "A clip",
    ]  # fmt: skip
    for example in listed:
        given = {name: client.get(example[name]).content for name in ("image", "video") if example[name]}
        answer = ask(client, text=example["text"] or None, **given)
        assert answer.status_code == 200
        assert all(answer.json()["modalities"][name]["state"] == "present" for name in given)


def test_examples_show_only_what_the_model_reads() -> None:
    assert [of.name for of in examples(["image", "text"])] == ["A text", "Text and picture", "Words against picture"]
    assert [of.name for of in examples(["video"])] == ["A clip"]
    assert examples(["image"]) == []


def absurd(width: int, height: int) -> bytes:
    """A PNG that claims to be so large, and whose few bytes unpack to that much."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = zlib.compress(bytes(10_000_000), 9)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_nothing_that_is_sent_breaks_it_or_stays(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rng = np.random.default_rng(0)
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    given = [
        png(),
        clip(),
        svg,
        absurd(60_000, 60_000),
        absurd(1, 2**31 - 1),
        b"GIF89a",
        b"",
        b"PK\x03\x04" + bytes(99),
    ]
    statuses = set()
    for at in range(240):
        content = bytearray(given[at % len(given)])
        for place in rng.integers(0, max(len(content), 1), rng.integers(0, 4)):
            content[place : place + 1] = rng.bytes(1)
        cut = bytes(content[: rng.integers(0, len(content) + 1)]) if at % 3 == 0 else bytes(content)
        name = ("image", "video")[at % 2]
        answer = ask(client, **{name: cut}) if at % 5 else client.post("/api/predict", content=cut, headers=JSON)
        assert isinstance(json.loads(answer.text), dict)
        statuses.add(answer.status_code)
    assert statuses <= {200, 400, 422}
    assert {200, 422} <= statuses
    assert list(tmp_path.iterdir()) == []


def test_a_large_upload_never_touches_the_disk(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above 1 MB a form's file would go to a temporary file, which has a name on some systems."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a temporary file")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with TestClient(build(predictor, None, replace(LIMITS, bytes=5_000_000)), base_url="http://localhost") as client:
        answer = ask(client, text="so sad", image=bytes(3_000_000))
    assert answer.json()["modalities"]["image"]["state"] == "unreadable"


def test_texts_of_all_kinds_are_answered(client: TestClient, trained: Trained) -> None:
    for text in ("🙃" * 100, "\x00", "\u202e backwards", "<script>alert(1)</script>", "../../etc/passwd", "a\r\nb"):
        assert client.post("/api/predict", json={"text": text}).status_code in (200, 422)
    for more in ("", ', "explain": true', ', "explain": true, "looked_at": true, "coverage": 0.9'):
        content = f'{{"text": "\\ud83d so \\udc00happy"{more}}}'.encode()
        answer = client.post("/api/predict", content=content, headers=JSON)
        assert answer.status_code == 200, answer.text
    assert [word["word"] for word in answer.json()["explanation"]["words"]] == ["?", "so", "?happy"]


# --- scores ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> ScorePredictor:
    track = scores.worded(tmp_path_factory.mktemp("scored"))
    return ScorePredictor.of_project(tracks.params(track), track.layout)


@pytest.fixture(scope="module")
def scoring(scorer: ScorePredictor) -> Iterator[TestClient]:
    """A server that has no model of posts."""
    with TestClient(build(None, scorer, LIMITS), base_url="http://localhost") as client:
        yield client


def test_a_sample_gets_the_score_that_the_predictor_says(scoring: TestClient, scorer: ScorePredictor) -> None:
    asked = {"text": "so happy", "audio": [1.0, 2.0, 3.0, 4.0, 5], "visual": None, "coverage": 0.5}
    (known,) = scorer.predict([Sample("so happy", asked["audio"])], 0.5)
    answer = scoring.post("/api/score", json=asked)
    assert answer.status_code == 200 and answer.json() == known.as_json()
    assert answer.json()["modalities"]["visual"] == {"state": "absent", "change": 0.0}


def test_both_tracks_answer_beside_each_other(predictor: Predictor, scorer: ScorePredictor) -> None:
    with TestClient(build(predictor, scorer, LIMITS), base_url="http://localhost") as client:
        health = client.get("/health").json()
        assert health["labels"] == ["happy", "sad"]
        low, high = scorer.model.description.scores
        told = {"model": scorer.model.identity, "modalities": list(scorer.model.modalities), "scores_words": True}
        assert health["scores"] == {**told, "scale": [low, high]}
        assert "label" in ask(client, text="so sad").json()
        assert "score" in client.post("/api/score", json={"text": "so sad"}).json()


def test_what_there_is_no_model_for_is_said(scoring: TestClient, client: TestClient) -> None:
    refused = ask(scoring, text="so sad")
    assert (refused.status_code, refused.json()) == (404, {"error": "there is no model of posts here"})
    refused = client.post("/api/score", json={"text": "so sad"})
    assert (refused.status_code, refused.json()) == (404, {"error": "there is no model of scores here"})
    assert scoring.get("/health").json()["labels"] == []
    assert scoring.get("/").status_code == 200 and scoring.get("/api/examples").json() == []


@pytest.mark.parametrize(
    ("asked", "status", "told"),
    [
        ({"text": "  "}, 422, "nothing to score: no audio, text, visual"),
        ({"text": "x" * 501}, 422, "the text has 501 characters, at most 500 are allowed"),
        ({"text": [1.0, 2.0]}, 422, "the sample: text holds numbers, and the model reads words"),
        ({"audio": [1.0]}, 422, "the sample: audio has 1 values a row, and the model reads 5"),
        ({"audio": "AAAA"}, 422, "audio is neither a list of numbers nor a list of such lists of one length"),
        ({"audio": [[1.0], [2.0, 3.0]]}, 422, "audio is neither a list"),
        ({"audio": [True, False]}, 422, "audio is neither a list"),
        ({"audio": [1e400]}, 400, "not JSON: Infinity is no number of JSON"),
        ({"audio": {"a": 1}}, 422, "audio is neither a list"),
        ({"audio": []}, 422, "audio is neither a list"),
        ({"audio": [10**30]}, 422, "audio is neither a list"),
        ({"image": "x"}, 422, "unknown field 'image'; known are text, audio, visual, coverage"),
        ({"coverage": 0.5}, 422, "gives none of text, audio, visual"),
        ({"text": "a", "coverage": 2}, 422, "coverage is not a number above 0 and below 1"),
        ([1], 400, "not a JSON object"),
    ],
)
def test_a_wrong_sample_is_refused_in_one_line(scoring: TestClient, asked: Any, status: int, told: str) -> None:
    answer = scoring.post("/api/score", content=json.dumps(asked), headers=JSON)
    assert answer.status_code == status
    assert answer.json()["error"].startswith(told) and "\n" not in answer.json()["error"]


def test_a_number_beyond_all_is_no_feature(scoring: TestClient) -> None:
    answer = scoring.post("/api/score", content=b'{"audio": [1e999, 0, 0, 0, 0]}', headers=JSON)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("nothing to score")


def test_a_sample_comes_as_json_only(scoring: TestClient) -> None:
    assert scoring.post("/api/score", files={"text": (None, "so sad")}).status_code == 415
