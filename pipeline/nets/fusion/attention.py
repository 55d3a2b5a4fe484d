"""Modalities that attend to each other, and are read in the light of each other."""

from collections.abc import Mapping, Sequence
from itertools import permutations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.nets.modalities import ByModality

BILINEAR_DROPOUT = 0.8
"""The bilinear terms have many weights for a few hundred posts; a fifth of a vector at a time keeps them from rote
learning."""


class Attention(nn.Module):
    """A pre-norm transformer layer over the tokens and a summary token, and bilinear terms beside it.

    Cross-modal attention as in Tsai et al. 2019, with one token a modality. Beside it every modality is read in the
    light of every other: each class that the other believes in has a linear term of this one's vector, and the belief
    weighs the terms. This (as in Zadeh et al. 2017, "Tensor fusion") is what a turn of meaning such as irony needs, and
    what attention alone did not find in a few hundred posts.

    Args:
        widths: modality → width of its vector, in the order of the tokens.
        classes: how many classes.
        width: of a token, a multiple of ``heads``.
    """

    def __init__(self, widths: Mapping[str, int], classes: int, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.out_width = width
        self.pairs = list(permutations(widths, 2))
        self.identity = nn.Parameter(0.02 * torch.randn(len(widths), width))
        self.summary = nn.Parameter(0.02 * torch.randn(width))
        # Zero to begin with: a bilinear term appears only where the data ask for it.
        self.bilinear = nn.ParameterDict(
            {
                f"{this}_given_{other}": nn.Parameter(torch.zeros(classes, widths[this], classes))
                for this, other in self.pairs
            }
        )
        self.bilinear_drop = nn.Dropout(BILINEAR_DROPOUT)
        self.attend = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )

    def forward(
        self,
        tokens: Float[Tensor, "batch modalities width"],
        vectors: ByModality,
        expert_log_probs: ByModality,
        present: ByModality,
    ) -> tuple[Float[Tensor, "batch width"], Sequence[Float[Tensor, "batch classes"]]]:
        summary = self.summary.expand(tokens.shape[0], 1, -1)  # len() would fix the batch of an ONNX export
        joined = self.attend(torch.cat([summary, tokens + self.identity], dim=1))[:, 0]
        return joined, [self._term(*pair, vectors, expert_log_probs, present) for pair in self.pairs]

    def _term(
        self, this: str, other: str, vectors: ByModality, expert_log_probs: ByModality, present: ByModality
    ) -> Float[Tensor, "batch classes"]:
        belief = expert_log_probs[other].softmax(dim=1)
        weights = self.bilinear[f"{this}_given_{other}"]
        term = torch.einsum("bk,bd,kdc->bc", belief, self.bilinear_drop(vectors[this]), weights)
        return term * (present[this] & present[other])[:, None]
