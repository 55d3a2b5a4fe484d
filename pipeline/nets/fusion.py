"""Fusion of modalities of which some may be absent: attention across them, gates, or concatenation."""

from collections.abc import Mapping
from itertools import permutations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pipeline.nets.standardisation import standardisation

BILINEAR_DROPOUT = 0.8
"""The bilinear are many for a few hundred posts; a fifth of a vector at a time keeps them from rote learning."""

ByModality = Mapping[str, Tensor]
"""Modality → one row a post; zeros where the modality is absent."""


class Fusion(nn.Module):
    """Vectors and expert log-probabilities of the modalities → logits; an absent modality is a learned token.

    A modality's *vector* is its encoder's embedding; its *expert* is its specialist, as centred log-probabilities.
    Both are projected into one token a modality. Then

    * ``attention``: a pre-norm transformer layer over the tokens and a summary token (cross-modal attention as in Tsai
      et al. 2019, with one token a modality); beside it every modality is read in the light of every other: each class
      that the other believes in has a linear term of this one's vector, and the belief weighs the bilinear. This
      bilinear term (as in Zadeh et al. 2017, "Tensor fusion") is what a turn of meaning such as irony needs, and what
      attention alone did not find in a few hundred posts;
    * ``gated``: a softmax over learned scores weighs the tokens (Arevalo et al. 2017);
    * ``concat``: the tokens stand side by side.

    An MLP classifies what comes out, and its logits are added to a weighted sum of the experts' log-probabilities: the
    fusion starts as a product of its experts and learns what lies beyond that.

    Args:
        widths: modality → width of its vector.
        classes: how many classes.
        strategy: ``attention | gated | concat``.
        width: width of the shared space, a multiple of ``heads``.
        heads: attention heads.
        hidden: hidden width of the classifier.
        dropout: in projections, attention and classifier.
        modality_dropout: chance that a present modality is hidden from a training row; one always stays.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        classes: int,
        *,
        strategy: str = "attention",
        width: int = 64,
        heads: int = 4,
        hidden: int = 64,
        dropout: float = 0.3,
        modality_dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.modalities = sorted(widths)
        self.strategy = strategy
        self.modality_dropout = modality_dropout
        for name in self.modalities:
            self.register_buffer(f"mean_{name}", torch.zeros(widths[name]))
            self.register_buffer(f"scale_{name}", torch.ones(widths[name]))
        self.project = nn.ModuleDict({name: nn.Linear(widths[name], width) for name in self.modalities})
        self.project_experts = nn.ModuleDict({name: nn.Linear(classes, width) for name in self.modalities})
        self.expert_weights = nn.Parameter(torch.ones(len(self.modalities)))
        self.absent = nn.Parameter(0.02 * torch.randn(len(self.modalities), width))
        self.drop = nn.Dropout(dropout)
        read = width
        if strategy == "attention":
            self.identity = nn.Parameter(0.02 * torch.randn(len(self.modalities), width))
            self.summary = nn.Parameter(0.02 * torch.randn(width))
            # Zero to begin with: bilinear appear only where the data ask for them.
            self.bilinear = nn.ParameterDict(
                {
                    f"{this}_given_{other}": nn.Parameter(torch.zeros(classes, widths[this], classes))
                    for this, other in permutations(self.modalities, 2)
                }
            )
            self.bilinear_drop = nn.Dropout(BILINEAR_DROPOUT)
            self.attend = nn.TransformerEncoderLayer(
                width, heads, 2 * width, dropout, activation="gelu", batch_first=True, norm_first=True
            )
        elif strategy == "gated":
            self.gate = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))
        else:
            read = width * len(self.modalities)
        self.classify = nn.Sequential(
            nn.LayerNorm(read),
            nn.Dropout(dropout),
            nn.Linear(read, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )

    def standardise_like(self, vectors: ByModality, present: ByModality) -> None:
        """Takes mean and standard deviation of the rows that have each modality; constant columns are not scaled."""
        for name in self.modalities:
            mean, scale = standardisation(vectors[name][present[name]])
            self.get_buffer(f"mean_{name}").copy_(mean)
            self.get_buffer(f"scale_{name}").copy_(scale)

    def forward(
        self, vectors: ByModality, expert_log_probs: ByModality, present: ByModality
    ) -> Float[Tensor, "batch classes"]:
        """Logits.

        Args:
            vectors: modality → float32 [batch, width of the modality].
            expert_log_probs: modality → float32 [batch, classes].
            present: modality → bool [batch].
        """
        if self.training and self.modality_dropout > 0:
            present = drop_modalities({name: present[name] for name in self.modalities}, self.modality_dropout)
        vectors = {
            name: (vectors[name] - self.get_buffer(f"mean_{name}")) / self.get_buffer(f"scale_{name}")
            for name in self.modalities
        }
        tokens = self._tokens(vectors, expert_log_probs, present)
        if self.strategy == "attention":
            summary = self.summary.expand(tokens.shape[0], 1, -1)  # len() would fix the batch of an ONNX export
            read = self.attend(torch.cat([summary, tokens + self.identity], dim=1))[:, 0]
        elif self.strategy == "gated":
            read = (self.gate(tokens).softmax(dim=1) * tokens).sum(dim=1)
        else:
            read = tokens.flatten(start_dim=1)
        terms = [
            expert_weight * expert_log_probs[name] * present[name][:, None]
            for name, expert_weight in zip(self.modalities, self.expert_weights, strict=True)
        ]
        if self.strategy == "attention":
            terms += self._bilinear_terms(vectors, expert_log_probs, present)
        return self.classify(read) + torch.stack(terms).sum(dim=0)

    def _tokens(
        self, vectors: ByModality, expert_log_probs: ByModality, present: ByModality
    ) -> Float[Tensor, "batch modalities width"]:
        columns = []
        for at, name in enumerate(self.modalities):
            known = self.project[name](self.drop(vectors[name])) + self.project_experts[name](expert_log_probs[name])
            columns.append(torch.where(present[name][:, None], known, self.absent[at]))
        return torch.stack(columns, dim=1)

    def _bilinear_terms(
        self, vectors: ByModality, expert_log_probs: ByModality, present: ByModality
    ) -> list[Float[Tensor, "batch classes"]]:
        found = []
        for this, other in permutations(self.modalities, 2):
            belief = expert_log_probs[other].softmax(dim=1)
            term = torch.einsum(
                "bk,bd,kdc->bc", belief, self.bilinear_drop(vectors[this]), self.bilinear[f"{this}_given_{other}"]
            )
            found.append(term * (present[this] & present[other])[:, None])
        return found


def drop_modalities(present: Mapping[str, Bool[Tensor, " batch"]], chance: float) -> dict[str, Bool[Tensor, " batch"]]:
    """Hides each present modality of a row with the given chance, but never the last one of a row.

    Where the draw would hide all, one present modality, drawn at random, stays.
    """
    names = sorted(present)
    mask = torch.stack([present[name] for name in names], dim=1)
    draw = torch.rand(mask.shape, device=mask.device)
    kept = mask & (draw >= chance)
    spared = torch.where(mask, draw, -1.0).argmax(dim=1)  # the one with the highest draw is the last to be hidden
    none_left = ~kept.any(dim=1) & mask.any(dim=1)
    kept[none_left, spared[none_left]] = True
    return {name: kept[:, at] for at, name in enumerate(names)}
