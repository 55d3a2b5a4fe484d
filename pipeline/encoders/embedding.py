"""Cached encoding: every content is identified by its digest, and encoded once."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pandas as pd
import torch

from pipeline import media
from pipeline.core import artifacts
from pipeline.core.errors import InputError
from pipeline.core.files import MediaError, content_digest
from pipeline.core.layout import Layout
from pipeline.core.prefetch import ahead
from pipeline.core.progress import progress
from pipeline.core.schemas import Modality
from pipeline.encoders.image import ImageEncoder
from pipeline.encoders.store import Store
from pipeline.encoders.text import LEAST_TOKENS, TextEncoder, equal_length_batches, length_batches
from pipeline.media import NO_FACE, NO_SOUND, NO_WORDS, inside
from pipeline.params import EmbedParams, Params
from pipeline.training.device import side_by_side

Result = TypeVar("Result")

CHUNK = 1024
"""Rows handled together: memory depends on this, not on the number of posts."""

COMPUTATION_VERSION = 2
"""Raised when the shapes or the order of a computation change, which the last digits of a vector may follow."""

EXAMPLES = 3
"""Unreadable files that the message names."""

NONE, EMPTY = "none", "empty"
"""Why a row has nothing to encode: no value, or a text of blanks."""

ABSENT = (NONE, EMPTY, NO_SOUND, NO_FACE, NO_WORDS)
"""Reasons that are no fault of the file; any other is."""

Encoded = Mapping[str, np.ndarray | MediaError]
"""Content digest → vector, or why there is none."""


class ContentSource(Protocol):
    """A modality's content: what identifies it, and how it becomes vectors."""

    def digests(self, values: Sequence[str]) -> Iterator[str | MediaError]:
        """What identifies the content of each value, or why there is none."""
        ...

    def encode(self, pending: Mapping[str, str]) -> Iterator[Encoded]:
        """Encodes values by their digest; yields after each batch."""
        ...


@dataclass(frozen=True)
class TextContents:
    encoder: TextEncoder
    device: torch.device

    def digests(self, values: Sequence[str]) -> Iterator[str | MediaError]:
        for value in values:
            yield hashlib.sha256(value.encode()).hexdigest() if value.strip() else MediaError(EMPTY)

    def encode(self, pending: Mapping[str, str]) -> Iterator[Encoded]:
        keys, tokens = list(pending), self.encoder.tokenize(list(pending.values()))

        def encode(batch: np.ndarray) -> dict[str, np.ndarray]:
            vectors = self.encoder.encode_tokens([tokens[at] for at in batch], self.device, least_tokens=LEAST_TOKENS)
            return {keys[at]: vector for at, vector in zip(batch, vectors, strict=True)}

        # An accelerator would starve on batches of one length, and its kernels follow the size of a batch anyway.
        batches = equal_length_batches if self.device.type == "cpu" else length_batches
        yield from side_by_side(encode, batches([len(row) for row in tokens], self.encoder.batch_tokens), self.device)


@dataclass(frozen=True)
class MediaFiles:
    """Media files, decoded by threads while the encoder works.

    Attributes:
        read: file → what the encoder takes for one row. Raises MediaError.
        vectors: a batch of those → float32 [n, width].
        batch: files in a batch.
    """

    folder: Path
    read: Callable[[Path], np.ndarray]
    vectors: Callable[[list[np.ndarray]], np.ndarray]
    batch: int
    workers: int

    def digests(self, values: Sequence[str]) -> Iterator[str | MediaError]:
        return file_digests(self.folder, values, self.workers)

    def encode(self, pending: Mapping[str, str]) -> Iterator[Encoded]:
        def read(value: str) -> np.ndarray | MediaError:
            return or_error(lambda: self.read(inside(self.folder, value)))

        decoded = ahead(read, pending.values(), workers=self.workers, depth=2 * self.batch + self.workers)
        keyed = zip(pending, decoded, strict=True)
        while batch := dict(islice(keyed, self.batch)):
            good = {key: item for key, item in batch.items() if not isinstance(item, MediaError)}
            vectors = self.vectors(list(good.values())) if good else ()
            yield batch | dict(zip(good, vectors, strict=True))


def file_digests(folder: Path, values: Sequence[str], workers: int) -> Iterator[str | MediaError]:
    """What identifies the content of each file of a folder, or why it cannot be read."""

    def digest(value: str) -> str | MediaError:
        return or_error(lambda: content_digest(inside(folder, value)))

    return ahead(digest, values, workers=workers, depth=16 * workers)


def or_error(function: Callable[[], Result]) -> Result | MediaError:
    try:
        return function()
    except MediaError as error:
        return error


def open_store(identity: dict[str, Any], device: torch.device, layout: Layout) -> Store:
    """The store of an encoder's vectors, for those that were computed as they are now. Raises InputError as ``Store``.

    Another processor, another torch or another way of making batches may round otherwise, so theirs are kept apart.
    """
    computed = {"version": COMPUTATION_VERSION, "torch": torch.__version__, "device": device.type}
    if device.type == "cpu":
        computed["instructions"] = torch.backends.cpu.get_cpu_capability()
    return Store(layout.cache / "embeddings", identity | {"computed": computed})


def picture_files(encoder: ImageEncoder, folder: Path, device: torch.device, embed: EmbedParams) -> MediaFiles:
    def read(path: Path) -> np.ndarray:
        picture = media.read_picture(path, max_pixels=embed.max_pixels, at_least=encoder.at_least)
        return encoder.preprocess(picture)

    def vectors(batch: list[np.ndarray]) -> np.ndarray:
        return encoder.encode(np.stack(batch), device, fixed=True)

    return MediaFiles(folder, read, vectors, embed.image.batch, embed.workers)


@dataclass
class Tally:
    """What became of the rows of a modality."""

    rows: int = 0
    present: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, values: Sequence[str | None], results: Sequence[np.ndarray | MediaError]) -> None:
        for value, result in zip(values, results, strict=True):
            self.rows += 1
            if not isinstance(result, MediaError):
                self.present += 1
                continue
            self.reasons[result.kind] += 1
            if result.kind not in ABSENT and len(self.examples) < EXAMPLES:
                self.examples.append(f"{value} ({result})")

    @property
    def absent(self) -> int:
        return sum(self.reasons[kind] for kind in ABSENT)

    @property
    def unreadable(self) -> int:
        return self.rows - self.present - self.absent

    @property
    def bad_share(self) -> float:
        """Share of the rows that name a file; 0 without such rows."""
        return self.unreadable / max(self.present + self.unreadable, 1)

    def report(self, identity: Mapping[str, Any]) -> dict[str, Any]:
        """For a metrics file; ``identity`` is that of the encoder."""
        return {
            "rows": self.rows,
            "present": self.present,
            "absent": self.absent,
            "unreadable": self.unreadable,
            "bad_share": self.bad_share,
            "reasons": dict(sorted(self.reasons.items())),
            "width": identity["width"],
            "encoder": identity["name"],
        }

    def check(self, what: str, max_bad_share: float) -> None:
        if self.bad_share > max_bad_share:
            files = self.present + self.unreadable
            raise InputError(
                f"{what}: {self.unreadable} of {files} files ({self.bad_share:.1%}) cannot be read, more than "
                f"embed.max_bad_share, {max_bad_share:.1%}; the first: {', '.join(self.examples)}"
            )


def embed_posts(
    modality: Modality,
    posts: pd.DataFrame,
    column: str,
    identity: dict[str, Any],
    source: ContentSource,
    device: torch.device,
    params: Params,
    layout: Layout,
) -> dict[str, Any]:
    """Writes the embeddings of one modality; returns what became of its rows."""
    tally, width = Tally(), identity["width"]
    with (
        open_store(identity, device, layout) as store,
        artifacts.embeddings_writer(layout.embeddings("posts", modality), width, identity) as writer,
        progress(f"embedding {modality}", len(posts)) as advance,
    ):
        for at in range(0, len(posts), CHUNK):
            rows = posts.iloc[at : at + CHUNK]
            values = rows[column].tolist()
            digests = content_digests(values, source.digests)
            encoded = encode_missing(values, digests, source, store, advance)
            results = [encoded[digest] if isinstance(digest, str) else digest for digest in digests]
            write_results(writer, rows["sample_id"].tolist(), results, digests, width)
            tally.add(values, results)
        tally.check(modality, params.embed.max_bad_share)
    return tally.report(identity)


def write_results(
    writer: artifacts.EmbeddingsWriter,
    sample_ids: Sequence[str],
    results: Sequence[np.ndarray | MediaError],
    digests: Sequence[str | MediaError],
    width: int,
) -> None:
    vectors = np.zeros((len(results), width), dtype=np.float32)
    reasons: list[str | None] = [None] * len(results)
    content: list[str | None] = [None] * len(results)
    for at, (result, digest) in enumerate(zip(results, digests, strict=True)):
        if isinstance(result, MediaError):
            reasons[at] = str(result)
        else:
            vectors[at], content[at] = result, str(digest)
    writer.write(sample_ids, vectors, reasons, content)


def content_digests(
    values: Sequence[str | None], digests_of: Callable[[Sequence[str]], Iterator[str | MediaError]]
) -> list[str | MediaError]:
    """What each row would encode, or why there is nothing; ``digests_of`` tells it of those that have a value."""
    digests = digests_of([value for value in values if value is not None])
    return [MediaError(NONE) if value is None else next(digests) for value in values]


def encode_missing(
    values: Sequence[str | None],
    digests: Sequence[str | MediaError],
    source: ContentSource,
    store: Store,
    advance: Callable[[int], None],
) -> dict[str, np.ndarray | MediaError]:
    """The vector of every content in these rows: from the store, or encoded once and put there at once."""
    rows_of = Counter(digest for digest in digests if isinstance(digest, str))
    encoded: dict[str, np.ndarray | MediaError] = dict(store.get(list(rows_of)))
    pending: dict[str, str] = {}
    for digest, value in zip(digests, values, strict=True):
        if isinstance(digest, str) and value is not None and digest not in encoded:
            pending.setdefault(digest, value)
    advance(len(values) - sum(rows_of[digest] for digest in pending))
    for batch in source.encode(pending):
        store.put({digest: item for digest, item in batch.items() if not isinstance(item, MediaError)})
        encoded.update(batch)
        advance(sum(rows_of[digest] for digest in batch))
    return encoded
