"""The engine `ray`, on clusters of this machine's own: a process of it killed in the middle, and the run itself."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.core import schemas
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.encoders import ray_engine
from pipeline.encoders.ray_engine import _check_alike
from pipeline.params import EmbedParams, RayParams
from tests import tiny
from tests.encoders.test_extraction import spoken
from tests.imports import ROOT
from tests.processes import ray_workers
from tests.stages.test_embed import ROWS, draw, project

PICTURES = 150
DEADLINE_S = 900.0

Run = subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def ray() -> None:
    pytest.importorskip("ray", reason='ray is not installed; pip install "emocare-pipeline[ray]"')


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    words, clip = tiny.distilbert(tmp_path_factory.mktemp("words")), tiny.clip(tmp_path_factory.mktemp("clip"))
    pictures = {"encoder": str(clip), "batch": 2}
    return {
        "text": {"encoder": str(words), "batch_tokens": 64},
        "image": pictures,
        "video": pictures | {"frames": 3, "streams": ["frames"]},
        "max_bad_share": 0.5,
    }


def posts(root: Path) -> Layout:
    """The rows of `embed`'s other tests, and pictures enough to be stopped in between."""
    layout = project(root, [*ROWS, *((f"q{at:03d}", f"me rn {at}", f"many/{at}.png", None) for at in range(PICTURES))])
    for at in range(PICTURES):
        draw(root / "media" / "many" / f"{at}.png", (at, 255 - at, at // 2))
    return layout


def start(layout: Layout, encoders: dict[str, Any], engine: str, cache: Path, *command: str) -> Run:
    """Starts `embed`, or another command, in a project that has these encoders."""
    embed = encoders | {"engine": engine, "ray": {"encoders": 2, "readers": 1, "object_store_mb": 80}}
    corpora = {name: {"corpus": f"{name}.parquet"} for name in ("source", "target")}
    said = {"device": "cpu", "posts": {"media": "media"}, "embed": embed, **corpora}
    layout.params.write_text(json.dumps(said))  # which is YAML, too
    environment = os.environ | {"EMOCARE_CACHE": str(cache), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    called = [sys.executable, "-m", "pipeline", *(command or ("embed",))]
    return subprocess.Popen(called, cwd=layout.root, env=environment, stderr=subprocess.PIPE)


def end(run: Run) -> None:
    _, said = run.communicate(timeout=DEADLINE_S)
    assert run.returncode == 0, said.decode()


def stored(cache: Path) -> int:
    """Bytes of all stores."""
    return sum(file.stat().st_size for file in cache.rglob("*.sqlite*"))


def wait(condition: Any, run: Run) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert run.poll() is None, (run.stderr and run.stderr.read().decode()) or "ended too soon"
        assert time.monotonic() < deadline
        time.sleep(0.1)


def tables(layout: Layout) -> dict[str, bytes]:
    files = [layout.details("embed"), *(layout.embeddings("posts", name) for name in schemas.MODALITIES)]
    files += [layout.embeddings("target", name) for name in schemas.FEATURES]
    return {file.relative_to(layout.root).as_posix(): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def expected(encoders: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    layout = posts(tmp_path_factory.mktemp("local"))
    end(start(layout, encoders, "local", tmp_path_factory.mktemp("cache")))
    return tables(layout)


@pytest.mark.usefixtures("ray")
def test_the_tables_are_those_of_one_process_though_each_of_its_processes_is_killed(
    tmp_path: Path, encoders: dict[str, Any], expected: dict[str, bytes]
) -> None:
    layout, cache = posts(tmp_path / "project"), tmp_path / "cache"
    run = start(layout, encoders, "ray", cache)
    wait(lambda: stored(cache) > 0 and len(ray_workers(run.pid)) == 3, run)  # two encoders, one reader
    for process in ray_workers(run.pid):
        process.kill()
    assert not layout.embeddings("posts", "image").exists()
    end(run)
    assert tables(layout) == expected


@pytest.mark.usefixtures("ray")
def test_a_run_that_was_killed_goes_on_from_what_is_stored(
    tmp_path: Path, encoders: dict[str, Any], expected: dict[str, bytes]
) -> None:
    layout, cache = posts(tmp_path / "project"), tmp_path / "cache"
    run = start(layout, encoders, "ray", cache)
    wait(lambda: stored(cache) > 0 and (layout.embeddings("posts", "text")).exists(), run)
    run.kill()
    run.communicate()
    assert not layout.details("embed").exists()
    before = stored(cache)
    assert before > 0
    end(start(layout, encoders, "ray", cache))
    assert tables(layout) == expected


@pytest.mark.usefixtures("ray")
def test_clips_are_extracted_as_by_one_process_though_each_of_its_processes_is_killed(tmp_path: Path) -> None:
    """All steps of a clip: two streams, and words, which are heard where it is read."""
    clips = spoken(tmp_path / "media", 30, 7)
    whisper, pictures = tiny.speaking(tmp_path / "whisper"), tiny.clip(tmp_path / "clip")
    video = {"encoder": str(pictures), "batch": 4, "frames": 2, "streams": ["frames", "sound", "transcript"]}
    embed = {"video": video | {"transcript": {"encoder": str(whisper)}}}
    made = {}
    for engine in ("local", "ray"):
        layout, cache = Layout(tmp_path / engine), tmp_path / f"{engine} cache"
        layout.root.mkdir()
        run = start(layout, embed, engine, cache, "extract", str(clips), "--out", "corpus.parquet")
        if engine == "ray":
            wait(lambda: stored(cache) > 0 and len(ray_workers(run.pid)) == 3, run)  # noqa: B023 - waits in this round
            for process in ray_workers(run.pid):
                process.kill()
        end(run)
        made[engine] = (layout.root / "corpus.parquet").read_bytes()
    assert made["ray"] == made["local"]
    rows = pd.read_parquet(tmp_path / "ray" / "corpus.parquet")
    assert rows["text"].notna().sum() == 30
    assert rows["reason"].notna().sum() == 3  # every ninth is without sound


def computing(node: str, width: str) -> dict[str, Any]:
    return {"node": node, "computed": {"instructions": width}, "texts": {}}


def test_processes_that_may_round_otherwise_are_refused() -> None:
    _check_alike([computing("a", "AVX2"), computing("b", "AVX2")], "encoders")
    with pytest.raises(InputError, match=r"ray: a computes .* b with .* give the readers machines of a kind"):
        _check_alike([computing("a", "AVX2"), computing("b", "AVX512")], "readers")


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999", "no host:1"])
def test_no_cluster_at_the_address(tmp_path: Path, address: str) -> None:
    embed = EmbedParams(engine="ray", ray=RayParams(address=address))
    refused = pytest.raises(InputError, match=rf"no Ray cluster answers at {re.escape(address)} .*`ray start")
    with refused as error, ray_engine.started(embed, tmp_path):
        raise AssertionError("there is no cluster")
    assert "\n" not in str(error.value)


def test_ray_that_is_not_installed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError) as error, ray_engine.started(EmbedParams(engine="ray"), tmp_path):
        raise AssertionError("there is no Ray")
    assert str(error.value) == (
        'params.yaml: embed.engine: ray is not installed; `pip install "emocare-pipeline[ray]"`, or give local'
    )


def test_ray_is_imported_only_when_it_is_asked_for() -> None:
    command = [sys.executable, "-c", "import sys; import pipeline.stages.embed; sys.exit('ray' in sys.modules)"]
    assert subprocess.run(command, check=False, cwd=ROOT).returncode == 0
