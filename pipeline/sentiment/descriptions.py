"""The part of ``model.json`` that describes the models of the sentiment track."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.core.descriptions import Chance, Described, MeetingDescription, ModelDescription, Width, Widths
from pipeline.core.schemas import Feature


class ScoreNetArguments(MeetingDescription):
    """The arguments of ``nets.transfer.ScoreNet``."""

    unit: Annotated[float, Field(gt=0.0, le=1e15)] = 1.0


class AdapterArguments(Described):
    """The arguments of ``nets.adapter.Adapter``."""

    width: Width
    hidden: Annotated[tuple[Width, ...], Field(max_length=64)]
    out: Width
    components: Annotated[int, Field(ge=0, le=1_000_000)]
    dropout: Chance
    identity: bool = False

    @model_validator(mode="after")
    def _keeps_the_width(self) -> Self:
        if self.identity and self.width != self.out:
            raise ValueError(f"an adapter that changes nothing cannot make {self.out} columns of {self.width}")
        return self


class AdapterReport(Described):
    """How an adapter's training went: losses, epochs, and distances to the source in units of its spread."""

    first_loss: float
    last_loss: float
    epochs: float
    mean_distance_before: float
    mean_distance_after: float
    spread_distance_before: float
    spread_distance_after: float


class TextModelNet(Described):
    """The head of a text model: vectors of ``width`` columns → a score."""

    width: Width
    dropout: Chance


class SourceDescription(ModelDescription):
    """The source model on features."""

    modalities: tuple[Feature, ...]
    net: ScoreNetArguments


class TextModelDescription(ModelDescription):
    """The source's text model; all None where source or target have no words (``absent``)."""

    absent: bool
    net: TextModelNet | None = None
    encoder: dict[str, Any] | None = None


class AdaptersDescription(ModelDescription):
    """The adapters of every fold; tensors are named ``<fold>|<modality>.<name>``.

    Attributes:
        net: modality → the adapter's arguments.
        adapters, zero_shot_adapters: modality → how the training of the fold ``final`` went, with and without labels.
    """

    modalities: tuple[Feature, ...]
    folds: tuple[str, ...]
    net: dict[str, AdapterArguments]
    adapters: dict[str, AdapterReport]
    zero_shot_adapters: dict[str, AdapterReport]


class TransferNetArguments(Described):
    """What ``nets.transfer.TransferNet`` is rebuilt from.

    Attributes:
        adapters: modality → arguments of the adapter to the source's columns.
        source: the source model inside; None without adapters.
        widths: modality → columns that the net reads.
        text_head: whether the head of the source's text model is part of the net.
        columns: modality → how many columns a row of the corpus has, of which the net reads some; without words.
    """

    adapters: dict[str, AdapterArguments]
    source: ScoreNetArguments | None
    widths: Widths
    text_head: bool
    columns: dict[str, Width]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        source = {} if self.source is None else self.source.widths
        if {name: adapter.out for name, adapter in self.adapters.items()} != source:
            raise ValueError("adapters do not lead to the columns of the source")
        if any(self.widths.get(name) != adapter.width for name, adapter in self.adapters.items()):
            raise ValueError("adapters read other columns than the net")
        if self.text_head and "text" not in self.widths:
            raise ValueError("text_head has no text to read")
        if not set(self.columns) <= set(self.widths):
            raise ValueError("columns names a modality that the net does not read")
        return self


class WordsDescription(Described):
    """Where text vectors come from.

    Attributes:
        encoder: identity of the encoder that params named.
        weights: ``frozen``: as it was loaded; ``source``: tuned on the source's words (``train_source/text``);
            ``target``: tuned on the target's too, and part of the fine-tuned net.
    """

    encoder: dict[str, Any]
    weights: Literal["frozen", "source", "target"]


class GroupContext(Described):
    """How far scores follow their groups: a row gets ``centre + own * d + others * m``, with ``d`` how far it is from
    the centre, and ``m`` how far the other rows of its group are on average."""

    centre: Annotated[float, Field(ge=-1e15, le=1e15)]
    own: Annotated[float, Field(ge=0.0, le=100.0)]
    others: Annotated[float, Field(ge=0.0, le=100.0)]

    def in_scores(self, unit: float) -> Self:
        """The same for scores that were measured in this unit."""
        return self.model_copy(update={"centre": round(self.centre * unit, 6)})


class FinetunedDescription(ModelDescription):
    """The fine-tuned model: all that a score of a new row needs, but for the encoder's own files.

    Attributes:
        modalities: those that the target has.
        used: those that inner folds found worth listening to; the others are masked.
        level: ``row``, or ``group``: a score for the mean of a group's rows.
        context: what the other rows of a group do to a score; None where each row is scored by itself.
        choices: fold → which candidate was taken and why, what inner folds found of each, and what it is made of.
        scores: lowest and highest score of the rows it learned from.
    """

    modalities: tuple[Feature, ...]
    used: tuple[Feature, ...]
    folds: tuple[str, ...]
    level: Literal["row", "group"]
    net: TransferNetArguments
    words: WordsDescription | None
    scores: tuple[float, float]
    context: GroupContext | None = None
    choices: dict[str, dict[str, Any]]

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if not self.modalities or sorted(set(self.modalities)) != sorted(self.modalities):
            raise ValueError("modalities names none, or one twice")
        if not self.used or len(set(self.used)) < len(self.used) or not set(self.used) <= set(self.modalities):
            raise ValueError("used does not name some of modalities")
        if set(self.net.widths) != set(self.modalities):
            raise ValueError("net reads other modalities than the model")
        words = {"text"} if self.words is not None else set[str]()
        if set(self.net.columns) != set(self.modalities) - words or not words <= set(self.modalities):
            raise ValueError("net has not the columns of each modality without words")
        if self.scores[0] > self.scores[1]:
            raise ValueError("the lowest score is above the highest")
        return self
