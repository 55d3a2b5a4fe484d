"""Trains, for each modality, an adapter from the target's columns to the source's.

Twice: without the target's labels (``zero_shot``), and with those of its training rows (``adapted``). Labels settle the
orientation of the space; so does what the source's text model says of the target's words, where there are any. Under
cross-validation each fold has adapters of its own, which meet neither the labels nor the features of the rows that the
fold is scored on. Only `embed` met these features before: under cross-validation the features of all labelled rows
choose and fill the columns of every fold; it reads no label.

Modalities that were extracted alike in both corpora are the source's as they are, and have no adapter that learns.

Reads:  data/split/{source,target,target_folds}.parquet, data/embeddings/{source,target}/*.parquet,
        models/train_source/.
Writes: models/train_adapters/, metrics/train_adapters.json, metrics/details/train_adapters.json, plots/train_adapters/.
"""

import sys
from collections.abc import Sequence

import pandas as pd

from pipeline.core import artifacts, off
from pipeline.core.fitted import write_fitted
from pipeline.core.layout import Layout
from pipeline.core.metrics import write_metrics
from pipeline.core.parallel import in_processes
from pipeline.core.schemas import FINAL
from pipeline.params import Params
from pipeline.sentiment.adapters import HISTORY_COLUMNS, AdapterJob, AdapterOutcome, adapt, describe_adapter
from pipeline.sentiment.data import fold_names, inputs, of_fold, read_target
from pipeline.sentiment.descriptions import AdapterReport, AdaptersDescription
from pipeline.sentiment.source_model import read_source
from pipeline.training.checkpoint import write_model
from pipeline.training.device import pick, workers
from pipeline.training.finished import CachedWork, finished


def run(params: Params, layout: Layout) -> None:
    if off.left_empty("train_adapters", "sentiment", layout):
        return
    target = read_target(layout)
    folds = fold_names(target.folds)
    jobs = [AdapterJob(of_fold(params, fold), layout, fold) for fold in folds]
    plain = {"seed": params.seed, "device": str(pick(params.device))}
    settings = {**plain, "adapter": params.adapter.model_dump(mode="json")}
    kept = finished("train_adapters", settings, inputs(layout, "train_source"), layout.cache)
    processes = workers(params.processes, params.device)
    adapted = in_processes(CachedWork(kept, AdapterJob.name, adapt), jobs, processes, "train_adapters")
    outcomes = {fold: AdapterOutcome(**outcome) for fold, outcome in zip(folds, adapted, strict=True)}
    final = outcomes[FINAL]
    source = read_source(layout)
    with artifacts.replacing_folder(layout.model("train_adapters")) as folder:
        artifacts.write_scores(
            folder / "predictions.parquet", pd.concat([outcomes[fold].predictions for fold in folds])
        )
        weights = {f"{fold}|{name}": value for fold in folds for name, value in outcomes[fold].weights.items()}
        description = AdaptersDescription(
            stage="train_adapters",
            modalities=source.modalities,
            folds=tuple(folds),
            net={name: describe_adapter(target, source, name, params) for name in source.modalities},
            adapters={name: AdapterReport(**final.report["adapted"][name]) for name in source.modalities},
            zero_shot_adapters={name: AdapterReport(**final.report["zero_shot"][name]) for name in source.modalities},
            seed=params.seed,
            fitted=write_fitted(folder, pd.concat([target.fitted(fold) for fold in folds])),
            parents=("train_source",),
        )
        write_model(folder, weights, description)
    _report(final, [name for name in source.modalities if name in target.as_source], layout)
    kept.clear()


# --- report ----------------------------------------------------------------------------------------------------------


def _report(final: AdapterOutcome, as_they_are: Sequence[str], layout: Layout) -> None:
    """Losses and distances of the fold ``final``; scores are left to `evaluate`."""
    if as_they_are:
        names = ", ".join(as_they_are)
        print(
            f"train_adapters: {names}: extracted alike in source and target, so no adapter is needed", file=sys.stderr
        )
    alike = {"extracted_alike": ", ".join(as_they_are)} if as_they_are else {}
    write_metrics(layout, "train_adapters", {"sentiment": final.report | alike})
    with artifacts.replacing_folder(layout.plots("train_adapters")) as plots:
        artifacts.write_csv(plots / "history.csv", final.history[HISTORY_COLUMNS])
