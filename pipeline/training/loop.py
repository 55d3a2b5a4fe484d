"""One ``fit`` for every net of the pipeline, and ``predict``."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pipeline.core.errors import InputError
from pipeline.core.prefetch import prefetch_map
from pipeline.core.progress import progress as progress_bar
from pipeline.nets.losses import Objective
from pipeline.training.batches import Batch, batches
from pipeline.training.checkpoint import Progress, ResumeState
from pipeline.training.distributed import ProcessGroup
from pipeline.training.optim import warm_up
from pipeline.training.rows import TrainingRows

SAVE_EVERY_S = 60.0
"""A killed training loses at most about so much time."""

HISTORY = ["epoch", "train_loss", "val_loss", "val_score"]
"""What an epoch leaves behind."""


@dataclass(frozen=True)
class TrainingPlan:
    """How long and how to train.

    Attributes:
        epochs: at most so many passes over the training rows.
        patience: stop after so many epochs without a better validation score, and keep the best epoch's weights; None:
            train all epochs, whatever their validation scores (there may be none), and keep the last weights.
        seed: orders the batches, augments, and seeds dropout.
        accumulate: parts that each batch is split into; the gradient stays that of the whole batch.
        warmup_share: share of all steps over which the learning rate rises.
        decay: whether it then falls linearly to zero.
        clip: largest norm of a step's gradient.
        mixed_precision: ``no | fp16 | bf16``.
        plateau: (factor, patience) by which the learning rate falls where the validation loss stays, instead of the
            schedule by steps; such a training does not resume.
    """

    epochs: int
    patience: int | None
    seed: int
    accumulate: int = 1
    warmup_share: float = 0.0
    decay: bool = False
    clip: float = 1.0
    mixed_precision: str = "no"
    plateau: tuple[float, int] | None = None


@dataclass(frozen=True)
class FitResult:
    """Outcome of a training; the net itself holds the weights of ``best_epoch``.

    Attributes:
        best_epoch: 1-based; the last one where the plan has no patience.
        best_score: validation score of that epoch.
        history: one dict an epoch, with the keys ``HISTORY``.
    """

    best_epoch: int
    best_score: float
    history: list[dict[str, float]]


def fit(
    net: nn.Module,
    train: TrainingRows,
    val: TrainingRows | None,
    *,
    objective: Objective,
    score: Callable[[np.ndarray, np.ndarray], float],
    optimizer: torch.optim.Optimizer,
    plan: TrainingPlan,
    device: torch.device,
    what: str,
    penalty: Callable[[], Tensor] | None = None,
    resume: ResumeState | None = None,
    group: ProcessGroup | None = None,
) -> FitResult:
    """Trains until the validation score stops rising, or as long as the plan says; leaves those weights in ``net``.

    Args:
        val: None, or no rows, for a training that runs for all its epochs and keeps the last.
        score: (logits [N, classes], labels [N, ...]) → the number to maximise; ties go to the lower validation loss.
        what: names the training on the progress bar and in errors.
        penalty: a scalar of the weights, added to the loss of each step but not to what is reported.
        resume: where to keep, and look for, the state of a killed run.
        group: the processes that divide each batch, all of which call this; one of them, at most, has a ``resume``.

    Raises InputError when the loss stops being finite, before the weights are touched by it.
    """
    val = val if val is not None and len(val.labels) else None
    return _Training(net, train, val, objective, score, optimizer, plan, device, what, penalty, resume, group).run()


_Resumed = tuple[Progress, dict[str, Tensor]]
"""How far a killed run had come, and the weights of its best epoch."""


@dataclass
class _Training:
    """One call of ``fit``, whose arguments these are."""

    net: nn.Module
    train: TrainingRows
    val: TrainingRows | None
    objective: Objective
    score: Callable[[np.ndarray, np.ndarray], float]
    optimizer: torch.optim.Optimizer
    plan: TrainingPlan
    device: torch.device
    what: str
    penalty: Callable[[], Tensor] | None
    resume: ResumeState | None
    group: ProcessGroup | None

    def run(self) -> FitResult:
        plan, resume = self.plan, self.resume
        torch.manual_seed(plan.seed)
        AcceleratorState._reset_state(reset_partial_state=True)  # one process trains several nets, each by its plan
        self.accelerator = Accelerator(cpu=self.device.type == "cpu", mixed_precision=plan.mixed_precision)
        self.net.to(self.device)
        steps = len(self.train.batches(np.random.default_rng(plan.seed)))
        self.model, scaling = self.accelerator.prepare(self.net, self.optimizer)
        if plan.mixed_precision == "fp16":  # gradients are scaled; otherwise it only takes time
            self.optimizer = scaling
        state, best = Progress(0, 0, 0.0, 0, -1, -math.inf, math.inf, []), _weights(self.net)
        resumed = resume.load(self.net, self.optimizer) if resume else None
        if self.group:
            resumed = self._resumed_with_others(resumed, self.group)
        if resumed:
            state, best = resumed
        done = state.epoch * steps + state.batch
        self._schedule(steps, done)
        self.saved = time.monotonic()
        with progress_bar(self.what, plan.epochs * steps) as advance:
            advance(done)
            while state.epoch < plan.epochs:
                self._epoch(state, best, advance)
                better = _close_epoch(state, self.model, self.val, self.objective, self.score, self.device, self.group)
                if better or plan.patience is None:
                    best = _weights(self.net)
                if self.plateau:
                    self.plateau.step(state.history[-1]["val_loss"])
                if plan.patience is not None and state.epoch - state.best_epoch >= plan.patience:
                    break
        self.net.load_state_dict(best)
        if resume:
            resume.clear()
        if plan.patience is None:
            last = state.history[-1]["val_score"] if state.history else math.nan
            return FitResult(state.epoch, last, state.history)
        return FitResult(state.best_epoch, state.best_score, state.history)

    def _resumed_with_others(self, resumed: _Resumed | None, group: ProcessGroup) -> _Resumed | None:
        """What the first process has found of a killed run is taken up by all."""
        parts = None if resumed is None else (*resumed, self.net.state_dict(), self.optimizer.state_dict())
        parts = group.broadcast(send_to_device(parts, "cpu"))
        if parts is None:
            return None
        state, best, net, optimizer = parts
        self.net.load_state_dict(net)
        self.optimizer.load_state_dict(optimizer)
        return state, best

    def _schedule(self, steps: int, done: int) -> None:
        """The learning rate falls where the validation loss stays, or by a plan over all steps."""
        plan, self.warm_up, self.plateau = self.plan, None, None
        if plan.plateau:
            self.plateau = ReduceLROnPlateau(self.optimizer, factor=plan.plateau[0], patience=plan.plateau[1])
        else:
            total = steps * plan.epochs
            self.warm_up = warm_up(self.optimizer, total, plan.warmup_share, decay=plan.decay, done=done)

    def _epoch(self, state: Progress, best: dict[str, Tensor], advance: Callable[[int], None]) -> None:
        """The epoch's remaining batches; every now and then the state is kept for a run that comes after a kill."""
        self.model.train()
        for batch in batches(self.train, self.plan.seed, self.plan.accumulate, state, self.group):
            where = f"{self.what}: epoch {state.epoch + 1}, batch {batch.number + 1}"
            loss = self._step(batch, where)
            if self.warm_up:
                self.warm_up.step()
            rows = len(batch.labels)
            state.batch = batch.number + 1
            state.loss_sum, state.rows_seen = state.loss_sum + loss * rows, state.rows_seen + rows
            advance(1)
            if self.resume and time.monotonic() - self.saved > SAVE_EVERY_S:
                self.resume.save(state, self.net, self.optimizer, best)
                self.saved = time.monotonic()

    def _step(self, batch: Batch, where: str) -> float:
        """One update; returns the loss of the batch."""
        model, accelerator, group = self.model, self.accelerator, self.group
        self.optimizer.zero_grad(set_to_none=True)
        if batch.dropout is not None:
            torch.manual_seed(batch.dropout)
        parts: list[tuple[Any, ...]] = [tuple(send_to_device(part, accelerator.device)) for part in batch.parts]
        single = len(parts) == 1
        outputs = [_forward(model, parts[0], accelerator)] if single else _in_parts(model, parts, accelerator)
        direct = single and group is None
        logits = outputs[0] if direct else self._leaf(outputs, batch)
        loss = self.objective(logits, batch.labels.to(accelerator.device))
        if not torch.isfinite(loss):
            raise InputError(f"{where}: the loss is {loss.item()}; lower the learning rate, or look for absurd inputs")
        accelerator.backward(loss)
        if not direct:
            assert logits.grad is not None
            local_gradient = logits.grad[batch.share]
            gradients = (local_gradient if len(local_gradient) else torch.zeros_like(outputs[0])).split(
                [len(logits_of_part) for logits_of_part in outputs]
            )
            if single:
                torch.autograd.backward(outputs[0], gradients[0])
            else:
                _backward_in_parts(model, parts, gradients, accelerator)
        if group:
            group.sum_gradients(model.parameters())
        if self.penalty is not None:
            accelerator.backward(self.penalty())
        accelerator.clip_grad_norm_(model.parameters(), self.plan.clip)
        self.optimizer.step()
        return loss.item()

    def _leaf(self, outputs: list[Tensor], batch: Batch) -> Tensor:
        """The logits of the whole batch, without a graph, to receive their gradient."""
        local = torch.cat(outputs).detach()
        whole = local if self.group is None else self.group.gather_logits(local, batch.share, len(batch.labels))
        return whole.requires_grad_()


def _weights(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def _forward(model: nn.Module, inputs: tuple[Any, ...], accelerator: Accelerator) -> Tensor:
    with accelerator.autocast():
        return model(*inputs).float()


def _in_parts(model: nn.Module, parts: list[tuple[Any, ...]], accelerator: Accelerator) -> list[Tensor]:
    """The logits of each part, computed without a graph.

    Random states are put back, so that dropout hides the same in ``_backward_in_parts``.
    """
    with torch.random.fork_rng(), torch.no_grad():
        return [_forward(model, inputs, accelerator) for inputs in parts]


def _backward_in_parts(
    model: nn.Module, parts: list[tuple[Any, ...]], gradients: Sequence[Tensor], accelerator: Accelerator
) -> None:
    """Hands the gradient of the logits of a batch on to the weights, part by part.

    So a loss that is no mean over rows, as one with a correlation, sees the whole batch. Gradient caching: Gao et al.
    2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup".
    """
    for inputs, gradient in zip(parts, gradients, strict=True):
        torch.autograd.backward(_forward(model, inputs, accelerator), gradient)


def _close_epoch(
    state: Progress,
    model: nn.Module,
    val: TrainingRows | None,
    objective: Objective,
    score: Callable[[np.ndarray, np.ndarray], float],
    device: torch.device,
    group: ProcessGroup | None,
) -> bool:
    """Scores the validation rows, writes the history and moves on to the next epoch; says whether this was the best."""
    val_loss = val_score = math.nan
    if val is not None and len(val.labels):
        logits = predict(model, val, device, group)
        val_loss = objective(torch.from_numpy(logits), val.labels).item()
        val_score = score(logits, val.labels.numpy())
    if group:  # unlike processors differ in the last digit, and all must stop at once
        val_loss, val_score = group.broadcast((val_loss, val_score))
    state.epoch += 1
    state.history.append(
        {
            "epoch": state.epoch,
            "train_loss": state.loss_sum / max(state.rows_seen, 1),
            "val_loss": val_loss,
            "val_score": val_score,
        }
    )
    state.batch, state.loss_sum, state.rows_seen = 0, 0.0, 0
    better = val is None or (val_score, -val_loss) > (state.best_score, -state.best_loss)
    if better:
        state.best_epoch, state.best_score, state.best_loss = state.epoch, val_score, val_loss
    return better


@torch.inference_mode()
def predict(net: nn.Module, rows: TrainingRows, device: torch.device, group: ProcessGroup | None = None) -> np.ndarray:
    """Logits float32 [N, classes] in the order of the rows, with dropout and augmentation off.

    A ``group``, all of which call this, divides the batches.
    """
    net.to(device)
    net.eval()
    order = rows.batches(None)
    local_batches = order if group is None else order[group.rank :: group.size]
    order = local_batches or order[:1]  # who has none learns how wide the logits are

    def load(batch: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
        return batch, rows.load(batch, None)

    loaded = (
        prefetch_map(load, order, workers=rows.workers, depth=2 * rows.workers) if rows.workers else map(load, order)
    )
    pieces = [(batch, net(*send_to_device(inputs, device)).float().cpu().numpy()) for batch, inputs in loaded]
    if not pieces:
        return np.empty((0, 0), dtype=np.float32)
    logits = np.zeros((len(rows.labels), pieces[0][1].shape[1]), dtype=np.float32)
    for batch, values in pieces if local_batches else []:
        logits[batch] = values
    return logits if group is None else group.all_reduce(torch.from_numpy(logits).to(device)).cpu().numpy()
