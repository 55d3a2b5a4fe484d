"""A finished run to report on: the posts track as `evaluate` really scores it, the other track's numbers by hand."""

from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image
from ruamel.yaml import YAML

from pipeline.core import artifacts, schemas
from pipeline.core.layout import Layout
from tests.imports import ROOT
from tests.stages.test_evaluate import PARAMS, make

HOSTILE = "<script>alert(1)</script> \x1b[31m & \"quoted\" 'text'"
"""The text of every test post."""

VOID = {"meta", "img"}
CELLS = {"td", "th", "dt", "dd"}
"""What a browser sets apart though no space stands between."""


def step(pearson: float) -> dict[str, float]:
    scores = {"pearson": pearson, "pearson_ci_low": pearson - 0.11, "pearson_ci_high": pearson + 0.09}
    rest = {"ccc": pearson - 0.031, "ccc_ci_low": pearson - 0.2, "ccc_ci_high": pearson + 0.1}
    errors = {"mae": 0.71 - pearson / 7, "mae_ci_low": 0.4123, "mae_ci_high": 0.8321}
    return {**scores, **rest, **errors, "permutation_p": 0.0005, "resubstitution_pearson": pearson + 0.29}


def subset(pearson: float) -> dict[str, float]:
    return {"pearson": pearson, "ci_low": pearson - 0.13, "ci_high": pearson + 0.12}


SENTIMENT: dict[str, Any] = {
    "source": {"n": 133, **step(0.641257)},
    "target": {
        "n": 93,
        "groups": 91,
        "protocol": "cross_validation",
        "taken": {"ridge": 2, "all": 1},
        "mean": {"mae": 0.763079, "mae_ci_low": 0.660489, "mae_ci_high": 0.871393},
        "ridge": step(0.53426),
        "zero_shot": step(-0.453801),
        "adapted": step(0.571939),
        "finetuned": step(0.585432),
        "subsets": {
            "text": {"ridge": subset(0.528214), "zero_shot": {}, "adapted": subset(0.5), "finetuned": subset(0.523263)}
        },
        "finetuned_minus_ridge": {"value": 0.051171, "ci_low": -0.029739, "ci_high": 0.132304},
        "finetuned_minus_ridge_mae": {"value": -0.025069, "ci_low": -0.075973, "ci_high": 0.025156},
        "curve": {"with_20": subset(0.369422), "without_20": subset(0.338601), "with_40": subset(0.540252)},
        "modality_gap": {"text": {"train_pearson": 0.8123, "val_pearson": 0.5432}},
    },
    "diagnosis": {
        "findings": 1,
        "first": "training_rows_remembered",
        "first_why": "the model remembers its training rows",
        "training_rows_remembered": {
            "likelihood": 0.35,
            "measured": "finetuned: r 0.91 on the rows it was trained on & 0.59 on unseen rows",
            "means": "the model remembers its training rows",
            "try": "fewer epochs",
        },
    },
    "warnings": ["only 93 scored target rows: the intervals are wide"],
}

SPLIT = {
    "posts": {
        "rows": 240,
        "split": "given",
        **{part: {"rows": 80, "class": {"anger": 40, "joy": 40}} for part in schemas.SPLITS},
        "groups": {"given": 123, "after_merging": 120, "largest_share": 0.0123},
        "copies": {"same_text": 7, "same_picture": 5, "near_picture_pairs": 3, "same_clip": 2, "near_clip_pairs": 1},
    }
}


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A project with everything that a report can show; not to be changed."""
    project = make(tmp_path_factory.mktemp("run"))
    project.run()
    layout = project.layout
    evaluated = artifacts.read_json(layout.details("evaluate"))
    artifacts.write_json(layout.details("evaluate"), {**evaluated, "sentiment": SENTIMENT})
    artifacts.write_json(layout.details("split"), SPLIT)
    refused = pd.DataFrame([{"corpus": "posts", "row": 3, "id": "<b>7</b>", "reason": "no label"}])
    artifacts.write_csv(layout.refused, refused)
    YAML(typ="safe", pure=True).dump(PARAMS.model_dump(mode="json"), layout.params)
    write_texts(layout, HOSTILE)
    for at, path in enumerate(dvc_pictures()):
        if not (layout.root / path).exists():
            (layout.root / path).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (at, 99, 0)).save(layout.root / path)
    return layout


def write_texts(layout: Layout, text: str) -> None:
    """Gives every test post this text."""
    posts = artifacts.read_posts(layout.table("posts"))
    posts.loc[posts["split"] == "test", "text"] = text
    table = pa.Table.from_pandas(posts, schema=schemas.POSTS_TABLE, preserve_index=False)
    artifacts.write_parquet(layout.table("posts"), table)


def dvc_pictures() -> list[str]:
    """The pictures that ``dvc plots show`` shows."""
    plots = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["plots"]
    return [plot for plot in plots if isinstance(plot, str) and plot.endswith(".png")]


@dataclass
class Page(HTMLParser):
    """A page as a browser sees it. Raises AssertionError where tags do not close in their order."""

    path: Path

    def __post_init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(self.path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag in CELLS:
            self.texts.append(" ")

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        """What is read, with single spaces."""
        return " ".join("".join(self.texts).split())

    def values(self, name: str) -> Iterator[str]:
        """Every value of an attribute."""
        return (attrs[name] or "" for _, attrs in self.tags if name in attrs)


def without_intervals(nested: Any) -> Any:
    """The metrics of a run whose test rows are of few groups."""
    if not isinstance(nested, dict):
        return nested
    kept = {key: value for key, value in nested.items() if not key.endswith(("ci_low", "ci_high"))}
    return {key: without_intervals(value) for key, value in kept.items()}
