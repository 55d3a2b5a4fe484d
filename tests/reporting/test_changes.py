"""What a run was made with stands in ``dvc.lock``; a summary of other params says so."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.core import artifacts
from pipeline.core.layout import Layout
from pipeline.reporting.changes import changed_params, changed_since
from tests.reporting.conftest import SENTIMENT

LOCK = """
schema: '2.0'
stages:
  split:
    cmd: python -m pipeline split
    params:
      params.yaml:
        seed: 42
        split: {val_share: 0.15, test_share: 0.25}
  fuse:
    params:
      params.yaml:
        seed: 42
        embed.text.encoder: small
        fuse: {strategy: attention, folds: 5, candidates: [trained, averaged]}
  evaluate: {}
"""

PARAMS = """
seed: 42
split: {test_share: 0.25, val_share: 0.15}
embed: {text: {encoder: small}, max_pixels: 7}
fuse: {strategy: attention, folds: 5.0, candidates: [trained, averaged]}
serve: 1
"""


def project(folder: Path, params: str, lock: str = LOCK) -> Layout:
    layout = Layout(folder)
    layout.params.write_text(params)
    layout.dvc_lock.write_text(lock)
    return layout


def test_a_run_of_the_same_params_has_none_changed(tmp_path: Path) -> None:
    layout = project(tmp_path, PARAMS)
    assert changed_params(layout) == [] and changed_since(layout) == []


def test_changed_added_and_removed_params_are_named_once(tmp_path: Path) -> None:
    changed = PARAMS.replace("seed: 42", "seed: 1").replace("small", "large").replace("[trained, ", "[")
    changed = changed.replace("folds: 5.0", "other: 2")
    layout = project(tmp_path, changed)
    assert changed_params(layout) == ["seed", "embed.text.encoder", "fuse.folds", "fuse.candidates", "fuse.other"]
    assert changed_since(layout) == [
        "params changed since this run: seed, embed.text.encoder, fuse.folds and 2 more; "
        "`dvc repro` runs what they concern"
    ]


@pytest.mark.parametrize("lock", ["", "stages: 3", "stages: {a: 1, b: {params: 2}}", "{[", "a: \x00"])
def test_without_a_lock_that_can_be_read_nothing_is_said(tmp_path: Path, lock: str) -> None:
    assert changed_params(project(tmp_path, PARAMS, lock)) == []


@pytest.mark.parametrize("missing", ["dvc.lock", "params.yaml"])
def test_without_one_of_the_files_nothing_is_said(tmp_path: Path, missing: str) -> None:
    layout = project(tmp_path, PARAMS)
    (tmp_path / missing).unlink()
    assert changed_params(layout) == []


def test_the_summary_says_it(tmp_path: Path) -> None:
    layout = project(tmp_path, PARAMS.replace("seed: 42", "seed: 1"))
    artifacts.write_json(layout.details("evaluate"), {"sentiment": SENTIMENT})
    result = CliRunner().invoke(app, ["summary", "--project", str(tmp_path)])
    assert "! params changed since this run: seed; `dvc repro` runs what they concern\n" in result.stdout
