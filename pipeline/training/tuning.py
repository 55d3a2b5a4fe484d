"""How an encoder is tuned: in full, or by low-rank updates, and in which precision."""

from typing import Any

import torch
from torch import nn

from pipeline.core.errors import InputError


def lora(encoder: nn.Module, targets: list[str], rank: int) -> nn.Module:
    """The encoder frozen but for low-rank updates (Hu et al. 2022, "LoRA") of its attention, or of its convolutions."""
    try:
        import peft
    except ModuleNotFoundError:
        raise InputError("tune: lora needs the package peft; `pip install emocare-pipeline[lora]`") from None
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=targets)
    return peft.get_peft_model(encoder, config)  # pyright: ignore[reportArgumentType] - it takes any module


def merged(adapted: Any) -> nn.Module:
    """What ``lora`` made, with the low-rank updates added to the weights: a plain encoder again."""
    return adapted.merge_and_unload()


def precision(wanted: str, device: torch.device) -> str:
    if wanted != "auto":
        return wanted
    if device.type != "cuda":
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
