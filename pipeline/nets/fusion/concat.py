"""Modalities side by side."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from pipeline.nets.modalities import ByModality


class Concat(nn.Module):
    """The tokens stand side by side, and the classifier makes of them what it can."""

    def __init__(self, modalities: int, width: int) -> None:
        super().__init__()
        self.out_width = modalities * width

    def forward(
        self,
        tokens: Float[Tensor, "batch modalities width"],
        vectors: ByModality,
        expert_log_probs: ByModality,
        present: ByModality,
    ) -> tuple[Float[Tensor, "batch joined"], Sequence[Float[Tensor, "batch classes"]]]:
        return tokens.flatten(start_dim=1), []
