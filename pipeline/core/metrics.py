"""What a stage measured, in two files: the few numbers that a person compares, and all of them.

``metrics/<stage>.json`` is what ``dvc metrics show``, ``dvc metrics diff`` and ``python -m pipeline compare`` read;
``metrics/details/<stage>.json`` is read by the report, the summary and the model card.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.core import artifacts
from pipeline.core.layout import Layout

_SPECIALIST = {"posts.rows": "posts.train_rows", "posts.out_of_fold.macro_f1": "posts.out_of_fold.macro_f1"}
_EVALUATED = (
    "posts.fusion.macro_f1",
    "posts.fusion.macro_f1_ci_low",
    "posts.fusion.macro_f1_ci_high",
    "posts.text.macro_f1",
    "posts.image.macro_f1",
    "posts.video.macro_f1",
    "posts.fusion_minus_best_baseline.value",
    "sentiment.target.ridge.pearson",
    "sentiment.target.finetuned.pearson",
    "sentiment.target.finetuned.pearson_ci_low",
    "sentiment.target.finetuned.pearson_ci_high",
    "sentiment.target.finetuned.mae",
)

HEADLINES: dict[str, dict[str, str]] = {
    "split": {"posts.rows": "posts.rows", "target.rows": "target.rows", "built_in": "built_in"},
    "embed": {"posts.rows": "text.rows", "target.rows": "target.text.rows"},
    "train_text": _SPECIALIST,
    "train_image": _SPECIALIST,
    "train_video": _SPECIALIST,
    "train_source": {"sentiment.out_of_fold.pearson": "sentiment.features.out_of_fold.pearson"},
    "train_adapters": {},
    "finetune_e2e": {"sentiment.val.pearson": "sentiment.val.pearson"},
    "fuse": {"posts.out_of_fold.macro_f1": "posts.out_of_fold.macro_f1"},
    "evaluate": {name: name for name in _EVALUATED},
}
"""Stage → headline → where it stands in the details; dots nest.

DVC makes a column of every name, so stages share names: ``rows`` are those that a stage worked on, ``val`` the
validation rows. The adapters are only scored by `evaluate`, so their losses are details.
"""


def write_metrics(layout: Layout, stage: str, details: Mapping[str, Any]) -> None:
    """Writes both files of a stage; a headline that the details lack (absent, undefined) is left out.

    Raises ValueError for NaN and infinity: see ``artifacts.write_json``.
    """
    artifacts.write_json(layout.details(stage), dict(details))
    artifacts.write_json(layout.metrics(stage), headlines(stage, details))


def headlines(stage: str, details: Mapping[str, Any]) -> dict[str, Any]:
    """The headlines of a stage, nested."""
    nested: dict[str, Any] = {}
    for name, key in HEADLINES[stage].items():
        value = get_nested(details, key)
        if value is None:
            continue
        *parents, last = name.split(".")
        block = nested
        for parent in parents:
            block = block.setdefault(parent, {})
        block[last] = value
    return nested


def built_in(layout: Layout) -> tuple[str, ...]:
    """Which of ``posts``, ``source`` and ``target`` are the built-in examples; figures of them say nothing of real
    data. Empty where `split` did not say it.
    """
    path = layout.details("split")
    named = artifacts.read_json(path).get("built_in", "none") if path.is_file() else "none"
    return () if named == "none" else tuple(named.split(", "))


def get_nested(nested: Mapping[str, Any], key: str) -> Any:
    """What stands at a dotted key; None where nothing does."""
    value: Any = nested
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value
