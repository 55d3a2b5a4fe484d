import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.core.errors import InputError
from pipeline.core.locks import exclusive, is_launched
from tests import processes
from tests.imports import ROOT

HOLD = """
import sys
from pathlib import Path
from pipeline.core.locks import exclusive
with exclusive(Path(sys.argv[1]), "train_text", "wait"):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(lock: Path) -> subprocess.Popen[str]:
    """A process that holds the lock until its standard input ends."""
    command = [sys.executable, "-c", HOLD, str(lock)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def stage(project: Path, name: str) -> subprocess.CompletedProcess[str]:
    return processes.run(name, "--project", project)


def test_a_second_run_of_a_stage_names_the_first_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    with holder(tmp_path / ".split.lock") as first:
        second = stage(tmp_path, "split")
        assert second.returncode == 1
        who = "another process" if sys.platform == "win32" else f"process {first.pid}"
        assert second.stderr == f"error: split: {who} is at work on it; wait until it has ended\n"
        other = stage(tmp_path, "embed")
        assert "is at work on it" not in other.stderr and "data/split" in other.stderr.replace(os.sep, "/")
        assert sorted(path.name for path in tmp_path.iterdir()) == [".split.lock", "params.yaml"]
        assert first.stdin is not None
        first.stdin.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["params.yaml"]
    assert "is at work on it" not in stage(tmp_path, "split").stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal there")
def test_what_a_killed_process_held_holds_nobody_up(tmp_path: Path) -> None:
    lock = tmp_path / ".split.lock"
    with holder(lock) as first:
        first.send_signal(signal.SIGKILL)
    assert lock.exists()
    with exclusive(lock, "split", "wait"):
        assert lock.read_text() == f"{os.getpid()}\n"
    assert not lock.exists()


@pytest.mark.parametrize("rank", ["0", "1"])
def test_of_several_processes_of_a_launcher_none_begins_what_is_not_divided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: str
) -> None:
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    for name, value in {"WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank}.items():
        monkeypatch.setenv(name, value)
    result = stage(tmp_path, "fuse")
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "fuse: a launcher started 2 processes" in result.stderr
    assert "python -m pipeline fuse" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize("given", [{}, {"WORLD_SIZE": "1"}, {"WORLD_SIZE": ""}])
def test_one_process_of_a_launcher_is_like_any_other(given: dict[str, str]) -> None:
    assert not is_launched("fuse", given) and not is_launched("train_text", given)


def test_a_stage_that_tunes_an_encoder_may_be_launched() -> None:
    assert is_launched("train_text", {"WORLD_SIZE": "2"})


def test_the_lock_is_given_back_when_the_work_fails(tmp_path: Path) -> None:
    lock = tmp_path / ".x.lock"
    with pytest.raises(ValueError), exclusive(lock, "x", "wait"):
        raise ValueError
    with (
        exclusive(lock, "x", "wait"),
        pytest.raises(InputError, match=f"x: process {os.getpid()} is at work on it; wait"),
    ):
        exclusive(lock, "x", "wait").__enter__()


@pytest.mark.skipif(sys.platform != "linux", reason="has no such folder")
def test_a_lock_that_cannot_be_made_is_held_by_nobody() -> None:
    with pytest.raises(InputError, match=r"^x: /proc/\.x\.lock cannot be made; give a folder that takes files$"):
        exclusive(Path("/proc/.x.lock"), "x", "wait").__enter__()
