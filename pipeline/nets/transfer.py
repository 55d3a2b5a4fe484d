"""Scores from features: the source model, and the net that carries it to a target corpus."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.nets.adapter import Adapter, LinearProbe
from pipeline.nets.columns import InputColumns
from pipeline.nets.fusion import Fusion
from pipeline.nets.modalities import ByModality

LINES = 64
"""Texts of a row that are encoded at a time, where nothing is learned from them."""


class _Probed(nn.Module):
    """A net with ``probes``, a linear probe of each modality's standardised columns."""

    probes: nn.ModuleDict

    def standardise_like(self, vectors: ByModality, present: ByModality) -> None:
        """Takes the statistics of the training rows that have each modality, for the probes."""
        for name in self.probes:
            self.probe(name).standardise_like(vectors[name][present[name]])

    def probe(self, name: str) -> LinearProbe:
        probe = self.probes[name]
        assert isinstance(probe, LinearProbe)
        return probe


class ScoreNet(_Probed):
    """Features of modalities, some of them absent → a score: the posts' fusion with a single output.

    Each modality has a linear probe of its own, which stands for its expert in the fusion. What the fusion adds to
    their sum is zero to begin with; so the net begins as a linear model and learns what lies beyond.

    Args:
        widths: modality → columns.
        width, heads, hidden, dropout, modality_dropout: those of ``Fusion``.
        unit: what the scores are measured in: what the layers give is multiplied by it.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        *,
        width: int = 64,
        heads: int = 4,
        hidden: int = 64,
        dropout: float = 0.3,
        modality_dropout: float = 0.3,
        unit: float = 1.0,
    ) -> None:
        super().__init__()
        self.widths = dict(widths)
        self.unit = unit
        self.probes = nn.ModuleDict({name: LinearProbe(widths[name], dropout=dropout) for name in sorted(widths)})
        self.fusion = Fusion(
            widths, 1, width=width, heads=heads, hidden=hidden, dropout=dropout, modality_dropout=modality_dropout
        )
        nn.init.zeros_(self._last_layer().weight)
        nn.init.zeros_(self._last_layer().bias)

    @torch.no_grad()
    def begin_with(self, weights: Mapping[str, Tensor], offset: float) -> None:
        """Makes a new net a linear model: modality → weights [columns] of the standardised columns, and an offset."""
        for name, of_columns in weights.items():
            self.probe(name).linear.weight.copy_(of_columns[None])
        self._last_layer().bias.fill_(offset)

    def _last_layer(self) -> nn.Linear:
        layer = self.fusion.classify[-1]
        assert isinstance(layer, nn.Linear)
        return layer

    def forward(self, vectors: ByModality, present: ByModality) -> Float[Tensor, "batch 1"]:
        """Scores; ``vectors`` are float32 [batch, columns] by modality, ``present`` bool [batch].

        A modality that is not given is absent from all rows.
        """
        standard, probed = {}, {}
        for name in self.probes:
            if name not in vectors:
                continue
            probe = self.probe(name)
            standard[name] = probe.standard(vectors[name])
            probed[name] = probe.linear(probe.drop(standard[name]))
        return self.unit * self.fusion(standard, probed, present)


class TransferNet(_Probed):
    """The source model, carried to the target: its score of adapted features, and a model of the target's own features.

    The score is a weighted sum (``mix``) of the source model's score of the adapted features and of the score of a text
    head, plus a linear probe of the target's own features. Simpler models are nets of this kind: ridge regression is
    the probes alone, a text model the text head alone.

    Args:
        adapters: modality → the adapter to the source's columns.
        source: the source model; None without adapters.
        widths: modality → the target's columns; a modality that the source lacks has a probe only.
        text_head: a head on text vectors, where there is one: that of the source's text model, or of one of the target.
        encoder: turns tokens into text vectors, where it is to learn too; otherwise the vectors are given.
        columns: modality → which columns of the corpus ``vectors`` are; for who has rows of the corpus.
        dropout: before the probes.
    """

    def __init__(
        self,
        adapters: Mapping[str, Adapter],
        source: ScoreNet | None,
        widths: Mapping[str, int],
        *,
        text_head: nn.Linear | None = None,
        encoder: nn.Module | None = None,
        columns: Mapping[str, InputColumns] | None = None,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.adapters = nn.ModuleDict(dict(adapters))
        self.source = source
        self.probes = nn.ModuleDict({name: LinearProbe(widths[name], dropout=dropout) for name in sorted(widths)})
        self.text_head = text_head
        self.encoder = encoder
        self.columns = nn.ModuleDict(dict(columns or {}))
        self.mix = nn.Linear(2, 1)

    @torch.no_grad()
    def rescale(self, scale: float, offset: float) -> None:
        """Makes the net give ``scale * score + offset`` from now on."""
        for layer in (self.mix, *(self.probe(name).linear for name in self.probes)):
            layer.weight.mul_(scale)
            layer.bias.mul_(scale)
        self.mix.bias.add_(offset)

    def parts(self, vectors: ByModality, present: ByModality) -> tuple[Tensor, Tensor]:
        """The scores of the source model, of the adapted features, and of the text head; each float32 [batch, 1].

        Without a text the head gives its bias, which is about the mean of the scores that it was trained on.
        """
        nothing = next(iter(vectors.values())).new_zeros(len(next(iter(vectors.values()))), 1)
        by_features = by_text = nothing
        if self.source is not None:
            adapted = {name: adapter(vectors[name]) for name, adapter in self.adapters.items()}
            by_features = self.source(adapted, {name: present[name] for name in adapted})
        if self.text_head is not None:
            by_text = torch.where(present["text"][:, None], self.text_head(vectors["text"]), self.text_head.bias)
        return by_features, by_text

    def forward(
        self, vectors: ByModality, present: ByModality, tokens: ByModality | None = None
    ) -> Float[Tensor, "batch 1"]:
        """Scores; ``tokens`` are the encoder's inputs, and take the place of ``vectors['text']``.

        Where rows have several texts, ``tokens`` have ``line_of`` beside them: int64 [texts], the row of each.
        """
        if self.encoder is not None and tokens is not None:
            vectors = {**vectors, "text": self._text_vectors(tokens, len(present["text"]))}
        read = [probe(vectors[name]) * present[name][:, None] for name, probe in self.probes.items()]
        return self.mix(torch.cat(self.parts(vectors, present), dim=1)) + torch.stack(read).sum(dim=0)

    def _text_vectors(self, tokens: ByModality, rows: int) -> Float[Tensor, "batch width"]:
        """By the encoder; of a row with several texts the mean."""
        assert self.encoder is not None
        inputs, line_of = dict(tokens), tokens.get("line_of")
        if line_of is None:
            return self.encoder(**inputs)
        del inputs["line_of"]
        lines = self.encoder(**inputs) if self.training else self._encoded_in_parts(inputs)
        sums = lines.new_zeros(rows, lines.shape[1]).index_add(0, line_of, lines)
        return sums / torch.bincount(line_of, minlength=rows).clamp(min=1)[:, None]

    def _encoded_in_parts(self, inputs: ByModality) -> Tensor:
        """Texts of like length together: a row may have thousands, and one long text would lengthen them all."""
        assert self.encoder is not None
        lengths = inputs["attention_mask"].sum(dim=1)
        order = lengths.argsort(descending=True, stable=True)
        parts = []
        for part in order.split(LINES):
            longest = int(lengths[part[0]])
            parts.append(self.encoder(**{name: tokens[part, :longest] for name, tokens in inputs.items()}))
        return torch.cat(parts)[order.argsort()]
