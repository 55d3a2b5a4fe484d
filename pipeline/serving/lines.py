"""JSON Lines in, JSON Lines out: one answer a line, in order, as soon as it is known."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any, Protocol, TextIO

from pipeline.core.errors import InputError
from pipeline.core.files import NOT_FOUND, MediaError
from pipeline.core.json_text import read_object
from pipeline.core.schemas import MODALITIES
from pipeline.serving.posts import Post
from pipeline.serving.predictor import Predictor
from pipeline.serving.spelling import misspelt

BATCH = 64
"""Lines predicted together, when so many are waiting; a lone line is not kept waiting for others."""

READ_BYTES = 2**16

BOM = b"\xef\xbb\xbf"
"""What some programs of Windows put before a text; tables may begin with it, too."""

Line = tuple[int, bytes]


class Source(Protocol):
    """Bytes that come as they are ready, like those of an unbuffered pipe."""

    def read(self, size: int, /) -> bytes | None: ...


def answer(predictor: Predictor, source: Source, sink: TextIO, coverage: float | None, *, explain: bool) -> int:
    """Answers each line that is not blank; returns how many were bad.

    A line is an object with any of ``text``, ``image``, ``video`` (paths), and an ``id`` that comes back with the
    answer. A bad one, or one of which nothing can be used, is answered by ``{"line": 3, "error": "..."}``, with its
    ``id`` where it has one.
    """
    bad = 0
    for batch in _batches(source):
        parsed = [(number, _parse(line)) for number, line in batch if line.strip()]
        good = [line.post for _, line in parsed if line.post is not None]
        predictions = iter(predictor.predict(good, coverage))
        for number, line in parsed:
            prediction = None if line.post is None else next(predictions)
            error = line.error if prediction is None else prediction.refusal
            id_field = {} if line.id is None else {"id": line.id}
            if prediction is None or line.post is None or error is not None:
                bad += 1
                reply = {"line": number, **id_field, "error": error}
            else:
                reply = id_field | prediction.as_json()
                if explain:
                    reply |= predictor.explain(line.post).as_field()
            sink.write(json.dumps(reply, allow_nan=False) + "\n")
        sink.flush()
    return bad


@dataclass(frozen=True)
class ParsedLine:
    """``post``, or what is wrong with the line; ``id`` is what came under this name, None where nothing did."""

    post: Post | None = None
    error: str | None = None
    id: str | int | float | None = None


def _parse(line: bytes) -> ParsedLine:
    try:
        row = read_object(line)
    except ValueError as error:
        return ParsedLine(error=str(error))
    name = row.get("id")
    if not isinstance(name, str | int | float | None) or (isinstance(name, float) and not math.isfinite(name)):
        return ParsedLine(error="id is neither a text nor a number")
    post = _post(row)
    return ParsedLine(post, None, name) if isinstance(post, Post) else ParsedLine(None, post, name)


def _post(row: dict[str, Any]) -> Post | str:
    """The post, or what is wrong with it."""
    parts = {name: row[name] for name in MODALITIES if row.get(name) is not None}
    if (other := misspelt(row, MODALITIES)) is not None:
        return f"unknown field {other}"
    if not parts:
        return f"gives none of {', '.join(MODALITIES)}"
    wrong = [name for name, value in parts.items() if not isinstance(value, str)]
    if wrong:
        return f"{wrong[0]} is not a text"
    return Post(parts.get("text"), _path(parts.get("image")), _path(parts.get("video")))


def _path(value: str | None) -> Path | MediaError | None:
    if value is None:
        return None
    return Path(value) if value.strip() else MediaError(NOT_FOUND)


def _batches(source: Source) -> Iterator[list[Line]]:
    """Whatever lines are waiting, up to ``BATCH``; a thread reads on while they are predicted.

    Raises InputError, after the lines before, where the source cannot be read on.
    """
    queue: Queue[Line | None] = Queue(2 * BATCH)
    failed: list[OSError] = []
    Thread(target=_read, args=(source, queue, failed), daemon=True).start()
    ended = False
    while not ended:
        batch = [queue.get()]
        while len(batch) < BATCH and batch[-1] is not None:
            try:
                batch.append(queue.get_nowait())
            except Empty:
                break
        ended = batch[-1] is None
        yield [line for line in batch if line is not None]
    if failed:
        raise InputError(f"standard input cannot be read: {failed[0].strerror or failed[0]}; give JSON Lines there")


def _read(source: Source, queue: "Queue[Line | None]", failed: list[OSError]) -> None:
    """Cuts bytes into numbered lines; what ends it too early, such as a folder for an input, is added to ``failed``.

    Reads without Python's own buffer, whose lock a thread that waits for input would still hold when the program ends.
    """
    number, rest = 0, b""

    def enqueue(line: bytes) -> None:
        queue.put((number, line.removeprefix(BOM) if number == 1 else line))

    try:
        while part := source.read(READ_BYTES):
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                number += 1
                enqueue(line)
        number += 1
        enqueue(rest)
    except OSError as error:
        failed.append(error)
    finally:
        queue.put(None)
