"""One row a post for every modality, of which some may be absent."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool
from torch import Tensor

ByModality = Mapping[str, Tensor]
"""Modality → one row a post; zeros where the modality is absent."""


def drop_modalities(present: Mapping[str, Bool[Tensor, " batch"]], chance: float) -> dict[str, Bool[Tensor, " batch"]]:
    """Hides each present modality of a row with the given chance, but never the last one of a row.

    Where the draw would hide all, one present modality, drawn at random, stays.
    """
    names = sorted(present)
    mask = torch.stack([present[name] for name in names], dim=1)
    draw = torch.rand(mask.shape, device=mask.device)
    kept = mask & (draw >= chance)
    spared = torch.where(mask, draw, -1.0).argmax(dim=1)  # the one with the highest draw is the last to be hidden
    none_left = ~kept.any(dim=1) & mask.any(dim=1)
    kept[none_left, spared[none_left]] = True
    return {name: kept[:, at] for at, name in enumerate(names)}
