"""The house: floors and rooms. Imports point down, no folder or module imports in a circle, no stage imports a stage,
no room is too large, and what must start fast or score without torch does not import it.
"""

from collections import Counter
from pathlib import Path

import pytest

from tests.graph import lines, modules, ours, room
from tests.imports import closure, imported

FLOORS: tuple[tuple[str, ...], ...] = (
    ("__main__.py",),
    ("cli.py",),
    ("stages",),
    ("serving",),
    ("reporting",),
    ("posts", "sentiment", "synthetic"),
    ("encoders",),
    ("corpora",),
    ("training",),
    ("figures",),
    ("scoring",),
    ("nets",),
    ("media", "params.py"),
    ("core",),
)
"""From the top down; a room may import from those below it, and from none beside it."""

SHARE = 0.16
"""Of all lines, at most so many in one room."""

STAGE_LINES = 1300

MODULES = modules()


def floor(path: Path) -> int:
    return next(at for at, rooms in enumerate(FLOORS) if room(path) in rooms)


def test_every_room_has_a_floor_and_no_floor_is_empty() -> None:
    assert {room(path) for path in MODULES} == {name for rooms in FLOORS for name in rooms}


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_point_down(path: Path) -> None:
    others = [file for file in ours(path) if room(file) != room(path)]
    assert [str(file) for file in others if floor(file) <= floor(path)] == []


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_no_module_imports_itself_by_way_of_others(path: Path) -> None:
    assert not any(path in closure(file) for file in ours(path))


def test_no_stage_imports_a_stage() -> None:
    stages = [path for path in MODULES if room(path) == "stages"]
    assert {str(path): [str(file) for file in ours(path) if room(file) == "stages"] for path in stages} == {
        str(path): [] for path in stages
    }


def test_stages_are_thin_and_no_room_is_too_large() -> None:
    sizes: Counter[str] = Counter()
    for path in MODULES:
        sizes[room(path)] += lines(path)
    assert sizes["stages"] < STAGE_LINES
    total = sum(sizes.values())
    assert {name: count for name, count in sizes.items() if count > SHARE * total} == {}


def heavy(path: Path, names: set[str]) -> list[str]:
    return sorted(
        f"{file} imports {name}" for file in closure(path) for name in imported(file) if name.split(".")[0] in names
    )


TORCH = {"torch", "transformers", "accelerate", "peft", "safetensors"}
LIGHT_ROOMS = ("core", "figures", "scoring", "media", "params.py", "synthetic")
LIGHT_STAGES = ("sample", "split", "evaluate")


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if room(path) in LIGHT_ROOMS or (room(path) == "stages" and path.stem in LIGHT_STAGES)],
    ids=str,
)
def test_these_never_import_torch(path: Path) -> None:
    assert heavy(path, TORCH) == []


def test_figures_draw_what_is_given() -> None:
    for path in MODULES:
        if room(path) == "figures":
            assert {room(file) for file in ours(path)} <= {"figures", "core"}


def test_training_stages_do_not_depend_on_how_charts_are_drawn() -> None:
    trains = [path for path in MODULES if room(path) == "stages" and path.stem not in ("split", "evaluate")]
    assert [str(path) for path in trains if any(room(file) == "figures" for file in closure(path))] == []


def test_the_sentiment_track_does_not_depend_on_how_pictures_are_read() -> None:
    for stage in ("train_source", "train_adapters", "finetune_e2e"):
        needs = closure(Path("pipeline", "stages", f"{stage}.py"))
        assert "media" not in {room(path) for path in needs}
        assert not needs & {Path("pipeline", "encoders", name) for name in ("image.py", "video.py")}


def test_nets_know_no_params_paths_or_files() -> None:
    for path in MODULES:
        if room(path) == "nets":
            assert {room(file) for file in ours(path)} <= {"nets"}
            assert not {"pathlib", "os", "json"} & imported(path)


def test_training_knows_no_particular_net() -> None:
    for path in MODULES:
        if room(path) == "training":
            assert {file.name for file in ours(path) if room(file) == "nets"} <= {"losses.py"}


def test_nothing_imports_dvc() -> None:
    assert [str(path) for path in MODULES if {name.split(".")[0] for name in imported(path)} & {"dvc"}] == []


def test_nothing_unpickles() -> None:
    """But for the one module that reads plain data and refuses whatever else a pickle names."""
    unpickling = {path.as_posix() for path in MODULES if {"pickle", "joblib", "dill", "cloudpickle"} & imported(path)}
    assert unpickling == {"pipeline/corpora/pickles.py"}
