"""The mean of the log-probabilities of several fusions."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.nets.modalities import ByModality


class AveragedFusion(nn.Module):
    """The mean of the parts' log-probabilities: a logarithmic opinion pool (Genest and Zidek, "Combining probability
    distributions", Statistical Science 1986), in which what one part alone errs in weighs less.

    Args:
        parts: nets that take the arguments of ``LinearFusion.forward`` and know the same modalities and classes.
    """

    def __init__(self, widths: Mapping[str, int], parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.modalities = sorted(widths)
        self.widths = dict(widths)
        self.parts = nn.ModuleList(parts)

    def forward(
        self, vectors: ByModality, expert_log_probs: ByModality, present: ByModality
    ) -> Float[Tensor, "batch classes"]:
        """Logits; arguments as of ``LinearFusion``."""
        log_probabilities = [part(vectors, expert_log_probs, present).log_softmax(dim=1) for part in self.parts]
        return torch.stack(log_probabilities).mean(dim=0)
