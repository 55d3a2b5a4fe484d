"""The part of ``model.json`` that describes the models of the posts track."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.core.descriptions import (
    Chance,
    Described,
    Hidden,
    MeetingDescription,
    ModelDescription,
    Name,
    Width,
    Widths,
)
from pipeline.core.schemas import Candidate, FusionCandidate, Modality
from pipeline.scoring.calibration import Calibration

OF_WORDS: tuple[Candidate, ...] = ("tfidf_logreg", "joint_logreg")
TUNED: tuple[Candidate, ...] = ("lora", "full")
"""Those that need texts, and those whose encoder learns."""


MAX_CALIBRATION = 1e9
"""No calibration that was fitted comes near; beyond it, a softmax is no more than its largest logit."""


class SpecialistNet(Described):
    """The arguments of ``nets.specialist.Specialist`` beside the number of classes."""

    width: Width
    hidden: Hidden
    dropout: Chance


class FusionNet(MeetingDescription):
    """The arguments of ``nets.fusion.Fusion``."""

    kind: Literal["trained"] = "trained"
    classes: Width
    strategy: Literal["attention", "gated", "concat"]


class LinearFusionNet(Described):
    """The arguments of ``nets.fusion.LinearFusion``."""

    kind: Literal["linear"] = "linear"
    widths: Widths
    classes: Width
    vectors: bool
    experts: bool


class FirstPresentNet(Described):
    """The arguments of ``nets.fusion.FirstPresent``."""

    kind: Literal["first_present"] = "first_present"
    widths: Widths
    classes: Width
    order: tuple[str, ...]

    @model_validator(mode="after")
    def _orders_all(self) -> Self:
        if sorted(self.order) != sorted(self.widths):
            raise ValueError("order does not name each modality once")
        return self


FusionPart = Annotated[FusionNet | LinearFusionNet, Field(discriminator="kind")]
"""What is averaged: fusions that weigh all modalities."""


class AveragedFusionNet(Described):
    """The arguments of ``nets.fusion.AveragedFusion``, whose parts are described each."""

    kind: Literal["averaged"] = "averaged"
    widths: Widths
    classes: Width
    parts: Annotated[tuple[FusionPart, ...], Field(min_length=1, max_length=16)]

    @model_validator(mode="after")
    def _alike(self) -> Self:
        if any(part.widths != self.widths or part.classes != self.classes for part in self.parts):
            raise ValueError("a part has other modalities or classes than the whole")
        return self


FusionNetDescription = Annotated[
    FusionNet | LinearFusionNet | FirstPresentNet | AveragedFusionNet, Field(discriminator="kind")
]


class PostsDescription(ModelDescription):
    """What specialists and fusion have in common.

    Attributes:
        labels: the classes, in the order of every logit.
        modalities: those that the model reads.
        calibration: what makes its logits probabilities and decisions.
    """

    labels: Annotated[tuple[Name, ...], Field(min_length=1)]
    modalities: Annotated[tuple[Modality, ...], Field(min_length=1)]
    calibration: Calibration

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name, values in (("labels", self.labels), ("modalities", self.modalities)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names one twice")
        for name, numbers in vars(self.calibration).items():
            if len(numbers) != len(self.labels):
                raise ValueError(f"calibration.{name} has {len(numbers)} numbers for {len(self.labels)} labels")
            if not all(math.isfinite(number) and abs(number) <= MAX_CALIBRATION for number in numbers):
                raise ValueError(f"calibration.{name} holds a number that is not finite, or absurd")
        if min(self.calibration.scale) <= 0:
            raise ValueError("calibration.scale holds a number that is not above 0")
        return self


class SpecialistDescription(PostsDescription):
    """A specialist; ``net``, ``candidate`` and ``encoder`` are None where too few posts have its modality (``absent``).

    Attributes:
        candidate: what was taken on the inner folds.
        encoder: what made the vectors, or what the tuning started from.
    """

    absent: bool = False
    candidate: Candidate | None = None
    net: SpecialistNet | None = None
    lora_rank: Annotated[int, Field(ge=1, le=1024)] | None = None
    encoder: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if len(self.modalities) != 1:
            raise ValueError("a specialist has one modality")
        if self.candidate in OF_WORDS and self.modalities != ("text",):
            raise ValueError(f"{self.candidate} is for texts, and not for {self.modalities[0]}")
        if (self.candidate == "lora") != (self.lora_rank is not None):
            raise ValueError(f"lora_rank is {self.lora_rank} for the candidate {self.candidate}")
        if (self.net is None) != (self.candidate is None):
            raise ValueError("net and candidate are there both, or neither")
        return self


class FusionDescription(PostsDescription):
    """The fusion; ``net`` is None in a corpus of one modality, whose specialist's predictions are the fusion's.

    Attributes:
        candidate: what was taken on the inner folds.
        nothing: without a net, the logits of a post that lacks the modality.
    """

    candidate: FusionCandidate | None = None
    net: FusionNetDescription | None
    nothing: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] | None = None

    @model_validator(mode="after")
    def _reads_its_modalities(self) -> Self:
        if self.net is None:
            if len(self.modalities) != 1:
                raise ValueError("without a net there is one modality")
            if self.nothing is None or len(self.nothing) != len(self.labels):
                raise ValueError("without a net there is a logit of each label for posts that lack the modality")
        elif set(self.net.widths) != set(self.modalities) or self.net.classes != len(self.labels):
            raise ValueError("net has other modalities or classes than the model")
        return self
