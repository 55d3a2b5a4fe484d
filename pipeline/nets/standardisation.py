"""Columns on one scale, within a net. ``scoring.standardisation`` does the same to arrays."""

import torch
from jaxtyping import Float
from torch import Tensor

FLAT = 1e-6
"""A column that varies by less than this share of its largest value is constant, and is not scaled."""

CLIP = 5.0
"""Standardised inputs are cut here: features of sound and faces have wild outliers."""


def standardisation(
    rows: Float[Tensor, "rows width"],
) -> tuple[Float[Tensor, " width"], Float[Tensor, " width"]]:
    """Mean and standard deviation of each column; constant columns, and tables without rows, are left unscaled.

    NaN is what a row lacks, and counts for nothing.
    """
    if not len(rows):
        return torch.zeros(rows.shape[1]), torch.ones(rows.shape[1])
    known = ~rows.isnan()
    if known.all():
        mean, spread = rows.mean(dim=0), rows.std(dim=0, correction=0)
    else:
        count = known.sum(dim=0).clamp(min=1)
        mean = rows.nan_to_num(0.0).sum(dim=0) / count
        spread = (torch.where(known, rows - mean, 0.0).square().sum(dim=0) / count).sqrt()
    largest = rows.nan_to_num(0.0).abs().amax(dim=0)
    return mean, torch.where(spread > FLAT * largest, spread, torch.ones_like(spread))


def standardised(
    rows: Float[Tensor, "rows width"], mean: Float[Tensor, " width"], scale: Float[Tensor, " width"]
) -> Float[Tensor, "rows width"]:
    """Rows on that scale; what a row lacks (NaN) is at the mean."""
    scaled = (rows - mean) / scale
    return torch.where(scaled.isnan(), 0.0, scaled)
