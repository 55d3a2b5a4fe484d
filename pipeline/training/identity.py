"""What the last digits of a training depend on beside its params and inputs: the code, and what computes."""

from importlib.metadata import version
from typing import Any

from pipeline.core.code import code_digest
from pipeline.training import distributed

COMPUTING = ("torch", "numpy", "pandas", "scikit-learn", "scipy", "transformers")
"""Packages whose version may change a result."""


def computing_identity() -> dict[str, Any]:
    """As JSON. What was kept of a run, whole or half done, is taken up only where this is the same."""
    return {
        "code": code_digest(),
        "versions": {name: version(name) for name in COMPUTING},
        **distributed.identity(),
    }
