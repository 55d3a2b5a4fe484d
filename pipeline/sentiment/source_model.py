"""The source model: a score from the source's features, and the space that adapters lead to."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pipeline.core import artifacts
from pipeline.core.descriptions import read_description
from pipeline.core.fitted import fitted_rows
from pipeline.core.layout import Layout
from pipeline.core.schemas import FINAL, Feature, Subset, subset_name, subsets_of
from pipeline.nets.losses import mixed
from pipeline.nets.transfer import ScoreNet
from pipeline.params import Params, TrainSourceParams
from pipeline.scoring.sentiment import concordance
from pipeline.sentiment.data import FeatureColumns, read_columns
from pipeline.sentiment.descriptions import ScoreNetArguments, SourceDescription
from pipeline.sentiment.variants import Variant
from pipeline.training.checkpoint import load_weights
from pipeline.training.device import one_thread, pick
from pipeline.training.loop import FitResult, TrainingPlan, fit, predict
from pipeline.training.optim import adamw
from pipeline.training.rows import TensorRows

BATCH = 4096


@dataclass(frozen=True)
class SourceSpace:
    """The source model, and what the adapters are to meet: its training rows.

    Attributes:
        rows: modality → float32 [n, columns], the training rows that have it.
        scores: modality → float32 [n].
    """

    net: ScoreNet
    modalities: tuple[Feature, ...]
    rows: Mapping[str, Tensor]
    scores: Mapping[str, Tensor]


def read_source(layout: Layout) -> SourceSpace:
    """Rebuilds the source model from ``models/train_source``."""
    folder = layout.model("train_source")
    modalities = read_description(folder, SourceDescription).modalities
    net = load_source_model(folder)
    table = artifacts.read_scored(layout.table("source"))
    columns = read_columns(layout, "source", table, modalities)
    train = torch.from_numpy(np.array(table["split"] == "train"))
    scores = torch.from_numpy(table["score"].to_numpy(np.float32))
    kept = {name: train & columns.present[name] for name in modalities}
    return SourceSpace(
        net,
        modalities,
        {name: columns.vectors[name][kept[name]] for name in modalities},
        {name: scores[kept[name]] for name in modalities},
    )


def load_source_model(folder: Path) -> ScoreNet:
    """The source model in a folder, ready to predict; it does not learn."""
    net = ScoreNet(**read_description(folder, SourceDescription).net.arguments())
    load_weights(folder, net)
    return net.requires_grad_(False).eval()


def score(net: ScoreNet, columns: FeatureColumns, subset: Subset) -> np.ndarray:
    """float32 [N]: what the source model says of rows in its own space; a modality that it lacks tells it nothing."""
    rows = len(next(iter(columns.present.values())))
    known = columns.at(np.arange(rows), subset)
    given = [name for name in columns.modalities if name in subset] or columns.modalities
    inputs = tuple({name: of[name] for name in given} for of in known)
    return predict(net, TensorRows(inputs, torch.zeros(rows), BATCH), torch.device("cpu"))[:, 0]


MSE, MAE, CORRELATION = 0.3, 1.0, 0.3
"""Weights of the loss: mostly the absolute error, as scores are noisy; a little of the others for spread and order."""


def fit_source_model(
    source: pd.DataFrame, columns: FeatureColumns, params: Params
) -> tuple[ScoreNet, FitResult, pd.DataFrame]:
    block = params.train_source
    split = source["split"].to_numpy()
    train, val = (np.flatnonzero(split == part) for part in ("train", "val"))
    scores = torch.from_numpy(source["score"].to_numpy(np.float32))
    torch.manual_seed(params.seed)
    net = ScoreNet(**describe_source(columns, block).arguments())
    net.standardise_like(*columns.at(train))
    device = pick(params.device)
    with one_thread():
        fit_result = fit(
            net,
            TensorRows(columns.at(train), scores[train], block.batch),
            TensorRows(columns.at(val), scores[val], block.batch),
            objective=mixed(MSE, MAE, CORRELATION),
            score=concordance,
            optimizer=adamw([(net, block.learning_rate)], block.weight_decay),
            plan=TrainingPlan(block.epochs, block.patience, params.seed),
            device=device,
            what="train_source",
        )
        tables = []
        everything = np.arange(len(source))
        for subset in subsets_of(columns.modalities):
            predicted = predict(net, TensorRows(columns.at(everything, subset), scores, block.batch), device)[:, 0]
            tables.append(predicted_scores(source, predicted, subset))
    return net, fit_result, pd.concat(tables, ignore_index=True)


def describe_source(columns: FeatureColumns, block: TrainSourceParams) -> ScoreNetArguments:
    """The net for these columns, as ``model.json`` describes it."""
    shape = block.model_dump(include={"width", "heads", "hidden", "dropout", "modality_dropout"})
    return ScoreNetArguments(widths=columns.widths, **shape)


def predicted_scores(rows: pd.DataFrame, scores: np.ndarray, subset: Subset) -> pd.DataFrame:
    """What a model of the source says of its rows by these modalities, as ``schemas.SCORES_TABLE``."""
    variant = Variant("source", subset_name(subset))
    return rows[["sample_id", "split"]].assign(fold=FINAL, **variant._asdict(), score=scores.astype(np.float64))


def source_fitted(samples: pd.DataFrame) -> pd.DataFrame:
    """The rows that a model of the source's table was fitted on: those for training and validation."""
    train, val = (np.flatnonzero(samples["split"] == part) for part in ("train", "val"))
    return fitted_rows(samples, FINAL, train, val)
