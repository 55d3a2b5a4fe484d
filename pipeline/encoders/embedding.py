"""Cached encoding: every content is identified by its digest, and encoded once."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.core import artifacts
from pipeline.core.errors import InputError
from pipeline.core.files import MediaError
from pipeline.core.layout import Layout
from pipeline.core.progress import progress
from pipeline.core.schemas import Modality
from pipeline.encoders.sources import EMPTY, ContentSource, ModalitySource
from pipeline.encoders.store import Store
from pipeline.media.kinds import NO_FACE, NO_SOUND, NO_WORDS
from pipeline.params import Params

CHUNK = 1024
"""Rows handled together: memory depends on this, not on the number of posts."""

EXAMPLES = 3
"""Unreadable files that the message names."""

NONE = "none"
"""Why a row without a value has nothing to encode."""

ABSENT = (NONE, EMPTY, NO_SOUND, NO_FACE, NO_WORDS)
"""Reasons that are no fault of the file; any other is."""


def open_store(
    identity: dict[str, Any], computed: dict[str, Any], layout: Layout, max_pixels: int | None = None
) -> Store:
    """The store of an encoder's vectors, for those that were computed as they are now. Raises InputError as ``Store``.

    Args:
        computed: as ``sources.computation``.
        max_pixels: the limit that files were read under: a vector from beyond it must not be found under a lower one.
    """
    limits = {} if max_pixels is None else {"max_pixels": max_pixels}
    return Store(layout.cache / "embeddings", identity | {"computed": computed, **limits})


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
    column: str,
    source: ModalitySource,
    params: Params,
    layout: Layout,
) -> dict[str, Any]:
    """Writes the embeddings of one modality, some rows at a time; returns what became of its rows."""
    tally, width, posts = Tally(), source.identity["width"], layout.table("posts")
    max_pixels = None if modality == "text" else params.embed.max_pixels
    with (
        open_store(source.identity, source.computed, layout, max_pixels) as store,
        artifacts.embeddings_writer(layout.embeddings("posts", modality), width, source.identity) as writer,
        progress(f"embedding {modality}", artifacts.count_rows(posts)) as advance,
    ):
        for rows in artifacts.read_posts_in_parts(posts, ["sample_id", column], CHUNK * source.chunks):
            values = rows[column].tolist()
            digests = content_digests(values, source.digests)
            encoded = encode_missing(values, digests, source, store, advance)
            results = [encoded[digest] if isinstance(digest, str) else digest for digest in digests]
            write_results(writer, rows["sample_id"].tolist(), results, digests, width)
            tally.add(values, results)
        tally.check(modality, params.embed.max_bad_share)
    return tally.report(source.identity)


def write_results(
    writer: artifacts.EmbeddingsWriter,
    sample_ids: Sequence[str],
    results: Sequence[np.ndarray | MediaError],
    digests: Sequence[str | MediaError],
    width: int,
) -> None:
    """Appends the rows, ``CHUNK`` at a time: a group of rows of the file does not follow what was encoded at once."""
    for at in range(0, len(results), CHUNK):
        part = slice(at, at + CHUNK)
        _write_chunk(writer, sample_ids[part], results[part], digests[part], width)


def _write_chunk(
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
