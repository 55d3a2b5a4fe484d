"""JSON as a stranger may write it: nested too deep, a key twice, numbers that floating point cannot hold."""

import json
import re
from typing import Any, NoReturn

DEPTH = 100
"""Brackets within brackets; what the pipeline reads has four. Python's own reader gives up at about a thousand."""

_STRING = re.compile(r'"(?:[^"\\]|\\.|\\\Z)*+(?:"|\Z)', re.DOTALL)
"""Also one that is not closed: what begins a string always is one, or each quote would be looked at to the end."""


def read_object(text: str | bytes) -> dict[str, Any]:
    """The object that a text holds, as strictly as RFC 8259 has it. Raises ValueError, in one line."""
    try:
        value = parse(text if isinstance(text, str) else text.decode("utf-8"), strict=True)
    except UnicodeDecodeError as error:
        raise ValueError(f"not JSON: not UTF-8 at byte {error.start}") from None
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def parse(text: str, *, numbers_as_text: bool = False, strict: bool = False) -> Any:
    """The value of a JSON text.

    Args:
        numbers_as_text: numbers stay the digits that they are, ``7.0`` as ``7``, so that an id of any length does;
            ``NaN``, which some programs write for nothing, is None.
        strict: ``NaN`` and infinity, which Python's reader takes and no other program would read again, are no JSON.

    Raises ValueError, which says what is wrong and in which column of a text of one line.
    """
    if text.count("[") + text.count("{") > DEPTH:
        _check_depth(text)
    kinds: dict[str, Any] = {"parse_int": str, "parse_float": _digits, "parse_constant": lambda _: None}
    if not numbers_as_text:
        kinds = {"parse_constant": _no_number} if strict else {}
    try:
        return json.loads(text, object_pairs_hook=_object, **kinds)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise ValueError(f"{error.msg.removesuffix(' at')} at {where}") from None


def _check_depth(text: str) -> None:
    depth = 0
    for bracket in re.findall(r"[\[\]{}]", _STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > DEPTH:
            raise ValueError(f"nested more than {DEPTH} deep")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises ValueError where a key stands twice: one of the values would be lost."""
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"the key {twice[:40]!r} stands twice in an object")
    return content


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _digits(number: str) -> str:
    return number.removesuffix(".0") if re.fullmatch(r"-?\d+\.0", number) else number
