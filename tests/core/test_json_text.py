"""JSON of strangers: what is refused, why, and in a time that grows as the text does."""

import json
import time
from typing import Any

import pytest

from pipeline.core.json_text import DEPTH, parse, read_object


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1]", "not a JSON object"),
        (b"\xff", "not JSON: not UTF-8 at byte 0"),
        ('{"a": 1, "b": 2, "a": 3}', "not JSON: the key 'a' stands twice in an object"),
        ('{"a": NaN}', "not JSON: NaN is no number of JSON"),
        ('{"a": 1,}', "not JSON: "),
        ('{"a": ' + "[" * DEPTH + "]" * DEPTH + "}", f"not JSON: nested more than {DEPTH} deep"),
        ('{"a":\n tru}', "not JSON: Expecting value at line 2, column 2"),
    ],
)
def test_what_is_no_object_is_said_in_a_line(text: str | bytes, says: str) -> None:
    with pytest.raises(ValueError, match="^" + says.replace("[", r"\[")) as error:
        read_object(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "value",
    ["[" * 500, 'a"[{' * 200, "\\", "[\\\\" * 300, ["[" * 90] * 90, {"[" * 200: "]"}],
)
def test_brackets_in_texts_do_not_count(value: Any) -> None:
    assert parse(json.dumps(value)) == value


def test_as_deep_as_may_be_is_read() -> None:
    value, depth = parse("[" * DEPTH + "]" * DEPTH), 0
    while isinstance(value, list):
        value, depth = value[0] if value else None, depth + 1
    assert depth == DEPTH


@pytest.mark.parametrize(
    "text",
    [
        '{"text": "' + '\\"' * 200_000 + "[" * (DEPTH + 1),
        '{"text": "' + '\\"' * 200_000 + "[" * (DEPTH + 1) + "\\",
        '{"text": ' + '"' * 400_001 + "[" * (DEPTH + 1),
        "{" + ", ".join(f'"{at}": 1' for at in range(60_000)) + ', "59999": 2}',
    ],
)
def test_a_large_text_that_is_wrong_is_refused_at_once(text: str) -> None:
    """With every quote looked at to the end, or every name compared with all before it, these take minutes."""
    started = time.process_time()
    with pytest.raises(ValueError):
        read_object(text)
    assert time.process_time() - started < 30
