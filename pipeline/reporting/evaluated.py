"""What `evaluate` measured, as pages, summaries and cards read it."""

from typing import Any

from pipeline.core import artifacts
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout


def read_evaluated(layout: Layout) -> dict[str, Any]:
    """``metrics/details/evaluate.json``. Raises InputError where nothing was evaluated, or by another version."""
    path = layout.details("evaluate")
    evaluated = artifacts.read_json(path)
    posts, sentiment = evaluated.get("posts") or {}, evaluated.get("sentiment") or {}
    warned = all(isinstance(of.get("warnings", []), list) for of in (posts, sentiment))
    if not warned or ("target" in sentiment and "taken" not in sentiment["target"]):
        raise InputError(f"{path}: was written by another version of this project; run `dvc repro`")
    return evaluated
