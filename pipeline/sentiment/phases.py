"""Gradients on the target: all parts of a net tuned together, phase after phase, or a text encoder on words alone.

Nothing here stops or chooses by rows: a training goes on for its epochs, and other rows judge what comes of it.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from pipeline.core import artifacts
from pipeline.core.schemas import FINAL
from pipeline.encoders.text import TextEncoder
from pipeline.encoders.text_rows import BagRows, TokenRows
from pipeline.nets.losses import L2SP, Objective, ccc_loss, mixed
from pipeline.nets.transfer import TransferNet
from pipeline.params import FinetuneParams, TargetTextParams
from pipeline.scoring.sentiment import concordance
from pipeline.sentiment.data import FinetuneJob, Target, lines_of
from pipeline.sentiment.initialisation import InnerFold
from pipeline.sentiment.text_model import text_encoder
from pipeline.training.averaging import average_trainings
from pipeline.training.checkpoint import resume_state
from pipeline.training.device import one_thread, pick
from pipeline.training.finished import tensors_digest
from pipeline.training.loop import HISTORY, FitResult, TrainingPlan, fit
from pipeline.training.optim import adamw
from pipeline.training.rows import Joined, TensorRows
from pipeline.training.tuning import TunedTraining, for_few


@dataclass(frozen=True)
class TuningData:
    """What a net is tuned on: the rows of a ``fold`` of the ``target``, as a ``job`` asks for it."""

    target: Target
    fold: InnerFold
    job: FinetuneJob

    def rows(self, batch: int) -> Iterator[TensorRows]:
        """The rows to learn from, and those held out."""
        for at in (self.fold.train, self.fold.held_out):
            yield TensorRows(self.target.columns.at(at), self.target.scores[torch.from_numpy(at)], batch)


def tune_all(net: TransferNet, target: Target, fold: InnerFold, job: FinetuneJob, mode: str) -> pd.DataFrame:
    """Tunes ``net``: head or model first, then everything (LP-FT), with the text encoder where ``mode`` is not none.

    Returns the lines of ``HISTORY`` of each ``phase``; validation figures are those of the fold's held-out rows.
    """
    block, data = job.params.finetune_e2e, TuningData(target, fold, job)
    first, everything = _learners(net, block)
    histories = [pd.DataFrame(columns=[*HISTORY, "phase"])]
    phases = [("head", first, block.first_epochs, block.first_learning_rate)]
    phases += [("all", everything, block.epochs, block.learning_rate)] if mode == "none" else []
    for name, learners, epochs, rate in phases:
        if epochs:
            with one_thread():
                result = _phase(net, learners, data, name, epochs, rate)
            histories.append(_lines(result, histories, name))
    if mode != "none":
        encoder = text_encoder(target, job.params, job.layout)
        result = _tune_encoder(net, encoder, lambda copied: _learners(copied, block)[1], data, mode)
        histories.append(_lines(result, histories, "all"))
    return pd.concat(histories)


def _lines(result: FitResult, before: list[pd.DataFrame], phase: str) -> pd.DataFrame:
    lines = pd.DataFrame(result.history)
    return lines.assign(epoch=lines["epoch"] + sum(map(len, before)), phase=phase)


def tune_words(
    target: Target, fold: InnerFold, job: FinetuneJob, mode: str, head: nn.Linear | None = None
) -> tuple[TransferNet, pd.DataFrame]:
    """A text model of the target's own words: of the encoder that gave ``target`` its text vectors, the source's text
    model where that did, and a ``head``; of a head from nothing without one. Rows without words teach it nothing.
    """
    if len(worded := target.with_words(fold.train)):
        fold = replace(fold, train=worded)
    encoder = text_encoder(target, job.params, job.layout)
    net = TransferNet({}, None, target.columns.widths, text_head=nn.Linear(encoder.width, 1), columns=target.inputs)
    assert net.text_head is not None
    with torch.no_grad():
        net.text_head.weight.zero_()
        net.text_head.bias.fill_(target.scores[torch.from_numpy(fold.train)].mean().item())
        net.mix.weight.copy_(torch.tensor([[0.0, 1.0]]))
        net.mix.bias.zero_()
    if head is not None:
        net.text_head.load_state_dict(head.state_dict())
    result = _tune_encoder(net, encoder, _text_head, TuningData(target, fold, job), mode)
    return net, _lines(result, [], "words")


def _text_head(net: TransferNet) -> list[nn.Module]:
    assert net.text_head is not None
    return [net.text_head]


def _learners(net: TransferNet, block: FinetuneParams) -> tuple[list[nn.Module], list[nn.Module]]:
    """What learns in the first phase, and in the second: everything."""
    probes: list[nn.Module] = [net.mix, net.probes, *([net.text_head] if net.text_head is not None else [])]
    if net.source is None:
        return probes, probes
    head = net.source.fusion.classify if block.first == "head" else net.source
    return [*probes, head], [*probes, net.source, net.adapters]


def objective(block: FinetuneParams, *, plain: bool = False) -> Objective:
    """The loss that params ask for; ``plain``: without the correlation, for a text model on its own."""
    if plain:
        return mixed(block.mse, block.mae, 0.0)
    return ccc_loss if block.loss == "ccc" else mixed(block.mse, block.mae, block.correlation)


def _only(net: TransferNet, learners: list[nn.Module]) -> None:
    """Lets these learn and no others."""
    net.requires_grad_(False)
    for module in learners:
        module.requires_grad_(True)


def _phase(
    net: TransferNet, learners: list[nn.Module], data: TuningData, name: str, epochs: int, rate: float
) -> FitResult:
    """Tunes on given vectors."""
    job, block = data.job, data.job.params.finetune_e2e
    _only(net, learners)
    train, held = data.rows(block.batch)
    return fit(
        net,
        train,
        held if job.fold == FINAL else None,  # it only fills the history, which is shown of this fold alone
        objective=objective(block),
        score=concordance,
        optimizer=adamw([(module, rate) for module in learners], block.weight_decay),
        plan=TrainingPlan(epochs, None, job.params.seed, decay=True),
        device=pick(job.params.device),
        what=f"finetune_e2e {job.fold} {name}",
        penalty=L2SP(net, block.l2_sp) if block.l2_sp else None,
    )


def _tune_encoder(
    net: TransferNet,
    encoder: TextEncoder,
    learners: Callable[[TransferNet], list[nn.Module]],
    data: TuningData,
    mode: str,
) -> FitResult:
    """Tunes the ``learners`` of the net and this encoder, which becomes part of the net.

    Where no rows are held to judge it, the weights are the mean of several trainings. Returns what came of the first.
    """
    tuned, seed = data.job.params.finetune_e2e.tuned, data.job.params.seed
    identity = json.dumps(_identity(net, encoder, data), sort_keys=True)
    net.encoder = encoder.net
    return average_trainings(
        net,
        lambda copied, seed: _tune_once(copied, encoder, learners(copied), data, mode, seed),
        range(seed, seed + (1 if len(data.fold.held_out) else tuned.runs)),
        how=mode,
        targets=encoder.lora_targets,
        rank=tuned.lora_rank,
        finished=data.job.kept,
        name=identity,
    )


def _tune_once(
    net: TransferNet, encoder: TextEncoder, learners: list[nn.Module], data: TuningData, mode: str, seed: int
) -> FitResult:
    """One training of the net with its encoder, with this seed."""
    target, fold, job = data.target, data.fold, data.job
    block, run = job.params.finetune_e2e, seed - job.params.seed
    tuned, plain = for_few(block.tuned, len(fold.train)), net.source is None
    assert net.encoder is not None
    _only(net, learners)
    for name, parameter in net.encoder.named_parameters():
        parameter.requires_grad_(mode == "full" or "lora_" in name)
    train, held = (
        Joined(rows, _text_rows(encoder, target.table.iloc[at], rows.labels, tuned, job.params.target.level))
        for rows, at in zip(data.rows(tuned.batch), (fold.train, fold.held_out), strict=True)
    )
    training = TunedTraining(
        net,
        learners,
        train,
        held,
        objective=objective(block, plain=plain),
        score=concordance,
        tuned=tuned,
        seed=seed,
        device=pick(job.params.device),
        what=f"finetune_e2e {job.fold} with text" + f", run {run + 1}" * (run > 0),
        penalty=L2SP(net, block.l2_sp) if block.l2_sp and not plain else None,
    )
    identity = _identity(net, encoder, data) | {"seed": seed}
    return training.fit(resume_state(job.layout.cache, identity))


def _text_rows(
    encoder: TextEncoder, table: pd.DataFrame, labels: Tensor, tuned: TargetTextParams, level: str
) -> TokenRows | BagRows:
    """The texts of rows: one each, or, where rows are groups, those of the rows that were averaged."""
    texts = lines_of(table.fillna({"text": ""}), level)
    if level == "group":
        return BagRows(encoder, texts, labels, tuned.batch, tuned.lines)
    return TokenRows(encoder, [line for row in texts for line in row or [""]], labels, tuned.batch)


def _identity(net: nn.Module, encoder: TextEncoder, data: TuningData) -> dict[str, Any]:
    """What a run that was cut off must have in common with this one to be its beginning."""
    table, job = data.target.table, data.job
    rows = table["sample_id"] + " " + table["score"].map(repr) + " " + table["text"].fillna("")
    return {
        "stage": f"finetune_e2e {job.fold}",
        "params": job.params.finetune_e2e.model_dump(exclude={"candidates", "curve", "group_context"}),
        "encoder": encoder.identity,
        "device": str(pick(job.params.device)),
        "start": tensors_digest(net.state_dict()),
        "learn": artifacts.digest(rows.iloc[data.fold.train]),
        "held": artifacts.digest(rows.iloc[data.fold.held_out]),
        "features": tensors_digest(data.target.columns.vectors),
    }
