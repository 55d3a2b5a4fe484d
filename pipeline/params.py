"""A strict, frozen mirror of ``params.yaml``: every knob, its type, its range and a sentence on what it does.

Nothing else reads ``params.yaml``. Defaults stand here and are written out there; a test holds the two equal.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path
from reprlib import Repr
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.core.errors import InputError
from pipeline.core.files import check_readable
from pipeline.core.schemas import (
    AVERAGED,
    Candidate,
    ClipStream,
    Feature,
    FusionCandidate,
    Modality,
    PictureStream,
    SourceCandidate,
    TargetCandidate,
)
from pipeline.core.tracks import TRACKS, Track

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(gt=0.0, le=1.0)]
Patience = Annotated[int, Field(ge=1, le=1000)]
Decay = Annotated[float, Field(ge=0.0, le=100.0)]
Dropout = Annotated[float, Field(ge=0.0, lt=1.0)]
SmallShare = Annotated[float, Field(ge=0.001, lt=0.5)]
"""Of a part that is to hold rows."""
Widths = Annotated[tuple[Annotated[int, Field(ge=1, le=65_536)], ...], Field(strict=False)]
Imbalance = Literal["none", "class_weight", "logit_adjust", "focal"]


class ParamsBlock(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", use_attribute_docstrings=True)


class PostsParams(ParamsBlock):
    manifest: str = "data/sample/posts/manifest.csv"
    """The table of posts: CSV, JSON Lines or Parquet with `id`, `label` and any of `text image video group split`."""
    media: str = "data/sample/posts"
    """The folder that holds the pictures and clips; DVC watches it, and no path may lead out of it."""
    labels: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """The classes in the order of tables and figures; empty: every label of the manifest, in alphabetical order."""


class SourceParams(ParamsBlock):
    corpus: str = "data/sample/source.parquet"
    """The large corpus: features in Parquet or CSV, an MMSA pickle (.pkl), or a folder of CMU SDK .csd files."""
    texts: str = "data/sample/source.parquet"
    """A table with the source's own words in `text`, and scores, to tune the text encoder on; features are ignored."""
    level: Literal["row", "group"] = "row"
    """`group` averages the rows of a group (a video) into one."""


class TargetParams(ParamsBlock):
    corpus: str = "data/sample/target.parquet"
    """The small corpus, in any form that `source.corpus` takes; rows without a score are used without one."""
    modalities: Annotated[tuple[Feature, ...], Field(strict=False)] = ()
    """Which of text, audio and visual to use; empty: all that the target has."""
    as_source: Annotated[tuple[Feature, ...], Field(strict=False)] = ()
    """Modalities whose columns are those of the source, one for one; equal names of columns say so by themselves."""
    level: Literal["row", "group"] = "row"
    """`group` averages the rows of a group (a video) into one."""
    protocol: Literal["auto", "holdout", "cross_validation"] = "auto"
    """`auto`: holdout where the corpus gives a split, otherwise nested cross-validation by groups."""
    folds: Annotated[int, Field(ge=2, le=50)] = 5
    """Outer folds of the cross-validation."""
    repeats: Annotated[int, Field(ge=1, le=50)] = 2
    """Times the cross-validation is repeated with another partition and other seeds."""
    val_share: SmallShare = 0.2
    """Share of a fold's training groups on which it stops and chooses."""


class SampleParams(ParamsBlock):
    posts: Annotated[int, Field(ge=40, le=1_000_000)] = 625
    """How many posts the built-in example corpus has."""
    source_rows: Annotated[int, Field(ge=60, le=1_000_000)] = 900
    """Rows of the built-in source corpus."""
    target_rows: Annotated[int, Field(ge=30, le=1_000_000)] = 93
    """Labelled rows of the built-in target corpus."""
    unlabelled_rows: Annotated[int, Field(ge=0, le=1_000_000)] = 279
    """Rows of the built-in target corpus that have no score."""


class SplitParams(ParamsBlock):
    val_share: SmallShare = 0.1
    """Share of the rows for validation (choices and calibration), where the manifest gives no split."""
    test_share: SmallShare = 0.25
    """Share of the rows that only `evaluate` scores, where the manifest gives no split."""
    picture_agreement: Annotated[float, Field(ge=0.5, le=1.0)] = 0.6
    """Pictures are one group if the details of their thumbnails correlate at least so in every window of them."""
    clip_agreement: Annotated[float, Field(ge=0.5, le=1.0)] = 0.6
    """Clips that look the same are one group if their motion correlates at least so; half so if they sound the same."""
    max_group_share: Share = 0.1
    """A group that copies have grown beyond this share of the posts is warned of, with the copy that joins most."""
    max_refused_share: Share = 0.05
    """Share of a corpus's rows that may be refused before the stage fails."""


Runtime = Literal["torch", "openvino"]
Precision = Literal["fp32", "bf16"]


class EmbedTextParams(ParamsBlock):
    encoder: str = "minilm"
    """`minilm` (packaged all-MiniLM-L6-v2), or a model on the hub or in a local folder (transformers' AutoModel)."""
    revision: str | None = None
    """The hub commit to pin; a hub encoder without one resolves the newest commit and records it."""
    max_tokens: Annotated[int, Field(ge=8, le=8192)] = 128
    """Longer texts are cut to this many tokens."""
    batch_tokens: Annotated[int, Field(ge=64)] = 1024
    """Padded tokens in a batch; texts are sorted by length, so this bounds memory whatever their lengths."""
    runtime: Runtime = "torch"
    """What computes vectors: `openvino` (extra `openvino`) always on the processor; what learns does so by torch."""
    precision: Precision = "fp32"
    """Of vectors' matrix products: `bf16` is faster on a graphics card, or a processor with AVX-512 BF16 or AMX."""


class EmbedPixelsParams(ParamsBlock):
    encoder: str = "efficientnet-lite0"
    """`efficientnet-lite0` (packaged), or a CLIP on the hub or in a local folder (openai/clip-vit-base-patch32)."""
    revision: str | None = None
    """The hub commit to pin; a hub encoder without one resolves the newest commit and records it."""
    batch: Annotated[int, Field(ge=1, le=4096)] = 32
    """Pictures in a batch."""


class EmbedPictureFacesParams(ParamsBlock):
    models: str = "packaged"
    """`packaged`, or a folder, or a `.task` file of MediaPipe, with the nets that find a face and its mesh."""
    expressions: bool = True
    """Also the probabilities of seven expressions, by a net that is packaged too, or lies in the folder."""


class EmbedFacesParams(EmbedPictureFacesParams):
    frames: Annotated[int, Field(ge=1, le=256)] = 8
    """Uniformly spaced frames in which faces are looked for; a clip with fewer gives all it has."""


class EmbedSoundParams(ParamsBlock):
    seconds: Annotated[float, Field(ge=0.5, le=3600.0)] = 60.0
    """At most so much of a clip's sound, from its beginning; memory follows this, and not the length of the clip."""


class EmbedSpeechParams(ParamsBlock):
    encoder: str = "openai/whisper-base"
    """A Whisper on the hub or in a local folder, as transformers or (extra `speech`) as CTranslate2 keeps it."""
    revision: str | None = None
    """The hub commit to pin; a hub encoder without one resolves the newest commit and records it."""
    seconds: Annotated[float, Field(ge=0.5, le=3600.0)] = 60.0
    """At most so much of a clip's sound, from its beginning; it is encoded in the windows that the model takes."""


class EmbedTranscriptParams(ParamsBlock):
    encoder: str = "openai/whisper-base"
    """A Whisper on the hub or in a local folder, as transformers or (extra `speech`) as CTranslate2 keeps it."""
    revision: str | None = None
    """The hub commit to pin; a hub encoder without one resolves the newest commit and records it."""
    language: Annotated[str, Field(pattern="^[a-z]{2,3}$")] | None = None
    """The language that is spoken, as `en`; null has it heard, from the beginning of each clip."""
    seconds: Annotated[float, Field(ge=0.5, le=3600.0)] = 600.0
    """At most so much of a clip's sound, from its beginning; memory follows this, and not the length of the clip."""


class EmbedPictureWordsParams(ParamsBlock):
    models: str = "packaged"
    """`packaged`, or a folder with the nets, as RapidOCR takes them, that find lines of letters and read them."""
    shortest: Annotated[int, Field(ge=64, le=4096)] = 480
    """What the shortest side becomes, in pixels; small letters need more, and time follows its square."""
    confidence: Share = 0.8
    """Lines that the net that reads is less sure of do not count."""


class EmbedWordsParams(EmbedPictureWordsParams):
    frames: Annotated[int, Field(ge=1, le=256)] = 4
    """Uniformly spaced frames in which words are read; a clip with fewer gives all it has."""


class EmbedImageParams(EmbedPixelsParams):
    streams: Annotated[tuple[PictureStream, ...], Field(strict=False, min_length=1)] = ("pixels",)
    """What a picture is read by: `pixels` (`encoder`), `faces`, `words`."""
    faces: EmbedPictureFacesParams = EmbedPictureFacesParams()
    words: EmbedPictureWordsParams = EmbedPictureWordsParams()


class EmbedVideoParams(EmbedPixelsParams):
    streams: Annotated[tuple[ClipStream, ...], Field(strict=False, min_length=1)] = ("frames", "sound")
    """What a clip is read by: `frames` (`encoder`, `pool`), `sound`, `speech`, `faces`, `transcript`, `words`."""
    frames: Annotated[int, Field(ge=1, le=256)] = 8
    """Uniformly spaced frames taken from a clip; a clip with fewer gives all it has."""
    pool: Literal["mean", "mean_std"] = "mean_std"
    """How the frames' vectors become one: their mean, or mean and standard deviation side by side."""
    faces: EmbedFacesParams = EmbedFacesParams()
    sound: EmbedSoundParams = EmbedSoundParams()
    speech: EmbedSpeechParams = EmbedSpeechParams()
    transcript: EmbedTranscriptParams = EmbedTranscriptParams()
    words: EmbedWordsParams = EmbedWordsParams()
    per_group: bool = False
    """Standardise each stream's columns within every group, where a group is a recording with several clips."""


class RayParams(ParamsBlock):
    address: str = "local"
    """`local` starts a cluster on this machine and ends it; `auto`, or `host:port`, joins one (`ray start`)."""
    encoders: Annotated[int, Field(ge=1, le=4096)] = 2
    """Processes that encode, on a processor core or on `gpus` each."""
    readers: Annotated[int, Field(ge=1, le=4096)] = 1
    """Processes that read and decode media for the encoders, by `embed.workers` threads each."""
    gpus: Annotated[float, Field(ge=0.0, le=64.0)] = 0.0
    """Graphics cards of each encoder, or a share of one; 0: a processor core, whatever `device` says."""
    object_store_mb: Annotated[int, Field(ge=80, le=1_000_000)] = 512
    """Memory for decoded media between processes, of a cluster that `local` starts."""


class EmbedParams(ParamsBlock):
    text: EmbedTextParams = EmbedTextParams()
    image: EmbedImageParams = EmbedImageParams()
    video: EmbedVideoParams = EmbedVideoParams()
    workers: Annotated[int, Field(ge=1, le=256)] = 2
    """Threads that read and decode media while the encoder works."""
    engine: Literal["local", "ray"] = "local"
    """Where `embed` and `extract` encode: in their own process, or in those of a Ray cluster (extra `ray`)."""
    ray: RayParams = RayParams()
    max_pixels: Annotated[int, Field(ge=65_536, le=1_000_000_000)] = 50_000_000
    """A picture or frame with more pixels is refused unread: a small file can unpack to many gigabytes."""
    max_bad_share: Share = 0.05
    """Share of a modality's files that may be unreadable before the stage fails."""
    max_nonfinite_share: Share = 0.05
    """A feature column with a larger share of values that are no finite numbers is dropped; fewer are filled in."""


class HeadParams(ParamsBlock):
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 60
    """At most so many passes over the training rows."""
    patience: Patience = 8
    """Stop after so many epochs without a better validation macro-F1."""
    batch: Annotated[int, Field(ge=1, le=65_536)] = 32
    """Rows in a batch."""
    learning_rate: Rate = 1e-3
    """AdamW's peak learning rate."""
    weight_decay: Decay = 3.0
    """AdamW's weight decay; strong, since a few thousand rows meet as many columns."""


class EncoderTuningParams(ParamsBlock):
    epochs: Annotated[int, Field(ge=1, le=1000)] = 2
    """Passes over the training rows, at most; the learning rate falls linearly to zero over them."""
    batch: Annotated[int, Field(ge=1, le=4096)] = 16
    """Rows in a batch."""
    accumulate: Annotated[int, Field(ge=1, le=1024)] = 1
    """Split each batch into so many parts to fit a small graphics card; the gradient is the same."""
    least_steps: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    """Where few rows make fewer steps than this, batches are halved, epochs added, and the embeddings left alone."""
    encoder_learning_rate: Rate = 1e-4
    """AdamW's peak learning rate of the encoder (with `lora`, of the low-rank matrices)."""
    head_learning_rate: Rate = 1e-3
    """AdamW's peak learning rate of the linear head, which starts from nothing."""
    weight_decay: Decay = 0.01
    """AdamW's weight decay."""
    warmup_share: Share = 0.06
    """Share of all steps over which the learning rate rises from zero."""
    lora_rank: Annotated[int, Field(ge=1, le=256)] = 8
    """Rank of the low-rank updates of `lora`."""
    freeze_embeddings: bool = False
    """Keep the token embeddings as they are: half of a small encoder's parameters, a quarter of a step's time."""
    frozen_layers: Annotated[int, Field(ge=0, le=1000)] = 0
    """Keep so many of the encoder's lowest layers, and the embeddings below, as they are."""
    checkpointing: bool = False
    """Keep no more of a layer than its input, and compute the rest again for the gradient: less memory, more time."""
    mixed_precision: Literal["auto", "no", "fp16", "bf16"] = "auto"
    """`auto`: bf16 or fp16 where a graphics card gains by it; on a processor none (bf16: with AVX-512 BF16 or AMX)."""


class AveragedTextParams(EncoderTuningParams):
    epochs: Annotated[int, Field(ge=1, le=1000)] = 3
    """Passes over the rows learned from; the learning rate falls linearly to zero over them."""
    runs: Annotated[int, Field(ge=1, le=20)] = 3
    """Train the final text encoder so many times, each with a seed of its own, and average the weights."""


class TargetTextParams(AveragedTextParams):
    epochs: Annotated[int, Field(ge=1, le=1000)] = 4
    """Passes over the rows learned from; the learning rate falls linearly to zero over them."""
    warmup_share: Share = 0.1
    """Share of all steps over which the learning rate rises from zero."""
    freeze_embeddings: bool = True
    """Keep the token embeddings as they are: half of a small encoder's parameters, a quarter of a step's time."""
    lines: Annotated[int, Field(ge=1, le=1024)] = 8
    """Where rows are groups: so many texts of each are read at a step, drawn anew each time."""
    folds: Annotated[int, Field(ge=2, le=20)] = 2
    """Inner folds where the text encoder learns; each trains it once for every candidate that tunes it."""


class TunedEncoderParams(EncoderTuningParams):
    patience: Patience = 3
    """Stop after so many epochs without a better validation macro-F1."""


class CrossFittedEncoderParams(TunedEncoderParams):
    epochs: Annotated[int, Field(ge=1, le=1000)] = 10
    """At most so many passes over the training rows; the learning rate falls linearly to zero over them."""
    batch: Annotated[int, Field(ge=1, le=4096)] = 32
    """Rows in a batch."""
    folds: Annotated[int, Field(ge=2, le=20)] = 4
    """Inner folds of candidates whose encoder learns; with few, they learn from far less than the final model."""


class TunedMediaParams(CrossFittedEncoderParams):
    augment: bool = True
    """Crop, mirror and relight training pictures and frames at random; there is no such thing for texts."""


class BalanceParams(ParamsBlock):
    imbalance: Imbalance = "class_weight"
    """Against rare classes: nothing, weights in the loss, logits shifted by the class priors, or the focal loss."""
    imbalance_power: Annotated[float, Field(ge=0.0, le=2.0)] = 1.0
    """Exponent of the class weights, or of the priors in `logit_adjust`; 0.5 is the milder square root."""
    focal_gamma: Annotated[float, Field(ge=0.0, le=10.0)] = 2.0
    """How much the focal loss plays down easy rows."""


class ClassifierParams(BalanceParams):
    candidates: Annotated[tuple[Candidate, ...], Field(strict=False, min_length=1)] = (
        "majority",
        "stream_logreg",
        "logreg",
        "tfidf_logreg",
        "joint_logreg",
        "head",
        "full",
    )
    """What is tried, the simplest first; inner folds take the first that is not clearly behind the best."""
    tuned_rows: Annotated[int, Field(ge=1)] = 2000
    """`lora` and `full` are tried from so many rows on (media: only with an accelerator), or where they stand alone."""
    inner_rows: Annotated[int, Field(ge=2)] = 5000
    """Up to so many rows candidates are compared on inner folds; more are compared on the validation rows alone."""
    hidden: Annotated[int, Field(ge=0, le=65_536)] = 0
    """Width of a hidden layer in the classifier; 0: a linear classifier."""
    dropout: Dropout = 0.3
    """Dropout before the classifier."""
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    """Inner folds of candidates that leave the encoder as it is."""
    head: HeadParams = HeadParams()


class TextSpecialistParams(ClassifierParams):
    tuned: CrossFittedEncoderParams = CrossFittedEncoderParams()


class SpecialistParams(ClassifierParams):
    tuned: TunedMediaParams = TunedMediaParams()


DIFFERENCES: dict[Modality, dict[str, Any]] = {
    "text": {"tuned": {"epochs": 2}, "tuned_rows": 200},
    "image": {},
    "video": {"tuned": {"batch": 16}},
}
"""What ``train_<modality>`` sets otherwise than ``specialist``."""


class FuseParams(BalanceParams):
    candidates: Annotated[tuple[FusionCandidate, ...], Field(strict=False, min_length=1)] = (
        "best_specialist",
        "stacked_logreg",
        "vectors_logreg",
        "joint_logreg",
        "averaged",
        "trained",
    )
    """What is tried, the simplest first; inner folds take the first that is not clearly behind the best."""
    inner_rows: Annotated[int, Field(ge=2)] = 10_000
    """Up to so many rows candidates are compared on inner folds; more are compared on the validation rows alone."""
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    """Inner folds."""
    strategy: Literal["attention", "gated", "concat"] = "attention"
    """How modalities meet: they attend to each other, weigh each other by gates, or stand side by side."""
    width: Annotated[int, Field(ge=8, le=4096)] = 64
    """Width of the space in which modalities meet."""
    heads: Annotated[int, Field(ge=1, le=64)] = 4
    """Attention heads; must divide `width`."""
    hidden: Annotated[int, Field(ge=8, le=65_536)] = 64
    """Hidden width of the classifier on top."""
    dropout: Dropout = 0.3
    """Dropout in the projections and in the classifier."""
    modality_dropout: Dropout = 0.3
    """Chance that a present modality is hidden from a training row; one always stays."""
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 60
    """At most so many passes over the training rows."""
    patience: Patience = 8
    """Stop after so many epochs without a better validation macro-F1."""
    batch: Annotated[int, Field(ge=1, le=65_536)] = 32
    """Rows in a batch."""
    learning_rate: Rate = 1e-3
    """AdamW's peak learning rate."""
    weight_decay: Decay = 1.0
    """AdamW's weight decay; strong, since a few thousand rows meet as many columns."""


class TrainSourceParams(ParamsBlock):
    candidates: Annotated[tuple[SourceCandidate, ...], Field(strict=False, min_length=1)] = ("ridge", "net")
    """What is tried, the simplest first: ridge regression, and the net trained on from there."""
    inner_rows: Annotated[int, Field(ge=2)] = 5000
    """Up to so many rows candidates are compared on inner folds; more are compared on the validation rows alone."""
    inner_folds: Annotated[int, Field(ge=2, le=20)] = 3
    """Inner folds."""
    width: Annotated[int, Field(ge=8, le=4096)] = 64
    """Width of the space in which modalities meet."""
    heads: Annotated[int, Field(ge=1, le=64)] = 4
    """Attention heads; must divide `width`."""
    hidden: Annotated[int, Field(ge=8, le=65_536)] = 64
    """Hidden width of the score head."""
    dropout: Dropout = 0.3
    """Dropout in the projections and in the score head."""
    modality_dropout: Dropout = 0.3
    """Chance that a present modality is hidden from a training row; ridge is fitted in expectation over it."""
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 60
    """At most so many passes of the net over the training rows; inner folds choose how many."""
    patience: Patience = 5
    """An inner fold stops after so many epochs without a better concordance on the rows that it holds out."""
    batch: Annotated[int, Field(ge=2, le=65_536)] = 32
    """Rows in a batch."""
    learning_rate: Rate = 3e-4
    """AdamW's learning rate."""
    weight_decay: Decay = 1.0
    """AdamW's weight decay; strong, since a few hundred rows meet as many columns."""
    text: Literal["none", "lora", "full"] = "full"
    """How the text encoder learns from `source.texts`, where those are words: not at all, low-rank, or in full."""
    tuned: AveragedTextParams = AveragedTextParams()


class OneAdapterParams(ParamsBlock):
    hidden: Widths | None = None
    """Widths of hidden layers for this modality; null: `adapter.hidden`."""
    components: Annotated[int, Field(ge=0, le=100_000)] | None = None
    """Principal components for this modality; null: `adapter.components`."""
    epochs: Annotated[int, Field(ge=0, le=100_000)] | None = None
    """Passes for this modality; null: `adapter.epochs`."""
    learning_rate: Rate | None = None
    """Peak learning rate for this modality; null: `adapter.learning_rate`."""


class AdapterParams(ParamsBlock):
    match: Literal["random", "kmeans", "nearest", "ot", "coral"] = "ot"
    """What a target row is aligned with: a source row at random, of its cluster, nearest, by transport; or moments."""
    distance: Literal["l2", "cosine"] = "l2"
    """How far a row is from another: in the matching (but for moments), and in the loss of an adapted row."""
    hidden: Widths = ()
    """Widths of the adapter's hidden layers, such as [256, 512, 1024] for thousands of rows; empty: a linear map."""
    components: Annotated[int, Field(ge=0, le=100_000)] | None = None
    """Principal components of the columns that an adapter sees; 0: the columns; null: 8, with hidden layers 0."""
    dropout: Dropout = 0.1
    """Dropout before each layer but the first."""
    epochs: Annotated[int, Field(ge=0, le=100_000)] = 10
    """Passes over the target's training rows; 0 leaves the adapters as they are initialised."""
    learning_rate: Rate = 1e-2
    """AdamW's peak learning rate; falls by `plateau_factor` where the validation loss stays."""
    weight_decay: Decay = 0.01
    """AdamW's weight decay."""
    batch: Annotated[int, Field(ge=2, le=65_536)] = 128
    """Rows in a batch."""
    plateau_factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.7
    """ReduceLROnPlateau's factor."""
    plateau_patience: Patience = 5
    """ReduceLROnPlateau's patience, in epochs."""
    clusters: Annotated[int, Field(ge=1, le=100_000)] = 32
    """Clusters of each corpus when `match` is `kmeans`."""
    label_weight: Annotated[float, Field(ge=0.0, le=1000.0)] = 1.0
    """Weight of 1 - r between the source model's scores and the target's training labels; 0 leaves these unused."""
    text: OneAdapterParams = OneAdapterParams()
    audio: OneAdapterParams = OneAdapterParams()
    visual: OneAdapterParams = OneAdapterParams()


class FinetuneParams(ParamsBlock):
    candidates: Annotated[tuple[TargetCandidate, ...], Field(strict=False, min_length=1)] = get_args(TargetCandidate)
    """What the model of the target may be; those that the corpora allow are compared, from the simplest on."""
    first: Literal["head", "model"] = "head"
    """What learns first, while the adapters stand still: the source model's score head, or all of the source model."""
    first_epochs: Annotated[int, Field(ge=0, le=10_000)] = 10
    """Passes of that first phase."""
    first_learning_rate: Rate = 1e-3
    """AdamW's peak learning rate of the first phase."""
    epochs: Annotated[int, Field(ge=0, le=10_000)] = 20
    """Passes in which adapters, model and probes learn together; with a text encoder it is `tuned.epochs`."""
    learning_rate: Rate = 1e-4
    """AdamW's peak learning rate of that phase: small; with a text encoder it is `tuned.head_learning_rate`."""
    batch: Annotated[int, Field(ge=2, le=65_536)] = 32
    """Rows in a batch; the correlation in the loss is that of a batch."""
    weight_decay: Decay = 0.01
    """AdamW's weight decay."""
    loss: Literal["mixed", "ccc"] = "mixed"
    """`mixed`: the weighted sum of MSE, MAE and 1 - Pearson's r; `ccc`: 1 - the concordance correlation."""
    mse: Annotated[float, Field(ge=0.0, le=1000.0)] = 0.3
    """Weight of the mean squared error."""
    mae: Annotated[float, Field(ge=0.0, le=1000.0)] = 1.0
    """Weight of the mean absolute error."""
    correlation: Annotated[float, Field(ge=0.0, le=1000.0)] = 0.3
    """Weight of 1 - Pearson's r."""
    l2_sp: Annotated[float, Field(ge=0.0, le=1000.0)] = 0.01
    """L2-SP: weight of the squared distance of all weights to where the phase began."""
    scale: bool = True
    """Fit a scale of the output on rows that inner folds held out, against predictions that cluster or overshoot."""
    group_context: bool = True
    """Move a row's score by the predicted scores of the other rows of its group, as far as held-out rows warrant."""
    text: Literal["auto", "none", "lora", "full"] = "auto"
    """Whether the text encoder learns too, where the target's text is words; `auto`: in full from enough rows on."""
    auto_rows: Annotated[int, Field(ge=1)] = 50
    """`auto` tunes the text encoder from so many training rows on."""
    auto_groups: Annotated[int, Field(ge=1)] = 500
    """The same where rows are groups."""
    tuned: TargetTextParams = TargetTextParams()
    inner_folds: Annotated[int, Field(ge=2, le=20)] = 4
    """Folds of the rows a fold learns from: they weigh the source, and choose; ``tuned.folds`` where texts tune."""
    curve: Annotated[tuple[Annotated[int, Field(ge=4)], ...], Field(strict=False)] = (20, 40)
    """Numbers of labelled training groups for the learning curve with and without the source; may be empty."""


class EvaluateParams(ParamsBlock):
    sentiment_per: Literal["row", "group"] = "row"
    """Whether sentiment is scored row by row, or group by group on the means of a group's rows."""
    permutations: Annotated[int, Field(ge=100, le=1_000_000)] = 2000
    """Shuffles of the scores, by groups, behind each permutation p-value."""
    bootstrap: Annotated[int, Field(ge=100, le=100_000)] = 2000
    """Resamples of whole groups behind each interval."""
    confidence: Annotated[float, Field(ge=0.5, lt=1.0)] = 0.95
    """Coverage of the intervals."""
    coverage: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.9
    """The share of posts of each class whose prediction set shall hold it, and of scores whose interval shall."""
    calibration_bins: Annotated[int, Field(ge=2, le=100)] = 15
    """Bins of equal width in the reliability diagram and the expected calibration error."""
    gallery: Annotated[int, Field(ge=0, le=200)] = 24
    """Pictures on the contact sheet of the most confident mistakes."""


class Params(ParamsBlock):
    tracks: Annotated[tuple[Track, ...], Field(strict=False)] = TRACKS
    """Which tracks run; the stages of the other end at once, with empty outputs."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 42
    """Seeds every random choice of every stage."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where torch computes; `auto` takes an accelerator if there is one."""
    processes: Annotated[int, Field(ge=1, le=1024)] = 2
    """Folds, candidates and subsets that are trained side by side on a processor, each on one thread."""
    posts: PostsParams = PostsParams()
    source: SourceParams = SourceParams()
    target: TargetParams = TargetParams()
    sample: SampleParams = SampleParams()
    split: SplitParams = SplitParams()
    embed: EmbedParams = EmbedParams()
    specialist: SpecialistParams = SpecialistParams()
    train_text: TextSpecialistParams = TextSpecialistParams()
    train_image: SpecialistParams = SpecialistParams()
    train_video: SpecialistParams = SpecialistParams()
    train_source: TrainSourceParams = TrainSourceParams()
    adapter: AdapterParams = AdapterParams()
    finetune_e2e: FinetuneParams = FinetuneParams()
    fuse: FuseParams = FuseParams()
    evaluate: EvaluateParams = EvaluateParams()

    @model_validator(mode="before")
    @classmethod
    def _fill_up(cls, values: Any) -> Any:
        """Completes the ``train_*`` blocks from ``specialist``; what is no block is left for pydantic to refuse."""
        if not isinstance(values, dict) or not isinstance(shared := values.get("specialist", {}), dict):
            return values
        whole = dict(values)
        for modality, differs in DIFFERENCES.items():
            overrides = values.get(f"train_{modality}")
            if overrides is None or isinstance(overrides, dict):
                common = _without_augment(shared) if modality == "text" else shared
                whole[f"train_{modality}"] = _merged(_merged(common, differs), overrides or {})
        return whole

    def of_specialist(self, modality: Modality) -> TextSpecialistParams | SpecialistParams:
        """The whole block of ``train_<modality>``: what ``specialist`` says, but for what differs."""
        return getattr(self, f"train_{modality}")

    def corpora(self, root: Path) -> tuple[Path, ...]:
        """The tables and corpora that a project in ``root`` reads, which no output may be written over."""
        named = (self.posts.manifest, self.source.corpus, self.source.texts, self.target.corpus)
        return tuple(root / name for name in named)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = {**below, **above}
    for name, value in above.items():
        under = below.get(name)
        if isinstance(value, dict) and isinstance(under, dict):
            merged[name] = _merged(under, value)
    return merged


def _without_augment(shared: dict[str, Any]) -> dict[str, Any]:
    tuned = shared.get("tuned")
    if not isinstance(tuned, dict):
        return shared
    return {**shared, "tuned": {name: value for name, value in tuned.items() if name != "augment"}}


def load(path: Path) -> Params:
    """Reads and checks ``params.yaml``.

    Raises InputError with one line for each thing that is wrong: the full key, the value, what is allowed.
    """
    check_readable(path)
    try:
        # ruamel reads YAML 1.2 as DVC does; PyYAML would take 1e-3 for a string.
        raw = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: not found; run from the project's folder") from None
    except RecursionError:
        raise InputError(f"{path}: not valid YAML: nested too deep") from None
    except (YAMLError, ValueError) as error:  # no UTF-8; a number or date that cannot be
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if raw is None:
        raise InputError(f"{path}: is empty; restore it, or write {{}} into it where all defaults are meant")
    try:
        params = Params.model_validate(raw)
    except ValidationError as error:
        raise InputError(*(f"{path}: {line}" for line in _lines(error.errors()))) from None
    if not params.tracks:
        raise InputError(f"{path}: tracks: is empty; give {' or '.join(TRACKS)}, or both")
    for key, _, value in _walk(params, ""):
        twice = [item for at, item in enumerate(value) if item in value[:at]] if isinstance(value, tuple) else []
        if twice and not key.endswith("hidden"):
            raise InputError(f"{path}: {key}: {twice[0]} stands there twice; name each once")
    if "averaged" in params.fuse.candidates and len(set(AVERAGED) & set(params.fuse.candidates)) < 2:
        raise InputError(f"{path}: fuse.candidates: averaged needs two or more of {', '.join(AVERAGED)} beside it")
    if params.fuse.width % params.fuse.heads:
        raise InputError(f"{path}: fuse.heads: {params.fuse.heads} does not divide fuse.width, {params.fuse.width}")
    if params.train_source.width % params.train_source.heads:
        heads, width = params.train_source.heads, params.train_source.width
        raise InputError(f"{path}: train_source.heads: {heads} does not divide train_source.width, {width}")
    if params.split.val_share + params.split.test_share > 0.8:
        raise InputError(f"{path}: split: val_share and test_share leave less than 0.2 of the rows for training")
    _refuse_addresses(params, path)
    return params


COPIES = {
    "posts.manifest": "data/posts",
    "source.corpus": "data/source",
    "source.texts": "data/source_texts",
    "target.corpus": "data/target",
}
"""What may lie in a store, and a folder for its copy."""


def _refuse_addresses(params: Params, path: Path) -> None:
    """Stages read a file several times, and DVC watches it, so it must be here. Raises InputError, which says how."""
    for key, folder in COPIES.items():
        block, _, name = key.partition(".")
        address = str(getattr(getattr(params, block), name))
        if "://" in address:
            media = f", and posts.media to {folder}" if key == "posts.manifest" else ""
            raise InputError(
                f"{path}: {key}: {address} is an address, and stages read files; run `python -m pipeline fetch "
                f"{address} {folder}`, then set {key} to {folder}/{address.rpartition('/')[2]}{media}"
            )
    if "://" in params.posts.media:
        raise InputError(f"{path}: posts.media: {params.posts.media} is an address; give the folder of a `fetch`")


def _lines(errors: Sequence[Any]) -> list[str]:
    """One line an error; one in ``specialist`` is not said again of the blocks that it is passed on to."""
    shared = {error["loc"][1:] for error in errors if error["loc"][:1] == ("specialist",)}
    blocks = {f"train_{modality}" for modality in DIFFERENCES}
    direct = [error for error in errors if error["loc"][:1] == () or error["loc"][0] not in blocks]
    passed_on = [error for error in errors if error not in direct]
    return [_line(error) for error in [*direct, *(error for error in passed_on if error["loc"][1:] not in shared)]]


def _line(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    fields = {name: field for name, field, _ in _walk(Params(), "")}
    if error["type"] == "extra_forbidden":
        parent = key.rpartition(".")[0]
        siblings = sorted(name.rpartition(".")[2] for name in fields if name.rpartition(".")[0] == parent)
        blocks = [name for name in Params.model_fields if "." not in key]
        return f"{key}: unknown key; {parent or 'the top level'} knows {', '.join(blocks or siblings)}"
    known = fields.get(key)
    expected = allowed(known) if known is not None else error["msg"].replace("Input should be", "what is")
    if error["type"] == "invalid_key":
        return f"{key}: is a key that is no text; the keys of params.yaml are names"
    if known is not None and (names := _listed_choices(known)):
        expected = f"a list of one or more of {names}" if error["type"] == "too_short" else f"a list of any of {names}"
    if error["type"] == "string_type":
        expected = "a text; a number in quotes, such as '0'"
    if error["type"] == "model_type":
        start = f"{key}." if key else ""
        inside = {name.removeprefix(start).partition(".")[0]: None for name in fields if name.startswith(start)}
        expected = f"a block of keys: {', '.join(inside)}"
    return f"{key or 'the file'}: {_shown(error['input'])} is not allowed; give {expected}"


def _shown(value: Any) -> str:
    """A value as a message shows it: aliases of YAML can make a small file a value without end."""
    brief = Repr()
    brief.maxstring = brief.maxother = 80
    try:
        return brief.repr(value)
    except ValueError:
        return "a number of thousands of digits"


def allowed(field: FieldInfo) -> str:
    """What a knob takes, for messages and the list of knobs: its type and range, or its choices."""
    options = _choices(field.annotation)
    if options:
        return " | ".join(options)
    limits = ("ge", "gt", "le", "lt")
    bounds = {name: getattr(item, name) for item in field.metadata for name in limits if hasattr(item, name)}
    low = f"at least {bounds['ge']}" if "ge" in bounds else f"above {bounds['gt']}" if "gt" in bounds else ""
    high = f"at most {bounds['le']}" if "le" in bounds else f"below {bounds['lt']}" if "lt" in bounds else ""
    return ", ".join(part for part in (_type_name(field.annotation), low, high) if part)


def _choices(annotation: Any) -> list[str]:
    return [str(option) for option in get_args(annotation)] if get_origin(annotation) is Literal else []


def _listed_choices(field: FieldInfo) -> str:
    """What a list may hold, where that is a choice."""
    inside = get_args(field.annotation) if get_origin(field.annotation) is tuple else ()
    return ", ".join(_choices(inside[0])) if inside else ""


def _type_name(annotation: Any) -> str:
    names: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false"}
    if get_origin(annotation) is Annotated:
        return _type_name(get_args(annotation)[0])
    if type(None) in get_args(annotation):
        return f"{_type_name(get_args(annotation)[0])} or null"
    if get_origin(annotation) is tuple:
        return f"a list of {_type_name(get_args(annotation)[0]).removeprefix('a ')}s"
    return names.get(annotation, "a text")


def knobs(params: Params | None = None) -> Iterator[tuple[str, FieldInfo, Any]]:
    """Every knob as (full key, field, default), in the order of the file.

    Of ``train_text``, ``train_image`` and ``train_video`` only those that differ from ``specialist``, by default or
    in ``params``.
    """
    default = Params()
    for key, field, value in _walk(default, ""):
        block, _, rest = key.partition(".")
        modality = block.removeprefix("train_")
        if modality not in DIFFERENCES or any(_differs(some, modality, rest) for some in (default, params or default)):
            yield key, field, value


def _differs(params: Params, modality: str, key: str) -> bool:
    specific, shared = (
        reduce(getattr, key.split("."), block) for block in (getattr(params, f"train_{modality}"), params.specialist)
    )
    return specific != shared


def _walk(block: BaseModel, prefix: str) -> Iterator[tuple[str, FieldInfo, Any]]:
    for name, field in type(block).model_fields.items():
        value = getattr(block, name)
        if isinstance(value, BaseModel):
            yield from _walk(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field, value
