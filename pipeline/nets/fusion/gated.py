"""Modalities that are weighed by learned gates."""

from jaxtyping import Float
from torch import Tensor, nn


class Gated(nn.Module):
    """A softmax over learned scores weighs the tokens (Arevalo et al. 2017, "Gated multimodal units")."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_width = width
        # A bias would be added to the scores of all tokens alike, of which softmax takes no notice.
        self.gate = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1, bias=False))

    def forward(self, tokens: Float[Tensor, "batch modalities width"]) -> Float[Tensor, "batch width"]:
        return (self.gate(tokens).softmax(dim=1) * tokens).sum(dim=1)
