"""Names and column types of the tables that stages hand to each other."""

import sys
from collections.abc import Sequence
from itertools import combinations
from typing import Literal, TypeVar, get_args

import pyarrow as pa

Modality = Literal["text", "image", "video"]
Feature = Literal["text", "audio", "visual"]
ClipStream = Literal["faces", "frames", "sound", "speech", "transcript", "words"]
"""What a clip is read by: the faces in it, its pictures, its sound, its speech, what is said in it, what is written in
it; see ``encoders.streams``."""
PictureStream = Literal["faces", "pixels", "words"]
"""What a picture is read by: the faces in it, what it shows, what is written in it."""
Stream = ClipStream | PictureStream
Split = Literal["train", "val", "test"]
Role = Literal["train", "val"]
Candidate = Literal["majority", "stream_logreg", "logreg", "tfidf_logreg", "joint_logreg", "head", "lora", "full"]
"""What a specialist may be; see ``posts.candidates``."""
FusionCandidate = Literal["best_specialist", "stacked_logreg", "vectors_logreg", "joint_logreg", "averaged", "trained"]
"""What a fusion may be; see ``posts.fusion_candidates``."""
AVERAGED: tuple[FusionCandidate, ...] = ("stacked_logreg", "vectors_logreg", "joint_logreg", "trained")
"""The candidates that ``averaged`` is the mean of, where they stand."""
SourceCandidate = Literal["ridge", "net"]
"""What a model of the source may be; see ``sentiment.source_candidates``."""
TargetCandidate = Literal[
    "ridge", "text_transfer", "text_tuned", "text_transfer_tuned", "text_averaged", "adapters", "all"
]
"""What a model of the target may be; see ``sentiment.candidates``."""
ScoreStep = Literal[
    "source", "text_transfer", "zero_shot", "adapted", "text_tuned", "finetuned_alone", "finetuned", "mean", "ridge"
]
"""What predicts a score: a step, as ``SCORES_TABLE`` has it, or a baseline, ``mean`` or ``ridge``."""
FeatureSubset = tuple[Feature, ...]
Item = TypeVar("Item")

MODALITIES: tuple[Modality, ...] = get_args(Modality)
FEATURES: tuple[Feature, ...] = get_args(Feature)
SPLITS: tuple[Split, ...] = get_args(Split)
IN_WORDS: tuple[Stream, ...] = ("transcript", "words")
"""The streams whose vectors are made by the encoder of texts."""
LEARNING: dict[Modality, Stream] = {"image": "pixels", "video": "frames"}
"""The stream of a modality whose encoder can be tuned, which is that of ``embed.<modality>.encoder``."""
UNLABELLED = "unlabelled"
"""The split of target rows without a score: adapters may meet their features, and nothing is scored on them."""

FINAL = "final"
"""The ``fold`` of a model fitted on every training row; the others have a number (the target's a repeat's as well)."""


def fold_name(repeat: int, fold: int) -> str:
    """A fold of the target's repeated cross-validation, both counted from 0."""
    return f"repeat-{repeat}.fold-{fold}"


def repeat_and_fold(name: str) -> tuple[int, int]:
    """What ``fold_name`` was made of; ``FINAL`` belongs to repeat 0, after all of its folds."""
    if name == FINAL:
        return 0, sys.maxsize
    repeat, _, fold = name.partition(".")
    return int(repeat.removeprefix("repeat-")), int(fold.removeprefix("fold-"))


def repeat_of(name: str) -> int:
    """The repeat of a fold."""
    return repeat_and_fold(name)[0]


POSTS_TABLE = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("group_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("image_path", pa.string()),
        pa.field("video_path", pa.string()),
    ]
)
"""``data/split/posts.parquet``: sorted by ``sample_id``; paths are relative to ``posts.media``, with ``/``."""

SCORED_TABLE = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("group_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("given_group", pa.string(), nullable=False),
        pa.field("given_split", pa.string()),
        pa.field("score", pa.float64()),
        pa.field("text", pa.string()),
    ]
)
"""``data/split/{source,source_texts,target}.parquet``: sorted by ``sample_id``.

``split`` is ``train | val | test | unlabelled``; a cross-validated corpus has ``train`` (and ``unlabelled``) only.
``group_id`` is the group with its copies; ``given_group`` and ``given_split`` are what the corpus itself said, the
row's id and null where it said nothing. ``score`` is null for unlabelled rows.
"""

FOLDS_TABLE = pa.schema(
    [
        pa.field("fold", pa.string(), nullable=False),
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("role", pa.string(), nullable=False),
    ]
)
"""``data/split/target_folds.parquet``: what each fold does with the labelled target rows.

Its models learn from ``train``, stop and choose on ``val``, which the fine-tuned one then learns from too, and are
scored on ``test``. Under holdout there is the one
fold ``final``; under cross-validation ``repeat-0.fold-0``, …, and ``final``, which learns from all rows and is scored
on none.
"""

SCORES_TABLE = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("fold", pa.string(), nullable=False),
        pa.field("step", pa.string(), nullable=False),
        pa.field("subset", pa.string(), nullable=False),
        pa.field("with_source", pa.bool_(), nullable=False),
        pa.field("groups", pa.int32(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
    ]
)
"""``models/<stage>/predictions.parquet`` of a score: ``split`` is the row's role in the fold that predicted it.

Rows with the role ``test`` were unseen by that fold's models; ``train`` and ``val`` are there to show the gap.
``step`` is ``source | text_transfer | zero_shot | adapted | text_tuned | finetuned_alone | finetuned``; ``subset``
names the modalities that were not masked. Points of the learning curve are ``finetuned`` on so many labelled
``groups`` (0 elsewhere: all of them), ``with_source`` or without. ``finetuned_alone`` is there where ``finetuned``
moves rows by their groups, and is the same without that, as the curve is. Validation rows of ``text_tuned`` and these
two, whose models are fitted on them too, are predicted by models of inner folds that were not.
"""


def subsets_of(items: Sequence[Item]) -> list[tuple[Item, ...]]:
    """Every non-empty subset, small ones first, each in the order given."""
    return [subset for size in range(1, len(items) + 1) for subset in combinations(items, size)]


def subset_name(subset: Sequence[str]) -> str:
    """What a set of modalities is called in tables and metrics: ``text_image``. Nothing reads it back."""
    return "_".join(subset)


FITTED_TABLE = pa.schema(
    [
        pa.field("fold", pa.string(), nullable=False),
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("group_id", pa.string(), nullable=False),
        pa.field("role", pa.string(), nullable=False),
    ]
)
"""``models/<stage>/fitted.parquet``: ``role`` is ``train`` (weights were fitted to it) or ``val`` (it
stopped training, chose or calibrated; the fine-tuned model's weights are fitted to these too)."""


def embeddings_table(width: int) -> pa.Schema:
    """``data/embeddings/<corpus>/<modality>.parquet``: same rows and order as the sample table.

    ``vector`` is all zeros where ``present`` is false, and ``reason`` then says why; ``content`` is the digest of
    the bytes that were encoded, so that a changed file changes the table.
    """
    return pa.schema(
        [
            pa.field("sample_id", pa.string(), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), width), nullable=False),
            pa.field("present", pa.bool_(), nullable=False),
            pa.field("reason", pa.string()),
            pa.field("content", pa.string()),
        ]
    )


def predictions_table(classes: int) -> pa.Schema:
    """``models/<stage>/predictions.parquet``: ``logits`` before calibration, classes in the model's label order.

    ``kind`` is ``specialist``, ``fusion`` (with all that it has), ``masked`` or ``retrained``; ``subset`` names the
    modalities that it was given.
    """
    return pa.schema(
        [
            pa.field("sample_id", pa.string(), nullable=False),
            pa.field("split", pa.string(), nullable=False),
            pa.field("fold", pa.string(), nullable=False),
            pa.field("kind", pa.string(), nullable=False),
            pa.field("subset", pa.string(), nullable=False),
            pa.field("logits", pa.list_(pa.float32(), classes), nullable=False),
        ]
    )
