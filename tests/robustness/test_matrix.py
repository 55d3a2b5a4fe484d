"""What `pyproject.toml` allows is what the matrix tests, and the matrix says what came of it."""

import os
import re
import stat
import sys
import tomllib
from pathlib import Path

import pytest

from tests.imports import ROOT
from tests.robustness.matrix import CELLS, extras, main, try_cell

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

UV = """#!/bin/sh
[ "$1 $2" = "pip compile" ] && exit {compiled}
[ "$1" = venv ] || exit 0
for place; do :; done
mkdir -p "$place/bin"
printf '#!/bin/sh\\necho "{said}"\\nexit {status}\\n' > "$place/bin/python"
chmod +x "$place/bin/python"
"""
"""Makes an environment whose Python says the end of a run of tests."""


def test_every_dependency_names_the_lowest_version_that_is_tested() -> None:
    named = [*PROJECT["dependencies"], *(name for of in PROJECT["optional-dependencies"].values() for name in of)]
    assert [name for name in named if not re.match(r"[\w.-]+(\[[\w,]+\]$|(>=|==)\d)", name)] == []


def test_every_python_that_is_allowed_is_named_and_tested() -> None:
    named = [name.rpartition(" ")[2] for name in PROJECT["classifiers"]]
    low, high = re.findall(r"3\.(\d+)", PROJECT["requires-python"])
    assert named == [f"3.{minor}" for minor in range(int(low), int(high))]
    assert {f"{python}-pinned" for python in named} <= set(CELLS)
    assert "--extra=serve" in extras() and "--extra=bench" not in extras()


@pytest.mark.skipif(sys.platform == "win32", reason="a script for a shell")
@pytest.mark.parametrize(
    ("compiled", "status", "said", "fine", "expected"),
    [
        (0, 0, "== 3 passed, 1 skipped in 0.10s ==", True, "3 passed, 1 skipped in 0.10s, see"),
        (0, 1, "1 failed, 2 passed in 61.20s (0:01:01)", False, "1 failed, 2 passed in 61.20s (0:01:01), see"),
        (0, 4, "usage", False, "pytest ended with status 4, see"),
        (1, 0, "", False, "uv pip compile failed, see"),
    ],
)
def test_a_cell_says_how_its_tests_ended(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    compiled: int,
    status: int,
    said: str,
    fine: bool,
    expected: str,
) -> None:
    uv = tmp_path / "uv"
    uv.write_text(UV.format(compiled=compiled, status=status, said=said))
    uv.chmod(uv.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    held, told = try_cell("3.11-lowest", tmp_path, [])
    assert (held, told.startswith(expected)) == (fine, True), told


@pytest.mark.parametrize("cell", ["3.11-oldest", "pinned", "--cell"])
def test_a_cell_that_there_is_not_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cell: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["matrix", "--cell", cell])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "--cell" in capsys.readouterr().err.splitlines()[-1]
