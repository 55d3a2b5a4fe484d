"""A small project of both tracks, as a user would have it: a corpus of posts, params, the graph of DVC, the code."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests import tiny
from tests.imports import ROOT

SPECIALIST = {"folds": 2, "candidates": ["logreg", "head"], "head": {"epochs": 2}}
SETTINGS: dict[str, Any] = {
    "device": "cpu",
    "posts": {"manifest": "posts/manifest.csv", "media": "posts"},
    "sample": {"posts": 60, "source_rows": 60, "target_rows": 30, "unlabelled_rows": 5},
    "target": {"folds": 2, "repeats": 1, "processes": 2},
    "train_text": SPECIALIST,
    "train_image": SPECIALIST,
    "train_video": SPECIALIST,
    "fuse": {"candidates": ["trained"], "folds": 2, "epochs": 2, "width": 8, "hidden": 8},
    "train_source": {"width": 8, "heads": 2, "hidden": 8, "epochs": 2},
    "adapter": {"epochs": 2},
    "finetune_e2e": {"first_epochs": 1, "epochs": 1, "curve": [10]},
    "evaluate": {"bootstrap": 100, "gallery": 4, "permutations": 100},
}


def make(root: Path) -> Path:
    """Writes the project; nothing is run in it but `sample`, which draws the posts. Returns its folder."""
    root.mkdir(parents=True)
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, root)
    shutil.copytree(ROOT / "pipeline", root / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    words, clip = (make(root / "encoders" / name) for make, name in ((tiny.distilbert, "words"), (tiny.clip, "clip")))
    embed = {
        "text": {"encoder": os.fspath(words)},
        "image": {"encoder": os.fspath(clip)},
        "video": {"encoder": os.fspath(clip), "frames": 2, "streams": ["frames"]},
    }
    yaml = YAML(typ="safe")
    own = merged(yaml.load(ROOT / "params.yaml"), {**SETTINGS, "embed": embed})  # DVC takes no default for granted
    yaml.dump(own, root / "params.yaml")
    run(root, "sample")
    shutil.copytree(root / "data" / "sample" / "posts", root / "posts")
    return root


def merged(settings: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """The settings, with those of blocks within blocks replaced by one's own."""
    inner = {name: merged(settings.get(name) or {}, value) for name, value in own.items() if isinstance(value, dict)}
    return {**settings, **own, **inner}


def environment(root: Path) -> dict[str, str]:
    """For what runs in the project: it finds this Python first, this code, one thread and a cache of its own."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"PATH": path, "PYTHONPATH": os.fspath(ROOT), "EMOCARE_CACHE": os.fspath(cache(root)), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own, "DVC_NO_ANALYTICS": "1"}


def cache(root: Path) -> Path:
    return root.with_name(f"{root.name}-cache")


def run(root: Path, *command: str) -> str:
    """Runs ``python -m pipeline`` in the project; returns what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *command],
        cwd=root,
        env=environment(root),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr
