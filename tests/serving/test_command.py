"""`export` and `predict` as they are typed: what is printed, and with which exit status."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.core import artifacts, schemas
from pipeline.core.layout import Layout
from pipeline.serving.score_predictor import ScorePredictor
from tests import tracks
from tests.imports import ROOT
from tests.serving import scores
from tests.serving.conftest import Trained
from tests.tracks import Track

runner = CliRunner()


@pytest.fixture(scope="module")
def project(trained: Trained) -> str:
    """The trained project with its params written out, as a user has it."""
    YAML(typ="safe", pure=True).dump(trained.params.model_dump(mode="json"), trained.layout.params)
    return str(trained.layout.root)


@pytest.fixture(scope="module")
def bundle(project: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("made") / "bundle")
    assert runner.invoke(app, ["export", folder, "--project", project]).exit_code == 0
    return folder


def test_one_post_as_a_table(project: str) -> None:
    picture = str(Path(project) / "1.png")
    given = ["--text", "so sad [bold]", "--image", picture, "--coverage", "0.8", "--explain", "--project", project]
    result = runner.invoke(app, ["predict", *given])
    assert result.exit_code == 0
    for told in (
        "happy",
        "sad",
        "text",
        "present",
        "video     absent",
        "cannot be ruled out",
        "[bold]",
        "patch by patch",
    ):
        assert told in result.output


def test_one_post_as_json_is_the_same_from_project_and_bundle(project: str, bundle: str) -> None:
    said = [
        runner.invoke(app, ["predict", "--text", "so sad", "--json", *where])
        for where in (["--project", project], ["--bundle", bundle])
    ]
    assert [result.exit_code for result in said] == [0, 0]
    assert json.loads(said[0].stdout) == json.loads(said[1].stdout)
    assert set(json.loads(said[0].stdout)) == {"label", "probabilities", "set", "modalities"}


def test_a_manifest(bundle: str, tmp_path: Path) -> None:
    (tmp_path / "posts.csv").write_text("id,text,image\n1,sad,none.png\n2,so happy,\n")
    given = ["--manifest", str(tmp_path / "posts.csv"), "--out", str(tmp_path / "out.csv"), "--bundle", bundle]
    result = runner.invoke(app, ["predict", *given])
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "as column reason says: 1" in result.stderr
    assert (tmp_path / "out.csv").read_text().count("\n") == 3


def test_the_name_of_an_output_makes_no_line_of_its_own(bundle: str, tmp_path: Path) -> None:
    (tmp_path / "posts.csv").write_text("id,text,image\n1,sad,none.png\n")
    given = ["--manifest", str(tmp_path / "posts.csv"), "--out", str(tmp_path / "o\n\x1b[2J.csv"), "--bundle", bundle]
    result = runner.invoke(app, ["predict", *given])
    assert result.exit_code == 0
    assert (
        len(result.stderr.splitlines()) == 1
        and "o \\x1b[2J.csv: written; rows of which something could not be used, as column reason says: 1"
        in result.stderr
    )


@pytest.mark.parametrize("key", ["posts.manifest", "source.corpus", "source.texts", "target.corpus"])
def test_predictions_are_not_written_over_a_corpus_of_the_project(tmp_path: Path, key: str) -> None:
    block, name = key.split(".")
    (tmp_path / "params.yaml").write_text(f"{block}:\n  {name}: mine.csv\n")
    for name in ("mine.csv", "new.csv"):
        (tmp_path / name).write_text("id,text\n1,sad\n")
    given = ["--manifest", str(tmp_path / "new.csv"), "--out", str(tmp_path / "mine.csv"), "--project", str(tmp_path)]
    result = runner.invoke(app, ["predict", *given])
    assert result.exit_code == 1 and "mine.csv" in result.stderr and len(result.stderr.splitlines()) == 1
    assert (tmp_path / "mine.csv").read_text() == "id,text\n1,sad\n"


@pytest.mark.parametrize(
    ("track", "given"),
    [
        ("sentiment", ["predict", "--text", "x", "--track", "sentiment"]),
        ("sentiment", ["export", "bundle", "--track", "sentiment"]),
        ("posts", ["predict", "--text", "x", "--track", "posts"]),
        ("posts", ["export", "bundle", "--track", "posts"]),
    ],
)
def test_a_track_that_is_off_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, track: str, given: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    layout = Layout()
    layout.params.write_text("seed: 1\n")
    artifacts.write_parquet_parts(layout.table("posts"), schemas.POSTS_TABLE, [])
    artifacts.write_parquet(layout.table("target"), schemas.SCORED_TABLE.empty_table())
    result = runner.invoke(app, given)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [f"error: params.yaml: tracks leaves {track} out; add it and run `dvc repro`"]


def test_a_pipe_ends_with_status_1_when_a_line_was_bad(bundle: str) -> None:
    good = runner.invoke(app, ["predict", "--bundle", bundle], input='{"text": "sad"}\n')
    assert good.exit_code == 0
    assert len(good.stdout.splitlines()) == 1
    bad = runner.invoke(app, ["predict", "--stdin", "--bundle", bundle], input='{"text": "sad"}\nx\n{"text": "sad"}\n')
    assert bad.exit_code == 1
    assert ["error" in json.loads(line) for line in bad.stdout.splitlines()] == [False, True, False]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Track:
    """A trained sentiment track that reads words, its params as a user has them, and features to score."""
    track = scores.worded(tmp_path_factory.mktemp("scored"))
    settings = tracks.params(track)
    YAML(typ="safe", pure=True).dump(settings.model_dump(mode="json"), track.layout.params)
    scores.write(track, track.layout.root / "new.parquet")
    step = {"pearson": 0.5, "pearson_ci_low": 0.4, "pearson_ci_high": 0.6, "mae": 0.7}
    target = {"n": 9, "groups": 8, "protocol": "holdout", "finetuned": step}
    artifacts.write_json(track.layout.details("evaluate"), {"sentiment": {"target": target}})
    return track


def test_a_corpus_is_scored_from_project_and_bundle_alike(scored: Track, tmp_path: Path) -> None:
    project, corpus = str(scored.layout.root), str(scored.layout.root / "new.parquet")
    made = runner.invoke(app, ["export", str(tmp_path / "bundle"), "--track", "sentiment", "--project", project])
    assert made.exit_code == 0, made.output
    for name, where in (("own.parquet", ["--project", project]), ("b.parquet", ["--bundle", str(tmp_path / "bundle")])):
        given = ["predict", "--corpus", corpus, "--out", str(tmp_path / name), "--coverage", "0.5", *where]
        result = runner.invoke(app, given)
        assert result.exit_code == 0 and result.stdout == "", result.output
    assert (tmp_path / "own.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    table = pd.read_parquet(tmp_path / "own.parquet")
    (known,) = ScorePredictor.load(tmp_path / "bundle").predict(scores.samples(scored)[1:2], 0.5)
    assert table["score"][1] == known.score and table["score_low"][1] == known.low


def test_a_line_of_words_is_scored(scored: Track) -> None:
    given = ["predict", "--text", "so happy", "--track", "sentiment", "--coverage", "0.5"]
    where = ["--project", str(scored.layout.root)]
    shown = runner.invoke(app, [*given, *where])
    assert shown.exit_code == 0 and "50% interval [" in shown.stdout and "●" in shown.stdout
    said = runner.invoke(app, [*given, "--json", *where])
    answer = json.loads(said.stdout)
    assert set(answer) == {"score", "low", "high", "modalities", "reason"}
    assert answer["low"] < answer["score"] < answer["high"]
    assert f"score {answer['score']:+.3f}" in shown.stdout
    # Where there is no model of posts, a line can only be meant to be scored.
    assert (
        json.loads(runner.invoke(app, ["predict", "--text", "so happy", "--json", *where]).stdout)["score"]
        == (answer["score"])
    )


def test_a_line_that_no_model_reads_says_which_is_missing(tmp_path: Path) -> None:
    track = tracks.run(tracks.make(tmp_path), *scores.STAGES)  # which reads features alone
    given, model = ["predict", "--text", "so happy", "--project", str(tmp_path)], track.layout.model("fuse")

    def refused(*on: str) -> str:
        YAML(typ="safe").dump({"tracks": list(on)}, track.layout.params)
        result = runner.invoke(app, given)
        assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1
        return result.stderr

    assert f"{model / 'model.json'}: not found; make it again with `dvc repro`" in refused("posts", "sentiment")
    (model / "model.json").mkdir(parents=True)
    assert f"{model / 'model.json'}: cannot be read: Is a directory; make it" in refused("posts", "sentiment")
    assert "text holds words, and the model reads" in refused("sentiment")


def test_words_that_are_none_or_not_read_end_with_one_line(scored: Track, project: str, tmp_path: Path) -> None:
    where = ["--project", str(scored.layout.root)]
    (tmp_path / "new.csv").write_text('id,text,audio\na,"so sad","[1,2]"\n')
    corpus = ["predict", "--corpus", str(tmp_path / "new.csv"), "--out", str(tmp_path / "out.csv")]
    for given, told in (
        (["predict", "--text", "  ", "--track", "sentiment", *where], "nothing to score: no audio, text, visual"),
        ([*corpus, *where], "new.csv: audio has 2 values a row, and the model reads 5"),
        ([*corpus, "--project", project], "finetune_e2e"),
    ):
        result = runner.invoke(app, given)
        assert result.exit_code == 1, result.output
        assert told in result.stderr and len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "given",
    [
        ["--corpus", "posts.csv"],
        ["--corpus", "posts.csv", "--out", "out.csv", "--track", "posts"],
        ["--corpus", "posts.csv", "--out", "out.csv", "--text", "x"],
        ["--corpus", "posts.csv", "--out", "out.csv", "--explain"],
        ["--corpus", "none.parquet", "--out", "out.csv"],
        ["--track", "sentiment", "--manifest", "posts.csv", "--out", "out.csv"],
        ["--track", "sentiment", "--stdin"],
        ["--track", "sentiment", "--text", "x", "--explain"],
        ["--track", "feelings", "--text", "x"],
        ["--text", "x", "--manifest", "posts.csv", "--out", "out.csv"],
        ["--text", "x", "--stdin"],
        ["--manifest", "posts.csv"],
        ["--text", "x", "--out", "out.csv"],
        ["--manifest", "posts.csv", "--out", "out.xlsx"],
        ["--manifest", "posts.csv", "--out", "out.csv", "--json"],
        ["--stdin", "--json"],
        ["--text", "x", "--coverage", "1"],
        ["--text", "x", "--coverage", "much"],
        ["--image", "none.png"],
        ["--manifest", "none.csv", "--out", "out.csv"],
        ["--bundle", "none", "--text", "x"],
        ["--nonsense"],
    ],
)
def test_what_was_typed_wrongly_ends_with_status_2(
    given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("posts.csv").write_text("text\nsad\n")
    result = runner.invoke(app, ["predict", *given])
    assert result.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["posts.csv"]


def test_what_cannot_be_used_ends_with_one_line_and_status_1(project: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "no.png").write_bytes(b"no")
    for given, told in (
        (["predict", "--text", "x", "--bundle", str(tmp_path / "empty")], "no bundle"),
        (
            ["predict", "--image", str(tmp_path / "no.png"), "--project", project],
            "nothing to predict from: image: not a",
        ),
        (["predict", "--text", "x", "--project", str(tmp_path)], "params.yaml: not found"),
        (["export", str(tmp_path), "--project", project], "exists and is no bundle"),
    ):
        result = runner.invoke(app, given)
        assert result.exit_code == 1
        assert result.stderr.startswith("error: ")
        assert told in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_help_answers_without_torch() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from pipeline.cli import app; "
        "print([CliRunner().invoke(app, [name, '--help']).exit_code for name in ('predict', 'export')], "
        "sorted({'torch', 'transformers', 'pandas'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout == "[0, 0] []\n"
