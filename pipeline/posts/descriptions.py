"""What ``model.json`` says of the models of the posts track."""

from typing import Any, Literal

from pipeline.core.descriptions import Described, ModelDescription
from pipeline.core.schemas import Modality

Tune = Literal["head", "lora", "full"]
"""How much of a specialist learns: a classifier on frozen vectors, low-rank updates of the encoder, or all of it."""


class SpecialistNet(Described):
    """The arguments of ``nets.specialist.Specialist`` beside the number of classes."""

    width: int
    hidden: int
    dropout: float


class FusionNet(Described):
    """The arguments of ``nets.fusion.Fusion``."""

    widths: dict[str, int]
    classes: int
    strategy: str
    width: int
    heads: int
    hidden: int
    dropout: float
    modality_dropout: float


class PostsDescription(ModelDescription):
    """What specialists and fusion have in common.

    Attributes:
        labels: the classes, in the order of every logit.
        modalities: those that the model reads.
        temperature: what its logits are divided by before they become probabilities.
    """

    labels: tuple[str, ...]
    modalities: tuple[Modality, ...]
    temperature: float = 1.0


class SpecialistDescription(PostsDescription):
    """A specialist; ``net``, ``tune`` and ``encoder`` are None where too few posts have its modality (``absent``).

    Attributes:
        encoder: what made the vectors, or what the tuning started from.
    """

    absent: bool = False
    tune: Tune | None = None
    net: SpecialistNet | None = None
    lora_rank: int | None = None
    encoder: dict[str, Any] | None = None


class FusionDescription(PostsDescription):
    """The fusion; ``net`` is None in a corpus of one modality, whose specialist's predictions are the fusion's."""

    net: FusionNet | None
