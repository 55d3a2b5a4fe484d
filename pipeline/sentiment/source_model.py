"""The source model: a score from the source's features, and the space that adapters lead to."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pipeline.core import artifacts
from pipeline.core.descriptions import read_description
from pipeline.core.fitted import fitted_rows
from pipeline.core.layout import Layout
from pipeline.core.schemas import FINAL, Feature, FeatureSubset, subset_name, subsets_of
from pipeline.nets.transfer import ScoreNet
from pipeline.params import Params
from pipeline.sentiment.data import FeatureColumns, read_columns
from pipeline.sentiment.descriptions import SourceDescription
from pipeline.sentiment.source_candidates import SourceChoice, SourceRows, choose, fit_final
from pipeline.sentiment.variants import Variant
from pipeline.training.checkpoint import load_weights
from pipeline.training.device import one_thread
from pipeline.training.loop import predict
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

    def in_units(self, unit: float) -> "SourceSpace":
        """The same with scores in this unit."""
        net = copy.deepcopy(self.net)
        net.unit /= unit
        return replace(self, net=net, scores={name: scores / unit for name, scores in self.scores.items()})


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


def score(net: ScoreNet, columns: FeatureColumns, subset: FeatureSubset) -> np.ndarray:
    """float32 [N]: the source model's scores of rows in its own space; a modality that it lacks is ignored."""
    rows = len(next(iter(columns.present.values())))
    known = columns.at(np.arange(rows), subset)
    names = [name for name in columns.modalities if name in subset] or columns.modalities
    inputs = tuple({name: by_modality[name] for name in names} for by_modality in known)
    return predict(net, TensorRows(inputs, torch.zeros(rows), BATCH), torch.device("cpu"))[:, 0]


@dataclass(frozen=True)
class SourceFit:
    """The source model, how it was chosen, and its scores of all rows of the source by each subset of modalities."""

    net: ScoreNet
    choice: SourceChoice
    predictions: pd.DataFrame


def fit_source_model(table: pd.DataFrame, columns: FeatureColumns, params: Params) -> SourceFit:
    """Chooses on inner folds of the training and validation rows, and fits what was taken on all of these.

    Args:
        table: the source's N rows, with the columns of ``schemas.SCORED_TABLE``.
        columns: their features.
    """
    source = SourceRows(table, columns, params)
    with one_thread():
        choice = choose(source)
        net = fit_final(source, choice)
        tables = [predicted_scores(table, score(net, columns, part), part) for part in subsets_of(columns.modalities)]
    return SourceFit(net, choice, pd.concat(tables, ignore_index=True))


def predicted_scores(rows: pd.DataFrame, scores: np.ndarray, subset: FeatureSubset) -> pd.DataFrame:
    """The predictions of a model of the source for its rows by these modalities, as ``schemas.SCORES_TABLE``."""
    variant = Variant("source", subset_name(subset))
    return rows[["sample_id", "split"]].assign(fold=FINAL, **variant._asdict(), score=scores.astype(np.float64))


def source_fitted(samples: pd.DataFrame) -> pd.DataFrame:
    """The rows that a model of the source's table was fitted on: those for training and validation."""
    train, val = (np.flatnonzero(samples["split"] == part) for part in ("train", "val"))
    return fitted_rows(samples, FINAL, train, val)
