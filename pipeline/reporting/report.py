"""What ``python -m pipeline report`` writes: a finished run in one HTML file.

It computes no metric: numbers are those of ``metrics/`` and pictures the files of ``plots/``, so that the report says
what ``dvc metrics show`` and ``dvc plots show`` say. What a run lacks is named in its section.

Reads:  params.yaml, metrics/details/*.json, plots/, data/split/{posts,target}.parquet, data/split/refused.csv,
        models/*/model.json and the media of the posts in the error gallery.
"""

import hashlib
import shlex
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline import params as knobs
from pipeline.core import artifacts
from pipeline.core.layout import Layout
from pipeline.core.metrics import built_in
from pipeline.core.schemas import MODALITIES
from pipeline.params import Params
from pipeline.posts.evaluation_figures import BASELINE_NAMES
from pipeline.reporting import gallery, page
from pipeline.reporting.changes import changed_since
from pipeline.reporting.evaluated import read_evaluated
from pipeline.reporting.gallery import Card
from pipeline.sentiment.metrics import CURVES
from pipeline.sentiment.scored import IN_SUBSETS, STEP_NAMES, taken_in_words

CARDS = 24
REFUSED = 20
"""Mistakes and refused rows that are shown."""

POSTS_STAGES = {"train_text": "text", "train_image": "pictures", "train_video": "clips", "fuse": "fusion"}
TRANSFER_STAGES = {"train_source": "source", "train_adapters": "adapters", "finetune_e2e": "fine-tuned"}


@dataclass(frozen=True)
class Knob:
    """A line of params.yaml, value and default as YAML writes them."""

    key: str
    value: str
    default: str
    meaning: str

    @property
    def changed(self) -> bool:
        return self.value != self.default

    @property
    def option(self) -> str:
        """What sets it on DVC's command line, quoted for a shell."""
        return shlex.quote(f"{self.key}={self.value}")


@dataclass(frozen=True)
class Errors:
    """The gallery; ``missing`` names the file without which there is none."""

    total: int
    cards: list[Card]
    missing: str = ""


def write(params: Params, layout: Layout, out: Path) -> None:
    """Writes the report of the run that lies in ``layout``. Raises InputError when nothing was evaluated yet."""
    evaluated = read_evaluated(layout)
    posts = _posts(layout)
    settings = _settings(params)
    page.write(
        out,
        "report.html",
        posts=evaluated.get("posts"),
        sentiment=evaluated.get("sentiment"),
        split=_optional(layout.details("split")),
        embed=_optional(layout.details("embed")),
        groups={} if posts is None else posts.groupby("split")["group_id"].nunique().to_dict(),
        refused=_refused(layout),
        absent=_absent(layout),
        choices=_choices(layout),
        errors=_errors(params, layout),
        picture=lambda name: page.png(layout.root / "plots" / name),
        modalities=MODALITIES,
        posts_stages=POSTS_STAGES,
        transfer_stages=TRANSFER_STAGES,
        baselines=BASELINE_NAMES,
        steps=STEP_NAMES,
        taken_in_words=taken_in_words,
        in_subsets=IN_SUBSETS,
        curve_sizes=_curve_sizes(evaluated.get("sentiment")),
        confidence=page.typeset(f"{params.evaluate.confidence:.0%}"),
        settings=settings,
        since=changed_since(layout),
        changed=[knob for knob in settings if knob.changed],
        seed=params.seed,
        manifest=params.posts.manifest if "posts" in evaluated else params.target.corpus,
        built_in=built_in(layout),
        digests=_digests(layout),
    )


def _optional(path: Path) -> dict[str, Any] | None:
    return artifacts.read_json(path) if path.is_file() else None


def _posts(layout: Layout) -> pd.DataFrame | None:
    return artifacts.read_posts(layout.table("posts")) if layout.table("posts").is_file() else None


def _refused(layout: Layout) -> list[dict[str, str]] | None:
    """The first refused rows, columns ``corpus, row, id, reason``; None where `split` has left no such table."""
    if not layout.refused.is_file():
        return None
    rows = artifacts.read_csv(layout.refused).head(REFUSED)
    return [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]


def _absent(layout: Layout) -> dict[str, str]:
    """Stage → why it had nothing to train on."""
    trained = {name: (_optional(layout.details(name)) or {}).get("posts", {}) for name in POSTS_STAGES}
    return {name: ", ".join(metrics["warnings"]) for name, metrics in trained.items() if metrics.get("train_rows") == 0}


def _choices(layout: Layout) -> dict[str, dict[str, Any]]:
    """Stage → what was ``taken``, ``why``, and what was ``tried``: by name, its scores on the inner folds."""
    choices = {}
    for name in POSTS_STAGES:
        choice = (_optional(layout.details(name)) or {}).get("posts", {}).get("choice", {})
        choices[name] = choice if len(choice.get("tried", {})) > 1 else None
    source = (_optional(layout.details("train_source")) or {}).get("sentiment", {}).get("features", {})
    target = (_optional(layout.details("finetune_e2e")) or {}).get("sentiment", {})
    for name, choice in {"train_source": source.get("choice", {}), "finetune_e2e": target}.items():
        choices[name] = {**choice, "tried": choice["candidates"]} if "candidates" in choice else None
    return {name: choice for name, choice in choices.items() if choice is not None}


def _errors(params: Params, layout: Layout) -> Errors:
    for path in (layout.plots("evaluate") / "errors.csv", layout.table("posts")):
        if not path.is_file():
            return Errors(0, [], path.relative_to(layout.root).as_posix())
    errors = gallery.read_errors(layout)
    return Errors(len(errors), gallery.of_errors(errors.head(CARDS), params, layout))


def _curve_sizes(sentiment: dict[str, Any] | None) -> list[int]:
    """Numbers of training groups at which the learning curve was measured."""
    keys = (sentiment or {}).get("target", {}).get("curve", {})
    return sorted({int(size) for kind, _, size in (key.rpartition("_") for key in keys) if kind in CURVES})


def _settings(params: Params) -> list[Knob]:
    return [
        Knob(key, _yaml(reduce(getattr, key.split("."), params)), _yaml(default), field.description or "")
        for key, field, default in knobs.knobs(params)
    ]


def _yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"[{', '.join(_yaml(item) for item in value)}]" if isinstance(value, tuple) else str(value)


def _digests(layout: Layout) -> list[tuple[str, str]]:
    """What to compare two runs by: digests of files, of the rows that models were fitted on, of encoders' weights."""
    files = (
        layout.params,
        layout.dvc_lock,
        layout.metrics("evaluate"),
        layout.details("evaluate"),
        layout.table("posts"),
        layout.table("target"),
    )
    digests = [
        (path.relative_to(layout.root).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest())
        for path in files
        if path.is_file()
    ]
    for stage in (*POSTS_STAGES, *TRANSFER_STAGES):
        description = _optional(layout.model(stage) / "model.json") or {}
        if "fitted" in description:
            digests.append((f"{stage}: rows it was fitted on", description["fitted"]["digest"]))
        encoder = description.get("encoder") or {}
        for stream in encoder.get("streams", {"": encoder}).values():
            if "sha256" in stream:
                digests.append((f"{stage}: weights of {stream['name']}", stream["sha256"]))
    return digests
