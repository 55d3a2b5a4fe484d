"""An adapter a modality, from the target's columns to the source's, with and without the target's labels.

Without them, predictions of the source's text model stand in for their scores, where there is such a model and the
rows have words: it settles the orientation, which a match of two clouds leaves open.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from pipeline.core.descriptions import read_description
from pipeline.core.layout import Layout
from pipeline.core.schemas import Feature, subset_name, subsets_of
from pipeline.nets.adapter import Adapter
from pipeline.nets.losses import Objective, coral_loss, matching_loss
from pipeline.nets.transfer import ScoreNet
from pipeline.params import Params
from pipeline.scoring.matching import FeatureSet, match_to_source
from pipeline.scoring.units import score_unit
from pipeline.sentiment.data import FeatureColumns, Target, read_target
from pipeline.sentiment.descriptions import AdapterArguments, AdaptersDescription
from pipeline.sentiment.source_model import SourceSpace, read_source, score
from pipeline.sentiment.text_model import source_text_scores
from pipeline.sentiment.variants import Variant
from pipeline.training.checkpoint import load_weights
from pipeline.training.device import one_thread
from pipeline.training.loop import FitResult, TrainingPlan, fit
from pipeline.training.optim import adamw
from pipeline.training.rows import TensorRows

STEPS = ("zero_shot", "adapted")

COMPONENTS = 8
"""Principal components that a linear adapter sees, unless params say otherwise."""

HISTORY_COLUMNS = ["modality", "step", "epoch", "train_loss", "val_loss"]


@dataclass(frozen=True)
class AdapterJob:
    params: Params
    layout: Layout
    fold: str

    def name(self) -> str:
        return self.fold


@dataclass(frozen=True)
class AdapterOutcome:
    """What a fold leaves: ``weights`` by adapter and tensor name, of the adapted step."""

    predictions: pd.DataFrame
    weights: dict[str, Tensor]
    report: dict[str, dict[str, dict[str, float]]]
    history: pd.DataFrame


def read_adapters(layout: Layout, fold: str) -> dict[str, Adapter]:
    """The adapted step's adapters of a fold, by modality."""
    folder = layout.model("train_adapters")
    adapters: dict[str, Adapter] = {}
    for name, arguments in read_description(folder, AdaptersDescription).net.items():
        adapters[name] = Adapter(**arguments.arguments())
        load_weights(folder, adapters[name], f"{fold}|{name}")
    return adapters


def describe_adapter(target: Target, source: SourceSpace, name: Feature, params: Params) -> AdapterArguments:
    """The adapter of a modality, as ``model.json`` describes it.

    With hidden layers there are no principal components unless ``components`` asks for them: the layers are to read the
    columns themselves.
    Where both corpora were extracted alike it is the identity.
    """
    width, out = target.columns.widths[name], source.rows[name].shape[1]
    if name in target.as_source:
        return AdapterArguments(width=width, hidden=(), out=out, components=0, dropout=0.0, identity=True)
    overrides = getattr(params.adapter, name)
    hidden = params.adapter.hidden if overrides.hidden is None else overrides.hidden
    components = params.adapter.components if overrides.components is None else overrides.components
    return AdapterArguments(
        width=width,
        hidden=hidden,
        out=out,
        components=(0 if hidden else COMPONENTS) if components is None else components,
        dropout=params.adapter.dropout,
    )


def adapt(job: AdapterJob) -> dict[str, Any]:
    """Trains a fold's adapters, both times, and predicts the fold's rows with them: the fields of its outcome."""
    target, source = read_target(job.layout), read_source(job.layout)
    modalities = target.columns.modalities
    report: dict[str, dict[str, dict[str, float]]] = {}
    predictions, histories = [], []
    adapters: dict[str, Adapter] = {}
    with one_thread():
        predicted = source_text_scores(job.layout, target) if target.by_source_text else None
        known = {"zero_shot": _pseudo_labels(target, predicted), "adapted": target.scores}
        for step in STEPS:
            report[step] = {}
            for name in source.modalities:
                adapters[name], fit_result, report[step][name] = train_adapter(
                    name, target, source, job.fold, job.params, known[step]
                )
                histories.append(pd.DataFrame(fit_result.history).assign(modality=name, step=step))
            carried = carried_columns(adapters, target.columns)
            for subset in subsets_of(modalities):
                scores = score(source.net, carried, subset)
                predictions.append(target.predicted(job.fold, Variant(step, subset_name(subset)), scores))
    if predicted is not None:
        predictions.append(target.predicted(job.fold, Variant("text_transfer", subset_name(modalities)), predicted))
    weights = {f"{name}.{key}": value for name, net in adapters.items() for key, value in net.state_dict().items()}
    history = pd.concat([pd.DataFrame(columns=HISTORY_COLUMNS), *histories])
    return vars(AdapterOutcome(pd.concat(predictions), weights, report, history))


def _pseudo_labels(target: Target, predicted: np.ndarray | None) -> Tensor:
    """float32 [N]: the scores of the source's text model for the rows that have words; NaN for the others."""
    nothing = torch.full_like(target.scores, torch.nan)
    return nothing if predicted is None else torch.from_numpy(predicted).where(target.columns.present["text"], nothing)


def carried_columns(adapters: Mapping[str, Adapter], columns: FeatureColumns) -> FeatureColumns:
    """The target's features in the source's space."""
    with torch.inference_mode():
        vectors = {name: adapter.eval()(columns.vectors[name]) for name, adapter in adapters.items()}
    return FeatureColumns(vectors, {name: columns.present[name] for name in adapters})


class AdapterWithSource(nn.Module):
    """An adapter, and the frozen source model's prediction from its output alone, if needed.

    The source model is none of its modules: it is not trained, not copied with the weights of an epoch, and stays in
    evaluation.
    """

    def __init__(self, adapter: Adapter, source: ScoreNet | None, name: str) -> None:
        super().__init__()
        self.adapter = adapter
        self.source_scores = None if source is None else source.forward
        self.name = name

    def forward(self, vectors: Tensor, scored: Tensor) -> Tensor:
        """float32 [batch, width] and bool [batch] → float32 [batch, source columns + 1].

        The last column is the score of the rows that are ``scored``, the only ones whose own is known; zero of others.
        """
        adapted = self.adapter(vectors)
        scores = adapted.new_zeros(len(adapted), 1)
        if self.source_scores is not None and scored.any():
            known = adapted[scored]
            present = torch.ones(len(known), dtype=torch.bool, device=adapted.device)
            predicted = self.source_scores({self.name: known}, {self.name: present})
            scores = scores.masked_scatter(scored[:, None], predicted)
        return torch.cat([adapted, scores], dim=1)


def train_adapter(
    name: Feature, target: Target, source: SourceSpace, fold: str, params: Params, known: Tensor
) -> tuple[Adapter, FitResult, dict[str, float]]:
    """The adapter of one modality, the result of its fit, and how far from the source its output was before and after.

    It meets the features of the fold's training and validation rows and of the rows without a score, and those of
    their scores that are ``known``, float32 [N] with NaN elsewhere; none with ``label_weight`` 0. It stays as it is
    initialised where the fold has no training or no validation row with the modality, or the source fewer than two;
    and where it is the identity.
    """
    block = params.adapter
    present = target.columns.present[name].numpy()
    train = np.concatenate([target.rows(fold, "train"), target.unlabelled])
    train, val = (rows[present[rows]] for rows in (train, target.rows(fold, "val")))
    both = np.concatenate([train, val])
    scores = known[torch.from_numpy(both)] if block.label_weight else torch.full((len(both),), torch.nan)
    unit = score_unit(scores.numpy())
    scores, source = scores / unit, source.in_units(unit)
    vectors, source_rows = target.columns.vectors[name][torch.from_numpy(both)], source.rows[name]
    pairs = target.pairs[name][torch.from_numpy(both)] if name in target.pairs else None

    torch.manual_seed(params.seed)
    adapter = Adapter(**describe_adapter(target, source, name, params).arguments())
    adapter.standardise_like(vectors[: len(train)], source_rows)
    before = _apart(adapter, vectors, source_rows)
    fit_result = FitResult(0, 0.0, [])
    if len(train) and len(val) and len(source_rows) > 1 and not adapter.identity:
        fit_result = _fit_adapter(adapter, name, vectors, pairs, scores, len(train), source, params)
    after = _apart(adapter, vectors, source_rows)
    losses = [line["train_loss"] for line in fit_result.history] or [0.0]
    report = {"first_loss": losses[0], "last_loss": losses[-1], "epochs": float(len(fit_result.history))}
    for key, (start, end) in {"mean": (before[0], after[0]), "spread": (before[1], after[1])}.items():
        report |= {f"{key}_distance_before": start, f"{key}_distance_after": end}
    return adapter, fit_result, report


def _fit_adapter(
    adapter: Adapter,
    name: Feature,
    vectors: Tensor,
    pairs: Tensor | None,
    scores: Tensor,
    train: int,
    source: SourceSpace,
    params: Params,
) -> FitResult:
    """Trains an adapter on the first ``train`` of the rows and stops by the others."""
    block, overrides = params.adapter, getattr(params.adapter, name)
    epochs = block.epochs if overrides.epochs is None else overrides.epochs
    if not epochs:
        return FitResult(0, 0.0, [])
    objective, places = _match(adapter, name, vectors, pairs, scores, source, params)
    labels, scored = torch.cat([torch.from_numpy(places), scores[:, None]], dim=1), scores.isfinite()
    return fit(
        AdapterWithSource(adapter, source.net if scored.any() else None, name),
        TensorRows((vectors[:train], scored[:train]), labels[:train], block.batch),
        TensorRows((vectors[train:], scored[train:]), labels[train:], block.batch),
        objective=objective,
        score=lambda adapted, actual: -objective(torch.from_numpy(adapted), torch.from_numpy(actual)).item(),
        optimizer=adamw([(adapter, overrides.learning_rate or block.learning_rate)], block.weight_decay),
        plan=TrainingPlan(epochs, epochs, params.seed, plateau=(block.plateau_factor, block.plateau_patience)),
        device=torch.device("cpu"),
        what=f"train_adapters {name}",
    )


def _match(
    adapter: Adapter,
    name: Feature,
    vectors: Tensor,
    pairs: Tensor | None,
    scores: Tensor,
    source: SourceSpace,
    params: Params,
) -> tuple[Objective, np.ndarray]:
    """The loss, and what each row is to meet, float32 [N, width of the source]; zeros where moments are matched.

    What a row is in the source's columns, ``pairs``, is what it is to meet, where that is known.
    """
    block, source_rows, labelled = params.adapter, source.rows[name], bool(scores.isfinite().any())
    weight = block.label_weight if labelled else 0.0
    if pairs is not None:
        return matching_loss(source_rows.shape[1], adapter.out_scale, block.distance, weight), pairs.numpy()
    if block.match == "coral":
        places = np.zeros((len(vectors), source_rows.shape[1]), dtype=np.float32)
        return coral_loss(source_rows, adapter.out_scale, weight), places
    places = match_to_source(
        FeatureSet(vectors.numpy(), scores.numpy() if labelled else None),
        FeatureSet(source_rows.numpy(), source.scores[name].numpy() if labelled else None),
        block.match,
        block.distance,
        clusters=block.clusters,
        rng=np.random.default_rng(params.seed),
    )
    return matching_loss(source_rows.shape[1], adapter.out_scale, block.distance, weight), places


@torch.inference_mode()
def _apart(adapter: Adapter, vectors: Tensor, source_rows: Tensor) -> tuple[float, float]:
    """Root mean square, over the source's columns, of the difference of means and of spreads, in source spreads.

    Zeros where fewer than two rows of either side leave a spread undefined.
    """
    if min(len(vectors), len(source_rows)) < 2:
        return 0.0, 0.0
    adapted = adapter.eval()(vectors)
    means = (adapted.mean(dim=0) - source_rows.mean(dim=0)) / adapter.out_scale
    spreads = (adapted.std(dim=0) - source_rows.std(dim=0)) / adapter.out_scale
    return means.square().mean().sqrt().item(), spreads.square().mean().sqrt().item()
