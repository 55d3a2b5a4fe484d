import subprocess
import sys

from typer.testing import CliRunner

from pipeline import params
from pipeline.cli import STAGES, app
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


def test_an_input_error_is_one_line_and_status_1(tmp_path) -> None:
    (tmp_path / "params.yaml").write_text("seed: x\n")
    result = runner.invoke(app, ["split", "--project", str(tmp_path)])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
