"""What a run made comes to another clone by a remote: ``dvc push`` here, ``dvc pull`` there; nothing is computed."""

import os
import subprocess
import sys
from pathlib import Path

from tests.imports import ROOT

GRAPH = """
stages:
  sample:
    cmd: python -m pipeline sample
    params: [seed, sample]
    outs: [data/sample/posts, data/sample/source.parquet, data/sample/target.parquet]
"""
PARAMS = """
seed: 7
sample: {posts: 40, source_rows: 60, target_rows: 30, unlabelled_rows: 5}
"""


def run(folder: Path, *command: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}
    for role in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{role}_NAME": "Somebody", f"GIT_{role}_EMAIL": "somebody@example.com"}
    made = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return made.stdout + made.stderr


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_outputs_come_to_another_clone_by_a_remote(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    (first / "dvc.yaml").write_text(GRAPH)
    (first / "params.yaml").write_text(PARAMS)
    run(first, "git", "init", "--quiet")
    run(first, "dvc", "init", "--quiet")
    run(first, "dvc", "repro")
    run(first, "dvc", "remote", "add", "--default", "shared", str(tmp_path / "runs"))
    assert "pushed" in run(first, "dvc", "push")
    run(first, "git", "add", "--all")
    run(first, "git", "commit", "--quiet", "--message", "a run")

    run(tmp_path, "git", "clone", "--quiet", str(first), str(second))
    assert not (second / "data" / "sample" / "posts").exists()
    run(second, "dvc", "pull")
    made = contents(first / "data" / "sample")
    assert "posts/manifest.csv" in made and contents(second / "data" / "sample") == made
    assert "up to date" in run(second, "dvc", "status")
