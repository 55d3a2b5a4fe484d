"""What `evaluate` measured, as pages, summaries and cards read it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jinja2 import TemplateError

from pipeline.core import artifacts
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout


def read_evaluated(layout: Layout) -> dict[str, Any]:
    """``metrics/details/evaluate.json``. Raises InputError where nothing was evaluated, or by another version."""
    path = layout.details("evaluate")
    evaluated = artifacts.read_json(path)
    posts, sentiment = evaluated.get("posts") or {}, evaluated.get("sentiment") or {}
    warned = all(isinstance(track.get("warnings", []), list) for track in (posts, sentiment))
    if not warned or ("target" in sentiment and "taken" not in sentiment["target"]):
        raise InputError(f"{path}: was written by another version of this project; run `dvc repro`")
    return evaluated


@contextmanager
def blaming_the_metrics(layout: Layout) -> Iterator[None]:
    """Metrics are read as they are shown, value by value: what one cannot be shown for raises InputError.

    That is a word in place of a number, or a number that is not there, in a file that was edited, merged by hand or
    written by another version. The cause stays attached, for whoever looks for a fault of ours.
    """
    try:
        yield
    except UnicodeError:  # a terminal that has no sign for a letter is no matter of metrics
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, TemplateError) as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"{layout.details('evaluate').parent}: a file of it was changed or is of another version ({why}); "
            "run `dvc repro`"
        ) from error
