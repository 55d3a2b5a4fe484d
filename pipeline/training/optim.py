"""AdamW with learning rates by part of the net, and the schedule."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR


def adamw(parts: Sequence[tuple[nn.Module, float]], weight_decay: float) -> torch.optim.AdamW:
    """AdamW over the trainable parameters of each (module, learning rate).

    Biases, norms and single vectors are not decayed: pulling them to zero shrinks no map, it only shifts it.
    """
    groups = []
    for module, rate in parts:
        trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
        matrices = [parameter for parameter in trainable if parameter.ndim > 1]
        vectors = [parameter for parameter in trainable if parameter.ndim <= 1]
        groups += [
            {"params": matrices, "lr": rate, "weight_decay": weight_decay},
            {"params": vectors, "lr": rate, "weight_decay": 0.0},
        ]
    # One kernel for all of it: three times as fast on a processor, where Python otherwise visits each tensor.
    return torch.optim.AdamW([group for group in groups if group["params"]], fused=True)


def warm_up(
    optimizer: torch.optim.Optimizer, steps: int, warmup_share: float, *, decay: bool, done: int = 0
) -> LambdaLR:
    """Rises linearly over the first share of the steps; then falls linearly to zero, or stays.

    A resumed training starts after the ``done`` steps; the optimizer's learning rates are then still the peaks.
    """
    rise = max(1, round(steps * warmup_share))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return max(0.0, (steps - step) / max(1, steps - rise)) if decay else 1.0

    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return LambdaLR(optimizer, factor, last_epoch=done - 1)
