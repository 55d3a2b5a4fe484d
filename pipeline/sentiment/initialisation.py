"""Where fine-tuning starts: the best net that can be had without a gradient."""

from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.optimize import nnls
from sklearn.linear_model import Ridge

from pipeline.core.schemas import Feature, Subset, subsets_of
from pipeline.corpora.splits import grouped_folds
from pipeline.nets.adapter import Adapter
from pipeline.nets.transfer import TransferNet
from pipeline.scoring.baselines import penalty, worthwhile
from pipeline.sentiment.adapters import carried_columns, read_adapters, train_adapter
from pipeline.sentiment.data import FeatureColumns, FinetuneJob, Target, shared
from pipeline.sentiment.source_model import SourceSpace, score
from pipeline.sentiment.text_model import source_text_head

FLAT = 0.01
"""A component with a smaller share of the largest one's spread is noise, and whitening would make it loud."""

COMPONENTS = (0, 8, 32)
"""Principal components that a ridge regression may have, of each modality; 0: all columns."""


def initial_net(target: Target, source: SourceSpace, job: FinetuneJob) -> tuple[TransferNet, Subset, dict[str, Any]]:
    """The net as it stands before it is tuned, the modalities it uses, and the weights it gives to its parts.

    Inner folds of the training rows choose: which modalities to leave out (one that says nothing costs accuracy), how
    much to believe the source, and how to read what it leaves unexplained.
    """
    params, fold = job.params, job.fold
    torch.manual_seed(params.seed)
    train = target.rows(fold, "train")
    adapters = _adapters(target, source, job) if job.with_source else {}
    head = source_text_head(job.layout) if target.by_source_text and job.with_source else None
    net = TransferNet(
        adapters, source.net if adapters else None, target.columns.widths, text_head=head, columns=target.inputs
    )
    net.standardise_like(*target.columns.at(train))
    labels = target.scores[torch.from_numpy(train)].numpy().astype(np.float64)
    carried = _out_of_fold(target, source, job) if adapters else {}
    with torch.inference_mode():
        by_text = net.eval().parts(*target.columns.at(train))[1][:, 0].numpy().astype(np.float64)
    groups = target.table["group_id"].to_numpy()[train]
    tried = []
    for subset in subsets_of(target.columns.modalities):
        source_scores = np.column_stack([carried.get(subset, np.zeros(len(train))), by_text * ("text" in subset)])
        weights, offset = stack_nonnegative(source_scores, labels)
        left = labels - offset - source_scores @ weights
        for count in COMPONENTS:
            bases, design = _design(net, target, subset, train, count)
            errors, alpha = penalty(design, left, groups)
            tried.append(LinearStart(errors, subset, weights, offset, bases, count, alpha, design, left))
    by_subset = groupby(tried, key=lambda start: start.subset)
    tried = [min(starts, key=lambda start: start.errors.sum()) for _, starts in by_subset]
    best = tried[worthwhile([start.errors for start in tried], groups)]
    _set(net, best)
    report = {"carried": float(best.weights[0]), "by_text": float(best.weights[1])}
    report |= {"modalities": "+".join(best.subset), "ridge_penalty": best.alpha, "ridge_components": best.components}
    return net, best.subset, report


@dataclass(frozen=True)
class LinearStart:
    """A way to start, and the squared errors [n] that grouped folds of the training rows found for it."""

    errors: np.ndarray
    subset: Subset
    weights: np.ndarray
    offset: float
    bases: dict[str, np.ndarray]
    components: int
    alpha: float
    design: np.ndarray
    left: np.ndarray


def stack_nonnegative(source_scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights, not negative, and an offset for what the source says, float64 [n, 2], by least squares."""
    weights = nnls(source_scores - source_scores.mean(axis=0), labels - labels.mean())[0]
    return weights, float(labels.mean() - weights @ source_scores.mean(axis=0))


def _design(
    net: TransferNet, target: Target, subset: Subset, train: np.ndarray, components: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What a start regresses on: a basis a modality, and the training rows in all of them, float64 [n, kept].

    The basis holds so many whitened principal components of the training rows and the rows without a score; 0
    components: all columns as they are.
    """
    known = np.concatenate([train, target.unlabelled])
    columns = {name: _standard(net, target.columns, name, known) for name in subset}
    bases = {name: _basis(rows, components) for name, rows in columns.items()}
    return bases, np.concatenate([columns[name][: len(train)] @ basis for name, basis in bases.items()], axis=1)


def _set(net: TransferNet, start: LinearStart) -> None:
    """Gives the net the weights of a start."""
    ridge = Ridge(start.alpha).fit(start.design, start.left)
    at = 0
    with torch.no_grad():
        net.mix.weight.copy_(torch.from_numpy(start.weights)[None])
        net.mix.bias.fill_(start.offset + float(ridge.intercept_))
        for name, basis in start.bases.items():
            weights = basis @ ridge.coef_[at : at + basis.shape[1]]
            net.probe(name).linear.weight.copy_(torch.from_numpy(weights)[None])
            at += basis.shape[1]


def _adapters(target: Target, source: SourceSpace, job: FinetuneJob) -> dict[str, Adapter]:
    """Those of `train_adapters`; a point of the learning curve, which knows fewer labels, trains its own."""
    if job.groups is None:
        return read_adapters(job.layout, job.fold)
    return _trained(target, source, job)


def _trained(target: Target, source: SourceSpace, job: FinetuneJob) -> dict[str, Adapter]:
    return {
        name: train_adapter(name, target, source, job.fold, job.params, labelled=True)[0] for name in source.modalities
    }


def _out_of_fold(target: Target, source: SourceSpace, job: FinetuneJob) -> dict[Subset, np.ndarray]:
    """Subset → float64 [training rows]: what the source says of each through adapters that did not know its score.

    The fold's own adapters were trained on these scores: by them the source would seem to know more than it does.
    """
    train = target.rows(job.fold, "train")
    groups = target.table["group_id"].iloc[train].tolist()
    bins = pd.qcut(target.scores[torch.from_numpy(train)].numpy(), 3, labels=False, duplicates="drop")
    rng = np.random.default_rng(job.params.seed)
    inner = grouped_folds(groups, bins.astype(str).tolist(), job.params.finetune_e2e.inner_folds, rng)
    scores_of = {subset: np.zeros(len(train)) for subset in subsets_of(target.columns.modalities)}
    ids = target.table["sample_id"].to_numpy()
    for number in range(int(inner.max()) + 1):
        held = set(ids[train[inner == number]])
        part = replace(target, folds=target.folds[~target.folds["sample_id"].isin(held)])
        columns = carried_columns(_trained(part, source, job), target.columns)
        for subset, scores in scores_of.items():
            if known := shared(subset, source.modalities):
                scores[inner == number] = score(source.net, columns, known)[train[inner == number]]
    return scores_of


def _standard(net: TransferNet, columns: FeatureColumns, name: Feature, rows: np.ndarray) -> np.ndarray:
    """float64 [n, width]: standardised columns, zeros where the modality is absent."""
    index = torch.from_numpy(rows)
    standard = net.probe(name).standard(columns.vectors[name][index]) * columns.present[name][index][:, None]
    return standard.numpy().astype(np.float64)


def _basis(rows: np.ndarray, components: int) -> np.ndarray:
    """float64 [width, kept]: whitens the leading components of rows [n, width]; the identity for 0."""
    if not components:
        return np.eye(rows.shape[1])
    _, spreads, directions = np.linalg.svd(rows, full_matrices=False)
    kept = min(components, int((spreads > FLAT * max(spreads[0], 1e-12)).sum()))
    return directions[:kept].T / spreads[:kept] * len(rows) ** 0.5
