"""Requests → posts and samples: nothing is believed, nothing touches the disk, all faults are said in one line."""

import asyncio
import base64
import binascii
import io
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from pipeline.core.files import MediaError
from pipeline.core.json_text import read_object
from pipeline.core.schemas import FEATURES, MODALITIES
from pipeline.media.clips import Clip
from pipeline.serving.posts import Post
from pipeline.serving.predictor import Predictor
from pipeline.serving.score_predictor import Sample

SWITCHES = ("explain", "looked_at")
FIELDS = (*MODALITIES, "coverage", *SWITCHES)
SAMPLE_FIELDS = (*FEATURES, "coverage")
YES, NO = ("true", "1", "on", "yes"), ("false", "0", "off", "no", "")

THUMBNAIL = 256
"""Longest side of a picture that is sent back, in pixels."""

SMALL = 2**16
"""Bytes of a body for which there is always room."""

FIELD_BYTES = 2**20
"""A form field that is no file: a text, at most."""


@dataclass(frozen=True)
class RequestLimits:
    """What one who asks may cost.

    Attributes:
        bytes: of a request.
        characters: of a text.
        clip_seconds: that a clip is shown for.
        seconds: for a request to come in, and again for its answer.
        queue: requests that have come in and are under way at the same time; a further one is turned away.
        batch: posts that are predicted together.
        explanations: of those under way; a further one is turned away, since each is hundreds of predictions.
    """

    bytes: int = 16_000_000
    characters: int = 20_000
    clip_seconds: float = 60.0
    seconds: float = 30.0
    queue: int = 128
    batch: int = 32
    explanations: int = 4

    @property
    def all_bytes(self) -> int:
        """Of the bodies of all requests together: a quarter of what they might be."""
        return max(self.queue // 4, 1) * self.bytes


class MemoryBudget:
    """How many bytes the bodies of all requests may take in memory, those still being received among them.

    ``SMALL`` bodies do not count, so that large ones that never end cannot block requests of text alone.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.reserved = max_bytes, 0

    @contextmanager
    def reservation(self) -> Iterator["MemoryReservation"]:
        """For one body; released when the context ends."""
        reservation = MemoryReservation(self)
        try:
            yield reservation
        finally:
            self.reserved -= reservation.reserved


@dataclass
class MemoryReservation:
    """The bytes of one body that count against ``budget``."""

    budget: MemoryBudget
    reserved: int = 0

    def resize(self, size: int) -> None:
        """``size``: bytes of the body received so far. Raises HTTPException 503 where the budget is exceeded."""
        more = max(size - SMALL, 0) - self.reserved
        if self.budget.reserved + more > self.budget.max_bytes:
            raise HTTPException(503, "busy with large requests; try again in a second", {"Retry-After": "1"})
        self.budget.reserved += more
        self.reserved += more


@dataclass(frozen=True)
class PredictRequest:
    """A parsed request to predict a post."""

    post: Post
    coverage: float | None = None
    explain: bool = False
    looked_at: bool = False


@dataclass(frozen=True)
class ScoreRequest:
    """A parsed request for a score."""

    sample: Sample
    coverage: float | None = None


@dataclass(frozen=True)
class PreparedRequest:
    """A request whose pictures and clips are decoded and preprocessed.

    Attributes:
        post: prepared for the encoders.
        pixels: the same post with its pictures as pixels, where an explanation was asked for.
        looked_at: what the model sees, as pictures for a page, where that was asked for.
    """

    post: Post
    coverage: float | None
    pixels: Post | None
    looked_at: dict[str, Any] | None


async def receive(request: Request, limits: RequestLimits, reserved: MemoryReservation) -> PredictRequest:
    """Reads and parses a request, a multipart form or JSON.

    Raises HTTPException: 400 it is not what its content type says, 408 it comes too slowly, 413 too large, 415 neither
    form nor JSON, 422 a field is wrong, 503 there is no memory for it.
    """
    body, kind = await _body(request, limits, reserved), _kind(request)
    if kind == "multipart/form-data":
        return _predict_request(await _form(request.headers, body), limits)
    if kind == "application/json":
        return _predict_request(_with_files(_object(body)), limits)
    raise HTTPException(415, "send multipart/form-data or application/json")


async def receive_sample(request: Request, limits: RequestLimits, reserved: MemoryReservation) -> ScoreRequest:
    """Reads and parses a request for a score, JSON. Raises HTTPException as ``receive``."""
    body = await _body(request, limits, reserved)
    if _kind(request) != "application/json":
        raise HTTPException(415, "send application/json")
    sample = _known(_object(body), SAMPLE_FIELDS, FEATURES)
    text = sample.get("text")
    if isinstance(text, str):
        _check_length(text, limits)
    else:
        text = _numbers("text", text)
    audio, visual = (_numbers(name, sample.get(name)) for name in ("audio", "visual"))
    return ScoreRequest(Sample(text, audio, visual), _coverage(sample))


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _body(request: Request, limits: RequestLimits, reserved: MemoryReservation) -> bytes:
    try:
        async with asyncio.timeout(limits.seconds):
            return await _read_body(request, limits.bytes, reserved)
    except TimeoutError:
        raise HTTPException(408, f"the request did not come in within {limits.seconds:g} seconds") from None


async def _read_body(request: Request, most: int, reserved: MemoryReservation) -> bytes:
    too_large = HTTPException(413, f"larger than {most / 1e6:g} MB")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared[:20]) > most:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise too_large
        reserved.resize(len(body))
    return bytes(body)


class _InMemory(MultiPartParser):
    """Starlette's own parser puts files of more than 1 MB on disk."""

    spool_max_size = 2**40


async def _form(headers: Headers, body: bytes) -> dict[str, Any]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    count = len(FIELDS)
    try:
        parser = _InMemory(headers, stream(), max_files=count, max_fields=count, max_part_size=FIELD_BYTES)
        form = await parser.parse()
    except (MultiPartException, ValueError, KeyError, AssertionError) as error:
        why = getattr(error, "message", None) or "it has no boundary, or its parts are not as they should be"
        raise HTTPException(400, f"not a multipart form: {why}") from None
    fields: dict[str, Any] = {}
    for name, value in form.multi_items():
        if name in fields:
            raise HTTPException(422, f"{name[:40]!r} is given twice")
        fields[name] = await value.read() if isinstance(value, UploadFile) else value
    # A page sends an empty file for a field that was left alone.
    return {name: value for name, value in fields.items() if name not in ("image", "video") or value}


def _object(body: bytes) -> dict[str, Any]:
    try:
        return read_object(body)
    except ValueError as error:
        raise HTTPException(400, str(error)) from None


def _with_files(body: dict[str, Any]) -> dict[str, Any]:
    """With the bytes of a picture and a clip in place of their base64."""
    for name in ("image", "video"):
        if isinstance(body.get(name), str):
            try:
                body[name] = base64.b64decode(body[name], validate=True)
            except (binascii.Error, ValueError):
                raise HTTPException(422, f"{name} is not base64") from None
    return body


def _known(body: Mapping[str, Any], fields: Sequence[str], needed: Sequence[str]) -> dict[str, Any]:
    """The fields that hold something. Raises HTTPException 422 where one is unknown, or none of ``needed`` is there."""
    body = {name: value for name, value in body.items() if value is not None}
    if unknown := sorted(set(body) - set(fields)):
        raise HTTPException(422, f"unknown field {unknown[0][:40]!r}; known are {', '.join(fields)}")
    if not any(name in body for name in needed):
        raise HTTPException(422, f"gives none of {', '.join(needed)}")
    return body


def _check_length(text: str, limits: RequestLimits) -> None:
    if len(text) > limits.characters:
        raise HTTPException(422, f"the text has {len(text)} characters, at most {limits.characters} are allowed")


def _predict_request(body: Mapping[str, Any], limits: RequestLimits) -> PredictRequest:
    """Raises HTTPException 422."""
    body = _known(body, FIELDS, MODALITIES)
    text = body.get("text")
    if text is not None and not isinstance(text, str):
        raise HTTPException(422, "text is not a text")
    if text is not None:
        _check_length(text, limits)
    for name in ("image", "video"):
        if not isinstance(body.get(name, b""), bytes):
            raise HTTPException(422, f"{name} is not a file (in JSON: base64)")
    post = Post(text, body.get("image"), body.get("video"))
    return PredictRequest(post, _coverage(body), *(_switch(body, name) for name in SWITCHES))


def _numbers(name: str, value: Any) -> np.ndarray | None:
    """float64 [D] or [T, D]; None where there is nothing. Raises HTTPException 422."""
    if value is None:
        return None
    try:
        numbers = np.asarray(value)
    except ValueError:  # rows of different lengths
        numbers = np.empty(0)
    if numbers.dtype.kind not in "iuf" or numbers.ndim not in (1, 2) or not numbers.size:
        raise HTTPException(422, f"{name} is neither a list of numbers nor a list of such lists of one length")
    return numbers.astype(np.float64)


def _coverage(body: Mapping[str, Any]) -> float | None:
    value = body.get("coverage", "")
    if value == "":
        return None
    try:
        coverage = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else -1.0
    except (ValueError, OverflowError):
        coverage = -1.0
    if not 0 < coverage < 1:
        raise HTTPException(422, "coverage is not a number above 0 and below 1")
    return coverage


def _switch(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name, False)
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in YES + NO:
        return value.lower() in YES
    raise HTTPException(422, f"{name} is neither true nor false")


def prepare(predictor: Predictor, request: PredictRequest, clip_seconds: float, deadline: float) -> PreparedRequest:
    """Decodes pictures and clips; what cannot be read is noted in the post. May run beside a prediction."""
    pixels = predictor.read(request.post, max_seconds=clip_seconds, deadline=deadline)
    return PreparedRequest(
        predictor.prepared(pixels),
        request.coverage,
        pixels if request.explain else None,
        _looked_at(predictor, pixels) if request.looked_at else None,
    )


def _looked_at(predictor: Predictor, post: Post) -> dict[str, Any]:
    """Of a post that was read; ``faces`` only of models that measure them: the picture and the frames in which they do,
    and the box of each one's face."""
    measured = [
        predictor.face(post.image) if isinstance(post.image, np.ndarray) else None,
        predictor.faces(post.video) if isinstance(post.video, Clip) else None,
    ]
    seen = [pair for pairs in measured for pair in pairs or ()]
    faces = [{"frame": _thumbnail(frame), "box": box} for frame, box in seen] or None
    return {
        "image": _thumbnail(post.image) if isinstance(post.image, np.ndarray) else None,
        "frames": _frames(post.video),
        "faces": faces,
    }


def _frames(video: Any) -> list[str] | None:
    """Small pictures of the frames of a clip that was read, of those that are explained; None where it has none."""
    if not isinstance(video, Clip) or isinstance(video.shown, MediaError):
        return None
    return [_thumbnail(frame) for frame in next(iter(video.shown.values()), ())] or None


def _thumbnail(pixels: np.ndarray) -> str:
    """A small JPEG of a picture, uint8 [H, W, 3], as a data URI."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
