"""The words that are written in a picture, or in a few frames of a clip, as PP-OCR reads them. They are kept, and never
printed.

RapidOCR runs two nets (``pip install "emocare-pipeline[ocr]"``): one marks lines of letters, the other reads each. What
it is not sure of does not count, nor does a single letter, which it sees in many things that are none. Lines are joined
as they are read, from the top and from the left; one that stood in an earlier frame too, or nearly so, counts once.

Source: Cui et al., "PaddleOCR 3.0 technical report", 2025, https://arxiv.org/abs/2507.05595.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from pathlib import Path
from shutil import copyfile
from typing import Any, Literal

import numpy as np
from PIL import Image

from pipeline.core.errors import InputError
from pipeline.core.files import MediaError, content_digest
from pipeline.encoders import net_files, weights
from pipeline.encoders.net_files import Located, NetFile
from pipeline.encoders.words import Words
from pipeline.media.clips import Clip
from pipeline.media.kinds import NO_WORDS
from pipeline.media.sampling import Frames
from pipeline.params import EmbedPictureWordsParams, EmbedWordsParams

VERSION = 1
"""Raised when the same frames would have other words than before, so that those kept are not used."""

Role = Literal["detector", "reader"]

FILES: dict[Role, NetFile] = {
    "detector": NetFile("ppocr-detector", ("text_detector.onnx", "PP-OCRv6_det_small.onnx")),
    "reader": NetFile("ppocr-reader", ("text_reader.onnx", "PP-OCRv6_rec_small.onnx")),
}

CHARACTERS = "character"
"""Where a reader's file says which characters it tells apart; without it RapidOCR would ask the network."""

KEY = "embed.video.words"

LONGEST = 4
"""A frame is made no longer than so many times the shortest side that is asked for."""

FEWEST = 2
"""Letters or digits of a line that counts."""

ALIKE = 0.8
"""From this share of equal letters on a line is that of an earlier frame, misread."""


@dataclass(frozen=True)
class Line:
    """A line that was read.

    Attributes:
        confidence: from 0 to 1.
        top: of the upright box around it, as ``bottom`` and ``left``, in pixels.
    """

    text: str
    confidence: float
    top: float
    bottom: float
    left: float


Reader = Callable[[np.ndarray], Sequence[Line]]
"""Reads a picture, uint8 [H, W, 3], RGB; threads call it."""


@dataclass(frozen=True)
class OcrRecogniser:
    """What reads words; see ``words.Recogniser``.

    Attributes:
        picture_side: of pictures, the shortest side that they keep when they are read, in pixels; None of clips.
    """

    identity: dict[str, Any]
    params: EmbedWordsParams
    reader: Reader
    picture_side: int | None = None

    sound_seconds = 0.0

    @property
    def frame_request(self) -> Frames:
        return (self.params.frames, self.params.shortest) if self.picture_side is None else (1, self.picture_side)

    def recognise(self, clip: Clip) -> Words:
        """The words in a clip's frames. Raises MediaError when it has no frames, or no words in any of them."""
        frames = clip.frames(*self.frame_request)
        lines: list[str] = []
        for frame in frames:
            read = self.reader(sized(frame, self.params.shortest))
            sure = [line for line in read if line.confidence >= self.params.confidence and _letters(line.text)]
            lines += _new(in_reading_order(sure), lines)
        if not lines:
            raise MediaError(
                NO_WORDS if self.picture_side is not None else f"{NO_WORDS}: none are read in {len(frames)} frames"
            )
        return Words(" ".join(lines), None)


def sized(picture: np.ndarray, shortest: int) -> np.ndarray:
    """A picture, uint8 [H, W, 3], with so short a side, or one of ``LONGEST`` times as much, whichever is smaller."""
    height, width = picture.shape[:2]
    scale = min(shortest / min(height, width), LONGEST * shortest / max(height, width))
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def in_reading_order(lines: Sequence[Line]) -> list[str]:
    """Texts from the top and, of lines whose middles are less than half a line apart, from the left."""
    rows: list[list[Line]] = []
    for line in sorted(lines, key=lambda line: line.top + line.bottom):
        first = rows[-1][0] if rows else None
        if first is None or line.top + line.bottom - first.top - first.bottom >= first.bottom - first.top:
            rows.append([])
        rows[-1].append(line)
    return [" ".join(line.text.split()) for row in rows for line in sorted(row, key=lambda line: line.left)]


def _new(lines: Sequence[str], before: Sequence[str]) -> list[str]:
    """The lines that were not read before."""
    known = [_folded(line) for line in before]
    return [line for line in lines if not any(_alike(_folded(line), earlier) for earlier in known)]


def _alike(one: str, other: str) -> bool:
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    return one == other or (matcher.real_quick_ratio() >= ALIKE and matcher.ratio() >= ALIKE)


def _folded(line: str) -> str:
    return "".join(filter(str.isalnum, line.casefold()))


def _letters(line: str) -> bool:
    return len(_folded(line)) >= FEWEST


# --- nets ------------------------------------------------------------------------------------------------------------


def write(params: EmbedPictureWordsParams, folder: Path, key: str = KEY) -> None:
    """Writes the nets' files into a new folder, from which ``load`` loads them. Raises InputError as ``load``."""
    located = _located(params, key)
    folder.mkdir(parents=True)
    for role, path in located.paths.items():
        copyfile(path, folder / FILES[role].names[0])


def of_pictures(params: EmbedPictureWordsParams, picture_side: int) -> OcrRecogniser:
    """As ``load``, for pictures, which keep so short a side; see ``OcrRecogniser``."""
    recogniser = load(EmbedWordsParams(frames=1, **dict(params)), "embed.image.words")
    return replace(recogniser, identity=recogniser.identity | {"picture": picture_side}, picture_side=picture_side)


def load(params: EmbedWordsParams, key: str = KEY) -> OcrRecogniser:
    """The nets that params name, ready to run on the processor.

    Raises InputError when RapidOCR is not installed, a net is not at hand, or it is not what it should be.
    """
    try:
        runtimes: Any = [importlib.import_module(name) for name in ("rapidocr.main", "onnxruntime")]
    except ImportError:
        raise InputError('words: RapidOCR is not installed; `pip install "emocare-pipeline[ocr]"`') from None
    located = _located(params, key)
    with weights.loading(f"params.yaml: {key}.models: {params.models}"):
        reader = _reader(located.paths, *runtimes)
    hashes = {role: content_digest(path) for role, path in located.paths.items()}
    identity = net_files.identity(located.name, located.revision, hashes) | {
        "version": VERSION,
        "frames": params.frames,
        "shortest": params.shortest,
        "confidence": params.confidence,
        "width": 0,
    }
    return OcrRecogniser(identity, params, reader)


def _located(params: EmbedPictureWordsParams, key: str) -> Located[Role]:
    if params.models == net_files.FROM_PACKAGE:
        return net_files.in_packages(FILES)
    folder, where = Path(params.models).expanduser(), f"params.yaml: {key}.models: {params.models}"
    if not folder.is_dir():
        raise InputError(f"{where}: neither `{net_files.FROM_PACKAGE}` nor a folder")
    return net_files.in_folder(folder, FILES, where)


def _reader(paths: Mapping[Role, Path], rapidocr: Any, onnxruntime: Any) -> Reader:
    """Raises whatever RapidOCR raises of files that it does not know; it fetches none."""
    cores = ["CPUExecutionProvider"]
    about = onnxruntime.InferenceSession(str(paths["reader"]), providers=cores).get_modelmeta().custom_metadata_map
    if CHARACTERS not in about:
        raise ValueError(f"{paths['reader'].name}: its metadata has no `{CHARACTERS}`, as readers for RapidOCR do")
    settings = {
        "Global.log_level": "critical",
        "Global.text_score": 0.0,
        "Global.use_cls": False,
        "Global.use_preprocess_img": False,
        "Det.model_path": str(paths["detector"]),
        "Det.limit_type": "max",
        "Det.limit_side_len": 2**16,
        "Rec.model_path": str(paths["reader"]),
        "EngineConfig.onnxruntime.intra_op_num_threads": 1,
        "EngineConfig.onnxruntime.inter_op_num_threads": 1,
    }
    engine = rapidocr.RapidOCR(params=settings)
    blank = np.full((64, 64, 3), 255, dtype=np.uint8)
    engine(blank, use_det=True)  # nets are loaded when they are first asked
    engine(blank, use_det=False)

    def read(picture: np.ndarray) -> list[Line]:
        seen = engine(np.ascontiguousarray(picture[:, :, ::-1]), use_det=True)
        if seen.boxes is None:
            return []
        corners = [np.asarray(box) for box in seen.boxes]
        return [
            Line(text, float(score), float(box[:, 1].min()), float(box[:, 1].max()), float(box[:, 0].min()))
            for text, score, box in zip(seen.txts, seen.scores, corners, strict=True)
        ]

    return read
