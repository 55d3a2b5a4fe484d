"""Which columns of a corpus a net reads, and what stands for a number that is missing."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class InputColumns(nn.Module):
    """Takes the columns that `embed` found to be of use, and fills their gaps as it did.

    Args:
        columns: how many a row of the corpus has.
        index: which of them are kept.
        fill: for each of those, what a missing or infinite number becomes; zeros when left out.
    """

    index: Tensor
    fill: Tensor

    def __init__(self, columns: int, index: Tensor, fill: Tensor | None = None) -> None:
        super().__init__()
        self.columns = columns
        self.register_buffer("index", index.to(torch.int64))
        self.register_buffer("fill", torch.zeros(len(index)) if fill is None else fill.to(torch.float32))

    def forward(self, rows: Float[Tensor, "batch columns"]) -> Float[Tensor, "batch kept"]:
        kept = rows[:, self.index]
        return torch.where(kept.isfinite(), kept, self.fill)
