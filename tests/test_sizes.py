"""Functions that fit a screen."""

import ast
from pathlib import Path

import pytest

from tests.graph import modules
from tests.imports import ROOT

LINES = 40
"""Of a function, docstring and signature included."""


@pytest.mark.parametrize("path", modules(), ids=str)
def test_functions_fit_a_screen(path: Path) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    sizes = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert {name: size for name, size in sizes.items() if size > LINES} == {}
