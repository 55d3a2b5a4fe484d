"""Where the nets of faces come from: packages, a folder, or a ``.task`` file of MediaPipe; and what runs them.

They are TFLite files, which LiteRT runs (``pip install "emocare-pipeline[faces]"``). A ``.task`` file is a zip of such
files: only members of the names below are read, into memory, and none is larger than ``LARGEST``.
"""

import hashlib
import importlib
import lzma
import threading
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.core.errors import InputError
from pipeline.core.files import MediaError, reading
from pipeline.encoders import net_files, weights
from pipeline.encoders.face_finding import POINTS, Net, anchors
from pipeline.encoders.net_files import FROM_PACKAGE, NetFile
from pipeline.params import EmbedPictureFacesParams

Role = Literal["detector", "mesh", "expression"]

FILES: dict[Role, NetFile] = {
    "detector": NetFile("blazeface", ("face_detector.tflite", "face_detection_short_range.tflite")),
    "mesh": NetFile("facemesh", ("face_landmarks_detector.tflite", "face_landmark.tflite")),
    "expression": NetFile(
        "facex",
        ("face_expression.tflite", "model_optimized.tflite"),
        ", or set `expressions` there to false",
    ),
}
"""What the files are called: first as in a ``.task`` file and as a bundle has them, then as in the packages."""

EXPRESSIONS = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
"""What the net of expressions tells apart, in the order of its outputs."""

LARGEST = 64 * 2**20
"""Bytes of a file; the largest of those known has 4 million."""

KEY = "embed.video.faces"

BAD_ZIP = (
    zipfile.BadZipFile,
    OSError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    zlib.error,
    lzma.LZMAError,
)
"""What the readers of zips and of the ways in which they are compressed raise of a damaged one."""


@dataclass(frozen=True)
class FaceNets:
    """What looks at faces.

    Attributes:
        identity: ``name``, ``revision`` and ``sha256`` of the files; no path.
        expression: None where none is wanted.
        sizes: sides of the pictures that each of them takes, in pixels.
    """

    identity: dict[str, Any]
    detector: Net
    mesh: Net
    expression: Net | None
    sizes: Mapping[Role, int]


def read(params: EmbedPictureFacesParams, key: str = KEY) -> tuple[dict[Role, bytes], dict[str, Any]]:
    """The nets' files, and what tells them from all others.

    Raises InputError when one is not at hand: what is missing, and how to get it; or is not what it should be.
    """
    needed: dict[Role, NetFile] = {
        role: file for role, file in FILES.items() if params.expressions or role != "expression"
    }
    path = Path(params.models).expanduser()
    where = f"params.yaml: {key}.models: {params.models}"
    if params.models == FROM_PACKAGE:
        located = net_files.in_packages(needed)
    elif path.is_dir():
        located = net_files.in_folder(path, needed, where)
    elif path.is_file():
        members = _of_task(path, needed, where)
        return members, _identity(path.resolve().name, "local", members)
    else:
        raise InputError(
            f"{where}: neither `{FROM_PACKAGE}`, nor a folder, nor a file; MediaPipe's face_landmarker.task will do"
        )
    files: dict[Role, bytes] = {role: _limited(file, where) for role, file in located.paths.items()}
    return files, _identity(located.name, located.revision, files)


def write(params: EmbedPictureFacesParams, folder: Path, key: str = KEY) -> None:
    """Writes the nets' files into a new folder, from which ``load`` loads them. Raises InputError as ``read``."""
    folder.mkdir(parents=True)
    for role, content in read(params, key)[0].items():
        (folder / FILES[role].names[0]).write_bytes(content)


def _identity(name: str, revision: str, files: Mapping[Role, bytes]) -> dict[str, Any]:
    return net_files.identity(
        name, revision, {role: hashlib.sha256(content).hexdigest() for role, content in files.items()}
    )


def _limited(path: Path, where: str) -> bytes:
    try:
        with reading(path) as handle:
            content = handle.read(LARGEST + 1)
    except MediaError as error:
        raise InputError(f"{where}: {path.name}: {error}") from None
    if len(content) > LARGEST:
        raise InputError(f"{where}: {path.name}: is larger than {LARGEST} bytes, and no such net")
    return content


def _of_task(path: Path, needed: Mapping[Role, NetFile], where: str) -> dict[Role, bytes]:
    files: dict[Role, bytes] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for role, file in needed.items():
                name = next((name for name in file.names if name in archive.namelist()), None)
                if name is None:
                    raise InputError(file.lacking(where))
                if archive.getinfo(name).file_size > LARGEST:
                    raise InputError(f"{where}: {name}: is larger than {LARGEST} bytes, and no such net")
                with archive.open(name) as member:  # the size that is told above may be a lie
                    files[role] = member.read(LARGEST + 1)
    except BAD_ZIP as error:
        raise InputError(f"{where}: no readable .task file of MediaPipe, which is a zip ({error})") from None
    return files


def load(params: EmbedPictureFacesParams, key: str = KEY) -> FaceNets:
    """The nets, ready to run on the processor. Raises InputError as ``read``, or when LiteRT is not installed."""
    files, identity = read(params, key)
    where = f"params.yaml: {key}.models: {params.models}"
    try:
        runtime = importlib.import_module("ai_edge_litert.interpreter")
    except ImportError:
        raise InputError('faces: LiteRT is not installed; `pip install "emocare-pipeline[faces]"`') from None
    nets: dict[Role, Net] = {}
    sizes: dict[Role, int] = {}
    for role, content in files.items():
        with weights.loading(f"{where}: {role}"):
            nets[role], sizes[role] = _net(role, content, runtime)
    return FaceNets(identity, nets["detector"], nets["mesh"], nets.get("expression"), sizes)


def _net(role: Role, content: bytes, runtime: Any) -> tuple[Net, int]:
    """A net, and the side of its pictures. Raises ValueError where it is another than its role asks for."""
    interpreter = runtime.Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    size = check_shapes(
        role, [tuple(tensor["shape"]) for tensor in inputs], [tuple(tensor["shape"]) for tensor in outputs]
    )
    lock = threading.Lock()

    def run(pixels: np.ndarray) -> list[np.ndarray]:
        with lock:  # an interpreter serves one thread at a time
            interpreter.set_tensor(inputs[0]["index"], np.ascontiguousarray(pixels, dtype=np.float32))
            interpreter.invoke()
            return [interpreter.get_tensor(tensor["index"]) for tensor in outputs]

    return run, size


def check_shapes(role: Role, inputs: Sequence[tuple[int, ...]], outputs: Sequence[tuple[int, ...]]) -> int:
    """The side of the pictures that a net takes. Raises ValueError where its shapes are not those of its role."""
    numbers = sorted(int(np.prod(shape)) for shape in outputs)
    size = int(inputs[0][1]) if len(inputs) == 1 and len(inputs[0]) == 4 else 0
    fits = size > 0 and tuple(inputs[0]) == (1, size, size, 3)
    if role == "expression":
        fits = fits and numbers == [len(EXPRESSIONS)]
    elif role == "mesh":
        fits = fits and len(numbers) > 1 and numbers[0] == 1 and numbers[-1] in (3 * POINTS, 3 * (POINTS + 10))
    else:
        fits = fits and len(numbers) == 2 and numbers[1] == 16 * len(anchors(size, numbers[0]))
    if not fits:
        raise ValueError(f"it takes {list(inputs)} and puts out {list(outputs)}, as no {role} does")
    return size
