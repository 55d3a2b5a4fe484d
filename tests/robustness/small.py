"""A small project of both tracks, with tiny encoders: every stage runs in seconds."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.params import Params
from pipeline.synthetic.posts import render_posts
from tests import tiny
from tests.imports import ROOT

POSTS = 60

HEAD = {"candidates": ["logreg", "head"], "folds": 2, "head": {"epochs": 2}}

SMALL: dict[str, Any] = {
    "device": "cpu",
    "posts": {"manifest": "posts/manifest.csv", "media": "posts"},
    "processes": 2,
    "target": {"folds": 2, "repeats": 1},
    "sample": {"posts": 40, "source_rows": 60, "target_rows": 30, "unlabelled_rows": 5},
    "train_text": {
        "candidates": ["logreg", "full"],
        "folds": 2,
        "tuned": {"epochs": 2, "least_steps": 0, "folds": 2},
        "tuned_rows": 10,
    },
    "train_image": HEAD,
    "train_video": HEAD,
    "train_source": {"width": 8, "heads": 2, "hidden": 8, "epochs": 2, "tuned": {"epochs": 1, "least_steps": 0}},
    "adapter": {"epochs": 2},
    "finetune_e2e": {
        "first_epochs": 1,
        "epochs": 1,
        "curve": [10],
        "tuned": {"epochs": 1, "least_steps": 0, "runs": 1},
    },
    "fuse": {"candidates": ["trained"], "folds": 2, "epochs": 2, "width": 8, "heads": 2, "hidden": 8},
    "evaluate": {"bootstrap": 100, "permutations": 100, "gallery": 4},
}


def make(root: Path, **settings: Any) -> Path:
    """Writes params, encoders and a manifest of posts with their media into ``root``, and returns it.

    ``settings`` stand beside those of ``SMALL``, or for them.
    """
    words, clip = tiny.distilbert(root / "encoders" / "words"), tiny.clip(root / "encoders" / "clip")
    render_posts(root / "posts", posts=POSTS, seed=1)
    embed = {
        "text": {"encoder": str(words)},
        "image": {"encoder": str(clip)},
        "video": {"encoder": str(clip), "frames": 2, "streams": ["frames"]},
    }
    params = Params.model_validate({**SMALL, "embed": embed, **settings})
    YAML(typ="safe").dump(params.model_dump(mode="json"), root / "params.yaml")  # whole, since dvc.yaml names its keys
    return root


def under_dvc(root: Path, **settings: Any) -> Path:
    """A project as ``make`` makes it, of the posts track, with the graph and the code, which git and DVC keep."""
    make(root, tracks=["posts"], **settings)
    listed = run(ROOT, "git", "ls-files", "pipeline", "dvc.yaml", ".dvcignore", ".dvc", "*.gitignore").splitlines()
    for name in listed:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    for command in ("git init -q", "git add -A", "git commit -qm begin"):
        run(root, *command.split())
    return root


def environment(root: Path) -> dict[str, str]:
    """With a cache of the project's own, on one thread, and a name for git."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    more = {"EMOCARE_CACHE": f"{root}-cache", "OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1", "HF_HUB_OFFLINE": "1"}
    for role in ("AUTHOR", "COMMITTER"):
        more |= {f"GIT_{role}_NAME": "Somebody", f"GIT_{role}_EMAIL": "somebody@example.com"}
    return {**os.environ, "PATH": path, **more}


def run(root: Path, *command: str) -> str:
    """What a command prints that ends well in ``root``."""
    done = subprocess.run(command, cwd=root, env=environment(root), capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-500:]}{done.stderr[-1500:]}"
    return done.stdout + done.stderr
