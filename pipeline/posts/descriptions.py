"""What ``model.json`` says of the models of the posts track."""

from typing import Any, Literal

from pydantic import Field

from pipeline.core.descriptions import Described, ModelDescription
from pipeline.core.schemas import Candidate, FusionCandidate, Modality
from pipeline.scoring.calibration import Calibration

OF_WORDS: tuple[Candidate, ...] = ("tfidf_logreg", "joint_logreg")
TUNED: tuple[Candidate, ...] = ("lora", "full")
"""Those that need texts, and those whose encoder learns."""


class SpecialistNet(Described):
    """The arguments of ``nets.specialist.Specialist`` beside the number of classes."""

    width: int
    hidden: int
    dropout: float


class FusionNet(Described):
    """The arguments of ``nets.fusion.Fusion``."""

    kind: Literal["trained"] = "trained"
    widths: dict[str, int]
    classes: int
    strategy: str
    width: int
    heads: int
    hidden: int
    dropout: float
    modality_dropout: float


class LinearFusionNet(Described):
    """The arguments of ``nets.fusion.LinearFusion``."""

    kind: Literal["linear"] = "linear"
    widths: dict[str, int]
    classes: int
    vectors: bool
    experts: bool


class FirstPresentNet(Described):
    """The arguments of ``nets.fusion.FirstPresent``."""

    kind: Literal["first_present"] = "first_present"
    widths: dict[str, int]
    classes: int
    order: tuple[str, ...]


class PostsDescription(ModelDescription):
    """What specialists and fusion have in common.

    Attributes:
        labels: the classes, in the order of every logit.
        modalities: those that the model reads.
        calibration: what makes its logits probabilities and decisions.
    """

    labels: tuple[str, ...]
    modalities: tuple[Modality, ...]
    calibration: Calibration


class SpecialistDescription(PostsDescription):
    """A specialist; ``net``, ``candidate`` and ``encoder`` are None where too few posts have its modality (``absent``).

    Attributes:
        candidate: what was taken on the inner folds.
        encoder: what made the vectors, or what the tuning started from.
    """

    absent: bool = False
    candidate: Candidate | None = None
    net: SpecialistNet | None = None
    lora_rank: int | None = None
    encoder: dict[str, Any] | None = None


class FusionDescription(PostsDescription):
    """The fusion; ``net`` is None in a corpus of one modality, whose specialist's predictions are the fusion's.

    Attributes:
        candidate: what was taken on the inner folds.
    """

    candidate: FusionCandidate | None = None
    net: FusionNet | LinearFusionNet | FirstPresentNet | None = Field(discriminator="kind")
