"""The embeddings of the posts' clips, and of pictures that are read by streams: all streams of one in one row, and what
became of each of them."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.core import artifacts
from pipeline.core.files import MediaError
from pipeline.core.layout import Layout
from pipeline.core.progress import progress
from pipeline.core.schemas import Modality, Stream
from pipeline.encoders import clip_streams
from pipeline.encoders.clip_streams import ClipContents, ClipSource, ClipStreams
from pipeline.encoders.embedding import CHUNK, Tally, content_digests, write_results
from pipeline.encoders.streams import ClipEncoder, per_group, slices
from pipeline.params import Params

OF_GROUP = MediaError("too few clips of its group")


@dataclass(frozen=True)
class ClipVectors:
    """Rows of clips as vectors, a chunk at a time.

    Attributes:
        tallies: by stream, of the rows that named a clip.
    """

    clips: ClipStreams
    tallies: dict[Stream, Tally] = field(default_factory=dict)

    def results(
        self, values: Sequence[str | None], digests: Sequence[str | MediaError], advance: Callable[[int], None]
    ) -> list[np.ndarray | MediaError]:
        """Each row's vector, float32 [width], with NaN where a stream is not there; or why it has none."""
        encoded = self.clips.encode(values, digests, advance).streams
        encoder = self.clips.contents.encoder
        columns = slices(encoder.identity)
        rows: list[np.ndarray | MediaError] = []
        for digest in digests:
            if isinstance(digest, MediaError):
                rows.append(digest)
                continue
            parts: dict[Stream, np.ndarray | MediaError] = {name: encoded[name][digest] for name in columns}
            vector = np.full(encoder.width, np.nan, dtype=np.float32)
            reasons = []
            for name, part in parts.items():
                if isinstance(part, MediaError):
                    reasons.append(part)
                else:
                    vector[columns[name]] = part
            rows.append(reasons[0] if len(reasons) == len(parts) else vector)
        for name in columns:
            stream_vectors = [digest if isinstance(digest, MediaError) else encoded[name][digest] for digest in digests]
            self.tallies.setdefault(name, Tally()).add(values, stream_vectors)
        return rows


def embed_streams(
    modality: Modality,
    column: str,
    contents: ClipContents,
    source: ClipSource,
    params: Params,
    layout: Layout,
) -> dict[str, Any]:
    """Writes the embeddings of clips, or of pictures; returns what became of the rows, and of each stream of them.

    ``source`` is where the ``contents`` are read and encoded. Raises InputError when more files than
    ``embed.max_bad_share`` cannot be read.
    """
    encoder, path = contents.encoder, layout.embeddings("posts", modality)
    tally, posts = Tally(), layout.table("posts")
    with ExitStack() as stack:
        rows = ClipVectors(stack.enter_context(clip_streams.opened(contents, source, layout)))
        writer = stack.enter_context(artifacts.embeddings_writer(path, encoder.width, encoder.identity))
        advance = stack.enter_context(progress(f"embedding {modality}", artifacts.count_rows(posts)))
        for some in artifacts.read_posts_in_parts(posts, ["sample_id", column], CHUNK * source.chunks):
            values = some[column].tolist()
            digests = content_digests(values, source.digests)
            results = rows.results(values, digests, advance)
            write_results(writer, some["sample_id"].tolist(), results, digests, encoder.width)
            tally.add(values, results)
        tally.check(modality, params.embed.max_bad_share)
    if encoder.per_group:
        _standardise(encoder, layout)
    streams = {
        name: tally_of_stream.report(encoder.streams[name].identity) for name, tally_of_stream in rows.tallies.items()
    }
    return tally.report(encoder.identity) | {"per_group": encoder.per_group, "streams": streams}


def _standardise(encoder: ClipEncoder, layout: Layout) -> None:
    """Writes the table of the clips again, each stream standardised within its group."""
    posts = artifacts.read_posts(layout.table("posts"))
    path = layout.embeddings("posts", "video")
    raw = artifacts.read_embeddings_of(posts, path)
    reasons = artifacts.read_parquet(path)["reason"].to_pylist()
    vectors = np.where(raw.present[:, None], raw.vectors, np.float32(np.nan))
    standardised = per_group(vectors, posts["group_id"].to_numpy(), slices(encoder.identity))
    results: list[np.ndarray | MediaError] = []
    for vector, reason in zip(standardised, reasons, strict=True):
        if reason is None and np.isnan(vector).all():
            results.append(OF_GROUP)
        else:
            results.append(vector if reason is None else MediaError(reason))
    with artifacts.embeddings_writer(path, encoder.width, encoder.identity) as writer:
        write_results(writer, raw.sample_ids.tolist(), results, [str(digest) for digest in raw.content], encoder.width)
