"""One modality's classifier: on cached vectors, or with the encoder in front so that it learns too."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.nets.standardisation import standardisation, standardised


class Specialist(nn.Module):
    """Standardise, dropout and a linear classifier on the encoder's vector; with ``hidden`` a layer in between.

    Args:
        width: length of the encoder's vector.
        classes: how many classes.
        hidden: width of a hidden layer, 0 for none.
        dropout: before each linear layer.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int, classes: int, *, hidden: int = 0, dropout: float = 0.3) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        inner = [nn.Dropout(dropout), nn.Linear(width, hidden), nn.GELU()] if hidden else []
        self.layers = nn.Sequential(*inner, nn.Dropout(dropout), nn.Linear(hidden or width, classes))

    @property
    def head(self) -> nn.Linear:
        """The last layer, which gives the logits."""
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        return last

    def standardise_like(self, vectors: Float[Tensor, "rows width"]) -> None:
        """Takes the training rows' mean and standard deviation; constant columns are left unscaled."""
        mean, scale = standardisation(vectors)
        self.mean.copy_(mean)
        self.scale.copy_(scale)

    def forward(self, vectors: Float[Tensor, "batch width"]) -> Float[Tensor, "batch classes"]:
        return self.layers(standardised(vectors, self.mean, self.scale))


class TunedSpecialist(nn.Module):
    """An encoder that learns, and the classifier on its vectors.

    Args:
        encoder: maps its keyword inputs to vectors [batch, width].
        classifier: a ``Specialist`` for that width.
    """

    def __init__(self, encoder: nn.Module, classifier: Specialist) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = classifier

    def train(self, mode: bool = True) -> "TunedSpecialist":
        """Batch normalisation keeps its statistics: batches of 32 are too small to replace those of ImageNet."""
        super().train(mode)
        for module in self.encoder.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def forward(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "batch classes"]:
        return self.classifier(self.encoder(**inputs))
