"""Who works at once in one place: one line for whoever comes second, or the right result for both."""

import os
import subprocess
import sys
from pathlib import Path

from pipeline.encoders.store import Store
from tests.imports import ROOT
from tests.test_dvc_remote import GRAPH, PARAMS, contents, run

TURNS = """
import sys
from pathlib import Path
from pipeline.core.locks import exclusive
from pipeline.core.errors import InputError
lock, count, turns = Path(sys.argv[1], ".x.lock"), Path(sys.argv[1], "count"), 0
while turns < 150:
    try:
        with exclusive(lock, "x", "wait"):
            before = int(count.read_text())
            count.write_text(str(before + 1))
            turns += 1
    except InputError:
        pass
"""

FILLS = """
import sys
from pathlib import Path
import numpy as np
from pipeline.encoders.store import Store
for at in range(40):
    with Store(Path(sys.argv[1], str(at)), {"name": "tiny", "width": 2}) as store:
        store.put({f"{sys.argv[2]}-{at}": np.full(2, at, dtype=np.float32)})
"""


def at_once(script: str, *arguments: list[str]) -> None:
    """Runs a script several times at once, each time with other arguments."""
    commands = [[sys.executable, "-c", script, *words] for words in arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = [subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) for words in commands]
    said = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [0] * len(started), said


def test_of_many_that_ask_for_a_lock_again_and_again_one_has_it_at_a_time(tmp_path: Path) -> None:
    """The lock's file goes with whoever held it, and the next one makes another under the same name."""
    (tmp_path / "count").write_text("0")
    at_once(TURNS, *[[str(tmp_path)]] * 3)
    assert (tmp_path / "count").read_text() == "450"
    assert [path.name for path in tmp_path.iterdir()] == ["count"]


def test_processes_that_begin_the_same_stores_at_once_lose_nothing(tmp_path: Path) -> None:
    at_once(FILLS, *[[str(tmp_path), name] for name in "abc"])
    for at in range(40):
        with Store(tmp_path / str(at), {"name": "tiny", "width": 2}) as store:
            kept = store.get([f"{name}-{at}" for name in "abc"])
        assert {key: value.tolist() for key, value in kept.items()} == {f"{name}-{at}": [at, at] for name in "abc"}


def test_of_two_runs_of_the_graph_at_once_all_is_as_of_one(tmp_path: Path) -> None:
    """DVC lets one of them go on, or each has its turn."""
    (tmp_path / "dvc.yaml").write_text(GRAPH)
    (tmp_path / "params.yaml").write_text(PARAMS)
    run(tmp_path, "git", "init", "--quiet")
    run(tmp_path, "dvc", "init", "--quiet")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}
    pair = [
        subprocess.Popen(["dvc", "repro"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=240)[1] for process in pair]
    assert 0 in [process.returncode for process in pair], said
    assert all(process.returncode == 0 or "ERROR" in told for process, told in zip(pair, said, strict=True))
    assert "Traceback" not in "".join(said)
    assert "up to date" in run(tmp_path, "dvc", "status")
    made = contents(tmp_path / "data")
    run(tmp_path, "dvc", "repro", "--force")
    assert contents(tmp_path / "data") == made and "sample/posts/manifest.csv" in made
    assert not [path for path in tmp_path.rglob(".*.tmp") if ".dvc" not in path.parts]
