"""What others wrote moves no cursor, changes no title, turns no line around and breaks no encoding."""

import pytest

from pipeline.core.terminal import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("so happy", "so happy"),
        ("two\nlines\tand  blanks ", "two lines and blanks"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m red", "\\x9b31m red"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("half \ud83d", "half \\ud83d"),
        ("a\0b\rc", "a\\x00b c"),
        ("👩‍👧 é 漢", "👩‍👧 é 漢"),
    ],
)
def test_each_sign_is_shown_or_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    printable(text).encode()
