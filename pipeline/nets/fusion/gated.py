"""Modalities that are weighed by learned gates."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from pipeline.nets.modalities import ByModality


class Gated(nn.Module):
    """A softmax over learned scores weighs the tokens (Arevalo et al. 2017, "Gated multimodal units")."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_width = width
        self.gate = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))

    def forward(
        self,
        tokens: Float[Tensor, "batch modalities width"],
        vectors: ByModality,
        expert_log_probs: ByModality,
        present: ByModality,
    ) -> tuple[Float[Tensor, "batch width"], Sequence[Float[Tensor, "batch classes"]]]:
        return (self.gate(tokens).softmax(dim=1) * tokens).sum(dim=1), []
