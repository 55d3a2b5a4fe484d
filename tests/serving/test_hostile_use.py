"""`predict` and `export` as one uses them who means harm or has bad luck: nothing is lost, and one line says why."""

import json
import os
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from pipeline.cli import app
from tests.processes import run
from tests.serving.conftest import Trained

runner = CliRunner()
POSTS = "id,text\n1,so happy\n=1+1,so sad\n"


def predict(bundle: Path, posts: Path, out: Path) -> Result:
    return runner.invoke(app, ["predict", "--manifest", str(posts), "--out", str(out), "--bundle", str(bundle)])


def assert_refused(result: Result, told: str) -> None:
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ") and told in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.fixture
def posts(tmp_path: Path) -> Path:
    path = tmp_path / "posts.csv"
    path.write_text(POSTS)
    return path


def test_predictions_never_replace_the_posts(exported: Path, posts: Path) -> None:
    link = posts.with_name("link.csv")
    link.symlink_to(posts)
    for out in (posts, link, posts.parent / "x" / ".." / "posts.csv"):
        assert_refused(predict(exported, posts, out), "is the input")
    assert posts.read_text() == POSTS
    assert sorted(path.name for path in posts.parent.iterdir()) == ["link.csv", "posts.csv"]


def test_a_folder_as_output_is_said_before_any_work(exported: Path, posts: Path) -> None:
    out = posts.with_name("out.csv")
    out.mkdir()
    assert_refused(predict(exported, posts, out), "out.csv: is a folder; give the name of a file")
    assert sorted(path.name for path in posts.parent.iterdir()) == ["out.csv", "posts.csv"]


def test_nothing_is_written_into_the_bundle(exported: Path, posts: Path) -> None:
    before = sorted(exported.rglob("*"))
    assert_refused(predict(exported, posts, exported / "out.csv"), "which is read")
    assert sorted(exported.rglob("*")) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes with a name")
@pytest.mark.parametrize("option", ["--manifest", "--corpus"])
def test_a_pipe_as_table_is_not_waited_for(exported: Path, tmp_path: Path, option: str) -> None:
    os.mkfifo(tmp_path / "posts.csv")
    given = [option, str(tmp_path / "posts.csv"), "--out", str(tmp_path / "out.csv"), "--bundle", str(exported)]
    assert_refused(runner.invoke(app, ["predict", *given]), "posts.csv: is a pipe, a socket or a device; give a file")


def test_no_written_cell_is_a_formula_and_parquet_keeps_ids(exported: Path, posts: Path) -> None:
    for name in ("out.csv", "out.parquet"):
        assert predict(exported, posts, posts.with_name(name)).exit_code == 0
    csv = pd.read_csv(posts.with_name("out.csv"), dtype=str, keep_default_na=False)
    assert csv["id"].tolist() == ["1", "'=1+1"]
    assert pd.read_parquet(posts.with_name("out.parquet"))["id"].tolist() == ["1", "=1+1"]


@pytest.mark.parametrize("text", ["\x1b]0;owned\x07 so \x1b[2J happy", "so \u202egnp.exe happy"])
def test_a_post_has_no_say_over_the_terminal(exported: Path, text: str) -> None:
    result = runner.invoke(app, ["predict", "--text", text, "--explain", "--bundle", str(exported)])
    assert result.exit_code == 0
    assert all(sign.isprintable() or sign == "\n" for sign in result.stdout)
    assert "\\x1b[2J" in result.stdout or "\\u202e" in result.stdout


def test_an_error_that_names_a_hostile_file_has_no_say_either(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "\x1b[2J.csv"
    path.write_text("nothing\n1\n")
    result = predict(exported, path, tmp_path / "out.csv")
    assert_refused(result, "\\x1b[2J.csv: has none of the columns")
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize("options", [[], ["--json"], ["--explain"], ["--explain", "--json"]])
def test_bytes_that_are_no_text_are_answered(exported: Path, options: list[str]) -> None:
    done = run("predict", "--text", b"so \xff happy", "--bundle", exported, *options)
    assert (done.returncode, done.stderr) == (0, "")
    if "--json" in options:
        assert "label" in json.loads(done.stdout)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
@pytest.mark.parametrize(("room", "kind"), [(64, "csv"), (100, "parquet"), (2000, "bundle"), (20_000, "bundle")])
def test_without_room_one_line_names_the_file_and_nothing_is_left(
    trained: Trained, exported: Path, posts: Path, room: int, kind: str
) -> None:
    from ruamel.yaml import YAML

    out = posts.with_name(f"out.{kind}")
    given = ["predict", "--manifest", posts, "--out", out, "--bundle", exported]
    if kind == "bundle":
        params = trained.layout.params
        YAML(typ="safe", pure=True).dump(trained.params.model_dump(mode="json"), params)
        given = ["export", out, "--project", trained.layout.root]
    done = run(*given, largest_file=room)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and f"out.{kind}" in line and line.endswith("File too large")
    assert not out.exists()
    assert kind != "bundle" or [path.name for path in posts.parent.iterdir()] == ["posts.csv"]
