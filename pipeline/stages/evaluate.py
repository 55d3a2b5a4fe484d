"""Scores the test rows of the tracks that are on, which no model has seen, and shows where and why the fusion errs.

Nothing is scored before the rows that every model in the lineage was fitted on have been checked against the test rows.
Whatever a choice was needed for, such as the baseline to compare with, was chosen on validation rows. The source →
target track is scored in ``sentiment/evaluation.py``.

Reads:  data/split/posts.parquet, data/embeddings/posts/*.parquet, models/{train_text,train_image,train_video,fuse}/,
        of the posts' media what the contact sheet shows, and what ``sentiment/track.py`` names.
Writes: metrics/evaluate.json, metrics/details/evaluate.json, plots/evaluate/.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core import artifacts, off
from pipeline.core.layout import Layout
from pipeline.core.metrics import write_metrics
from pipeline.core.parallel import in_processes
from pipeline.core.tracks import TRACKS, Track
from pipeline.params import Params
from pipeline.posts.evaluation import evaluate_posts
from pipeline.sentiment import evaluation as sentiment_evaluation


def run(params: Params, layout: Layout) -> None:
    with artifacts.replacing_folder(layout.plots("evaluate")) as plots:
        jobs = [EvaluateJob(track, params, layout, plots) for track in TRACKS if not off.is_off(track, layout)]
        scored = list(in_processes(evaluate_track, jobs, params.processes, "evaluate, tracks"))
    write_metrics(layout, "evaluate", {job.track: metrics for job, metrics in zip(jobs, scored, strict=True)})


@dataclass(frozen=True)
class EvaluateJob:
    """A track to score, whose figures are drawn into ``plots``."""

    track: Track
    params: Params
    layout: Layout
    plots: Path


def evaluate_track(job: EvaluateJob) -> dict[str, Any]:
    """The metrics of a track."""
    evaluate = evaluate_posts if job.track == "posts" else sentiment_evaluation.run
    return evaluate(job.params, job.layout, job.plots)
