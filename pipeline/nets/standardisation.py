"""Columns on one scale, within a net. ``scoring.standardisation`` does the same to arrays."""

import torch
from jaxtyping import Float
from torch import Tensor

FLAT = 1e-6
"""A column that varies less is constant, and is not scaled."""

CLIP = 5.0
"""Standardised inputs are cut here: features of sound and faces have wild outliers."""


def standardisation(
    rows: Float[Tensor, "rows width"],
) -> tuple[Float[Tensor, " width"], Float[Tensor, " width"]]:
    """Mean and standard deviation of each column; constant columns, and tables without rows, are left unscaled."""
    if not len(rows):
        return torch.zeros(rows.shape[1]), torch.ones(rows.shape[1])
    spread = rows.std(dim=0, correction=0)
    return rows.mean(dim=0), torch.where(spread > FLAT, spread, torch.ones_like(spread))
