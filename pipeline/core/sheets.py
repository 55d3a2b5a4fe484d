"""Text cells of CSV that no spreadsheet runs as a formula.

A program that opens a CSV takes a cell that begins with one of ``= + - @``, a tab or a line break for a formula, which
may start programs and send data away (OWASP, "CSV Injection"). Such a cell gets an apostrophe in front, as its advice
is; a number stays as it is. ``unescape_formula`` takes it off again, so that nothing is lost.
"""

import re

import pandas as pd

_FORMULA = re.compile(r"[\s']*[=+\-@＝＋－＠]|'*[\t\r\n]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def escape_formula(text: str) -> str:
    """What is written for a text; two texts never become one."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def unescape_formula(text: str) -> str:
    """The text that ``escape_formula`` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def escape_formulas(rows: pd.DataFrame) -> pd.DataFrame:
    """A table with all of its texts, and the names of its columns, escaped."""
    harmless = rows.copy()
    for name in rows:
        if not pd.api.types.is_numeric_dtype(rows[name]):
            harmless[name] = rows[name].map(_cell)
    return harmless.rename(columns=_cell)  # pyright: ignore[reportArgumentType]


def _cell(value: object) -> object:
    return escape_formula(value) if isinstance(value, str) else value
