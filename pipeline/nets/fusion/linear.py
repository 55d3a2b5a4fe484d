"""A linear classifier on the vectors of modalities, the log-probabilities of their experts, or both."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.nets.modalities import ByModality
from pipeline.nets.standardisation import standardisation, standardised


class LinearFusion(nn.Module):
    """Vectors and expert log-probabilities of the modalities, and which are there → logits; zeros stand for the absent.

    Stacking (Wolpert 1992, "Stacked generalization") where only experts are read.

    Args:
        widths: modality → width of its vector.
        classes: how many classes.
        vectors, experts: what is read; one of them at least.
    """

    def __init__(self, widths: Mapping[str, int], classes: int, *, vectors: bool, experts: bool) -> None:
        super().__init__()
        self.modalities = sorted(widths)
        self.widths = dict(widths)
        self.vectors, self.experts = vectors, experts
        for name in self.modalities:
            self.register_buffer(f"mean_{name}", torch.zeros(widths[name]))
            self.register_buffer(f"scale_{name}", torch.ones(widths[name]))
        columns = [widths[name] * vectors + classes * experts + 1 for name in self.modalities]
        self.classify = nn.Linear(sum(columns), classes)

    def standardise_like(self, vectors: ByModality, present: ByModality, shrink: float = 1.0) -> None:
        """Takes mean and standard deviation of the rows that have each modality; ``shrink`` divides columns too."""
        for name in self.modalities:
            mean, scale = standardisation(vectors[name][present[name]])
            self.get_buffer(f"mean_{name}").copy_(mean)
            self.get_buffer(f"scale_{name}").copy_(scale * shrink)

    def features(
        self, vectors: ByModality, expert_log_probs: ByModality, present: ByModality
    ) -> Float[Tensor, "batch columns"]:
        """What is classified; arguments as of ``forward``."""
        parts = []
        for name in self.modalities:
            here = present[name][:, None]
            if self.vectors:
                mean, scale = self.get_buffer(f"mean_{name}"), self.get_buffer(f"scale_{name}")
                parts.append(standardised(vectors[name], mean, scale) * here)
            if self.experts:
                parts.append(expert_log_probs[name] * here)
            parts.append(here.to(expert_log_probs[name].dtype))
        return torch.cat(parts, dim=1)

    def forward(
        self, vectors: ByModality, expert_log_probs: ByModality, present: ByModality
    ) -> Float[Tensor, "batch classes"]:
        """Logits.

        Args:
            vectors: modality → float32 [batch, width of the modality].
            expert_log_probs: modality → float32 [batch, classes].
            present: modality → bool [batch].
        """
        return self.classify(self.features(vectors, expert_log_probs, present))
