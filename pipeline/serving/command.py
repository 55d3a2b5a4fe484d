"""What ``python -m pipeline predict`` does with one post, a table of posts, a pipe, one line of words, or a corpus."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline import params
from pipeline.core.descriptions import read_description
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.core.terminal import printable
from pipeline.core.tracks import Track
from pipeline.scoring.conformal import COVERAGE
from pipeline.sentiment.descriptions import FinetunedDescription
from pipeline.serving import bundle as bundles
from pipeline.serving import lines, post_table, score_table, table
from pipeline.serving.options import PredictOptions
from pipeline.serving.posts import Post
from pipeline.serving.predictor import Predictor
from pipeline.serving.ray_tables import RayWorkers
from pipeline.serving.score_predictor import Sample, ScorePredictor

WORKERS = 2
"""Processes of a Ray cluster that predict, unless another number is asked for."""


def predict(options: PredictOptions) -> bool:
    """Predicts what was asked, by the model of the track that answers it; says whether every line of a pipe was good.

    Raises InputError where there is nothing to predict, or no model to do so.
    """
    inputs, bundle, project, coverage = options.inputs, options.bundle, options.project, options.coverage
    if inputs.corpus is not None and options.out is not None:
        on = ray_workers(options.ray, options.workers, score_predictor, bundle, project)
        predict_score_table(score_predictor(bundle, project), inputs.corpus, options.out, coverage, on)
        return True
    track = options.track
    if track is None and inputs.post_options == ["--text"]:
        track = track_of_words(bundle, project)
    if track == "sentiment" and inputs.text is not None:
        predict_one_score(score_predictor(bundle, project), inputs.text, coverage, as_json=options.as_json)
        return True
    posts = predictor(bundle, project)
    if inputs.manifest is not None and options.out is not None:
        on = ray_workers(options.ray, options.workers, predictor, bundle, project)
        predict_table(
            posts, inputs.manifest, options.out, options.media, coverage, explain=options.explain, ray_workers=on
        )
    elif inputs.post_options:
        post = Post(inputs.text, inputs.image, inputs.video)
        predict_one(posts, post, coverage, explain=options.explain, as_json=options.as_json)
    else:
        return predict_lines(posts, coverage, explain=options.explain)
    return True


def tracks(bundle: Path | None, project: Path) -> list[Track]:
    """What a bundle answers, or the models of a project if none is given. Raises InputError where it is no bundle."""
    return bundles.trained_tracks(Layout(project)) if bundle is None else bundles.tracks_of(bundle)


def track_of_words(bundle: Path | None, project: Path) -> Track:
    """Whose model a line of words is for: that of posts, unless there is none and that of scores reads words.

    Where neither can answer it is for posts, which then says what is missing, unless that track is off.
    """
    if "posts" in tracks(bundle, project):
        return "posts"
    if bundle is not None:
        return "sentiment"
    layout = Layout(project)
    reads_words = read_description(layout.model("finetune_e2e"), FinetunedDescription).words is not None
    return "sentiment" if reads_words or "posts" not in params.load(layout.params).tracks else "posts"


def predictor(bundle: Path | None, project: Path, max_pixels: int | None = None) -> Predictor:
    """From a bundle if one is given, otherwise from the project's own models; ``max_pixels`` may lower its limit."""
    if bundle is not None:
        loaded = Predictor.load(bundle)
    else:
        layout = Layout(project)
        loaded = Predictor.of_project(params.load(layout.params), layout)
    embed = loaded.model.embed
    if max_pixels is not None and max_pixels < embed.max_pixels:
        loaded.model = replace(loaded.model, embed=embed.model_copy(update={"max_pixels": max_pixels}))
    return loaded


def score_predictor(bundle: Path | None, project: Path) -> ScorePredictor:
    """From a bundle if one is given, otherwise from the project's own model."""
    if bundle is not None:
        return ScorePredictor.load(bundle)
    layout = Layout(project)
    return ScorePredictor.of_project(params.load(layout.params), layout)


def ray_workers(
    address: str | None,
    workers: int | None,
    load: Callable[[Path | None, Path], Any],
    bundle: Path | None,
    project: Path,
) -> RayWorkers | None:
    """The processes of a Ray cluster that are to predict a table, where an address is given."""
    if address is None:
        return None
    return RayWorkers(address, workers or WORKERS, partial(load, bundle and bundle.resolve(), project.resolve()))


def predict_one(predictor: Predictor, post: Post, coverage: float | None, *, explain: bool, as_json: bool) -> None:
    """Prints one prediction. Raises InputError when nothing of the post can be used."""
    (prediction,) = predictor.predict([post], coverage)
    if prediction.refusal:
        raise InputError(prediction.refusal)
    explanation = predictor.explain(post) if explain else None
    if as_json:
        print(json.dumps(prediction.as_json() | (explanation.as_field() if explanation else {}), indent=2))
    else:
        table.show(Console(), prediction, explanation)


def predict_table(
    predictor: Predictor,
    manifest: Path,
    out: Path,
    media: Path | None,
    coverage: float | None,
    *,
    explain: bool,
    ray_workers: RayWorkers | None = None,
) -> None:
    """Predicts a table of posts; media paths are relative to its own folder unless another is given."""
    folder = media or manifest.parent
    unusable = post_table.predict_manifest(
        predictor, manifest, out, folder, coverage, explain=explain, ray_workers=ray_workers
    )
    why = f"; rows of which something could not be used, as column reason says: {unusable}" if unusable else ""
    print(f"{printable(str(out))}: written{why}", file=sys.stderr)


def predict_lines(predictor: Predictor, coverage: float | None, *, explain: bool) -> bool:
    """Answers standard input line by line; says whether every line was good."""
    # Without Python's buffer, which waits for more than one line.
    source = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
    return lines.answer(predictor, source, sys.stdout, coverage, explain=explain) == 0


def predict_one_score(predictor: ScorePredictor, text: str, coverage: float | None, *, as_json: bool) -> None:
    """Prints the score of one line of words. Raises InputError when the model reads no words, or there are none."""
    coverage = COVERAGE if coverage is None else coverage
    (score,) = predictor.predict([Sample(text)], coverage)
    if score.score is None:
        raise InputError(f"nothing to score: {score.reason}")
    if as_json:
        print(json.dumps(score.as_json(), indent=2))
    else:
        score_table.show(Console(), score, predictor.model.description.scores, coverage)


def predict_score_table(
    predictor: ScorePredictor, corpus: Path, out: Path, coverage: float | None, ray_workers: RayWorkers | None = None
) -> None:
    """Scores a corpus of features."""
    without = score_table.score_corpus(predictor, corpus, out, COVERAGE if coverage is None else coverage, ray_workers)
    why = f"; rows without a score, as column reason says: {without}" if without else ""
    print(f"{printable(str(out))}: written{why}", file=sys.stderr)
