"""Nets fitted in closed form: weighted predictions of the source, and a ridge regression of the residuals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch
from scipy.optimize import nnls
from sklearn.linear_model import Ridge
from torch import nn

from pipeline.core.errors import InputError
from pipeline.core.folds import Fold, folds_of
from pipeline.core.schemas import Feature, FeatureSubset, subsets_of
from pipeline.corpora.splits import grouped_folds
from pipeline.nets.adapter import Adapter
from pipeline.nets.transfer import ScoreNet, TransferNet
from pipeline.scoring.one_standard_error import worthwhile
from pipeline.scoring.ridge import inner_folds, penalty
from pipeline.sentiment.adapters import carried_columns, read_adapters, train_adapter
from pipeline.sentiment.data import FeatureColumns, FinetuneJob, Target, shared
from pipeline.sentiment.source_model import SourceSpace, score

STOPPING = 5
"""One in so many training groups is for early stopping of adapters, where validation rows are to judge them."""


@dataclass(frozen=True)
class InnerFold(Fold):
    """A fold, and adapters that knew no score of its held-out rows."""

    adapters: Mapping[str, Adapter]


@dataclass(frozen=True)
class LinearInputs:
    """What a linear net reads; by default the target's own features alone.

    Attributes:
        source: the source model, which reads through the adapters of a fold.
        carried: subset → float64 [N], its predictions of rows through adapters that were not fitted on their scores.
        text_head: the head of the source's text model.
        probes: whether it reads the target's own features at all.
    """

    source: ScoreNet | None = None
    carried: Mapping[FeatureSubset, np.ndarray] = field(default_factory=dict)
    text_head: nn.Linear | None = None
    probes: bool = True


def linear_net(
    target: Target, fold: InnerFold, inputs: LinearInputs, seed: int
) -> tuple[TransferNet, FeatureSubset, dict[str, float]]:
    """The best net without a gradient, the modalities it uses, and the weights it gives to its parts.

    Grouped folds of the rows it learns from choose which modalities to leave out (an uninformative one costs
    accuracy) and how to read what the source leaves unexplained.
    """
    torch.manual_seed(seed)
    adapters = fold.adapters if inputs.source is not None else {}
    net = TransferNet(adapters, inputs.source, target.columns.widths, text_head=inputs.text_head, columns=target.inputs)
    net.standardise_like(*target.columns.at(fold.train))
    labels = target.scores[torch.from_numpy(fold.train)].numpy().astype(np.float64)
    with torch.inference_mode():
        by_text = net.eval().parts(*target.columns.at(fold.train))[1][:, 0].numpy().astype(np.float64)
    tried, nothing, design = [], np.zeros(len(target.table)), _design(net, target, fold, inputs.probes)
    for subset in subsets_of(target.columns.modalities):
        carried = inputs.carried.get(subset, nothing)[fold.train]
        source_scores = np.column_stack([carried, by_text * ("text" in subset)])
        tried.append(_start(design, subset, source_scores, labels))
    groups = target.table["group_id"].to_numpy()[fold.train]
    best = tried[worthwhile([start.errors for start in tried], groups)]
    _set(net, best)
    report = {"carried": float(best.weights[0]), "by_text": float(best.weights[1])}
    report |= {"ridge_penalty": best.alpha}
    return net, best.subset, report


@dataclass(frozen=True)
class RidgeStart:
    """A way to start, and its squared errors [n]: out of fold where there are ``probes``, otherwise in sample.

    ``probes`` are the modalities whose own columns are regressed on, side by side in ``design``, and their labels the
    ``residuals``, float64 [n], of the weighted scores of the source.
    """

    errors: np.ndarray
    alpha: float
    subset: FeatureSubset
    weights: np.ndarray
    offset: float
    probes: FeatureSubset
    design: np.ndarray
    residuals: np.ndarray


def stack_nonnegative(source_scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights, not negative, and an offset for the predictions of the source, float64 [n, 2], by least squares."""
    weights = nnls(source_scores - source_scores.mean(axis=0), labels - labels.mean())[0]
    return weights, float(labels.mean() - weights @ source_scores.mean(axis=0))


@dataclass(frozen=True)
class RidgeInputs:
    """What starts may regress on, of the n rows that a net learns from.

    Attributes:
        columns: modality → float64 [n, width], standardised; empty where a net has no probes.
        folds: grouped folds of the rows.
    """

    columns: Mapping[str, np.ndarray]
    folds: Sequence[Fold]


def _design(net: TransferNet, target: Target, fold: InnerFold, probes: bool) -> RidgeInputs:
    if not probes:
        return RidgeInputs({}, [])
    columns = {name: _standard(net, target.columns, name, fold.train) for name in target.columns.modalities}
    return RidgeInputs(columns, inner_folds(target.table["group_id"].to_numpy()[fold.train]))


def _start(design: RidgeInputs, subset: FeatureSubset, source_scores: np.ndarray, labels: np.ndarray) -> RidgeStart:
    """The start with these modalities: all their columns, by the penalty that grouped folds like best.

    Principal components of these columns, whitened, are no candidates: on videos of MOSI and MOSEI they cost r.
    """
    weights, offset = stack_nonnegative(source_scores, labels)
    residuals = labels - offset - source_scores @ weights
    if not design.columns:
        unused = np.zeros((len(residuals), 0))
        return RidgeStart(residuals**2, 0.0, subset, weights, offset, (), unused, residuals)
    rows = np.concatenate([design.columns[name] for name in subset], axis=1)
    errors, alpha = penalty(rows, residuals, design.folds)
    return RidgeStart(errors, alpha, subset, weights, offset, subset, rows, residuals)


def _set(net: TransferNet, start: RidgeStart) -> None:
    """Gives the net the weights of a start."""
    with torch.no_grad():
        net.mix.weight.copy_(torch.from_numpy(start.weights)[None])
        net.mix.bias.fill_(start.offset)
        if not start.probes:
            return
        ridge, at = Ridge(start.alpha).fit(start.design, start.residuals), 0
        net.mix.bias.add_(float(ridge.intercept_))
        for name in start.probes:
            probe = net.probe(name).linear
            probe.weight.copy_(torch.from_numpy(ridge.coef_[at : at + probe.in_features])[None])
            at += probe.in_features


# --- inner folds -----------------------------------------------------------------------------------------------------


def own_adapters(target: Target, source: SourceSpace, job: FinetuneJob) -> dict[str, Adapter]:
    """Those of `train_adapters`; a point of the learning curve, which has fewer labels, trains its own."""
    return read_adapters(job.layout, job.fold) if job.groups is None else _trained(target, source, job)


def _trained(target: Target, source: SourceSpace, job: FinetuneJob) -> dict[str, Adapter]:
    return {
        name: train_adapter(name, target, source, job.fold, job.params, target.scores)[0] for name in source.modalities
    }


def adapted_folds(target: Target, source: SourceSpace, job: FinetuneJob, folds: int) -> list[InnerFold]:
    """Grouped folds of the rows that a fold learns from, training and validation rows; with the source, adapters.

    Of two folds the adapters share no row: they differ so much that weights learned for the scores of one do not fit
    those of the other.
    """
    rows = target.rows(job.fold, "train", "val")
    groups = target.table["group_id"].iloc[rows].nunique()
    if groups < 2:
        raise InputError(
            f"target.corpus: {job.fold} learns from {groups} group, and inner folds need two at least; "
            "give more groups, or more target.folds in params.yaml"
        )
    ids = target.table["sample_id"].to_numpy()
    adapted = []
    for fold in folds_of(rows, _inner_numbers(target, rows, folds, job.params.seed)):
        left = replace(target, folds=target.folds[~target.folds["sample_id"].isin(set(ids[fold.held_out]))])
        adapters = _trained(left, source, job) if job.with_source else {}
        adapted.append(InnerFold(fold.train, fold.held_out, adapters))
    return adapted


def judged_by_validation(target: Target, source: SourceSpace, job: FinetuneJob) -> InnerFold:
    """The training rows to learn from and the validation rows to be judged on; with the source, adapters.

    Their best epoch is that of a fifth of the training groups: those of `train_adapters` took theirs by the scores of
    the validation rows.
    """
    train, val = target.rows(job.fold, "train"), target.rows(job.fold, "val")
    if not job.with_source:
        return InnerFold(train, val, {})
    ids = target.table["sample_id"].to_numpy()
    stopping = train[_inner_numbers(target, train, STOPPING, job.params.seed) == 0]
    folds = target.folds[~target.folds["sample_id"].isin(set(ids[val]))]
    folds = folds.assign(role=folds["role"].where(~folds["sample_id"].isin(set(ids[stopping])), "val"))
    return InnerFold(train, val, _trained(replace(target, folds=folds), source, job))


def _inner_numbers(target: Target, rows: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """int64 [n]: a grouped fold of each of the rows, which have their scores in like shares."""
    bins = pd.qcut(target.scores[torch.from_numpy(rows)].numpy(), 3, labels=False, duplicates="drop")
    groups = target.table["group_id"].iloc[rows].tolist()
    return grouped_folds(groups, bins.astype(str).tolist(), folds, np.random.default_rng(seed))


def carried_scores(target: Target, source: SourceSpace, folds: Sequence[InnerFold]) -> dict[FeatureSubset, np.ndarray]:
    """Subset → float64 [N]: the source's prediction of each held-out row through adapters not fitted on its score.

    A fold's own adapters were trained on these scores: by them the source would seem to know more than it does. These
    knew the scores of the other folds' rows, so what a fold learns from them is not blind to the rows that it is judged
    on; adapters for each pair of folds would be, and would take twice as long. Zeros for rows that no fold holds out.
    """
    scores_of = {subset: np.zeros(len(target.table)) for subset in subsets_of(target.columns.modalities)}
    for fold in folds:
        columns = carried_columns(fold.adapters, target.columns)
        for subset, scores in scores_of.items():
            if known := shared(subset, source.modalities):
                scores[fold.held_out] = score(source.net, columns, known)[fold.held_out]
    return scores_of


def _standard(net: TransferNet, columns: FeatureColumns, name: Feature, rows: np.ndarray) -> np.ndarray:
    """float64 [n, width]: standardised columns, zeros where the modality is absent."""
    index = torch.from_numpy(rows)
    standard = net.probe(name).standard(columns.vectors[name][index]) * columns.present[name][index][:, None]
    return standard.numpy().astype(np.float64)
