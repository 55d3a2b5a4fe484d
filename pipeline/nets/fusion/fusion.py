"""What every strategy shares: tokens of the modalities, the experts' log-probabilities, and the classifier."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.nets.fusion.attention import Attention
from pipeline.nets.fusion.bilinear import Bilinear
from pipeline.nets.fusion.concat import Concat
from pipeline.nets.fusion.gated import Gated
from pipeline.nets.modalities import ByModality, drop_modalities
from pipeline.nets.standardisation import standardisation, standardised


class Fusion(nn.Module):
    """Vectors and expert log-probabilities of the modalities → logits; an absent modality is a learned token.

    A modality's *vector* is its encoder's embedding; its *expert* is its specialist, as centred log-probabilities.
    Both are projected into one token a modality, and the strategy joins the tokens: see ``attention``, which has
    ``bilinear`` beside it, ``gated`` and ``concat``.

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
        self.widths = dict(widths)
        self.modality_dropout = modality_dropout
        for name in self.modalities:
            self.register_buffer(f"mean_{name}", torch.zeros(widths[name]))
            self.register_buffer(f"scale_{name}", torch.ones(widths[name]))
        self.project = nn.ModuleDict({name: nn.Linear(widths[name], width) for name in self.modalities})
        self.project_experts = nn.ModuleDict({name: nn.Linear(classes, width) for name in self.modalities})
        self.expert_weights = nn.Parameter(torch.ones(len(self.modalities)))
        self.absent = nn.Parameter(0.02 * torch.randn(len(self.modalities), width))
        self.drop = nn.Dropout(dropout)
        self.join = _strategy(strategy, len(self.modalities), width, heads, dropout)
        self.bilinear = Bilinear(widths, classes) if strategy == "attention" else None
        joined = self.join.out_width
        self.classify = nn.Sequential(
            nn.LayerNorm(joined),
            nn.Dropout(dropout),
            nn.Linear(joined, hidden),
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
            vectors: modality → float32 [batch, width of the modality]. A modality that is not given is absent from all
                rows, at less cost than marked as such; one at least is given.
            expert_log_probs: modality → float32 [batch, classes].
            present: modality → bool [batch].
        """
        known = [name for name in self.modalities if name in vectors]
        if self.training and self.modality_dropout > 0:
            present = drop_modalities({name: present[name] for name in known}, self.modality_dropout)
        vectors = {
            name: standardised(vectors[name], self.get_buffer(f"mean_{name}"), self.get_buffer(f"scale_{name}"))
            for name in known
        }
        tokens = self._tokens(vectors, expert_log_probs, present)
        joined = self.join(tokens)
        terms = [
            expert_weight * expert_log_probs[name] * present[name][:, None]
            for name, expert_weight in zip(self.modalities, self.expert_weights, strict=True)
            if name in known
        ]
        if self.bilinear is not None:
            terms += self.bilinear(vectors, expert_log_probs, present)
        return self.classify(joined) + torch.stack(terms).sum(dim=0)

    def _tokens(
        self, vectors: ByModality, expert_log_probs: ByModality, present: ByModality
    ) -> Float[Tensor, "batch modalities width"]:
        columns = []
        for at, name in enumerate(self.modalities):
            if name not in vectors:
                rows = next(iter(vectors.values())).shape[0]  # len() would fix the batch of an ONNX export
                columns.append(self.absent[at].expand(rows, -1))
                continue
            known = self.project[name](self.drop(vectors[name])) + self.project_experts[name](expert_log_probs[name])
            columns.append(torch.where(present[name][:, None], known, self.absent[at]))
        return torch.stack(columns, dim=1)


def _strategy(name: str, modalities: int, width: int, heads: int, dropout: float) -> Attention | Gated | Concat:
    """What joins the tokens of the modalities. Raises ValueError for a name that is none."""
    if name == "attention":
        return Attention(modalities, width, heads, dropout)
    if name == "gated":
        return Gated(width)
    if name == "concat":
        return Concat(modalities, width)
    raise ValueError(f"{name}: no strategy")
