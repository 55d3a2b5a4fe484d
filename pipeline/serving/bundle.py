"""A trained pipeline in one folder that predicts by itself: no project, no DVC, no network.

``bundle.json`` names every file with its sha256; nothing is loaded before all of them were checked. Weights are
safetensors, the rest is JSON, and ``README.md`` is the model card.

    bundle.json  README.md           what lies here, and the model card
    predictor.json                   the posts track: how media are read, nonconformity of the calibration rows
    fuse/  text/  image/  video/     the fusion and the final specialists: model.json, model.safetensors
    encoders/text/  encoders/image/  the frozen encoders, with the tokenizer
    encoders/speech/  encoders/faces/  encoders/transcript/  encoders/words/  what hears speech, sees faces, hears and
                                   reads words, where these are streams of a clip
    encoders/picture_faces/  encoders/picture_words/  the same of a picture, where they are not those of a clip
    score.json  sentiment/           the sentiment track; see ``score_bundle``
    onnx/                            on request: classifiers and fusion for other runtimes
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Annotated, Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.core import artifacts, json_text
from pipeline.core.content_store import identity_digest
from pipeline.core.descriptions import NAME, read_object, read_typed
from pipeline.core.errors import DamagedError, InputError
from pipeline.core.files import MediaError, content_digest, inside
from pipeline.core.layout import Layout
from pipeline.core.schemas import LEARNING, MODALITIES, Modality
from pipeline.core.tracks import TRACKS, Track
from pipeline.encoders import face_models, image, ocr, streams, text, tfidf, weights
from pipeline.encoders.image import ImageEncoder
from pipeline.encoders.weights import Weights, write_encoder
from pipeline.params import (
    EmbedImageParams,
    EmbedParams,
    EmbedSpeechParams,
    EmbedTranscriptParams,
    EmbedVideoParams,
    Params,
)
from pipeline.posts import model
from pipeline.posts.model import Encoder, Model
from pipeline.serving import card, score_bundle, score_model
from pipeline.serving.score_bundle import encoder_folder
from pipeline.serving.score_model import ScoreModel
from pipeline.training.checkpoint import write_model

FORMAT = 3
"""Version of the folder's layout; a reader refuses one it does not know."""

INDEX, SETTINGS = "bundle.json", "predictor.json"
EXPORT = "python -m pipeline export"


SUFFIXES = (".safetensors", ".json", ".txt", ".model", ".md", ".onnx", ".tflite")
"""What the files of a bundle may be: none of these can run a program. Pickles can, and so are refused unopened."""

SPEECH, FACES = "encoders/speech", "encoders/faces"
TRANSCRIPT, WORDS = "encoders/transcript", "encoders/words"
PICTURE_FACES, PICTURE_WORDS = "encoders/picture_faces", "encoders/picture_words"
CONVERTED = f"{SPEECH}/{weights.CT2_WEIGHTS}"
"""The one file more: it is read by CTranslate2 alone, whose format holds tensors only."""


class Index(BaseModel):
    """``bundle.json``.

    Attributes:
        tracks: what the bundle answers.
        files: name → sha256 of every other file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    tracks: Annotated[tuple[Track, ...], Field(min_length=1, max_length=len(TRACKS))]
    files: Annotated[dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]], Field(min_length=1)]


class Settings(BaseModel):
    """``predictor.json``: what is not in the models' own JSON.

    Attributes:
        embed: how media are read; ``encoder`` is a folder of the bundle.
        nonconformity: label → that of the calibration rows, ascending.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    embed: EmbedParams
    nonconformity: dict[str, list[Annotated[float, Field(ge=0.0, le=1.0)]]]

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        for label, row in self.nonconformity.items():
            if row != sorted(row):
                raise ValueError(f"nonconformity of {label} does not ascend")
        return self


# --- writing ---------------------------------------------------------------------------------------------------------


def export(params: Params, layout: Layout, folder: Path, tracks: Sequence[Track] = (), *, onnx: bool = False) -> None:
    """Writes a bundle of a project's models; it appears only when it is whole.

    Args:
        tracks: those that have been trained when left out.

    Raises InputError when the project is not fully run, ``folder`` holds something else than a bundle, or ONNX is asked
    for and its packages are not installed.
    """
    folder = folder.resolve()
    _refuse_other(folder)
    tracks = list(tracks) or trained_tracks(layout)
    parts = model.of_project(params, layout) if "posts" in tracks else None
    scores = score_model.of_project(params, layout) if "sentiment" in tracks else None
    about = [] if parts is None else [card.write(parts, params, layout)]
    about += [] if scores is None else [score_bundle.card(scores, layout)]
    with artifacts.replacing_folder(folder) as aside:
        shared = None
        if parts is not None:
            _write_nets(parts, aside)
            shared = _write_settings(parts, params, aside).get("text")
        if scores is not None:
            score_bundle.write(scores, params, layout, aside, shared)
        (aside / "README.md").write_text("\n".join(about), encoding="utf-8", newline="\n")
        if onnx and parts is not None:
            from pipeline.serving import onnx as other_runtimes

            other_runtimes.write(parts, aside / "onnx")
        files = sorted(path for path in aside.rglob("*") if path.is_file())
        for path in files:
            path.chmod(0o644)  # safetensors writes for the owner alone, but a bundle is made to be handed on
        hashes = {path.relative_to(aside).as_posix(): content_digest(path) for path in files}
        artifacts.write_json(aside / INDEX, {"format": FORMAT, "tracks": tracks, "files": hashes})


def trained_tracks(layout: Layout) -> list[Track]:
    """The tracks whose last models are there; posts where there are none, which then says what is missing."""
    last: dict[Track, str] = {"posts": "fuse", "sentiment": "finetune_e2e"}
    return [track for track, stage in last.items() if (layout.model(stage) / NAME).is_file()] or ["posts"]


def _refuse_other(folder: Path) -> None:
    """What is written over must be an older bundle with nothing beside its own files, or an empty folder."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        index = json_text.read_object((folder / INDEX).read_bytes())
        bundled = {INDEX, *index["files"]} if "format" in index else set[str]()
    except (OSError, ValueError, KeyError, TypeError):
        bundled = set[str]()
    if not bundled:
        raise InputError(f"{folder}: exists and is no bundle; give a new folder")
    if others := sorted(_names(folder) - bundled):
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise InputError(f"{folder / others[0]}{more}: no file of the bundle, and would be lost; move it elsewhere")


def _names(folder: Path) -> set[str]:
    """Everything in a folder that is no folder itself, links and hidden files among it, and folders that are empty."""
    paths = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir() or not any(path.iterdir())]
    return {path.relative_to(folder).as_posix() for path in paths}


def _write_nets(parts: Model, folder: Path) -> None:
    nets = {"fuse": (parts.fusion, parts.description)}
    nets |= {name: (branch.net, branch.description) for name, branch in parts.branches.items()}
    for name, (net, description) in nets.items():
        (folder / name).mkdir()
        write_model(folder / name, net, description)
    for name, branch in parts.branches.items():
        if branch.words is not None:
            tfidf.write(branch.words, folder / name)


def _write_settings(parts: Model, params: Params, folder: Path) -> dict[str, str]:
    """``predictor.json`` and the encoders, whose folders it returns; pictures and frames may share one."""
    # Of what the model does not know nothing is told: it may be a path of this machine.
    needed = _needed(list(parts.branches), params.embed)
    unknown = {name for name in MODALITIES if name not in needed}
    embed = params.embed.model_dump(exclude=unknown)
    written: dict[str, str] = {}
    if "video" in parts.branches:
        embed["video"] |= _write_streams(params.embed.video, folder)
    if "image" in parts.branches:
        embed["image"] |= _write_seen(params.embed.image, folder, PICTURE_FACES, PICTURE_WORDS)
    for name in needed:
        if name in LEARNING and LEARNING[name] not in getattr(params.embed, name).streams:
            embed[name] |= {"encoder": image.PACKAGED_ENCODER, "revision": None}  # which nothing asks for
            continue
        block = getattr(params.embed, name)
        resolved = weights.resolve(f"embed.{name}", block.encoder, block.revision, _packaged(name))
        key = identity_digest(resolved.identity)
        if key not in written:
            written[key] = f"encoders/{name}"
            write_encoder(resolved, folder / written[key])
        embed[name] |= {"encoder": written[key], "revision": None}
    nonconformity = {label: row.tolist() for label, row in zip(parts.labels, parts.nonconformity, strict=True)}
    # Not rounded, as metrics are: a model that says the same of all posts stands just at a limit of its sets.
    known = json.dumps({"embed": embed, "nonconformity": nonconformity}, indent=2, allow_nan=False)
    (folder / SETTINGS).write_text(known + "\n", encoding="utf-8", newline="\n")
    return {name: embed[name]["encoder"] for name in needed if embed[name]["encoder"] in written.values()}


def _write_streams(video: EmbedVideoParams, folder: Path) -> dict[str, Any]:
    """What ``embed.video`` of a bundle says of speech, faces and words, whose encoders are written where they are
    streams.

    Of those that are not, it says what is usual, for nothing asks.
    """
    speech, transcript = EmbedSpeechParams().model_dump(), EmbedTranscriptParams().model_dump()
    if "speech" in video.streams:
        block = video.speech
        resolved = weights.resolve("embed.video.speech", block.encoder, block.revision, None, ct2=True)
        write_encoder(resolved, folder / SPEECH)
        speech = block.model_dump() | {"encoder": SPEECH, "revision": None}
    if "transcript" in video.streams:
        block = video.transcript
        resolved = weights.resolve("embed.video.transcript", block.encoder, block.revision, None, ct2=True)
        write_encoder(resolved, folder / TRANSCRIPT)
        transcript = block.model_dump() | {"encoder": TRANSCRIPT, "revision": None}
    return {"speech": speech, "transcript": transcript} | _write_seen(video, folder, FACES, WORDS)


def _write_seen(block: EmbedImageParams | EmbedVideoParams, folder: Path, faces: str, words: str) -> dict[str, Any]:
    """The same of faces and written words, which pictures have as well; their nets go into these two folders."""
    key = f"embed.{'image' if isinstance(block, EmbedImageParams) else 'video'}"
    defaults = {"faces": type(block.faces)().model_dump(), "words": type(block.words)().model_dump()}
    if "faces" in block.streams:
        face_models.write(block.faces, folder / faces, f"{key}.faces")
        defaults["faces"] = block.faces.model_dump() | {"models": _kept_once(folder, faces, FACES)}
    if "words" in block.streams:
        ocr.write(block.words, folder / words, f"{key}.words")
        defaults["words"] = block.words.model_dump() | {"models": _kept_once(folder, words, WORDS)}
    return defaults


def _kept_once(folder: Path, written: str, of_clips: str) -> str:
    """The folder that has the nets just written: that of clips where it holds the same files, and then it alone."""
    if written == of_clips or not (folder / of_clips).is_dir():
        return written
    digests, others = (
        {path.name: content_digest(path) for path in (folder / name).iterdir()} for name in (written, of_clips)
    )
    if digests != others:
        return written
    rmtree(folder / written)
    return of_clips


def _needed(modalities: list[Modality], embed: EmbedParams) -> list[Modality]:
    """The modalities whose encoders are needed: that of texts also where words of clips or pictures are read by it."""
    words = streams.reads_words(embed, modalities)
    return [name for name in MODALITIES if name in modalities or (name == "text" and words)]


def _packaged(name: Modality) -> str:
    return "minilm" if name == "text" else image.PACKAGED_ENCODER


# --- reading ---------------------------------------------------------------------------------------------------------


def read(folder: Path) -> Model:
    """Checks a bundle and loads it.

    Raises InputError, in one line, when it is of another format, when a file is missing, changed, not listed or outside
    the folder, or does not say what it has to.
    """
    check(folder)
    if not (folder / SETTINGS).is_file():
        raise InputError(f"{folder}: holds no model of posts, but one of scores; ask it with `--track sentiment`")
    with blaming_the_bundle():
        settings = read_typed(folder / SETTINGS, Settings, EXPORT)
        modalities, labels = model.modalities_of(folder / "fuse"), model.labels_of(folder / "fuse")
        if set(settings.nonconformity) != set(labels):
            raise DamagedError(f"{folder / SETTINGS}: nonconformity is of other labels than the fusion", EXPORT)
        nonconformity = [np.array(settings.nonconformity[label]) for label in labels]
        specialists: dict[Modality, Path] = {name: folder / name for name in modalities}
        encoders = _encoders(folder, settings.embed, modalities)
        return model.build(folder / "fuse", specialists, encoders, nonconformity, settings.embed)


def read_scores(folder: Path) -> ScoreModel:
    """Checks a bundle and loads its score model. Raises InputError as ``read``, or when it holds none."""
    check(folder)
    with blaming_the_bundle():
        return score_bundle.read(folder)


@contextmanager
def blaming_the_bundle() -> Iterator[None]:
    """What is damaged can only be had again from where it was exported. Raises InputError."""
    try:
        yield
    except DamagedError as error:
        raise InputError(f"{error.problem}; copy or export the bundle again") from None


def tracks_of(folder: Path) -> list[Track]:
    """What a bundle answers. Raises InputError when the folder holds no bundle of this format."""
    return list(_index(folder).tracks)


def _index(folder: Path) -> Index:
    """Raises InputError when there is no such index."""
    path = folder / INDEX
    if not path.is_file():
        raise InputError(f"{folder}: no bundle: it has no {INDEX}; make one with `{EXPORT}`")
    with blaming_the_bundle():
        version = read_object(path, EXPORT).get("format")
        if version != FORMAT:
            raise InputError(f"{path}: format {version!r}, this version reads {FORMAT}; export it again")
        return read_typed(path, Index, EXPORT)


def check(folder: Path) -> None:
    """Raises InputError unless the folder holds a bundle of this format with its own files and no others."""
    index, files = folder / INDEX, _index(folder).files
    root = folder.resolve()
    for name, expected in files.items():
        if not _names_own_file(root, name):
            raise InputError(f"{index}: names {name!r}, which leads out of the bundle; do not use it")
        if Path(name).suffix not in SUFFIXES and name != CONVERTED:
            raise InputError(f"{index}: names {name!r}, which is none of {', '.join(SUFFIXES)}; do not use it")
        _check_file(root / name, expected)
    # transformers takes up whatever lies beside a model, so a file too many can change what it computes.
    extra = sorted(name for name in _names(root) - set(files) - {INDEX} if not Path(name).name.startswith("."))
    if extra:
        raise InputError(f"{root / extra[0]}: not a file of this bundle; remove it, or export the bundle again")


def _names_own_file(root: Path, name: str) -> bool:
    """Whether a name of the index is one that ``export`` writes: below the folder, with neither dots nor ``\\``."""
    try:
        inside(root, name)
    except MediaError:
        return False
    return "\\" not in name and ".." not in Path(name).parts


def _check_file(path: Path, expected: str) -> None:
    try:
        digest = content_digest(path)
    except MediaError as error:
        raise InputError(f"{path}: {error}; the bundle is not whole: copy or export it again") from None
    if digest != expected:
        raise InputError(f"{path}: was changed (its sha256 is {digest}); copy or export the bundle again")


def _encoders(folder: Path, embed: EmbedParams, modalities: list[Modality]) -> dict[Modality, Encoder]:
    """As ``model.load_encoders``, from the bundle's own folders."""
    have = [
        name
        for name in _needed(modalities, embed)
        if name not in LEARNING or LEARNING[name] in getattr(embed, name).streams
    ]
    here = {name: encoder_folder(folder, SETTINGS, getattr(embed, name)) for name in have}
    encoders: dict[Modality, Encoder] = {}
    texts = None
    if "text" in here:
        texts = text.build(weights.local(here["text"], "the bundle"), embed.text, str(here["text"]))
    if texts is not None and "text" in modalities:
        encoders["text"] = texts
    pictures = load_pictures(here["image"]) if "image" in here else None
    if "image" in modalities:
        block = embed.image.model_copy(update=_own_seen(folder, embed.image))
        encoders["image"] = streams.of_pictures(block, pictures, texts)
    if "video" in modalities:
        frames = None
        if "video" in here:
            shared = pictures if here.get("image") == here["video"] else None
            frames = shared or load_pictures(here["video"])
        encoders["video"] = streams.of_streams(_own_streams(folder, embed.video), frames, texts)
    return encoders


def _own_streams(folder: Path, video: EmbedVideoParams) -> EmbedVideoParams:
    """The block with the bundle's own nets of speech, words and faces. Raises DamagedError where it names others."""
    local: dict[str, Any] = {}
    if "speech" in video.streams:
        _check_own(folder, video.speech.encoder, SPEECH, pinned=video.speech.revision is not None)
        local["speech"] = video.speech.model_copy(update={"encoder": str(folder / SPEECH)})
    if "transcript" in video.streams:
        _check_own(folder, video.transcript.encoder, TRANSCRIPT, pinned=video.transcript.revision is not None)
        local["transcript"] = video.transcript.model_copy(update={"encoder": str(folder / TRANSCRIPT)})
    return video.model_copy(update=local | _own_seen(folder, video))


def _own_seen(folder: Path, block: EmbedImageParams | EmbedVideoParams) -> dict[str, Any]:
    """The same of what pictures have as well; they may use the nets of clips."""
    pictures, local = isinstance(block, EmbedImageParams), dict[str, Any]()
    if "faces" in block.streams:
        _check_own(folder, block.faces.models, FACES, *[PICTURE_FACES] * pictures)
        local["faces"] = block.faces.model_copy(update={"models": str(folder / block.faces.models)})
    if "words" in block.streams:
        _check_own(folder, block.words.models, WORDS, *[PICTURE_WORDS] * pictures)
        local["words"] = block.words.model_copy(update={"models": str(folder / block.words.models)})
    return local


def _check_own(folder: Path, named: str, *expected: str, pinned: bool = False) -> None:
    if named not in expected or pinned or not (folder / named).is_dir():
        raise DamagedError(f"{folder / SETTINGS}: {named!r} is no encoder of the bundle", EXPORT)


def load_pictures(folder: Path) -> ImageEncoder:
    """A CLIP brings its configuration; the packaged encoder is its tensors alone."""
    if (folder / "config.json").is_file():
        return image.clip(weights.local(folder, "the bundle"), str(folder))
    return image.efficientnet(Weights(folder / "model.safetensors", {"name": image.PACKAGED_ENCODER}))
