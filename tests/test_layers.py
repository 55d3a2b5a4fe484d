"""The layers of the house: imports point down, and what must start fast or score without torch does not import it."""

from itertools import pairwise
from pathlib import Path

import pytest

from tests.imports import ROOT, closure, file_of, imported

LAYERS: tuple[tuple[str, ...], ...] = (
    ("pipeline/__main__.py",),
    ("pipeline/cli.py",),
    ("pipeline/stages", "pipeline/serving", "pipeline/reporting"),
    ("pipeline/training", "pipeline/encoders", "pipeline/nets", "pipeline/corpora"),
    ("pipeline/scoring", "pipeline/figures.py", "pipeline/media.py"),
    ("pipeline/params.py",),
    ("pipeline/core",),
)
MODULES = sorted(path.relative_to(ROOT) for path in (ROOT / "pipeline").rglob("*.py") if path.name != "__init__.py")


def layer(path: Path) -> int:
    return next(at for at, names in enumerate(LAYERS) if any(path.is_relative_to(name) for name in names))


def ours(path: Path) -> set[Path]:
    return {file for name in imported(path) if (file := file_of(name)) is not None and file.name != "__init__.py"}


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_point_down(path: Path) -> None:
    assert [str(file) for file in ours(path) if layer(file) < layer(path)] == []


def test_every_module_has_a_layer_and_layers_are_distinct() -> None:
    assert {layer(path) for path in MODULES} == set(range(len(LAYERS)))
    assert all(not set(upper) & set(lower) for upper, lower in pairwise(LAYERS))


def heavy(path: Path, names: set[str]) -> list[str]:
    return sorted(
        f"{file} imports {name}" for file in closure(path) for name in imported(file) if name.split(".")[0] in names
    )


TORCH = {"torch", "transformers", "accelerate", "peft", "safetensors"}


@pytest.mark.parametrize(
    "name",
    [
        "pipeline/stages/sample.py",
        "pipeline/stages/split.py",
        "pipeline/stages/evaluate.py",
        "pipeline/figures.py",
        "pipeline/media.py",
        "pipeline/params.py",
        "pipeline/core/layout.py",
        *(str(path) for path in MODULES if path.is_relative_to("pipeline/scoring")),
    ],
)
def test_these_never_import_torch(name: str) -> None:
    assert heavy(Path(name), TORCH) == []


def test_nets_know_no_params_paths_or_files() -> None:
    for path in MODULES:
        if path.is_relative_to("pipeline/nets"):
            assert ours(path) <= {other for other in MODULES if other.is_relative_to("pipeline/nets")}
            assert not {"pathlib", "os", "json"} & imported(path)


def test_training_knows_no_particular_net() -> None:
    for path in MODULES:
        if path.is_relative_to("pipeline/training"):
            assert not {Path("pipeline/nets/specialist.py"), Path("pipeline/nets/fusion.py")} & ours(path)


def test_nothing_imports_dvc() -> None:
    assert [str(path) for path in MODULES if {name.split(".")[0] for name in imported(path)} & {"dvc"}] == []


def test_nothing_unpickles() -> None:
    """But for the one module that reads plain data and refuses whatever else a pickle names."""
    unpickling = {path.as_posix() for path in MODULES if {"pickle", "joblib", "dill", "cloudpickle"} & imported(path)}
    assert unpickling == {"pipeline/corpora/pickles.py"}
