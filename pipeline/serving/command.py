"""What ``python -m pipeline predict`` does with one post, with a table of posts and with a pipe."""

import json
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from pipeline import params
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.serving import lines, manifest, table
from pipeline.serving.posts import Post
from pipeline.serving.predictor import Predictor


def predictor(bundle: Path | None, project: Path, max_pixels: int | None = None) -> Predictor:
    """From a bundle if one is given, otherwise from the project's own models; ``max_pixels`` may lower its limit."""
    if bundle is not None:
        found = Predictor.load(bundle)
    else:
        layout = Layout(project)
        found = Predictor.of_project(params.load(layout.params), layout)
    embed = found.model.embed
    if max_pixels is not None and max_pixels < embed.max_pixels:
        found.model = replace(found.model, embed=embed.model_copy(update={"max_pixels": max_pixels}))
    return found


def one(using: Predictor, post: Post, coverage: float | None, *, explain: bool, as_json: bool) -> None:
    """Prints one prediction. Raises InputError when nothing of the post can be used."""
    (prediction,) = using.predict([post], coverage)
    if all(part.state != "present" for part in prediction.parts.values()):
        raise InputError(f"nothing to predict from: {prediction.reasons}")
    explanation = using.explain(post) if explain else None
    if as_json:
        print(json.dumps(prediction.as_json() | (explanation.as_field() if explanation else {}), indent=2))
    else:
        table.show(Console(), prediction, explanation)


def rows(
    using: Predictor, posts: Path, out: Path, media: Path | None, coverage: float | None, *, explain: bool
) -> None:
    """Predicts a table of posts; media paths are relative to its own folder unless another is given."""
    unusable = manifest.predict_manifest(using, posts, out, media or posts.parent, coverage, explain=explain)
    if unusable:
        print(f"{out}: in {unusable} rows something could not be used; see the column reason", file=sys.stderr)


def pipe(using: Predictor, coverage: float | None, *, explain: bool) -> bool:
    """Answers standard input line by line; says whether every line was good."""
    # Without Python's buffer, which waits for more than one line.
    source = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
    return lines.answer(using, source, sys.stdout, coverage, explain=explain) == 0
