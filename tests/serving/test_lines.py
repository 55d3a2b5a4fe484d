"""JSON Lines: an answer for each line, in order, and no waiting for lines that have not come."""

import io
import json
import os
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import pytest

from pipeline.core.errors import InputError
from pipeline.serving import lines
from pipeline.serving.predictor import Predictor
from tests.serving.conftest import Trained


def answers(predictor: Predictor, text: str | bytes, **more: Any) -> tuple[list[dict[str, Any]], int]:
    sink = io.StringIO()
    given = text.encode() if isinstance(text, str) else text
    explain = more.get("explain", False)
    bad = lines.answer(predictor, io.BytesIO(given), sink, more.get("coverage"), explain=explain)
    return [json.loads(line) for line in sink.getvalue().splitlines()], bad


def test_good_lines_are_answered_in_order_with_their_ids(trained: Trained, predictor: Predictor) -> None:
    picture = str(trained.layout.root / "1.png")
    rows: list[dict[str, Any]] = [{"id": at, "text": "sad " * (at % 7 + 1), "image": picture} for at in range(150)]
    rows += [{"text": "no id"}, {"id": "broken", "text": "sad", "image": "none.png", "video": None, "other": 1}]
    found, bad = answers(predictor, "\n".join(map(json.dumps, rows)), coverage=0.8)
    assert bad == 0
    assert [row.get("id") for row in found] == [*range(150), None, "broken"]
    assert found[-1]["modalities"]["image"]["reason"] == "file not found"
    assert found[0]["label"] in found[0]["set"]
    assert found[7]["probabilities"] == pytest.approx(found[0]["probabilities"], abs=1e-5)


def test_bad_lines_are_answered_by_an_error_with_their_number(predictor: Predictor) -> None:
    given = [b'{"text": "a"}', b"no JSON", b"", b"[1]", b'{"txt": "a"}', b'{"text": 7}', b'{"id": {}, "text": "a"}']
    given += [b"[" * 100_000, b'{"text": "\xff"}', b'{"text": "b"}']
    found, bad = answers(predictor, b"\n".join(given))
    assert bad == 7
    assert [row.get("line") for row in found] == [None, 2, 4, 5, 6, 7, 8, 9, None]
    assert [row["error"] for row in found[2:6]] == [
        "not a JSON object",
        "unknown field 'txt'; is 'text' meant?",
        "text is not a text",
        "id is neither a text nor a number",
    ]
    assert all("error" in row or "label" in row for row in found)


def test_a_byte_order_mark_before_the_first_line_is_no_fault_elsewhere_it_is(predictor: Predictor) -> None:
    found, bad = answers(predictor, '\ufeff{"id": 1, "text": "sad"}\n\ufeff{"id": 2, "text": "sad"}\n')
    assert (bad, found[0]["id"], "label" in found[0], found[1]["line"]) == (1, 1, True, 2)


def test_explanations_come_with_the_answer(predictor: Predictor) -> None:
    (found,), _ = answers(predictor, '{"text": "so sad"}', explain=True)
    assert [word["word"] for word in found["explanation"]["words"]] == ["so", "sad"]


class Answers:
    def __init__(self) -> None:
        self.lines: Queue[str] = Queue()

    def write(self, text: str) -> int:
        self.lines.put(text)
        return len(text)

    def flush(self) -> None:
        pass


def test_a_lone_line_is_answered_before_the_next_one_comes(predictor: Predictor) -> None:
    ends = os.pipe()
    sink: Any = Answers()
    with io.FileIO(ends[0]) as source, io.FileIO(ends[1], "w") as pen:
        work = Thread(target=lines.answer, args=(predictor, source, sink, None), kwargs={"explain": False})
        work.start()
        for name in (b"1", b"2"):
            pen.write(b'{"text": "sad", "id": ' + name + b"}\n")
            assert json.loads(sink.lines.get(timeout=60))["id"] == int(name)
        pen.close()
        work.join(timeout=60)
        assert not work.is_alive()


def test_an_input_that_cannot_be_read_on_is_one_line_after_the_answers(predictor: Predictor) -> None:
    class Folder:
        parts = iter([b'{"id": 1, "text": "sad"}\n{"te'])

        def read(self, size: int, /) -> bytes:
            for part in self.parts:
                return part
            raise IsADirectoryError(21, "Is a directory")

    sink = io.StringIO()
    with pytest.raises(InputError) as error:
        lines.answer(predictor, Folder(), sink, None, explain=False)
    assert str(error.value) == "standard input cannot be read: Is a directory; give JSON Lines there"
    assert [json.loads(line)["id"] for line in sink.getvalue().splitlines()] == [1]


def test_nothing_in_nothing_out(predictor: Predictor) -> None:
    assert answers(predictor, "") == ([], 0)
    assert answers(predictor, "\n\n") == ([], 0)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"image": "missing.jpg"}, "nothing to predict from: image: file not found"),
        ({"text": ""}, "nothing to predict from: text: empty"),
        ({"text": "\n \t"}, "nothing to predict from: text: empty"),
        ({"video": " "}, "nothing to predict from: video: file not found"),
    ],
)
def test_what_nothing_can_be_predicted_from_is_an_error_as_everywhere(
    predictor: Predictor, given: dict[str, str], told: str
) -> None:
    found, bad = answers(predictor, json.dumps({"id": 7, **given}) + '\n{"text": "sad"}', explain=True)
    assert (bad, found[0]) == (1, {"line": 1, "id": 7, "error": told})
    assert "label" in found[1]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "[1]", "{}"])
def test_every_answer_is_json_whatever_the_id(predictor: Predictor, number: str) -> None:
    sink = io.StringIO()
    line = f'{{"id": {number}, "text": "sad"}}\n{{"id": "\\ud83d", "text": "sad"}}\n'
    assert lines.answer(predictor, io.BytesIO(line.encode()), sink, None, explain=False) == 1

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    bad, good = (json.loads(answer, parse_constant=refuse) for answer in sink.getvalue().splitlines())
    assert bad["line"] == 1 and "error" in bad and "id" not in bad
    assert (good["id"], "label" in good) == ("\ud83d", True)


def test_paths_with_odd_bytes_are_reasons(predictor: Predictor, tmp_path: Path) -> None:
    found, bad = answers(predictor, json.dumps({"text": "sad", "image": "a\0b", "video": str(tmp_path)}))
    assert bad == 0
    assert found[0]["modalities"]["video"]["reason"] == "not a file"


@pytest.mark.parametrize(
    ("field", "meant"), [("txt", "text"), ("texts", "text"), ("imgae", "image"), ("vido", "video"), ("Text", "text")]
)
def test_a_misspelt_field_is_named(predictor: Predictor, field: str, meant: str) -> None:
    other = "image" if meant == "text" else "text"
    (found,), bad = answers(predictor, json.dumps({other: "a", field: "b"}))
    assert bad == 1 and found["error"] == f"unknown field {field!r}; is {meant!r} meant?"


def test_other_fields_are_passed_over(predictor: Predictor) -> None:
    row = {"text": "sad", "video_id": "7", "image_url": "b", "label": "Joy", "next": 1, "textual": True}
    (found,), bad = answers(predictor, json.dumps(row))
    assert bad == 0 and found["label"]
