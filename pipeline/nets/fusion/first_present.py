"""The word of the most reliable modality that is there."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.nets.modalities import ByModality


class FirstPresent(nn.Module):
    """Of the modalities that a row has, the first in ``order`` decides: its expert's log-probabilities are the logits.

    Args:
        widths: modality → width of its vector, which is not read.
        classes: how many classes.
        order: the modalities, the most reliable first.
    """

    def __init__(self, widths: Mapping[str, int], classes: int, *, order: Sequence[str]) -> None:
        super().__init__()
        self.modalities = sorted(widths)
        self.widths = dict(widths)
        self.order = list(order)
        self.nothing = nn.Parameter(torch.zeros(classes), requires_grad=False)
        """Logits of a row that has no modality."""

    def forward(
        self, vectors: ByModality, expert_log_probs: ByModality, present: ByModality
    ) -> Float[Tensor, "batch classes"]:
        """Logits; arguments as of ``LinearFusion``."""
        first = expert_log_probs[self.order[0]]
        logits = self.nothing.expand(first.shape)
        for name in reversed(self.order):
            logits = torch.where(present[name][:, None], expert_log_probs[name], logits)
        return logits
