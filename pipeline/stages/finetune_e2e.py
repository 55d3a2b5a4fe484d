"""Carries the source model to the target: adapters, model and text encoder are tuned together on the target's labels.

A fold's net starts as the best it can be without a gradient: what the source says through the adapters and by its text
model, weighed on inner folds, and a ridge reading of what is left. Then the source model's head learns while the
adapters stand still, then everything at a small rate (LP-FT; Kumar et al. 2022). A phase that does not better the
validation rows is undone.

Reads:  data/split/{source,target,target_folds}.parquet, data/embeddings/{source,target}/*.parquet,
        models/train_source/, models/train_adapters/.
Writes: models/finetune_e2e/, metrics/finetune_e2e.json, plots/finetune_e2e/.
"""

from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from scipy.optimize import nnls
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from pipeline import figures
from pipeline.core import artifacts
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.core.schemas import FINAL, Feature, Subset, subsets_of, variant
from pipeline.corpora.splits import grouped_folds
from pipeline.encoders import text
from pipeline.encoders.batches import TokenRows
from pipeline.nets.adapter import Adapter
from pipeline.nets.losses import Objective, Pull, ccc_loss, mixed
from pipeline.nets.transfer import TransferNet
from pipeline.params import FinetuneE2e, Params
from pipeline.scoring import sentiment
from pipeline.scoring.baselines import penalty, worthwhile
from pipeline.stages.specialist import lora, merged, precision
from pipeline.stages.train_adapters import (
    BATCH,
    Source,
    carried_columns,
    read_adapters,
    read_source,
    score,
    teller,
    train_adapter,
)
from pipeline.stages.train_source import concordance
from pipeline.stages.transfer import Columns, Target, fold_names, in_processes, read_target, shared
from pipeline.training.checkpoint import resume_state, write_model
from pipeline.training.device import pick
from pipeline.training.loop import HISTORY, Fit, Plan, fit, one_thread, predict
from pipeline.training.optim import adamw
from pipeline.training.rows import Joined, TensorRows

SHORT = 0.05
"""By what share a fold may fall short of a size of the learning curve."""

FEW = 30
"""With fewer validation rows the output's scale is fitted on training rows too."""

FLAT = 0.01
"""A component with a smaller share of the largest one's spread is noise, and whitening would make it loud."""

COMPONENTS = (0, 8, 32)
"""Principal components that a ridge reading may have, of each modality; 0: all columns."""


@dataclass(frozen=True)
class Job:
    """One model to fit: a fold's, or a point of the learning curve.

    Attributes:
        groups: None, or to how many labelled groups a point of the learning curve is limited.
        with_source: False for the curve without the source.
    """

    params: Params
    layout: Layout
    fold: str
    groups: int | None = None
    with_source: bool = True


@dataclass(frozen=True)
class Outcome:
    """What a job leaves; ``weights`` and ``net`` (its shape) only of the fold ``final``."""

    predictions: pd.DataFrame
    history: pd.DataFrame
    report: dict[str, Any]
    weights: dict[str, Tensor] | None = None


def run(params: Params, layout: Layout) -> None:
    target = read_target(layout)
    folds = fold_names(target.folds)
    jobs = [Job(params, layout, fold) for fold in folds] + _curve_jobs(target, folds, params, layout)
    processes = params.target.processes if pick(params.device).type == "cpu" else 1
    outcomes = list(in_processes(tune, jobs, processes, "finetune_e2e"))
    final = outcomes[folds.index(FINAL)]
    with artifacts.replacing_folder(layout.model("finetune_e2e")) as folder:
        fitted = pd.concat([target.fitted(fold) for fold in folds])
        digest = artifacts.write_fitted(folder / "fitted.parquet", fitted)
        artifacts.write_scores(folder / "predictions.parquet", pd.concat([item.predictions for item in outcomes]))
        description = {
            "stage": "finetune_e2e",
            "modalities": list(target.columns.modalities),
            "folds": folds,
            "start": final.report,
            "seed": params.seed,
            "fitted": {"rows": len(fitted), "digest": digest},
            "parents": ["train_adapters"],
        }
        write_model(folder, final.weights, description)
    _report(target, final, layout)


def _curve_jobs(target: Target, folds: list[str], params: Params, layout: Layout) -> list[Job]:
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
        Job(params, layout, fold, size, with_source)
        for size in sizes
        for with_source in (True, False)
        for fold in scored
    ]


# --- one model -------------------------------------------------------------------------------------------------------


def tune(job: Job) -> Outcome:
    """Fits one model and predicts the rows of its fold."""
    params, fold = job.params, job.fold
    target, source = read_target(job.layout, told=job.with_source), read_source(job.layout)
    curve = job.groups is not None
    if job.groups is not None:
        target = _limited(target, fold, job.groups, params)
    with one_thread():
        net, used, start = _start(target, source, job)
    mode = "none" if curve else _text_mode(target, fold, params)
    if mode != "none" and "text" not in used:
        used = shared(target.columns.modalities, (*used, "text"))
    target = target.using(used)
    history, kept = _phases(net, target, job, mode)
    columns = _encoded(net, target, params)
    scale, offset = _output_scale(net, columns, target, fold, params)
    everything, tables = columns.modalities, []
    for subset in [everything] if curve else subsets_of(everything):
        found = _predict(net, columns, subset) * scale + offset
        name = variant("finetuned", subset, everything)
        if curve:
            name = f"curve:{'with' if job.with_source else 'without'}:{job.groups}"
        tables.append(target.predicted(fold, name, found))
    predictions = pd.concat(tables)
    if curve:
        predictions = predictions[predictions["split"] == "test"]
    net.rescale(scale, offset)
    weights = dict(net.state_dict()) if fold == FINAL and not curve else None
    return Outcome(predictions, history, {**start, **kept, "scale": scale, "offset": offset, "text": mode}, weights)


def _limited(target: Target, fold: str, groups: int, params: Params) -> Target:
    """The target with so many labelled groups to learn from and choose on; more groups hold all of fewer."""
    group_of = target.table["group_id"].to_numpy()
    rng = np.random.default_rng(params.seed)
    names = {role: np.unique(group_of[target.rows(fold, role)].astype(str)) for role in ("train", "val")}
    train = min(groups - max(1, round(groups * params.target.val_share)), len(names["train"]))
    val = min(groups - train, len(names["val"]))  # what training groups lack, and the other way round
    shuffled = {role: rng.permutation(names[role]).tolist() for role in ("train", "val")}
    kept = {*shuffled["train"][: groups - val], *shuffled["val"][:val]}
    of = target.table.set_index("sample_id")["group_id"]
    folds = target.folds[(target.folds["fold"] == fold)]
    return replace(target, folds=folds[(folds["role"] == "test") | folds["sample_id"].map(of).isin(kept)])


def _text_mode(target: Target, fold: str, params: Params) -> str:
    """``none``, ``lora`` or ``full``: how the text encoder learns from the target."""
    block = params.finetune_e2e
    if block.text == "auto":
        enough = len(target.rows(fold, "train")) >= block.auto_rows
        return "full" if enough and target.words and params.target.level == "row" else "none"
    if block.text != "none" and (not target.words or params.target.level == "group"):
        why = "the target's rows are means of several texts" if target.words else "the target's text is no words"
        raise InputError(f"params.yaml: finetune_e2e.text: {block.text!r} cannot be: {why}; give none or auto")
    return block.text


# --- the start, without a gradient -----------------------------------------------------------------------------------


def _start(target: Target, source: Source, job: Job) -> tuple[TransferNet, Subset, dict[str, Any]]:
    """The net as it stands before it is tuned, the modalities it uses, and the weights it gives to its parts.

    Inner folds of the training rows choose: which modalities to leave out (one that says nothing costs accuracy), how
    much to believe the source, and how to read what it leaves unexplained.
    """
    params, fold = job.params, job.fold
    torch.manual_seed(params.seed)
    train = target.rows(fold, "train")
    adapters = _adapters(target, source, job) if job.with_source else {}
    head = teller(job.layout) if target.told and job.with_source else None
    net = TransferNet(adapters, source.net if adapters else None, target.columns.widths, teller=head)
    net.standardise_like(*target.columns.at(train))
    labels = target.scores[torch.from_numpy(train)].numpy().astype(np.float64)
    carried = _out_of_fold(target, source, job) if adapters else {}
    with torch.inference_mode():
        told = net.eval().parts(*target.columns.at(train))[1][:, 0].numpy().astype(np.float64)
    groups = target.table["group_id"].to_numpy()[train]
    tried = []
    for subset in subsets_of(target.columns.modalities):
        opinions = np.column_stack([carried.get(subset, np.zeros(len(train))), told * ("text" in subset)])
        weights, offset = _believe(opinions, labels)
        left = labels - offset - opinions @ weights
        for count in COMPONENTS:
            bases, design = _design(net, target, subset, train, count)
            errors, alpha = penalty(design, left, groups)
            tried.append(Start(errors, subset, weights, offset, bases, count, alpha, design, left))
    by_subset = groupby(tried, key=lambda start: start.subset)
    tried = [min(starts, key=lambda start: start.errors.sum()) for _, starts in by_subset]
    best = tried[worthwhile([start.errors for start in tried], groups)]
    _set(net, best)
    report = {"carried": float(best.weights[0]), "told": float(best.weights[1])}
    report |= {"modalities": "+".join(best.subset), "ridge_penalty": best.alpha, "ridge_components": best.components}
    return net, best.subset, report


@dataclass(frozen=True)
class Start:
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


def _believe(opinions: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights, not negative, and an offset for what the source says, float64 [n, 2], by least squares."""
    weights = nnls(opinions - opinions.mean(axis=0), labels - labels.mean())[0]
    return weights, float(labels.mean() - weights @ opinions.mean(axis=0))


def _design(
    net: TransferNet, target: Target, subset: Subset, train: np.ndarray, components: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What a reading regresses on: a basis a modality, and the training rows in all of them, float64 [n, kept].

    The basis holds so many whitened principal components of the training rows and the rows without a score; 0
    components: all columns as they are.
    """
    known = np.concatenate([train, target.unlabelled])
    columns = {name: _standard(net, target.columns, name, known) for name in subset}
    bases = {name: _basis(rows, components) for name, rows in columns.items()}
    return bases, np.concatenate([columns[name][: len(train)] @ basis for name, basis in bases.items()], axis=1)


def _set(net: TransferNet, start: Start) -> None:
    """Gives the net the weights of a start."""
    ridge = Ridge(start.alpha).fit(start.design, start.left)
    at = 0
    with torch.no_grad():
        net.mix.weight.copy_(torch.from_numpy(start.weights)[None])
        net.mix.bias.fill_(start.offset + float(ridge.intercept_))
        for name, basis in start.bases.items():
            weights = basis @ ridge.coef_[at : at + basis.shape[1]]
            net.reading(name).weigh.weight.copy_(torch.from_numpy(weights)[None])
            at += basis.shape[1]


def _adapters(target: Target, source: Source, job: Job) -> dict[str, Adapter]:
    """Those of `train_adapters`; a point of the learning curve, which knows fewer labels, trains its own."""
    if job.groups is None:
        return read_adapters(job.layout, job.fold)
    return _trained(target, source, job)


def _trained(target: Target, source: Source, job: Job) -> dict[str, Adapter]:
    return {
        name: train_adapter(name, target, source, job.fold, job.params, labelled=True)[0] for name in source.modalities
    }


def _out_of_fold(target: Target, source: Source, job: Job) -> dict[Subset, np.ndarray]:
    """Subset → float64 [training rows]: what the source says of each through adapters that did not know its score.

    The fold's own adapters were trained on these scores: by them the source would seem to know more than it does.
    """
    train = target.rows(job.fold, "train")
    groups = target.table["group_id"].iloc[train].tolist()
    bins = pd.qcut(target.scores[torch.from_numpy(train)].numpy(), 3, labels=False, duplicates="drop")
    rng = np.random.default_rng(job.params.seed)
    inner = grouped_folds(groups, bins.astype(str).tolist(), job.params.finetune_e2e.inner_folds, rng)
    found = {subset: np.zeros(len(train)) for subset in subsets_of(target.columns.modalities)}
    ids = target.table["sample_id"].to_numpy()
    for number in range(int(inner.max()) + 1):
        held = set(ids[train[inner == number]])
        part = replace(target, folds=target.folds[~target.folds["sample_id"].isin(held)])
        columns = carried_columns(_trained(part, source, job), target.columns)
        for subset, scores in found.items():
            if known := shared(subset, source.modalities):
                scores[inner == number] = score(source.net, columns, known)[train[inner == number]]
    return found


def _standard(net: TransferNet, columns: Columns, name: Feature, rows: np.ndarray) -> np.ndarray:
    """float64 [n, width]: standardised columns, zeros where the modality is absent."""
    index = torch.from_numpy(rows)
    found = net.reading(name).standard(columns.vectors[name][index]) * columns.present[name][index][:, None]
    return found.numpy().astype(np.float64)


def _basis(rows: np.ndarray, components: int) -> np.ndarray:
    """float64 [width, kept]: whitens the leading components of rows [n, width]; the identity for 0."""
    if not components:
        return np.eye(rows.shape[1])
    _, spreads, directions = np.linalg.svd(rows, full_matrices=False)
    kept = min(components, int((spreads > FLAT * max(spreads[0], 1e-12)).sum()))
    return directions[:kept].T / spreads[:kept] * len(rows) ** 0.5


# --- the phases, with gradients --------------------------------------------------------------------------------------


def _phases(net: TransferNet, target: Target, job: Job, mode: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Tunes ``net``: head or model first, then everything, each phase kept only if it betters the validation rows."""
    block, histories, kept = job.params.finetune_e2e, [], {}
    first, everything = _learners(net, block)
    phases = [("first", first, block.first_epochs, block.first_learning_rate, "none")]
    phases.append(("everything", everything, block.epochs, block.learning_rate, "none"))
    if mode != "none":
        phases[-1] = ("everything", everything, block.tuned.epochs, block.tuned.head_learning_rate, mode)
    for name, learners, epochs, rate, text_mode in phases:
        if not epochs:
            continue
        if text_mode == "none":
            with one_thread():
                went, better = _phase(net, learners, target, job, Schedule(name, epochs, rate))
        else:
            went, better = _phase_with_text(net, learners, target, job, text_mode)
        done = sum(map(len, histories))
        lines = pd.DataFrame(went.history)
        histories.append(lines.assign(epoch=lines["epoch"] + done, phase=name))
        kept[f"{name}_kept"] = better
    return pd.concat([pd.DataFrame(columns=[*HISTORY, "phase"]), *histories]), kept


@dataclass(frozen=True)
class Schedule:
    """A phase's name, its passes and its peak learning rate."""

    name: str
    epochs: int
    learning_rate: float


def _learners(net: TransferNet, block: FinetuneE2e) -> tuple[list[nn.Module], list[nn.Module]]:
    """What learns in the first phase, and in the second: everything."""
    own: list[nn.Module] = [net.mix, net.readings, *([net.teller] if net.teller is not None else [])]
    if net.source is None:
        return own, own
    head = net.source.fusion.classify if block.first == "head" else net.source
    return [*own, head], [*own, net.source, net.adapters]


def _objective(block: FinetuneE2e) -> Objective:
    return ccc_loss if block.loss == "ccc" else mixed(block.mse, block.mae, block.correlation)


def _only(net: TransferNet, learners: list[nn.Module]) -> None:
    """Lets these learn and no others."""
    net.requires_grad_(False)
    for module in learners:
        module.requires_grad_(True)


def _phase(
    net: TransferNet, learners: list[nn.Module], target: Target, job: Job, schedule: Schedule
) -> tuple[Fit, bool]:
    """Tunes on given vectors; returns how it went, and whether it was kept."""
    block, params = job.params.finetune_e2e, job.params
    _only(net, learners)
    train, val = (_rows(target, job.fold, role, block.batch) for role in ("train", "val"))
    objective, device = _objective(block), pick(params.device)
    before = _state(net), concordance(predict(net, val, device), val.labels.numpy())
    went = fit(
        net,
        train,
        val,
        objective=objective,
        score=concordance,
        optimizer=adamw([(module, schedule.learning_rate) for module in learners], block.weight_decay),
        plan=Plan(schedule.epochs, block.patience, params.seed),
        device=device,
        what=f"finetune_e2e {job.fold} {schedule.name}",
        penalty=Pull(net, block.pull) if block.pull else None,
    )
    return went, _keep_the_better(net, before, went)


def _rows(target: Target, fold: str, role: str, batch: int) -> TensorRows:
    at = target.rows(fold, role)
    return TensorRows(target.columns.at(at), target.scores[torch.from_numpy(at)], batch)


def _state(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def _keep_the_better(net: TransferNet, before: tuple[dict[str, Tensor], float], went: Fit) -> bool:
    state, score_before = before
    if went.best_score > score_before:
        return True
    net.load_state_dict(state)
    return False


def _phase_with_text(
    net: TransferNet, learners: list[nn.Module], target: Target, job: Job, mode: str
) -> tuple[Fit, bool]:
    """Tunes everything, the text encoder too; it starts as the source's, where the source has words."""
    block, params = job.params.finetune_e2e, job.params
    tuned, device = block.tuned, pick(job.params.device)
    encoder = text_encoder(target, params, job.layout)
    net.encoder = encoder.net if mode == "full" else lora(encoder.net, encoder.lora_targets, tuned.lora_rank)
    _only(net, learners)
    if mode == "full":
        net.encoder.requires_grad_(True)
    else:
        for name, parameter in net.encoder.named_parameters():
            parameter.requires_grad_("lora_" in name)

    def rows(role: str) -> Joined:
        features = _rows(target, job.fold, role, tuned.batch)
        words = target.table["text"].iloc[target.rows(job.fold, role)].fillna("").tolist()
        return Joined(features, TokenRows(encoder, words, features.labels, tuned.batch))

    train, val = rows("train"), rows("val")
    objective = _objective(block)
    before = _state(net), concordance(predict(net, val, device), val.labels.numpy())
    identity = {
        "stage": f"finetune_e2e {job.fold}",
        "params": block.model_dump(exclude={"curve"}),
        "encoder": encoder.identity,
        "seed": params.seed,
        "device": str(device),
        "start": artifacts.digest([str(value.double().sum().item()) for value in before[0].values()]),
        "rows": artifacts.digest(target.table["sample_id"] + " " + target.table["score"].map(repr)),
        "fold": artifacts.digest(target.folds["fold"] + target.folds["role"] + target.folds["sample_id"]),
    }
    rates: list[tuple[nn.Module, float]] = [(module, tuned.head_learning_rate) for module in learners]
    went = fit(
        net,
        train,
        val,
        objective=objective,
        score=concordance,
        optimizer=adamw([(net.encoder, tuned.encoder_learning_rate), *rates], tuned.weight_decay),
        plan=Plan(
            tuned.epochs,
            tuned.patience,
            params.seed,
            accumulate=tuned.accumulate,
            warmup_share=tuned.warmup_share,
            decay=True,
            mixed_precision=precision(tuned.mixed_precision, device),
        ),
        device=device,
        what=f"finetune_e2e {job.fold} with text",
        penalty=Pull(net, block.pull) if block.pull else None,
        resume=resume_state(job.layout.cache, identity),
    )
    better = _keep_the_better(net, before, went)
    if mode == "lora":
        net.encoder = merged(net.encoder)  # the low-rank updates become part of the weights
    return went, better


def text_encoder(target: Target, params: Params, layout: Layout) -> text.TextEncoder:
    """The encoder of the target's words: the source's text model where there is one."""
    encoder = text.load(params.embed.text)
    if target.told:
        tensors = load_file(layout.model("train_source") / "text" / "model.safetensors")
        start = "encoder."
        encoder.net.load_state_dict({k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)})
    return encoder


# --- predictions -----------------------------------------------------------------------------------------------------


def _encoded(net: TransferNet, target: Target, params: Params) -> Columns:
    """The target's columns, with text vectors by the tuned encoder where there is one."""
    if net.encoder is None:
        return target.columns
    encoder = replace(text.load(params.embed.text), net=net.encoder)
    vectors = encoder.encode(target.table["text"].fillna("").tolist(), pick(params.device))
    return Columns({**target.columns.vectors, "text": torch.from_numpy(vectors)}, target.columns.present)


def _predict(net: TransferNet, columns: Columns, subset: Subset) -> np.ndarray:
    """float64 [N]"""
    rows = len(next(iter(columns.present.values())))
    inputs = columns.at(np.arange(rows), subset)
    return predict(net, TensorRows(inputs, torch.zeros(rows), BATCH), torch.device("cpu"))[:, 0].astype(np.float64)


def _output_scale(net: TransferNet, columns: Columns, target: Target, fold: str, params: Params) -> tuple[float, float]:
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
    found = _predict(net, columns, columns.modalities)[at]
    actual = target.scores[torch.from_numpy(at)].numpy().astype(np.float64)
    spread = found.var()
    scale = float(np.mean((found - found.mean()) * (actual - actual.mean())) / spread) if spread > 1e-12 else 0.0
    return (scale, float(actual.mean() - scale * found.mean())) if scale > 1 else (1.0, 0.0)


# --- report ----------------------------------------------------------------------------------------------------------


def _report(target: Target, final: Outcome, layout: Layout) -> None:
    """Scores the validation rows of the fold ``final``; rows to be scored are left to `evaluate`."""
    val = final.predictions[(final.predictions["split"] == "val") & (final.predictions["variant"] == "finetuned")]
    actual = target.table.set_index("sample_id").loc[val["sample_id"], "score"].to_numpy()
    metrics = {**final.report, "val": sentiment.report(actual, val["score"].to_numpy())}
    artifacts.write_json(layout.metrics("finetune_e2e"), {"sentiment": metrics})
    with artifacts.replacing_folder(layout.plots("finetune_e2e")) as plots:
        artifacts.write_csv(plots / "history.csv", final.history)
        figures.history(
            plots / "history.png", final.history.assign(fold=FINAL), "fine-tuning, phase after phase", "concordance"
        )
