"""No cell of a written CSV is a formula, and every text comes back as it was."""

import itertools
from pathlib import Path

import pandas as pd
import pytest

from pipeline.core import artifacts
from pipeline.core.sheets import escape_formula, unescape_formula

STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝")
FORMULAS = [
    "=cmd|' /C calc'!A0",
    "@SUM(1)",
    "+1+1",
    "-2+3",
    "\t=1",
    "\r=1",
    " =1",
    "＝1",
    "'=1",
    "''=1",
    "-",
    "=",
    "\n-1",
]
PLAIN = ["", "so happy", "'quoted'", "a=b", "12", "-5", "+1.5e3", "-.5", "é", '["=a"]']


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_becomes_a_text(text: str) -> None:
    assert escape_formula(text)[0] == "'"
    assert unescape_formula(escape_formula(text)) == text


@pytest.mark.parametrize("text", PLAIN)
def test_other_texts_and_numbers_stay(text: str) -> None:
    assert escape_formula(text) == unescape_formula(text) == text


def test_no_two_texts_become_one() -> None:
    texts = {"".join(signs) for size in range(5) for signs in itertools.product("'=-1 \ta", repeat=size)}
    assert len({escape_formula(text) for text in texts}) == len(texts)
    assert all(unescape_formula(escape_formula(text)) == text for text in texts)
    live = [text for text in map(escape_formula, texts) if text.startswith(STARTS)]
    assert all(float(text.strip()) < 0 for text in live)  # numbers below 0 alone are left


def test_a_table_is_written_harmless_and_read_as_it_was(tmp_path: Path) -> None:
    rows = pd.DataFrame({"id": [*FORMULAS, "007"], "=label": "NA", "share": -0.5})
    artifacts.write_csv(tmp_path / "errors.csv", rows)
    written = pd.read_csv(tmp_path / "errors.csv", dtype=str, keep_default_na=False)
    cells = [cell for name in written for cell in (str(name), *written[name])]
    assert [cell for cell in cells if cell.startswith(STARTS)] == ["-0.5"] * len(rows)
    again = artifacts.read_csv(tmp_path / "errors.csv")
    assert again["id"].tolist() == rows["id"].tolist()
    assert again["=label"].tolist() == rows["=label"].tolist()
