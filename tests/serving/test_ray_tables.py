"""Tables predicted on a Ray cluster of this machine's own: the same bytes, though a process of it is killed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.core import artifacts
from pipeline.core.errors import InputError
from pipeline.serving import bundle, ray_tables
from pipeline.serving.ray_tables import RayWorkers
from tests import tracks
from tests.processes import ray_workers
from tests.serving import scores
from tests.serving.conftest import Trained

ROOT = Path(__file__).parents[2]
ROWS = 1500
DEADLINE_S = 600.0


@pytest.fixture(scope="module")
def ray() -> None:
    pytest.importorskip("ray", reason='ray is not installed; pip install "emocare-pipeline[ray]"')


@pytest.fixture
def posts(trained: Trained) -> Path:
    """Some parts of posts, all with their media."""
    rows = trained.test.rename(columns={"sample_id": "id", "image_path": "image", "video_path": "video"})
    rows = rows[["id", "text", "image", "video"]]
    many = pd.concat([rows] * (ROWS // len(rows) + 1), ignore_index=True).head(ROWS)
    path = trained.layout.root / "many.parquet"
    many.assign(id=[f"n{at}" for at in range(ROWS)]).to_parquet(path)
    return path


def predict(*options: object) -> "subprocess.Popen[bytes]":
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pipeline", "predict", *map(str, options)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)


def end(run: "subprocess.Popen[bytes]") -> None:
    _, said = run.communicate(timeout=DEADLINE_S)
    assert run.returncode == 0, said.decode()


@pytest.mark.usefixtures("ray")
def test_posts_are_predicted_as_in_one_process_though_one_of_several_is_killed(
    exported: Path, posts: Path, tmp_path: Path
) -> None:
    common = ["--bundle", exported, "--manifest", posts, "--coverage", "0.8", "--out"]
    end(predict(*common, tmp_path / "here.csv"))
    run = predict(*common, tmp_path / "there.csv", "--ray", "local", "--workers", "2")
    deadline = time.monotonic() + DEADLINE_S
    while not (list(tmp_path.glob(".there.csv.parts/*.parquet")) and ray_workers(run.pid)):
        assert run.poll() is None and time.monotonic() < deadline, run.stderr and run.stderr.read().decode()
        time.sleep(0.02)
    ray_workers(run.pid)[0].kill()
    assert not (tmp_path / "there.csv").exists()
    end(run)
    assert (tmp_path / "there.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()


@pytest.mark.usefixtures("ray")
def test_a_corpus_is_scored_as_in_one_process(tmp_path: Path) -> None:
    track = tracks.run(tracks.make(tmp_path / "track"), *scores.STAGES)
    about = {"n": 9, "groups": 8, "protocol": "holdout"}
    artifacts.write_json(track.layout.details("evaluate"), {"sentiment": {"target": about}})
    bundle.export(tracks.params(track), track.layout, tmp_path / "bundle", ["sentiment"])
    corpus = scores.write(track, tmp_path / "new.parquet")
    common = ["--bundle", tmp_path / "bundle", "--corpus", corpus, "--out"]
    end(predict(*common, tmp_path / "here.csv"))
    end(predict(*common, tmp_path / "there.csv", "--ray", "local"))
    assert (tmp_path / "there.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()


def test_ray_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError) as error, ray_tables.made(None, print, RayWorkers("local", 2, dict)):
        pass
    assert str(error.value) == '--ray: ray is not installed; `pip install "emocare-pipeline[ray]"`, or leave it out'


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--text", "me rn", "--ray", "local"], "--ray is for tables"),
        (["--manifest", __file__, "--out", "out.csv", "--workers", "2"], "--workers goes with --ray"),
    ],
)
def test_what_it_goes_with(options: list[str], said: str) -> None:
    run = CliRunner().invoke(app, ["predict", *options])
    assert run.exit_code == 2 and said in run.output
