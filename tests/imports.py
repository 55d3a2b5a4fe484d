"""Reads imports out of the source, also those inside functions, so that tests can hold the graph and the layers."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent


def file_of(module: str) -> Path | None:
    """The file of one of our modules, relative to the project, or None when it is no module of ours."""
    base = Path(*module.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if (ROOT / candidate).is_file():
            return candidate
    return None


@cache
def imported(path: Path) -> frozenset[str]:
    """Dotted names that a file imports; ``from a import b`` gives both ``a`` and ``a.b``."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(names)


def closure(path: Path) -> set[Path]:
    """The file and every file of ours that it reaches by imports; empty package files are left out."""
    seen: set[Path] = set()
    todo = [path]
    while todo:
        current = todo.pop()
        if current in seen:
            continue
        seen.add(current)
        todo += [file for name in imported(current) if (file := file_of(name)) is not None]
    return {file for file in seen if file.name != "__init__.py"}
