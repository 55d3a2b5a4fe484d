"""JSON that comes from elsewhere, as strictly as RFC 8259 has it."""

import json
from typing import Any, NoReturn


def read_object(text: str | bytes) -> dict[str, Any]:
    """The object that a text holds. Raises ValueError, in one line, where it holds something else.

    NaN and infinity, which Python's reader takes and which no other program would read again, are no JSON.
    """
    try:
        value = json.loads(text, parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise ValueError(f"not JSON: not UTF-8: {error.reason} at byte {error.start}") from None
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    except RecursionError:
        raise ValueError("not JSON: nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
