"""Trains the source model: a score from the source's features, and, where the source has words, from its texts.

The text model is a text encoder tuned on the source's own words. Target and source share it, so it needs no adapter.

Reads:  data/split/{source,source_texts,target}.parquet, data/embeddings/{source,target}/*.parquet.
Writes: models/train_source/ (with ``text/``: the text model, and the target's text vectors by it),
        metrics/train_source.json, metrics/details/train_source.json, plots/train_source/.
"""

import numpy as np
import pandas as pd

from pipeline.core import artifacts, off
from pipeline.core.fitted import write_fitted
from pipeline.core.layout import Layout
from pipeline.core.metrics import write_metrics
from pipeline.params import Params
from pipeline.scoring import sentiment
from pipeline.sentiment.data import read_columns, shared_modalities
from pipeline.sentiment.descriptions import SourceDescription
from pipeline.sentiment.source_candidates import SourceChoice, describe_source
from pipeline.sentiment.source_model import fit_source_model, source_fitted
from pipeline.sentiment.text_model import TextFit, train_text_model
from pipeline.training.checkpoint import write_model
from pipeline.training.loop import HISTORY


def run(params: Params, layout: Layout) -> None:
    if off.left_empty("train_source", "sentiment", layout):
        return
    source = artifacts.read_scored(layout.table("source"))
    modalities = shared_modalities(source, layout)
    columns = read_columns(layout, "source", source, modalities)
    fitted = fit_source_model(source, columns, params)
    texts = artifacts.read_scored(layout.table("source_texts"))
    with artifacts.replacing_folder(layout.model("train_source")) as folder:
        description = SourceDescription(
            stage="train_source",
            modalities=columns.modalities,
            net=describe_source(columns, params.train_source, fitted.net.unit),
            seed=params.seed,
            best_epoch=fitted.choice.epochs or None,
            fitted=write_fitted(folder, source_fitted(source)),
        )
        artifacts.write_scores(folder / "predictions.parquet", fitted.predictions)
        write_model(folder, fitted.net, description)
        (folder / "text").mkdir()
        text_fit = train_text_model(texts, folder / "text", params, layout)
    _report(source, fitted.choice, text_fit, layout)


# --- report ----------------------------------------------------------------------------------------------------------


def _report(
    source: pd.DataFrame,
    choice: SourceChoice,
    text_fit: TextFit | None,
    layout: Layout,
) -> None:
    """Scores features on the rows that inner folds held out; test rows are left to `evaluate`."""
    scores = source["score"].to_numpy(np.float64)[choice.rows]
    metrics = {"features": {"choice": choice.report, "out_of_fold": sentiment.report(scores, choice.held)}}
    if text_fit:
        metrics["text"] = {"rows": text_fit.rows}
    write_metrics(layout, "train_source", {"sentiment": metrics})
    with artifacts.replacing_folder(layout.plots("train_source")) as plots:
        artifacts.write_csv(plots / "history.csv", choice.history)
        if text_fit:
            artifacts.write_csv(plots / "history_text.csv", pd.DataFrame(text_fit.history, columns=HISTORY))
