"""Source model, adapters and text encoder tuned together on the target, phase after phase."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from pipeline.core import artifacts
from pipeline.core.descriptions import read_description
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.core.schemas import FINAL, Subset, subset_name, subsets_of
from pipeline.encoders import text
from pipeline.encoders.text_rows import TokenRows
from pipeline.nets.losses import L2SP, Objective, ccc_loss, mixed
from pipeline.nets.transfer import TransferNet
from pipeline.params import FinetuneParams, Params
from pipeline.scoring.sentiment import concordance
from pipeline.sentiment.data import FeatureColumns, FinetuneJob, Target, limit_groups, read_target, shared
from pipeline.sentiment.descriptions import (
    AdaptersDescription,
    SourceDescription,
    TransferNetArguments,
    WordsDescription,
)
from pipeline.sentiment.finetuned import describe_net, score_rows
from pipeline.sentiment.initialisation import initial_net
from pipeline.sentiment.source_model import read_source
from pipeline.sentiment.text_model import text_encoder
from pipeline.sentiment.variants import Variant
from pipeline.training.checkpoint import resume_state
from pipeline.training.device import pick
from pipeline.training.loop import HISTORY, FitResult, TrainingPlan, fit, one_thread, predict
from pipeline.training.optim import adamw
from pipeline.training.rows import Joined, TensorRows
from pipeline.training.tuning import fit_tuned, learner, merged

SHORT = 0.05
"""By what share a fold may fall short of a size of the learning curve."""

FEW = 30
"""With fewer validation rows the output's scale is fitted on training rows too."""


@dataclass(frozen=True)
class TunedModel:
    """The fine-tuned net: its tensors by name, what it is rebuilt from, and the modalities it listens to."""

    weights: dict[str, Tensor]
    net: TransferNetArguments
    used: Subset
    words: WordsDescription | None


@dataclass(frozen=True)
class FinetuneOutcome:
    """What a job leaves; ``model`` only of the fold ``final``."""

    predictions: pd.DataFrame
    history: pd.DataFrame
    report: dict[str, Any]
    model: TunedModel | None = None


def curve_jobs(target: Target, folds: list[str], params: Params, layout: Layout) -> list[FinetuneJob]:
    """The learning curve, on the folds of the first repeat.

    A size that a fold does not have is left out, unless it falls short by a twentieth at most and gives all it has.
    """
    scored = [fold for fold in folds if fold.startswith("repeat-0.")] or [FINAL]
    known = target.table.set_index("sample_id")["group_id"]
    most = min(
        known[
            target.folds.loc[(target.folds["fold"] == fold) & (target.folds["role"] != "test"), "sample_id"]
        ].nunique()
        for fold in scored
    )
    sizes = [size for size in params.finetune_e2e.curve if (1 - SHORT) * size <= most]
    return [
        FinetuneJob(params, layout, fold, size, with_source)
        for size in sizes
        for with_source in (True, False)
        for fold in scored
    ]


def tune(job: FinetuneJob) -> FinetuneOutcome:
    """Fits one model and predicts the rows of its fold."""
    params, fold = job.params, job.fold
    target, source = read_target(job.layout, by_source_text=job.with_source), read_source(job.layout)
    curve = job.groups is not None
    if job.groups is not None:
        target = limit_groups(target, fold, job.groups, params)
    with one_thread():
        net, used, start = initial_net(target, source, job)
    mode = "none" if curve else text_mode(target, fold, params)
    if mode != "none" and "text" not in used:
        used = shared(target.columns.modalities, (*used, "text"))
    target = target.using(used)
    history, kept = _phases(net, target, job, mode)
    columns = _encoded(net, target, params)
    scale, offset = _output_scale(net, columns, target, fold, params)
    net.rescale(scale, offset)  # now, so that the tables say what the saved net says
    everything, tables = columns.modalities, []
    for subset in [everything] if curve else subsets_of(everything):
        variant = Variant("finetuned", subset_name(subset), job.with_source, job.groups or 0)
        tables.append(target.predicted(fold, variant, score_rows(net, columns, subset)))
    predictions = pd.concat(tables)
    if curve:
        predictions = predictions[predictions["split"] == "test"]
    report = {**start, **kept, "scale": scale, "offset": offset, "text": mode}
    if fold != FINAL or curve:
        return FinetuneOutcome(predictions, history, report)
    return FinetuneOutcome(predictions, history, report, _tuned_model(net, target, used, params, job.layout))


def _tuned_model(net: TransferNet, target: Target, used: Subset, params: Params, layout: Layout) -> TunedModel:
    words = None
    if target.words:
        weights = "target" if net.encoder is not None else "source" if target.by_source_text else "frozen"
        words = WordsDescription(encoder=text.load(params.embed.text).identity, weights=weights)
    adapters = read_description(layout.model("train_adapters"), AdaptersDescription).net
    source = read_description(layout.model("train_source"), SourceDescription).net
    return TunedModel(dict(net.cpu().state_dict()), describe_net(net, target, adapters, source), used, words)


def text_mode(target: Target, fold: str, params: Params) -> str:
    """``none``, ``lora`` or ``full``: how the text encoder learns from the target."""
    block = params.finetune_e2e
    if block.text == "auto":
        enough = len(target.rows(fold, "train")) >= block.auto_rows
        return "full" if enough and target.words and params.target.level == "row" else "none"
    if block.text != "none" and (not target.words or params.target.level == "group"):
        why = "the target's rows are means of several texts" if target.words else "the target's text is no words"
        raise InputError(f"params.yaml: finetune_e2e.text: {block.text!r} cannot be: {why}; give none or auto")
    return block.text


def _phases(net: TransferNet, target: Target, job: FinetuneJob, mode: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Tunes ``net``: head or model first, then everything, each phase kept only if it betters the validation rows."""
    block, histories, kept = job.params.finetune_e2e, [], {}
    first, everything = _learners(net, block)
    phases = [("head", first, block.first_epochs, block.first_learning_rate, "none")]
    phases.append(("all", everything, block.epochs, block.learning_rate, "none"))
    if mode != "none":
        phases[-1] = ("all", everything, block.tuned.epochs, block.tuned.head_learning_rate, mode)
    for name, learners, epochs, rate, text_mode in phases:
        if not epochs:
            continue
        if text_mode == "none":
            with one_thread():
                fit_result, better = _phase(net, learners, target, job, Schedule(name, epochs, rate))
        else:
            fit_result, better = _phase_with_text(net, learners, target, job, text_mode)
        done = sum(map(len, histories))
        lines = pd.DataFrame(fit_result.history)
        histories.append(lines.assign(epoch=lines["epoch"] + done, phase=name))
        kept[f"{name}_kept"] = better
    return pd.concat([pd.DataFrame(columns=[*HISTORY, "phase"]), *histories]), kept


@dataclass(frozen=True)
class Schedule:
    """A phase's name, its passes and its peak learning rate."""

    name: str
    epochs: int
    learning_rate: float


def _learners(net: TransferNet, block: FinetuneParams) -> tuple[list[nn.Module], list[nn.Module]]:
    """What learns in the first phase, and in the second: everything."""
    own: list[nn.Module] = [net.mix, net.probes, *([net.text_head] if net.text_head is not None else [])]
    if net.source is None:
        return own, own
    head = net.source.fusion.classify if block.first == "head" else net.source
    return [*own, head], [*own, net.source, net.adapters]


def _objective(block: FinetuneParams) -> Objective:
    return ccc_loss if block.loss == "ccc" else mixed(block.mse, block.mae, block.correlation)


def _only(net: TransferNet, learners: list[nn.Module]) -> None:
    """Lets these learn and no others."""
    net.requires_grad_(False)
    for module in learners:
        module.requires_grad_(True)


def _phase(
    net: TransferNet, learners: list[nn.Module], target: Target, job: FinetuneJob, schedule: Schedule
) -> tuple[FitResult, bool]:
    """Tunes on given vectors; returns how the fit went, and whether it was kept."""
    block, params = job.params.finetune_e2e, job.params
    _only(net, learners)
    train, val = (_rows(target, job.fold, role, block.batch) for role in ("train", "val"))
    objective, device = _objective(block), pick(params.device)
    before = _state(net), concordance(predict(net, val, device), val.labels.numpy())
    fit_result = fit(
        net,
        train,
        val,
        objective=objective,
        score=concordance,
        optimizer=adamw([(module, schedule.learning_rate) for module in learners], block.weight_decay),
        plan=TrainingPlan(schedule.epochs, block.patience, params.seed),
        device=device,
        what=f"finetune_e2e {job.fold} {schedule.name}",
        penalty=L2SP(net, block.l2_sp) if block.l2_sp else None,
    )
    return fit_result, _keep_the_better(net, before, fit_result)


def _rows(target: Target, fold: str, role: str, batch: int) -> TensorRows:
    at = target.rows(fold, role)
    return TensorRows(target.columns.at(at), target.scores[torch.from_numpy(at)], batch)


def _state(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def _keep_the_better(net: TransferNet, before: tuple[dict[str, Tensor], float], fit_result: FitResult) -> bool:
    state, score_before = before
    if fit_result.best_score > score_before:
        return True
    net.load_state_dict(state)
    return False


def _phase_with_text(
    net: TransferNet, learners: list[nn.Module], target: Target, job: FinetuneJob, mode: str
) -> tuple[FitResult, bool]:
    """Tunes everything, the text encoder too; it starts as the source's, where the source has words."""
    block, params = job.params.finetune_e2e, job.params
    tuned, device = block.tuned, pick(job.params.device)
    encoder = text_encoder(target, params, job.layout)
    net.encoder = learner(encoder.net, encoder.lora_targets, mode, tuned.lora_rank)
    _only(net, learners)
    for name, parameter in net.encoder.named_parameters():
        parameter.requires_grad_(mode == "full" or "lora_" in name)

    def rows(role: str) -> Joined:
        features = _rows(target, job.fold, role, tuned.batch)
        words = target.table["text"].iloc[target.rows(job.fold, role)].fillna("").tolist()
        return Joined(features, TokenRows(encoder, words, features.labels, tuned.batch))

    train, val = rows("train"), rows("val")
    before = _state(net), concordance(predict(net, val, device), val.labels.numpy())
    identity = _identity(before[0], encoder.identity, target, job, str(device))
    fit_result = fit_tuned(
        net,
        learners,
        train,
        val,
        objective=_objective(block),
        score=concordance,
        tuned=tuned,
        seed=params.seed,
        device=device,
        what=f"finetune_e2e {job.fold} with text",
        penalty=L2SP(net, block.l2_sp) if block.l2_sp else None,
        resume=resume_state(job.layout.cache, identity),
    )
    better = _keep_the_better(net, before, fit_result)
    if mode == "lora":
        net.encoder = merged(net.encoder)  # the low-rank updates become part of the weights
    return fit_result, better


def _identity(
    start: Mapping[str, Tensor], encoder: Mapping[str, Any], target: Target, job: FinetuneJob, device: str
) -> dict[str, Any]:
    """What a run that was cut off must have in common with this one to be its beginning."""
    return {
        "stage": f"finetune_e2e {job.fold}",
        "params": job.params.finetune_e2e.model_dump(exclude={"curve"}),
        "encoder": encoder,
        "seed": job.params.seed,
        "device": device,
        "start": artifacts.digest([str(value.double().sum().item()) for value in start.values()]),
        "rows": artifacts.digest(target.table["sample_id"] + " " + target.table["score"].map(repr)),
        "fold": artifacts.digest(target.folds["fold"] + target.folds["role"] + target.folds["sample_id"]),
    }


def _encoded(net: TransferNet, target: Target, params: Params) -> FeatureColumns:
    """The target's columns, with text vectors by the tuned encoder where there is one."""
    if net.encoder is None:
        return target.columns
    encoder = replace(text.load(params.embed.text), net=net.encoder)
    vectors = encoder.encode(target.table["text"].fillna("").tolist(), pick(params.device))
    return FeatureColumns({**target.columns.vectors, "text": torch.from_numpy(vectors)}, target.columns.present)


def _output_scale(
    net: TransferNet, columns: FeatureColumns, target: Target, fold: str, params: Params
) -> tuple[float, float]:
    """The least-squares scale and offset of the fold's own rows (its validation rows, if these are enough), or (1, 0).

    They are against predictions that rank well and cluster, so they only ever stretch: a smaller scale would be the
    usual shrinking of least squares, which a net trained on the absolute error does not need, and a scale below zero
    would turn the order of all rows round on a whim of a few.
    """
    at = target.rows(fold, "val")
    if len(at) < FEW:
        at = np.concatenate([at, target.rows(fold, "train")])
    if not params.finetune_e2e.scale or len(at) < 3:
        return 1.0, 0.0
    predicted = score_rows(net, columns, columns.modalities)[at]
    actual = target.scores[torch.from_numpy(at)].numpy().astype(np.float64)
    centred, spread = predicted - predicted.mean(), predicted.var()
    scale = float(np.mean(centred * (actual - actual.mean())) / spread) if spread > 1e-12 else 0.0
    return (scale, float(actual.mean() - scale * predicted.mean())) if scale > 1 else (1.0, 0.0)
