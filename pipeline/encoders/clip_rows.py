"""Cached encoding of clips: each stream is kept under its own identity, and a file is opened once for all that lack."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipeline import media
from pipeline.core import artifacts
from pipeline.core.files import MediaError
from pipeline.core.layout import Layout
from pipeline.core.prefetch import ahead
from pipeline.core.progress import progress
from pipeline.core.schemas import Stream
from pipeline.encoders.embedding import CHUNK, MediaFiles, Tally, content_digests, open_store, or_error, write_results
from pipeline.encoders.store import Store
from pipeline.encoders.streams import ClipEncoder, Ready, per_group, slices
from pipeline.params import Params

Results = dict[Stream, dict[str, np.ndarray | MediaError]]
"""Stream → content digest → vector, or why there is none."""

OF_GROUP = MediaError("too few clips of its group")


@dataclass(frozen=True)
class ClipRows:
    """Encodes clips of a folder, a chunk at a time.

    Attributes:
        stores: by stream.
        tallies: by stream, of the rows that named a clip.
    """

    encoder: ClipEncoder
    folder: Path
    device: torch.device
    max_pixels: int
    workers: int
    stores: Mapping[Stream, Store]
    tallies: dict[Stream, Tally] = field(default_factory=dict)

    def digests(self, values: Sequence[str | None]) -> list[str | MediaError]:
        def unread(_: Any) -> np.ndarray:
            raise AssertionError("only digests are asked for")

        files = MediaFiles(self.folder, unread, unread, self.encoder.batch, self.workers)
        return content_digests(values, files)

    def results(
        self, values: Sequence[str | None], digests: Sequence[str | MediaError], advance: Callable[[int], None]
    ) -> list[np.ndarray | MediaError]:
        """Each row's vector, float32 [width], with NaN where a stream is not there; or why it has none."""
        encoded = self._encoded(values, digests, advance)
        columns = slices(self.encoder.identity)
        rows: list[np.ndarray | MediaError] = []
        for digest in digests:
            if isinstance(digest, MediaError):
                rows.append(digest)
                continue
            parts: dict[Stream, np.ndarray | MediaError] = {name: encoded[name][digest] for name in columns}
            vector = np.full(self.encoder.width, np.nan, dtype=np.float32)
            reasons = []
            for name, part in parts.items():
                if isinstance(part, MediaError):
                    reasons.append(part)
                else:
                    vector[columns[name]] = part
            rows.append(reasons[0] if len(reasons) == len(parts) else vector)
        for name in columns:
            own = [digest if isinstance(digest, MediaError) else encoded[name][digest] for digest in digests]
            self.tallies.setdefault(name, Tally()).add(values, own)
        return rows

    def _encoded(
        self, values: Sequence[str | None], digests: Sequence[str | MediaError], advance: Callable[[int], None]
    ) -> Results:
        count = Counter(digest for digest in digests if isinstance(digest, str))
        encoded: Results = {}
        for name, store in self.stores.items():
            encoded[name] = dict(store.get(list(count)))
        pending: dict[str, tuple[str, list[Stream]]] = {}
        for digest, value in zip(digests, values, strict=True):
            lacking: list[Stream] = [
                name for name in self.stores if isinstance(digest, str) and digest not in encoded[name]
            ]
            if isinstance(digest, str) and value is not None and lacking:
                pending.setdefault(digest, (value, lacking))
        advance(len(values) - sum(count[digest] for digest in pending))
        for batch in self._batches(pending):
            for name, store in self.stores.items():
                good = {key: of[name] for key, of in batch.items() if isinstance(of.get(name), np.ndarray)}
                vectors = self.encoder.streams[name].encode(list(good.values()), self.device) if good else ()
                made = dict(zip(good, vectors, strict=True))
                store.put(made)
                encoded[name].update({key: of[name] for key, of in batch.items() if name in of} | made)
            advance(sum(count[digest] for digest in batch))
        return encoded

    def _batches(self, pending: Mapping[str, tuple[str, list[Stream]]]) -> Iterator[dict[str, Any]]:
        """Digest → the clip's streams as their encoders take them, read by threads while others are encoded."""

        def read(item: tuple[str, list[Stream]]) -> Ready:
            value, names = item

            def clip() -> media.Clip:
                path = media.inside(self.folder, value)
                return media.read_clip(path, max_pixels=self.max_pixels, **self.encoder.asks(names))

            opened = or_error(clip)
            return (
                dict.fromkeys(names, opened) if isinstance(opened, MediaError) else self.encoder.prepare(opened, names)
            )

        batch = self.encoder.batch
        ready = ahead(read, pending.values(), workers=self.workers, depth=2 * batch + self.workers)
        keyed = zip(pending, ready, strict=True)
        while some := dict(islice(keyed, batch)):
            yield some


def embed_clips(
    posts: pd.DataFrame, encoder: ClipEncoder, device: torch.device, params: Params, layout: Layout
) -> dict[str, Any]:
    """Writes the embeddings of the clips; returns what became of the rows, and of each stream of them.

    Raises InputError when more files than ``embed.max_bad_share`` cannot be read.
    """
    embed, path = params.embed, layout.embeddings("posts", "video")
    tally, folder = Tally(), layout.root / params.posts.media
    with ExitStack() as stack:
        stores: dict[Stream, Store] = {
            name: stack.enter_context(open_store(of.identity, device, layout)) for name, of in encoder.streams.items()
        }
        rows = ClipRows(encoder, folder, device, embed.max_pixels, embed.workers, stores)
        writer = stack.enter_context(artifacts.embeddings_writer(path, encoder.width, encoder.identity))
        advance = stack.enter_context(progress("embedding video", len(posts)))
        for at in range(0, len(posts), CHUNK):
            some = posts.iloc[at : at + CHUNK]
            values = some["video_path"].tolist()
            digests = rows.digests(values)
            results = rows.results(values, digests, advance)
            write_results(writer, some["sample_id"].tolist(), results, digests, encoder.width)
            tally.add(values, results)
        tally.check("video", embed.max_bad_share)
    if encoder.per_group:
        _standardise(posts, encoder, layout)
    streams = {name: of.report(encoder.streams[name].identity) for name, of in rows.tallies.items()}
    return tally.report(encoder.identity) | {"per_group": encoder.per_group, "streams": streams}


def _standardise(posts: pd.DataFrame, encoder: ClipEncoder, layout: Layout) -> None:
    """Writes the table of the clips again, each stream standardised within its group."""
    path = layout.embeddings("posts", "video")
    raw = artifacts.read_embeddings_of(posts, path)
    reasons = artifacts.read_parquet(path)["reason"].to_pylist()
    vectors = np.where(raw.present[:, None], raw.vectors, np.float32(np.nan))
    made = per_group(vectors, posts["group_id"].to_numpy(), slices(encoder.identity))
    results: list[np.ndarray | MediaError] = []
    for vector, reason in zip(made, reasons, strict=True):
        if reason is None and np.isnan(vector).all():
            results.append(OF_GROUP)
        else:
            results.append(vector if reason is None else MediaError(reason))
    with artifacts.embeddings_writer(path, encoder.width, encoder.identity) as writer:
        write_results(writer, raw.sample_ids.tolist(), results, [str(of) for of in raw.content], encoder.width)
