"""Seconds of ``python -m tests.robustness.guided``, where atheris is installed."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("atheris")

from tests.imports import ROOT


def run(tmp_path: Path, before: str = "") -> subprocess.CompletedProcess[str]:
    words = ["guided", "--minutes", "0.05", "--reader", "jsonl", "--keep", str(tmp_path)]
    begin = f"import sys; sys.argv = {words}\nfrom tests.robustness import guided\nfuzz = guided.fuzz"
    code = f"{begin}\n{before}\nguided.main()"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_files_grow_until_the_time_is_over(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "jsonl").iterdir())) > 1
    assert not list(tmp_path.glob("jsonl-crash*"))


def test_the_first_fault_ends_it_and_its_file_is_kept(tmp_path: Path) -> None:
    fault = "fuzz.READERS['jsonl'] = fuzz.Reader(lambda: {'one': b'{}'}, lambda path: int(path.read_bytes()))"
    done = run(tmp_path, fault)
    assert done.returncode != 0
    (crash,) = tmp_path.glob("jsonl-crash*")
    with pytest.raises(ValueError, match="invalid literal"):
        int(crash.read_bytes())
