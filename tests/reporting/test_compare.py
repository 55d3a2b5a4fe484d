"""Experiments side by side, as DVC itself lists those of a small repository."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.core.layout import Layout
from pipeline.reporting import compare, experiments
from pipeline.reporting.experiments import Experiment, Experiments

runner = CliRunner()

STAGE = """
import json, pathlib
x = int(next(line for line in open("params.yaml") if "share" in line).split()[-1])
fusion = {"macro_f1": x / 10, "macro_f1_ci_low": x / 10 - 0.1, "macro_f1_ci_high": x / 10 + 0.1}
target = {"finetuned": {"mae": x / 10}, "ridge": {"pearson": 0.5}}
metrics = {"evaluate": {"posts": {"fusion": fusion, "more": 1}, "sentiment": {"target": target}}, "train_adapters": {}}
metrics["split"] = {"posts": {"rows": 100 * x}, "built_in": "none" if x == 2 else "source, target"}
pathlib.Path("metrics").mkdir(exist_ok=True)
for name, of in metrics.items():
    pathlib.Path("metrics", f"{name}.json").write_text(json.dumps(of))
"""

FILES = [f"metrics/{name}.json" for name in ("evaluate", "train_adapters", "split")]

GRAPH = f"""
stages:
  evaluate:
    cmd: '"{sys.executable}" stage.py'
    params: [seed, block]
    outs: {FILES}
metrics: {FILES}
"""


def call(folder: Path, *command: str) -> None:
    settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "DVC_NO_ANALYTICS": "1"}
    names = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    program = experiments._dvc() if command[0] == "dvc" else command[0]
    done = subprocess.run(
        [program, *command[1:]], cwd=folder, env=os.environ | settings | names, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two commits; one experiment of the older, two of the newer, of which the better is older; not to be changed."""
    folder = tmp_path_factory.mktemp("repository")
    (folder / "stage.py").write_text(STAGE)
    (folder / "dvc.yaml").write_text(GRAPH)
    (folder / "params.yaml").write_text("seed: 1\nblock:\n  labels: [a, b]\n  share: 5\n")
    call(folder, "git", "init", "-q", "-b", "main", ".")
    call(folder, "dvc", "init", "-q")
    call(folder, "dvc", "repro", "-q")
    call(folder, "git", "add", "-A")
    call(folder, "git", "commit", "-qm", "first")
    call(folder, "dvc", "exp", "run", "-q", "-n", "old", "-S", "block.share=2")
    call(folder, "git", "checkout", "-q", "--", ".")
    (folder / "notes.txt").write_text("more")
    call(folder, "git", "add", "-A")
    call(folder, "git", "commit", "-qm", "second")
    call(folder, "dvc", "exp", "run", "-q", "-n", "high", "-S", "block.share=8")
    call(folder, "dvc", "exp", "run", "-q", "-n", "low", "-S", "block.share=3")
    return folder


@pytest.fixture(autouse=True, scope="module")
def _asked_once(repository: Path) -> Iterator[None]:
    """DVC says each thing of the repository, which does not change, once: that takes seconds."""
    ask = experiments._show
    said: dict[tuple[str, ...], list[dict[str, Any]]] = {}

    def show(layout: Layout, *options: str) -> list[dict[str, Any]]:
        if layout.root != repository:
            return ask(layout, *options)
        if options not in said:
            said[options] = ask(layout, *options)
        return said[options]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiments, "_show", show)
        yield


def printed(folder: Path, *arguments: str) -> list[str]:
    result = runner.invoke(app, ["compare", "--project", str(folder), *arguments])
    assert result.exit_code == 0, result.stderr
    return result.stdout.splitlines()


def row(lines: list[str], label: str) -> list[str]:
    """The cells of the one row of this label."""
    (found,) = (line for line in lines if line.startswith(f"{label}  "))
    return re.split(r" {2,}(?! )", found.removeprefix(label).strip().replace(" *", "  *"))


def refusal(folder: Path, *arguments: str) -> str:
    result = runner.invoke(app, ["compare", "--project", str(folder), *arguments])
    assert result.exit_code == 1 and result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


def test_params_that_differ_then_scores_with_intervals_and_the_best_marked(repository: Path) -> None:
    lines = printed(repository)
    assert lines[0].split() == ["workspace", "main", "high", "low"]
    assert row(lines, "block.share") == ["3", "5", "8", "3"]
    assert not any(line.startswith(("seed", "block.labels")) for line in lines)
    intervals = ["[0.200, 0.400]", "[0.400, 0.600]", "[0.700, 0.900]", "[0.200, 0.400]"]
    values = ["0.300", "0.500", "*0.800", "0.300"]
    assert row(lines, "fusion, macro-F1") == [f"{a} {b}" for a, b in zip(values, intervals, strict=True)]
    assert row(lines, "fine-tuned, MAE") == ["*0.300", "0.500", "0.800", "*0.300"]
    assert row(lines, "ridge, r") == ["0.500"] * 4
    assert row(lines, "split: posts.rows") == ["300", "500", "800", "300"]


def test_names_choose_and_order_the_columns(repository: Path) -> None:
    lines = printed(repository, "low", "HEAD~1", "old", "HEAD", "main", "workspace")
    assert lines[0].split() == ["low", "HEAD~1", "old", "HEAD", "main", "workspace"]
    assert row(lines, "block.share") == ["3", "5", "2", "5", "5", "3"]
    revision = experiments.listed(Layout(repository)).runs[0].revision
    assert printed(repository, revision[:9])[-1] == "no params differ"


def test_files_hold_the_table(repository: Path, tmp_path: Path) -> None:
    csv, md, picture = (tmp_path / "new" / name for name in ("a.csv", "a.md", "a.png"))
    lines = printed(repository, "high", "low", "--csv", str(csv), "--md", str(md), "--picture", str(picture))
    assert lines[-3:] == [f"{path}: written" for path in (csv, md, picture)]
    table = csv.read_text(encoding="utf-8").splitlines()
    assert table[:2] == ["file,name,high,low", "params.yaml,block.share,8,3"]
    assert f"metrics/evaluate.json,posts.fusion.macro_f1_ci_low,{8 / 10 - 0.1!r},{3 / 10 - 0.1!r}" in table
    assert md.read_text(encoding="utf-8").splitlines()[:5] == [
        "|  | high | low |",
        "| --- | --- | --- |",
        "| `block.share` | 8 | 3 |",
        "| built-in corpora | source, target | source, target |",
        "| fusion, macro-F1 | **0.800 [0.700, 0.900]** | 0.300 [0.200, 0.400] |",
    ]
    with Image.open(picture) as image:
        assert image.format == "PNG" and min(image.size) > 200


def test_a_fresh_clone_has_workspace_and_commit_once_it_has_run(repository: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    call(tmp_path, "git", "clone", "-q", str(repository), str(clone))
    assert refusal(clone).startswith("error: no metrics: workspace, main; ")
    call(clone, "dvc", "repro", "-q")
    lines = printed(clone)
    assert lines[0].split() == ["workspace", "main"]
    assert row(lines, "fusion, macro-F1") == ["0.500 [0.400, 0.600]"] * 2
    assert "no params differ" in lines


def test_what_cannot_be_compared_is_one_line(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(repository, "low", "nobody").startswith("error: nobody: no experiment or revision")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert "not inside of a DVC repository" in refusal(tmp_path)
    call(tmp_path, "git", "init", "-q", ".")
    call(tmp_path, "dvc", "init", "-q")
    assert "nothing was committed yet" in refusal(tmp_path)
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    assert refusal(tmp_path).startswith("error: dvc: not found")


def test_a_picture_has_the_one_format(tmp_path: Path) -> None:
    result = runner.invoke(app, ["compare", "--picture", "scores.pdf"])
    assert result.exit_code == 2 and ".png" in result.stderr


def experiment(name: str, score: float | None, params: dict[str, str] | None = None, rows: int = 9) -> Experiment:
    """With an interval of .1 on either side; a ``score`` of None is a run that failed."""
    params = params or {}
    if score is None:
        return Experiment(name, name * 8, "2026-01-02T03:04:05", params, {})
    fusion = {"macro_f1": score, "macro_f1_ci_low": score - 0.1, "macro_f1_ci_high": score + 0.1}
    metrics: dict[tuple[str, str], float] = {("evaluate", f"posts.fusion.{key}"): of for key, of in fusion.items()}
    return Experiment(name, name * 8, "2026-01-02T03:04:05", params, {**metrics, ("split", "posts.rows"): rows})


RUNS = tuple(experiment(f"run-{at}", 0.5 + at / 100, {"lr": str(at)}) for at in range(9))


def screen(width: int) -> Console:
    return Console(width=width, markup=False, highlight=False)


@pytest.mark.parametrize(("width", "newest"), [(60, 1), (100, 2), (250, 9)])
def test_of_many_the_newest_that_fit_are_shown_and_the_others_counted(width: int, newest: int) -> None:
    known = Experiments(RUNS[0], RUNS[1], (*RUNS, experiment("broken", None)))
    chosen, notes = compare._newest(known, screen(width))
    assert [column.name for column in chosen.columns[2:]] == [run.name for run in RUNS[-newest:]]
    left_out = [note for note in notes if note.startswith(f"older experiments left out: {9 - newest};")]
    assert len(left_out) == (newest < 9)
    assert "without metrics, as they failed or wait: broken" in notes


@pytest.mark.parametrize("width", [50, 80, 300])
def test_a_table_too_wide_is_continued_below_and_never_folded(width: int) -> None:
    console = screen(width)
    with console.capture() as shown:
        for table in compare._tables(compare.compare(RUNS), console):
            console.print(table)
    lines = shown.get().splitlines()
    assert max(map(len, lines)) <= width
    assert sum(line.count("[") for line in lines) == len(RUNS)
    assert all(line.count("[") == line.count("]") for line in lines)
    heads = [name for line in lines for name in line.split() if name.startswith("run-")]
    assert heads == [run.name for run in RUNS]


def test_only_what_can_be_better_is_marked() -> None:
    first, second, failed = experiment("a", 0.5, rows=9), experiment("b", 0.6, rows=12), experiment("c", None)
    fusion, rows = compare.compare([first, second, failed]).metrics
    assert fusion.best.tolist() == [False, True, False]
    assert fusion.cell(2) == "-"
    assert rows.label == "split: posts.rows" and not rows.best.any() and rows.cell(1) == "12"
    (alone,) = compare.compare([second, second]).metrics
    assert not alone.best.any()


def test_a_run_of_few_groups_stands_without_an_interval(tmp_path: Path) -> None:
    few = experiment("few", 0.5)
    few = replace(few, metrics={key: value for key, value in few.metrics.items() if "_ci_" not in key[1]})
    chosen = compare.compare([experiment("many", 0.6), few])
    assert [chosen.metrics[0].cell(at) for at in (0, 1)] == ["0.600 [0.500, 0.700]", "0.500"]
    compare.write_picture(tmp_path / "both.png", chosen)
    compare.write_picture(tmp_path / "few.png", compare.compare([few]))
    assert (tmp_path / "few.png").stat().st_size > 2000


def test_many_params_are_cut_on_the_screen_and_whole_in_the_file(tmp_path: Path) -> None:
    many = [experiment(name, 0.5, {f"p{at}": name for at in range(30)}) for name in ("a", "b")]
    chosen = compare.compare(many)
    (table,) = compare._tables(chosen, screen(100))
    assert table.row_count == compare.PARAMS + 1
    assert any(note.startswith("10 more params differ") for note in compare._notes(chosen))
    compare.write_csv(tmp_path / "a.csv", chosen)
    assert (tmp_path / "a.csv").read_text().count("params.yaml,") == 30


def test_values_of_files_keep_every_digit(tmp_path: Path) -> None:
    compare.write_csv(tmp_path / "a.csv", compare.compare([experiment("a", 0.123456), experiment("b", None)]))
    assert "metrics/evaluate.json,posts.fusion.macro_f1,0.123456," in (tmp_path / "a.csv").read_text().splitlines()


def test_what_is_built_in_is_said_of_each_experiment(repository: Path) -> None:
    known = experiments.choose(Layout(repository), ["high", "old"])
    assert compare.compare(known).built_in == ["source, target", "none"]
    assert compare.compare(known[1:]).built_in == []
    assert row(printed(repository, "high"), "built-in corpora") == ["source, target"]
