"""Content on its way to a vector: what identifies it, how it is read, and what goes through the encoder together.

The steps stand apart, so that one process can take them all, as ``encode`` does, or many, as ``ray_engine`` lets them.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from pipeline.core.files import MediaError, content_digest, inside
from pipeline.core.prefetch import prefetch_map
from pipeline.encoders import openvino
from pipeline.encoders.image import ImageEncoder
from pipeline.encoders.text import LEAST_TOKENS, TextEncoder, equal_length_batches, length_batches, runs_on
from pipeline.media.pictures import read_picture
from pipeline.params import EmbedParams, Precision, Runtime
from pipeline.training.device import side_by_side

Result = TypeVar("Result")

DIGESTED = 32
"""Files that a thread reads at a time: of small ones each takes less than handing it over."""

COMPUTATION_VERSION = 3
"""Raised when the shapes or the order of a computation change, which the last digits of a vector may follow."""

EMPTY = "empty"
"""Why a text of blanks has no vector."""

Encoded = Mapping[str, np.ndarray | MediaError]
"""Content digest → vector, or why there is none."""


class ContentSource(Protocol):
    """Content: what identifies it, and how it becomes vectors."""

    def digests(self, values: Sequence[str]) -> Iterator[str | MediaError]:
        """What identifies the content of each value, or why there is none."""
        ...

    def encode(self, pending: Mapping[str, Any]) -> Iterator[Encoded]:
        """Encodes values by their digest; yields after each batch."""
        ...


class ModalitySource(ContentSource, Protocol):
    """All content of a modality, and what encodes it."""

    @property
    def identity(self) -> dict[str, Any]:
        """What tells its encoder from any other; with the ``width`` of its vectors."""
        ...

    @property
    def computed(self) -> dict[str, Any]:
        """What its vectors' last digits may follow, as ``computation``."""
        ...

    @property
    def chunks(self) -> int:
        """How many chunks of rows it had better be asked for at once."""
        ...


class Steps(ModalitySource, Protocol):
    """The steps of ``encode``, which can run in several processes: batches, then each value read, then the vectors."""

    @property
    def of_files(self) -> bool:
        """Whether values are files, so that ``digests`` and ``read`` take time."""
        ...

    def batches(self, pending: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """What goes through the encoder together: digest → what ``read`` takes."""
        ...

    def read(self, value: Any) -> Any:
        """What the encoder takes for one value, or a MediaError."""
        ...

    def encoded(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Digest → what ``read`` gave, to digest → vector, or whatever else is made of it; a MediaError stays."""
        ...


@dataclass(frozen=True)
class Computation:
    """What the last digits of vectors may follow, each as ``computation``: of an encoder, of that of texts, and of
    what recognises words, which the processors that read do."""

    vectors: dict[str, Any]
    texts: dict[str, Any]
    words: dict[str, Any]


def computation(device: torch.device) -> dict[str, Any]:
    """Another processor, another torch or another way of making batches may round otherwise."""
    computed = {"version": COMPUTATION_VERSION, "torch": torch.__version__, "device": device.type}
    if device.type == "cpu":
        computed["instructions"] = torch.backends.cpu.get_cpu_capability()
    return computed


def computation_of_texts(runtime: Runtime, precision: Precision, device: torch.device) -> dict[str, Any]:
    """As ``computation``, of an encoder of texts."""
    computed = computation(runs_on(runtime, device))
    if precision == "bf16":  # what has no instructions for it must not share a store with what has them
        there = torch.cpu.get_capabilities().items()
        computed["bf16"] = sorted(name for name, has in there if has is True and "bf16" in name)
    if runtime == "openvino":
        computed["openvino"] = openvino.package().__version__
    return computed


def encoded_batch(vectors: Callable[[list[Any]], np.ndarray], batch: Mapping[str, Any]) -> dict[str, Any]:
    """Digest → what ``read`` gave, to digest → vector; a MediaError stays."""
    good = {key: item for key, item in batch.items() if not isinstance(item, MediaError)}
    encoded = vectors(list(good.values())) if good else ()
    return {**batch, **dict(zip(good, encoded, strict=True))}


@dataclass(frozen=True)
class TextContents:
    encoder: TextEncoder
    device: torch.device

    chunks = 1
    of_files = False

    @property
    def identity(self) -> dict[str, Any]:
        return self.encoder.identity

    @property
    def computed(self) -> dict[str, Any]:
        return computation_of_texts(self.encoder.runtime, self.encoder.precision, self.device)

    def digests(self, values: Sequence[str]) -> Iterator[str | MediaError]:
        for value in values:
            yield hashlib.sha256(value.encode()).hexdigest() if value.strip() else MediaError(EMPTY)

    def batches(self, pending: Mapping[str, str]) -> Iterator[dict[str, list[int]]]:
        keys, tokens = list(pending), self.encoder.tokenize(list(pending.values()))
        # An accelerator would starve on batches of one length, and its kernels follow the size of a batch anyway.
        cut = equal_length_batches if runs_on(self.encoder.runtime, self.device).type == "cpu" else length_batches
        for batch in cut([len(row) for row in tokens], self.encoder.batch_tokens):
            yield {keys[at]: tokens[at] for at in batch}

    def read(self, value: list[int]) -> list[int]:
        return value

    def encoded(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return encoded_batch(partial(self.encoder.encode_tokens, device=self.device, least_tokens=LEAST_TOKENS), batch)

    def encode(self, pending: Mapping[str, str]) -> Iterator[Encoded]:
        device = runs_on(self.encoder.runtime, self.device)
        yield from side_by_side(self.encoded, self.batches(pending), device)


@dataclass(frozen=True)
class MediaFiles:
    """Media files, decoded by threads while the encoder works.

    Attributes:
        prepare: value → what the encoder takes for one row. Raises MediaError.
        vectors: a batch of those → float32 [n, width].
        batch: files in a batch.
        identity: that of the encoder.
    """

    folder: Path
    prepare: Callable[[Any], Any]
    vectors: Callable[[list[Any]], np.ndarray]
    batch: int
    workers: int
    identity: dict[str, Any]
    device: torch.device

    chunks = 1
    of_files = True

    @property
    def computed(self) -> dict[str, Any]:
        return computation(self.device)

    def digests(self, values: Sequence[str]) -> Iterator[str | MediaError]:
        return file_digests(self.folder, values, self.workers)

    def batches(self, pending: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        return in_batches(pending, self.batch)

    def read(self, value: Any) -> Any:
        return or_error(lambda: self.prepare(value))

    def encoded(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return encoded_batch(self.vectors, batch)

    def encode(self, pending: Mapping[str, Any]) -> Iterator[Encoded]:
        yield from map(self.encoded, read_ahead(self.read, pending, self.batch, self.workers))


def in_batches(pending: Mapping[str, Any], size: int) -> Iterator[dict[str, Any]]:
    items = iter(pending.items())
    while batch := dict(islice(items, size)):
        yield batch


def read_ahead(
    read: Callable[[Any], Result], pending: Mapping[str, Any], size: int, workers: int
) -> Iterator[dict[str, Result]]:
    """Batches of what is read of each value, by threads while the batches before are encoded."""
    ready = prefetch_map(read, pending.values(), workers=workers, depth=2 * size + workers)
    for batch in in_batches(pending, size):
        yield dict(zip(batch, islice(ready, len(batch)), strict=True))


def file_digests(folder: Path, values: Sequence[str], workers: int) -> Iterator[str | MediaError]:
    """What identifies the content of each file of a folder, or why it cannot be read."""

    def digests(some: Sequence[str]) -> list[str | MediaError]:
        return [or_error(lambda value=value: content_digest(inside(folder, value))) for value in some]

    size = max(1, min(DIGESTED, len(values) // (4 * workers)))  # a few large files are spread over all threads
    parts = (values[at : at + size] for at in range(0, len(values), size))
    return chain.from_iterable(prefetch_map(digests, parts, workers=workers, depth=2 * workers))


def or_error(function: Callable[[], Result]) -> Result | MediaError:
    try:
        return function()
    except MediaError as error:
        return error


def picture_files(encoder: ImageEncoder, folder: Path, device: torch.device, embed: EmbedParams) -> MediaFiles:
    def prepare(value: str) -> np.ndarray:
        path = inside(folder, value)
        return encoder.preprocess(read_picture(path, max_pixels=embed.max_pixels, at_least=encoder.at_least))

    def vectors(batch: list[np.ndarray]) -> np.ndarray:
        return encoder.encode(np.stack(batch), device, fixed=True)

    return MediaFiles(folder, prepare, vectors, embed.image.batch, embed.workers, encoder.identity, device)
