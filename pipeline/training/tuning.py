"""How an encoder is tuned: in full or by low-rank updates, with which learning rates, schedule and precision."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.core.errors import InputError
from pipeline.nets.losses import Objective
from pipeline.params import EncoderTuningParams, TunedEncoderParams
from pipeline.training import distributed
from pipeline.training.checkpoint import ResumeState
from pipeline.training.distributed import ProcessGroup
from pipeline.training.loop import FitResult, TrainingPlan, fit
from pipeline.training.optim import adamw
from pipeline.training.rows import TrainingRows

Tuned = TypeVar("Tuned", bound=EncoderTuningParams)


def for_few(tuned: Tuned, rows: int) -> Tuned:
    """As params say; with more steps and less work in each where so few rows make fewer than ``least_steps``.

    Batches are half as large, epochs are added, and the embeddings stay, of which few words would move few.
    """
    if tuned.epochs * _steps(tuned, rows) >= tuned.least_steps:
        return tuned
    few = tuned.model_copy(update={"batch": math.ceil(tuned.batch / 2), "freeze_embeddings": True})
    return few.model_copy(update={"epochs": max(few.epochs, math.ceil(few.least_steps / _steps(few, rows)))})


def _steps(tuned: EncoderTuningParams, rows: int) -> int:
    """In an epoch; the parts of a batch are one step."""
    return math.ceil(rows / tuned.batch)


def learner(encoder: nn.Module, targets: list[str], how: str, rank: int) -> nn.Module:
    """The encoder as it is to learn: itself for ``full``, or, for ``lora``, frozen but for low-rank updates."""
    return lora(encoder, targets, rank) if how == "lora" else encoder


@dataclass(frozen=True)
class TunedTraining:
    """An encoder that is tuned gently, and heads that start from little, at a rate of their own; see ``loop.fit``.

    The learning rates rise over the first steps and then fall linearly to zero. The validation rows stop it where the
    block has a patience.

    Attributes:
        net: has an ``encoder``.
        heads: parts of ``net``.
    """

    net: nn.Module
    heads: Sequence[nn.Module]
    train: TrainingRows
    val: TrainingRows | None
    objective: Objective
    score: Callable[[np.ndarray, np.ndarray], float]
    tuned: EncoderTuningParams
    seed: int
    device: torch.device
    what: str
    penalty: Callable[[], Tensor] | None = None

    def fit(self, resume: ResumeState) -> FitResult:
        """Leaves the weights in ``net``. The processes of a launcher, where it started several, divide the batches."""
        group = distributed.group()
        if not group:
            return self._fit(resume, None)
        how = precision(self.tuned.mixed_precision, self.device)  # that of the first process is that of all
        training = replace(self, tuned=self.tuned.model_copy(update={"mixed_precision": how}))
        group.start_in_others(training)
        return training._fit(resume, group)

    def join(self, group: ProcessGroup) -> None:
        """In a process that was invited, what ``fit`` does in the one that invites."""
        self._fit(None, group)

    def _fit(self, resume: ResumeState | None, group: ProcessGroup | None) -> FitResult:
        tuned, encoder = self.tuned, self.net.get_submodule("encoder")
        freeze_below(encoder, tuned.frozen_layers, embeddings=tuned.freeze_embeddings)
        if tuned.checkpointing:
            checkpoint(encoder)
        rates = [(encoder, tuned.encoder_learning_rate)]
        rates += [(head, tuned.head_learning_rate) for head in self.heads]
        plan = TrainingPlan(
            tuned.epochs,
            tuned.patience if isinstance(tuned, TunedEncoderParams) else None,
            self.seed,
            accumulate=tuned.accumulate,
            warmup_share=tuned.warmup_share,
            decay=True,
            mixed_precision=precision(tuned.mixed_precision, self.device),
        )
        return fit(
            self.net,
            self.train,
            self.val,
            objective=self.objective,
            score=self.score,
            optimizer=adamw(rates, tuned.weight_decay),
            plan=plan,
            device=self.device,
            what=self.what,
            penalty=self.penalty,
            resume=resume,
            group=group,
        )


def checkpoint(encoder: nn.Module) -> None:
    """Has the layers compute what they need for the gradient a second time, instead of keeping it (Chen et al. 2016,
    "Training Deep Nets with Sublinear Memory Cost"): less memory, a third more time, the same gradient.

    Raises InputError when the encoder cannot.
    """
    able: list[Any] = [module for module in encoder.modules() if hasattr(module, "supports_gradient_checkpointing")]
    if not able or not able[0].supports_gradient_checkpointing:
        raise InputError("tuned.checkpointing: this encoder has no layers that can do so; give false")
    # The method has another name in newer versions of transformers.
    enable = getattr(able[0], "activation_checkpointing_enable", None) or able[0].gradient_checkpointing_enable
    enable({"use_reentrant": False})
    able[0].disable_input_require_grads()  # only the other way needs inputs that have a gradient


def freeze_below(encoder: nn.Module, layers: int, *, embeddings: bool) -> None:
    """Keeps the lowest ``layers`` of an encoder (of its longest list of modules) and its embeddings as they are.

    Embeddings, with the norm that belongs to them, are below all layers, so that they stay, too, where a layer does.

    Raises InputError when the encoder has no layer to learn above these.
    """
    stacks = [module for module in encoder.modules() if isinstance(module, nn.ModuleList)]
    stack = max(stacks, key=len, default=nn.ModuleList())
    if layers and layers >= len(stack):
        raise InputError(f"tuned.frozen_layers: {layers} leaves nothing of the encoder's {len(stack)} layers to learn")
    for layer in stack[:layers]:
        layer.requires_grad_(False)
    if not (embeddings or layers):
        return
    for module in encoder.modules():
        tables = [child for child in module.children() if isinstance(child, nn.Embedding)]
        whole = tables and not any(isinstance(inside, nn.ModuleList) for inside in module.modules())
        for part in [module] if whole else tables:
            part.requires_grad_(False)


def lora(encoder: nn.Module, targets: list[str], rank: int) -> nn.Module:
    """The encoder frozen but for low-rank updates (Hu et al. 2022, "LoRA") of its attention, or of its convolutions."""
    try:
        import peft
    except ModuleNotFoundError:
        raise InputError('lora needs the package peft; `pip install "emocare-pipeline[lora]"`') from None
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=targets)
    return peft.get_peft_model(encoder, config)  # pyright: ignore[reportArgumentType] - it takes any module


def merged(adapted: Any) -> nn.Module:
    """What ``lora`` made, with the low-rank updates added to the weights: a plain encoder again."""
    return adapted.merge_and_unload()


def precision(requested: str, device: torch.device) -> str:
    if requested != "auto":
        return requested
    if device.type != "cuda":
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
