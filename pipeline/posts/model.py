"""What a prediction is made with: encoders, specialists, the fusion, and how sure it may be.

Built from the files of `fuse` and the specialists, wherever they lie: in a project or in a bundle.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from torch import nn

from pipeline.core import artifacts, off
from pipeline.core.descriptions import NAME, read_description
from pipeline.core.errors import DamagedError, InputError
from pipeline.core.files import content_digest
from pipeline.core.layout import Layout
from pipeline.core.schemas import MODALITIES, Modality
from pipeline.encoders import image, streams, text, tfidf
from pipeline.encoders.image import ImageEncoder
from pipeline.encoders.streams import ClipEncoder
from pipeline.encoders.text import TextEncoder
from pipeline.encoders.tfidf import TextWithWords, TfidfEncoder
from pipeline.encoders.video import ClipNet, VideoEncoder
from pipeline.nets.fusion import FusedNet
from pipeline.nets.specialist import Specialist, TunedSpecialist
from pipeline.params import EmbedParams, Params
from pipeline.posts.descriptions import OF_WORDS, TUNED, FusionDescription, SpecialistDescription
from pipeline.posts.fusion import load_fusion
from pipeline.posts.fusion_nonconformity import fusion_class_scores
from pipeline.training.checkpoint import REMEDY, check_shapes, load_net, load_weights
from pipeline.training.tuning import lora, merged

Encoder = TextEncoder | ImageEncoder | ClipEncoder


@dataclass(frozen=True)
class Branch:
    """One modality on its way from what was posted to the fusion.

    Attributes:
        frozen: the encoder whose vectors the fusion reads.
        encoder: the one whose vectors the specialist reads: ``frozen``, one that was tuned with it, or one of words.
        classifier: vectors → logits.
        net: the specialist as it is saved: ``classifier``, with the encoder in front where that was tuned.
        description: of ``net``, as in ``model.json``; a LoRA has been merged into the weights.
    """

    frozen: Encoder
    encoder: Encoder | VideoEncoder | TfidfEncoder | TextWithWords
    classifier: Specialist
    net: nn.Module
    description: SpecialistDescription

    @property
    def words(self) -> TfidfEncoder | None:
        """The vocabulary of a specialist of words."""
        if isinstance(self.encoder, TextWithWords):
            return self.encoder.words
        return self.encoder if isinstance(self.encoder, TfidfEncoder) else None


@dataclass(frozen=True)
class Model:
    """Everything behind a prediction.

    Attributes:
        branches: the modalities that have a specialist, in the order of ``MODALITIES``.
        fusion: None in a corpus of one modality, whose specialist then decides by itself.
        description: of the fusion, as in ``model.json``.
        nonconformity: of the calibration rows, ascending, by class.
        embed: how media are read.
        identity: sha256 over the files that the models were built from.
    """

    branches: dict[Modality, Branch]
    fusion: FusedNet | None
    description: FusionDescription
    nonconformity: list[np.ndarray]
    embed: EmbedParams
    identity: str

    @property
    def labels(self) -> tuple[str, ...]:
        return self.description.labels


def of_project(params: Params, layout: Layout) -> Model:
    """The models of a finished run.

    Raises InputError when a file is missing, the track is off, or params.yaml names other encoders than those of the
    training.
    """
    off.refuse_off("posts", layout)
    modalities = modalities_of(layout.model("fuse"))
    specialists: dict[Modality, Path] = {name: layout.model(f"train_{name}") for name in modalities}
    encoders = load_encoders(params.embed, modalities)
    for name, folder in specialists.items():
        if read_description(folder, SpecialistDescription).encoder != artifacts.rounded(encoders[name].identity):
            raise InputError(f"{layout.params}: embed.{name}: not what the models were trained with; run `dvc repro`")
    fuse = read_description(layout.model("fuse"), FusionDescription)
    nonconformity = fusion_class_scores(artifacts.read_posts(layout.table("posts")), fuse, layout)
    return build(layout.model("fuse"), specialists, encoders, nonconformity, params.embed)


def modalities_of(fuse: Path) -> list[Modality]:
    """The modalities that the fusion in this folder knows, in the order of ``MODALITIES``."""
    known = read_description(fuse, FusionDescription).modalities
    return [name for name in MODALITIES if name in known]


def labels_of(fuse: Path) -> tuple[str, ...]:
    """The labels of the fusion in this folder, in the order of its logits."""
    return read_description(fuse, FusionDescription).labels


def build(
    fuse: Path,
    specialists: Mapping[Modality, Path],
    encoders: Mapping[Modality, Encoder],
    nonconformity: list[np.ndarray],
    embed: EmbedParams,
) -> Model:
    """Rebuilds the nets from their JSON and fills them. Raises InputError when files are missing or do not match."""
    if "video" in specialists and embed.video.per_group:
        raise InputError(
            "embed.video.per_group: this model compares the clips of a recording with each other, and cannot answer a "
            "post by itself; set it to false and run `dvc repro`"
        )
    description, fusion = read_description(fuse, FusionDescription), load_fusion(fuse)
    branches: dict[Modality, Branch] = {
        name: _branch(name, folder, encoders[name]) for name, folder in specialists.items()
    }
    for name, branch in branches.items():
        _check_fits(specialists[name] / NAME, name, branch, description)
    return Model(branches, fusion, description, nonconformity, embed, _identity([fuse, *specialists.values()]))


def _check_fits(path: Path, name: Modality, branch: Branch, fusion: FusionDescription) -> None:
    """Raises DamagedError where a specialist is of another modality, or of other classes or vectors than the fusion."""
    described = branch.description
    if described.modalities != (name,):
        raise DamagedError(f"{path}: is a specialist of {described.modalities[0]}, and not of {name}", REMEDY)
    if described.labels != fusion.labels:
        raise DamagedError(f"{path}: its labels differ from those of the fusion", REMEDY)
    if described.net is not None and described.net.width != branch.encoder.width:
        raise DamagedError(
            f"{path}: reads {described.net.width} columns of an encoder of {branch.encoder.width}", REMEDY
        )
    if fusion.net is not None and fusion.net.widths[name] != branch.frozen.width:
        width = fusion.net.widths[name]
        raise DamagedError(f"{path}: the fusion reads {width} columns of an encoder of {branch.frozen.width}", REMEDY)


def load_encoders(embed: EmbedParams, modalities: list[Modality]) -> dict[Modality, Encoder]:
    """The encoders that params name; pictures and frames share one where it is the same."""
    encoders: dict[Modality, Encoder] = {}
    texts = text.load(embed.text) if "text" in modalities or streams.reads_words(embed, modalities) else None
    if texts is not None and "text" in modalities:
        encoders["text"] = texts
    pictures = None
    if "image" in modalities:
        pictures = image.load(embed.image) if "pixels" in embed.image.streams else None
        encoders["image"] = streams.of_pictures(embed.image, pictures, texts)
    if "video" in modalities:
        frames = _pictures_of(embed, pictures) if "frames" in embed.video.streams else None
        encoders["video"] = streams.of_streams(embed.video, frames, texts)
    return encoders


def _pictures_of(embed: EmbedParams, pictures: ImageEncoder | None) -> ImageEncoder:
    """What encodes frames: the encoder of ``pictures``, where it is the same."""
    same = (embed.image.encoder, embed.image.revision) == (embed.video.encoder, embed.video.revision)
    return pictures if pictures is not None and same else image.load(embed.video, "embed.video")


def _branch(modality: Modality, folder: Path, frozen: Encoder) -> Branch:
    description = read_description(folder, SpecialistDescription)
    if description.net is None:
        raise InputError(f"{folder}: holds no specialist; run `dvc repro train_{modality}`")
    make = partial(Specialist, classes=len(description.labels), **description.net.arguments())
    if description.candidate not in TUNED:
        classifier = load_net(folder, make)
        return Branch(frozen, _with_words(folder, frozen, description), classifier, classifier, description)

    check_shapes(folder, make, "classifier")
    classifier = make()
    tunable = _that_learns(frozen)
    encoder = ClipNet(tunable) if isinstance(tunable, VideoEncoder) else tunable.net
    if description.candidate == "lora":
        assert description.lora_rank is not None
        encoder = _merged_lora(folder, encoder, tunable, classifier, description.lora_rank)
        net = TunedSpecialist(encoder, classifier)
    else:
        net = TunedSpecialist(encoder, classifier)
        load_weights(folder, net)
    return Branch(
        frozen,
        tunable,
        classifier,
        net.eval(),
        description.model_copy(update={"candidate": "full", "lora_rank": None}),
    )


def _with_words(
    folder: Path, frozen: Encoder, description: SpecialistDescription
) -> Encoder | TfidfEncoder | TextWithWords:
    """What the classifier of a candidate on frozen vectors reads: these, TF-IDF, or both side by side."""
    if description.candidate not in OF_WORDS:
        return frozen
    words = tfidf.read(folder)
    if description.candidate == "tfidf_logreg":
        return words
    assert isinstance(frozen, TextEncoder)
    return TextWithWords(frozen, words)


def _that_learns(encoder: Encoder) -> TextEncoder | ImageEncoder | VideoEncoder:
    """The part of an encoder that can learn, with weights of its own: of a clip, what encodes its frames."""
    if isinstance(encoder, ClipEncoder):
        frames, pixels = encoder.frames, encoder.pixels
        if pixels is not None:
            return replace(pixels, net=copy.deepcopy(pixels.net))
        if frames is None:
            raise InputError("a model that learned needs `frames` (`pixels`) in embed.video.streams; run `dvc repro`")
        return replace(frames, image=replace(frames.image, net=copy.deepcopy(frames.image.net)))
    return replace(encoder, net=copy.deepcopy(encoder.net))


def _merged_lora(
    folder: Path,
    encoder: nn.Module,
    tunable: TextEncoder | ImageEncoder | VideoEncoder,
    classifier: Specialist,
    rank: int,
) -> nn.Module:
    """The encoder with its low-rank updates added to its weights: as fast as any, and peft is needed no more."""
    targets = tunable.image.lora_targets if isinstance(tunable, VideoEncoder) else tunable.lora_targets
    adapted = lora(encoder, targets, rank)
    load_weights(folder, TunedSpecialist(adapted, classifier))
    return merged(adapted)


def _identity(folders: list[Path]) -> str:
    files = [folder / name for folder in folders for name in ("model.json", "model.safetensors", tfidf.FILE)]
    return artifacts.digest(f"{at} {content_digest(file)}" for at, file in enumerate(files) if file.exists())
