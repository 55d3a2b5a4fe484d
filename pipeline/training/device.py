"""Where torch computes."""

import torch

from pipeline.core.errors import InputError


def pick(device: str) -> torch.device:
    """The device for params ``device``; ``auto`` takes an accelerator if there is one.

    Raises InputError when the device that was asked for is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(name for name, available in there.items() if available))
    if not there[device]:
        raise InputError(f"params.yaml: device: torch finds no `{device}` on this machine; give auto or cpu")
    return torch.device(device)
