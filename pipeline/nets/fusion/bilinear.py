"""Every modality read in the light of every other."""

from collections.abc import Mapping
from itertools import permutations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.nets.modalities import ByModality

DROPOUT = 0.8
"""The terms have many weights for a few hundred posts; a fifth of a vector at a time keeps them from rote learning."""


class Bilinear(nn.Module):
    """Each class has a linear term of this modality's vector, weighted by another modality's probability of that class.

    As in Zadeh et al. 2017, "Tensor fusion". It is what a turn of meaning such as irony needs, and what attention alone
    did not find in a few hundred posts.

    Args:
        widths: modality → width of its vector.
        classes: how many classes.
    """

    def __init__(self, widths: Mapping[str, int], classes: int) -> None:
        super().__init__()
        self.pairs = list(permutations(sorted(widths), 2))
        # Zero to begin with: a term appears only where the data ask for it.
        self.weights = nn.ParameterDict(
            {
                f"{this}_given_{other}": nn.Parameter(torch.zeros(classes, widths[this], classes))
                for this, other in self.pairs
            }
        )
        self.drop = nn.Dropout(DROPOUT)

    def forward(
        self, vectors: ByModality, expert_log_probs: ByModality, present: ByModality
    ) -> list[Float[Tensor, "batch classes"]]:
        """A term for each ordered pair of given modalities, zeros where one is absent; arguments as of ``Fusion``."""
        terms = []
        # One draw a modality for all of its pairs: of wide vectors drawing takes longer than all the rest.
        dropped = {name: self.drop(rows) for name, rows in vectors.items()} if len(vectors) > 1 else {}
        for this, other in self.pairs:
            if this not in vectors or other not in vectors:
                continue
            belief = expert_log_probs[other].softmax(dim=1)
            weights = self.weights[f"{this}_given_{other}"]
            term = torch.einsum("bk,kbc->bc", belief, dropped[this] @ weights)
            terms.append(term * (present[this] & present[other])[:, None])
        return terms
