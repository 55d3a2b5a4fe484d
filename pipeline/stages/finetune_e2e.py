"""Carries the source model to the target: adapters, model and text encoder are tuned together on the target's labels.

A fold's model is the simplest of several that inner folds find no better one for: ridge regression, the source's text
model, a text model of the target's own words, what the source says through the adapters weighed against ridge, and all
of this tuned: the source model's head first, while the adapters stand still, then everything at a small rate (LP-FT;
Kumar et al. 2022). It is fitted on training and validation rows; but for the adapters, no epoch is chosen by rows.

Reads:  data/split/{source,target,target_folds}.parquet, data/embeddings/{source,target}/*.parquet,
        models/train_source/, models/train_adapters/.
Writes: models/finetune_e2e/, metrics/finetune_e2e.json, metrics/details/finetune_e2e.json, plots/finetune_e2e/.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pipeline.core import artifacts, off
from pipeline.core.fitted import write_fitted
from pipeline.core.layout import Layout
from pipeline.core.metrics import write_metrics
from pipeline.core.parallel import in_processes
from pipeline.core.schemas import FINAL, subset_name
from pipeline.params import Params
from pipeline.scoring import sentiment
from pipeline.sentiment.data import FinetuneJob, Target, fold_names, inputs, of_fold, read_target
from pipeline.sentiment.descriptions import FinetunedDescription
from pipeline.sentiment.finetuning import FinetuneOutcome, curve_jobs, outcome_of, tune
from pipeline.sentiment.variants import Variant
from pipeline.training.checkpoint import write_model
from pipeline.training.device import pick, workers
from pipeline.training.finished import CachedWork, finished


def run(params: Params, layout: Layout) -> None:
    if off.left_empty("finetune_e2e", "sentiment", layout):
        return
    target = read_target(layout)
    folds = fold_names(target.folds)
    kept = finished("finetune_e2e", _settings(params), inputs(layout, "train_source", "train_adapters"), layout.cache)
    jobs = [FinetuneJob(of_fold(params, fold), layout, fold, kept) for fold in folds]
    jobs += curve_jobs(target, folds, params, layout, kept)
    processes = workers(params.processes, params.device)
    tuned = in_processes(CachedWork(kept, FinetuneJob.name, tune), jobs, processes, "finetune_e2e")
    outcomes = [outcome_of(fields) for fields in tuned]
    final = outcomes[folds.index(FINAL)]
    predictions = pd.concat([item.predictions for item in outcomes])
    if not any("group_context" in item.report for item in outcomes):
        predictions = predictions[predictions["step"] != "finetuned_alone"]  # the same twice
    with artifacts.replacing_folder(layout.model("finetune_e2e")) as folder:
        artifacts.write_scores(folder / "predictions.parquet", predictions)
        assert final.model is not None
        known = target.scores[target.rows(FINAL, "train", "val")]
        description = FinetunedDescription(
            stage="finetune_e2e",
            modalities=target.columns.modalities,
            used=final.model.used,
            folds=tuple(folds),
            level=params.target.level,
            net=final.model.net,
            words=final.model.words,
            scores=(known.min().item(), known.max().item()),
            context=final.model.context,
            choices={fold: outcome.report for fold, outcome in zip(folds, outcomes, strict=False)},
            seed=params.seed,
            fitted=write_fitted(folder, pd.concat([target.fitted(fold) for fold in folds])),
            parents=("train_adapters",),
        )
        write_model(folder, final.model.weights, description)
    _report(target, dict(zip(folds, outcomes, strict=False)), layout)
    kept.clear()


def _settings(params: Params) -> dict[str, Any]:
    """What the jobs depend on beside the files that they read."""
    blocks = {"adapter": params.adapter, "finetune_e2e": params.finetune_e2e, "text": params.embed.text}
    plain = {"seed": params.seed, "device": str(pick(params.device)), "level": params.target.level}
    return {
        **plain,
        "val_share": params.target.val_share,
        **{name: block.model_dump(mode="json") for name, block in blocks.items()},
    }


# --- report ----------------------------------------------------------------------------------------------------------


def _report(target: Target, outcomes: Mapping[str, FinetuneOutcome], layout: Layout) -> None:
    """Scores the validation rows of the fold ``final``; rows to be scored are left to `evaluate`."""
    final = outcomes[FINAL]
    whole = Variant("finetuned", subset_name(target.columns.modalities)).of(final.predictions)
    val = whole[whole["split"] == "val"]
    actual = target.table.set_index("sample_id").loc[val["sample_id"], "score"].to_numpy()
    metrics = {**final.report, "val": sentiment.report(actual, val["score"].to_numpy())}
    metrics["folds"] = {fold: outcome.report for fold, outcome in outcomes.items() if fold != FINAL}
    write_metrics(layout, "finetune_e2e", {"sentiment": metrics})
    with artifacts.replacing_folder(layout.plots("finetune_e2e")) as plots:
        artifacts.write_csv(plots / "history.csv", final.history)
