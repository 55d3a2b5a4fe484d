import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pipeline import params
from pipeline.cli import STAGES, app, one_line_errors
from tests.imports import ROOT

runner = CliRunner()


def test_help_lists_the_stages_in_order_without_heavy_imports() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from pipeline.cli import app; "
        "print(CliRunner().invoke(app, ['--help']).output); "
        "print('heavy:', sorted({'torch', 'transformers', 'sklearn', 'pandas', 'pydantic'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "heavy: []" in result.stdout
    at = [result.stdout.index(f" {stage} ") for stage in STAGES]
    assert at == sorted(at)


def test_params_prints_every_knob() -> None:
    output = runner.invoke(app, ["params"]).output
    for key, field, _ in params.knobs():
        assert key in output
        assert (field.description or "") in output


@pytest.mark.parametrize("more", ["", "--stdin"])
def test_a_closed_standard_input_is_a_wrong_command(more: str) -> None:
    command = f"{sys.executable} -m pipeline predict {more} <&-"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert "Invalid value: give --text" in result.stderr


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(13, "Permission denied", "out/report.html"), "error: out/report.html: Permission denied"),
        (OSError(28, "No space left on device"), "error: No space left on device"),
        (FileExistsError(17, "File exists", "a", None, "b"), "error: a → b: File exists"),
    ],
)
def test_what_the_system_refuses_is_one_line_and_status_1(
    error: OSError, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught, one_line_errors():
        raise error
    assert caught.value.exit_code == 1
    assert capsys.readouterr().err.splitlines() == [line]


@pytest.mark.parametrize(
    "command", [["report", "--out", "file/report.html"], ["errors", "--out", "file/errors.html"], ["export", "file/x"]]
)
def test_an_output_that_cannot_be_is_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    result = runner.invoke(app, command)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [f"error: {command[-1]}: its folder cannot be made: file is no folder"]


@pytest.mark.parametrize("folder", ["data/sample", "data/split", "models", "metrics", "features"])
@pytest.mark.parametrize("command", [["report", "--out", "x.html"], ["errors", "--out", "x.html"], ["export", "x"]])
def test_nothing_is_written_into_a_folder_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], folder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("target: {corpus: features}\n")
    Path(folder, "deep").mkdir(parents=True)
    out = f"{folder}/deep/{command[-1]}"
    result = runner.invoke(app, [*command[:-1], out])
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"error: {out}: lies in {folder}, which is read; give another place for the output"
    ]
    assert not list(Path(folder, "deep").iterdir())


@pytest.mark.parametrize(
    "command",
    [["predict", "--manifest", "posts.csv", "--out", "o.csv"], ["extract", "posts.csv", "--out", "o.parquet"]],
)
def test_media_lie_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("posts.csv").write_text("id,image,video\n1,a.png,a.mp4\n")
    result = runner.invoke(app, [*command, "--media", "posts.csv"])
    assert result.exit_code == 2
    assert "'posts.csv' is a file" in result.stderr


def test_an_input_error_is_one_line_and_status_1(tmp_path) -> None:
    (tmp_path / "params.yaml").write_text("seed: x\n")
    result = runner.invoke(app, ["split", "--project", str(tmp_path)])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
