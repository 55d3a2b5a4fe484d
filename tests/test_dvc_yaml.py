"""The graph says what the code does: files imported, params read, paths written."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.cli import STAGES
from pipeline.core.layout import Layout
from pipeline.core.metrics import HEADLINES
from pipeline.core.schemas import FEATURES, MODALITIES
from tests.graph import renewed
from tests.imports import ROOT, closure

GRAPH: dict[str, Any] = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())
SPEED_ONLY = {"embed.workers", "embed.engine", "embed.ray", "processes"}
"""Params that change no result, and so are no reason to run a stage again."""


def test_the_graph_has_the_stages_of_the_command_line_in_order() -> None:
    assert list(GRAPH["stages"]) == list(STAGES)


@pytest.mark.parametrize("stage", GRAPH["stages"])
def test_command_module_and_outputs_share_the_stage_name(stage: str) -> None:
    block = GRAPH["stages"][stage]
    assert block["cmd"] == f"python -m pipeline {stage}"
    for out in block["outs"]:
        top, _, rest = out.partition("/")
        if top in ("models", "metrics", "plots"):
            assert Path(rest).with_suffix("").name == stage
    assert {f"metrics/{stage}.json", f"metrics/details/{stage}.json"} <= set(block["outs"]) or stage == "sample"


@pytest.mark.parametrize("stage", GRAPH["stages"])
def test_deps_hold_every_file_that_the_stage_imports(stage: str) -> None:
    """Otherwise changed code would rerun nothing; `python -m tests.graph --write` renews the lists."""
    deps = GRAPH["stages"][stage]["deps"]
    assert deps == renewed(GRAPH["stages"][stage], stage)
    assert "pipeline/params.py" not in deps
    files = closure(Path("pipeline", "stages", f"{stage}.py")) - {Path("pipeline", "params.py")}
    assert all(any(file.is_relative_to(dep) for dep in deps) for file in files)


def test_every_output_is_cached_so_that_the_run_cache_works() -> None:
    assert all(isinstance(out, str) for block in GRAPH["stages"].values() for out in block["outs"])


def test_metrics_and_plots_are_listed_at_top_level_and_are_outputs() -> None:
    outs = {out for block in GRAPH["stages"].values() for out in block["outs"]}
    # The details are no metrics of DVC, which makes a column of each of their hundreds of numbers.
    assert set(GRAPH["metrics"]) == {out for out in outs if Path(out).parent == Path("metrics")}
    assert [Path(name).stem for name in GRAPH["metrics"]] == list(HEADLINES)
    named: set[str] = set()
    for plot in GRAPH["plots"]:
        for name, settings in plot.items() if isinstance(plot, dict) else [(plot, {})]:
            y = settings.get("y")
            named |= set(y) if isinstance(y, dict) else {name}
    folders = {out for out in outs if out.startswith("plots/")}
    assert all(any(name.startswith(f"{folder}/") for folder in folders) for name in named)


def test_every_model_is_an_artifact_with_a_description() -> None:
    models = {out for block in GRAPH["stages"].values() for out in block["outs"] if out.startswith("models/")}
    declared = GRAPH["artifacts"].values()
    assert sorted(of["path"] for of in declared) == sorted(models)
    assert all(of["type"] == "model" and of["desc"].endswith(".") for of in declared)


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_specialist_is_trained_again_when_the_shared_block_changes(modality: str) -> None:
    assert {"specialist", f"train_{modality}"} <= set(GRAPH["stages"][f"train_{modality}"]["params"])


def test_paths_of_the_graph_are_those_of_the_layout() -> None:
    layout = Layout(Path())
    outs = {out for block in GRAPH["stages"].values() for out in block["outs"]}
    expected = {layout.sample_posts, layout.sample_corpus("source"), layout.sample_corpus("target")}
    expected |= {layout.table(name) for name in ("posts", "source", "source_texts", "target")}
    expected |= {layout.refused, layout.folds}
    expected |= {layout.embeddings("posts", modality) for modality in MODALITIES}
    expected |= {layout.embeddings(corpus, name) for corpus in ("source", "target") for name in FEATURES}
    for stage, block in GRAPH["stages"].items():
        for kind in ("model", "metrics", "details", "plots"):
            path = getattr(layout, kind)(stage)
            if any(out == path.as_posix() for out in block["outs"]):
                expected.add(path)
    assert outs == {path.as_posix() for path in expected}
