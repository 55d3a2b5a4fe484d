"""What ``model.json`` says of the models of the sentiment track."""

from typing import Any, Literal

from pipeline.core.descriptions import Described, ModelDescription
from pipeline.core.schemas import Feature


class ScoreNetArguments(Described):
    """The arguments of ``nets.transfer.ScoreNet``; ``widths``: modality → columns."""

    widths: dict[str, int]
    width: int
    heads: int
    hidden: int
    dropout: float
    modality_dropout: float


class AdapterArguments(Described):
    """The arguments of ``nets.adapter.Adapter``."""

    width: int
    hidden: tuple[int, ...]
    out: int
    components: int
    dropout: float
    identity: bool = False


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

    width: int
    dropout: float


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
    widths: dict[str, int]
    text_head: bool
    columns: dict[str, int]


class WordsDescription(Described):
    """Where text vectors come from.

    Attributes:
        encoder: identity of the encoder that params named.
        weights: ``frozen``: as it was loaded; ``source``: tuned on the source's words (``train_source/text``);
            ``target``: tuned on the target's too, and part of the fine-tuned net.
    """

    encoder: dict[str, Any]
    weights: Literal["frozen", "source", "target"]


class FinetunedDescription(ModelDescription):
    """The fine-tuned model: all that a score of a new row needs, but for the encoder's own files.

    Attributes:
        modalities: those that the target has.
        used: those that inner folds found worth listening to; the others are masked.
        level: ``row``, or ``group``: a score for the mean of a group's rows.
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
    choices: dict[str, dict[str, Any]]
