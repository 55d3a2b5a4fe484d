"""A small project of both tracks, with tiny encoders: every stage runs in seconds."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.synthetic.posts import render_posts
from tests import tiny

POSTS = 60

HEAD = {"candidates": ["logreg", "head"], "folds": 2, "head": {"epochs": 2}}

SMALL: dict[str, Any] = {
    "device": "cpu",
    "posts": {"manifest": "posts/manifest.csv", "media": "posts"},
    "target": {"folds": 2, "repeats": 1, "processes": 2},
    "sample": {"posts": 40, "source_rows": 60, "target_rows": 30, "unlabelled_rows": 5},
    "train_text": {"candidates": ["logreg", "full"], "folds": 2, "tuned": {"epochs": 2, "folds": 2}, "tuned_rows": 10},
    "train_image": HEAD,
    "train_video": HEAD,
    "train_source": {"width": 8, "heads": 2, "hidden": 8, "epochs": 2, "tuned": {"epochs": 1}},
    "adapter": {"epochs": 2},
    "finetune_e2e": {"first_epochs": 1, "epochs": 1, "curve": [10], "tuned": {"epochs": 1, "runs": 1}},
    "fuse": {"candidates": ["trained"], "folds": 2, "epochs": 2, "width": 8, "heads": 2, "hidden": 8},
    "evaluate": {"bootstrap": 100, "permutations": 100, "gallery": 4},
}


def make(root: Path) -> Path:
    """Writes params, encoders and a manifest of posts with their media into ``root``, and returns it."""
    words, clip = tiny.distilbert(root / "encoders" / "words"), tiny.clip(root / "encoders" / "clip")
    render_posts(root / "posts", posts=POSTS, seed=1)
    embed = {
        "text": {"encoder": str(words)},
        "image": {"encoder": str(clip)},
        "video": {"encoder": str(clip), "frames": 2, "streams": ["frames"]},
    }
    YAML(typ="safe").dump({**SMALL, "embed": embed}, root / "params.yaml")
    return root
