"""Modalities side by side."""

from jaxtyping import Float
from torch import Tensor, nn


class Concat(nn.Module):
    """The tokens stand side by side, and the classifier makes of them what it can."""

    def __init__(self, modalities: int, width: int) -> None:
        super().__init__()
        self.out_width = modalities * width

    def forward(self, tokens: Float[Tensor, "batch modalities width"]) -> Float[Tensor, "batch joined"]:
        return tokens.flatten(start_dim=1)
