"""A trained pipeline in one folder that predicts by itself: no project, no DVC, no network.

``bundle.json`` names every file with its sha256; nothing is loaded before all of them were checked. Weights are
safetensors, the rest is JSON, and ``README.md`` is the model card.

    bundle.json  README.md           what lies here, and the model card
    predictor.json                   the posts track: how media are read, nonconformity of the calibration rows
    fuse/  text/  image/  video/     the fusion and the final specialists: model.json, model.safetensors
    encoders/text/  encoders/image/  the frozen encoders, with the tokenizer
    score.json  sentiment/           the sentiment track; see ``score_bundle``
    onnx/                            on request: classifiers and fusion for other runtimes
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.core import artifacts
from pipeline.core.descriptions import NAME
from pipeline.core.errors import InputError
from pipeline.core.files import MediaError, content_digest
from pipeline.core.layout import Layout
from pipeline.core.schemas import MODALITIES, Modality
from pipeline.core.tracks import TRACKS, Track
from pipeline.encoders import image, streams, text, tfidf, weights
from pipeline.encoders.image import ImageEncoder
from pipeline.encoders.weights import Weights, write_encoder
from pipeline.media import inside
from pipeline.params import EmbedImageParams, EmbedParams, Params
from pipeline.posts import model
from pipeline.posts.model import Encoder, Model
from pipeline.serving import card, score_bundle, score_model
from pipeline.serving.score_model import ScoreModel
from pipeline.training.checkpoint import write_model

FORMAT = 3
"""Version of the folder's layout; a reader refuses one it does not know."""

INDEX = "bundle.json"


class Settings(BaseModel):
    """``predictor.json``: what is not in the models' own JSON.

    Attributes:
        embed: how media are read; ``encoder`` is a folder of the bundle.
        nonconformity: label → that of the calibration rows, ascending.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    embed: EmbedParams
    nonconformity: dict[str, list[Annotated[float, Field(ge=0.0, le=1.0)]]]


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
    """What is written over must be an older bundle, or nothing."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        known = {"format", "files"} <= set(json.loads((folder / INDEX).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        known = False
    if not known:
        raise InputError(f"{folder}: exists and is no bundle; give a new folder")


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
    unknown = {name for name in MODALITIES if name not in parts.branches}
    embed = params.embed.model_dump(exclude=unknown)
    written: dict[str, str] = {}
    for name in parts.branches:
        if name == "video" and "frames" not in params.embed.video.streams:
            embed[name] |= {"encoder": image.PACKAGED, "revision": None}  # which nothing asks for
            continue
        block = getattr(params.embed, name)
        found = weights.resolve(f"embed.{name}", block.encoder, block.revision, _packaged(name))
        key = weights.digest(found.identity)
        if key not in written:
            written[key] = f"encoders/{name}"
            write_encoder(found, folder / written[key])
        embed[name] |= {"encoder": written[key], "revision": None}
    nonconformity = {label: row.tolist() for label, row in zip(parts.labels, parts.nonconformity, strict=True)}
    artifacts.write_json(folder / "predictor.json", {"embed": embed, "nonconformity": nonconformity})
    return {name: embed[name]["encoder"] for name in parts.branches if embed[name]["encoder"] in written.values()}


def _packaged(name: Modality) -> str:
    return "minilm" if name == "text" else image.PACKAGED


# --- reading ---------------------------------------------------------------------------------------------------------


def read(folder: Path) -> Model:
    """Checks a bundle and loads it.

    Raises InputError, in one line, when it is of another format, when a file is missing, changed, not listed or outside
    the folder.
    """
    check(folder)
    if not (folder / "predictor.json").is_file():
        raise InputError(f"{folder}: holds no model of posts, but one of scores; ask it with `--track sentiment`")
    try:
        settings = Settings.model_validate_json((folder / "predictor.json").read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise InputError(f"{folder / 'predictor.json'}: {' '.join(str(error).split())}") from None
    modalities = model.modalities_of(folder / "fuse")
    nonconformity = [np.array(settings.nonconformity.get(label, [])) for label in model.labels_of(folder / "fuse")]
    specialists: dict[Modality, Path] = {name: folder / name for name in modalities}
    encoders = _encoders(folder, settings.embed, modalities)
    return model.build(folder / "fuse", specialists, encoders, nonconformity, settings.embed)


def read_scores(folder: Path) -> ScoreModel:
    """Checks a bundle and loads its score model. Raises InputError as ``read``, or when it holds none."""
    check(folder)
    return score_bundle.read(folder)


def tracks_of(folder: Path) -> list[Track]:
    """What a bundle answers. Raises InputError when the folder holds no bundle of this format."""
    return _index(folder)["tracks"]


def _index(folder: Path) -> dict[str, Any]:
    """``bundle.json``: ``tracks``, and ``files`` with their sha256. Raises InputError when it is no such index."""
    index = folder / INDEX
    if not index.is_file():
        raise InputError(f"{folder}: no bundle: it has no {INDEX}; make one with `python -m pipeline export`")
    content = artifacts.read_json(index)
    if content.get("format") != FORMAT:
        raise InputError(f"{index}: format {content.get('format')!r}, this version reads {FORMAT}; export it again")
    tracks, files = content.get("tracks"), content.get("files")
    if not isinstance(tracks, list) or not tracks or not all(track in TRACKS for track in tracks):
        raise InputError(f"{index}: does not say what the bundle answers; export it again")
    if not isinstance(files, dict) or not files or not all(isinstance(value, str) for value in files.values()):
        raise InputError(f"{index}: does not list the bundle's files; export it again")
    return content


def check(folder: Path) -> None:
    """Raises InputError unless the folder holds a bundle of this format with its own files and no others."""
    index, files = folder / INDEX, _index(folder)["files"]
    root = folder.resolve()
    for name, expected in files.items():
        if not _names_own_file(root, name):
            raise InputError(f"{index}: names {name!r}, which leads out of the bundle; do not use it")
        _check_file(root / name, expected)
    # transformers takes up whatever lies beside a model, so a file too many can change what it computes.
    found = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    extra = sorted(name for name in found - set(files) - {INDEX} if not Path(name).name.startswith("."))
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
        found = content_digest(path)
    except MediaError as error:
        raise InputError(f"{path}: {error}; the bundle is not whole: copy or export it again") from None
    if found != expected:
        raise InputError(f"{path}: was changed (its sha256 is {found}); copy or export the bundle again")


def _encoders(folder: Path, embed: EmbedParams, modalities: list[Modality]) -> dict[Modality, Encoder]:
    """As ``model.load_encoders``, from the bundle's own folders."""
    here = {name: str(folder / getattr(embed, name).encoder) for name in modalities}
    encoders: dict[Modality, Encoder] = {}
    if "text" in modalities:
        encoders["text"] = text.load(embed.text.model_copy(update={"encoder": here["text"]}))
    pictures = load_pictures(here["image"]) if "image" in modalities else None
    if pictures is not None:
        encoders["image"] = pictures
    if "video" in modalities:
        frames = None
        if "frames" in embed.video.streams:
            shared = pictures if here.get("image") == here["video"] else None
            frames = shared or load_pictures(here["video"])
        encoders["video"] = streams.of_streams(embed.video, frames)
    return encoders


def load_pictures(folder: str) -> ImageEncoder:
    """A CLIP brings its configuration; the packaged encoder is its tensors alone."""
    if (Path(folder) / "config.json").is_file():
        return image.load(EmbedImageParams(encoder=folder))
    return image.efficientnet(Weights(Path(folder) / "model.safetensors", {"name": image.PACKAGED}))
