"""Text that others wrote, made fit for a terminal, which obeys control signs (ECMA-48) wherever they come from."""

JOINER = "\u200d"
"""Joins emoji to one; it shows nothing and moves nothing."""


OBEYED_BLANKS = "\r\v\f\x1c\x1d\x1e\x1f\x85"
"""Count as blanks, and move the cursor."""


def printable(text: str) -> str:
    r"""One line: blanks become single spaces, and each sign that a terminal would obey, that turns the direction of
    reading, or that no encoding has (half of a surrogate pair) becomes its escape, such as ``\x1b``.
    """
    return " ".join("".join(_shown(sign) for sign in text).split())


def obeying_nothing(text: str) -> str:
    """As ``printable``, with blanks and the ends of lines as they are."""
    return "".join(_shown(sign) if sign not in OBEYED_BLANKS else " " for sign in text)


def _shown(sign: str) -> str:
    if sign.isprintable() or sign.isspace() or sign == JOINER:
        return sign
    return sign.encode("unicode_escape").decode()
