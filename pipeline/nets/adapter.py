"""Adapters: one modality of the target corpus → the source corpus's columns for it."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.nets.standardisation import CLIP, standardisation


class Adapter(nn.Module):
    """An MLP from standardised target columns to standardised source columns, put back on the source's scale.

    Args:
        width: target columns.
        hidden: widths of the hidden layers, such as (256, 512, 1024); none gives a linear map.
        out: source columns.
        components: the MLP sees so many whitened principal components of the columns instead of the columns, which
            keeps it from learning a few labels by rote; 0: the columns.
        dropout: before each layer but the first.
        identity: target columns are source columns: they are left as they are, and nothing is learnt.
    """

    basis: Tensor

    mean: Tensor
    scale: Tensor
    out_mean: Tensor
    out_scale: Tensor

    def __init__(
        self,
        width: int,
        hidden: Sequence[int],
        out: int,
        *,
        components: int = 0,
        dropout: float = 0.1,
        identity: bool = False,
    ) -> None:
        super().__init__()
        self.identity = identity
        self.components = min(components, width)
        if self.components:
            self.register_buffer("basis", torch.eye(width)[:, : self.components])
        for name, size in (("mean", width), ("out_mean", out)):
            self.register_buffer(name, torch.zeros(size))
        for name, size in (("scale", width), ("out_scale", out)):
            self.register_buffer(name, torch.ones(size))
        if identity:
            return
        layers: list[nn.Module] = []
        width = self.components or width
        for size in hidden:
            layers += [nn.Linear(width, size), nn.LayerNorm(size), nn.GELU(), nn.Dropout(dropout)]
            width = size
        self.layers = nn.Sequential(*layers, nn.Linear(width, out))

    def standardise_like(self, target: Float[Tensor, "rows width"], source: Float[Tensor, "others out"]) -> None:
        """Takes the statistics of both corpora's training rows."""
        for (mean, scale), rows in (((self.mean, self.scale), target), ((self.out_mean, self.out_scale), source)):
            row_mean, row_scale = standardisation(rows)
            mean.copy_(row_mean)
            scale.copy_(row_scale)
        if self.components and len(target) > 1:
            _, spreads, directions = torch.linalg.svd(self._standard(target), full_matrices=False)
            kept = min(self.components, int((spreads > 1e-4 * spreads[0]).sum()))
            self.basis.zero_()
            self.basis[:, :kept] = directions[:kept].T / spreads[:kept] * len(target) ** 0.5

    def _standard(self, vectors: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        return ((vectors - self.mean) / self.scale).clamp(-CLIP, CLIP)

    def forward(self, vectors: Float[Tensor, "batch width"]) -> Float[Tensor, "batch out"]:
        if self.identity:
            return vectors
        standard = self._standard(vectors)
        if self.components:
            standard = standard @ self.basis
        return self.layers(standard) * self.out_scale + self.out_mean


class LinearProbe(nn.Module):
    """A linear probe of standardised columns: zero to begin with, or set to a head that was learned elsewhere.

    Args:
        width: columns.
        dropout: before the layer.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.drop = nn.Dropout(dropout)
        self.linear = nn.Linear(width, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def standardise_like(self, rows: Float[Tensor, "rows width"]) -> None:
        mean, scale = standardisation(rows)
        self.mean.copy_(mean)
        self.scale.copy_(scale)

    def standard(self, vectors: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        return ((vectors - self.mean) / self.scale).clamp(-CLIP, CLIP)

    def forward(self, vectors: Float[Tensor, "batch width"]) -> Float[Tensor, "batch 1"]:
        return self.linear(self.drop(self.standard(vectors)))
