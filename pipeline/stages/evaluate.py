"""Scores the test rows of the tracks that are on, which no model has seen, and shows where and why the fusion errs.

Nothing is scored before the rows that every model in the lineage was fitted on have been checked against the test rows.
Whatever a choice was needed for, such as the baseline to compare with, was chosen on validation rows. The source →
target track is scored in ``sentiment/evaluation.py``.

Reads:  data/split/posts.parquet, data/embeddings/posts/*.parquet, models/{train_text,train_image,train_video,fuse}/,
        of the posts' media what the contact sheet shows, and what ``sentiment/track.py`` names.
Writes: metrics/evaluate.json, metrics/details/evaluate.json, plots/evaluate/.
"""

from threadpoolctl import threadpool_limits

from pipeline.core import artifacts, off
from pipeline.core.layout import Layout
from pipeline.core.metrics import write_metrics
from pipeline.params import Params
from pipeline.posts.evaluation import evaluate_posts
from pipeline.sentiment import evaluation as sentiment_evaluation


def run(params: Params, layout: Layout) -> None:
    # With more threads its many small products wait for each other, above all beside another busy process.
    with artifacts.replacing_folder(layout.plots("evaluate")) as plots, threadpool_limits(1, user_api="blas"):
        metrics = {}
        if not off.is_off("posts", layout):
            metrics["posts"] = evaluate_posts(params, layout, plots)
        if not off.is_off("sentiment", layout):
            metrics["sentiment"] = sentiment_evaluation.run(params, layout, plots)
    write_metrics(layout, "evaluate", metrics)
