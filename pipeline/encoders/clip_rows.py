"""Cached encoding of clips: each stream is kept under its own identity, and a file is opened once for all that lack."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipeline import media
from pipeline.core import artifacts
from pipeline.core.files import MediaError
from pipeline.core.layout import Layout
from pipeline.core.progress import progress
from pipeline.core.schemas import Stream
from pipeline.encoders.embedding import CHUNK, Tally, content_digests, open_store, write_results
from pipeline.encoders.sources import MediaFiles, ModalitySource
from pipeline.encoders.store import Store
from pipeline.encoders.streams import ClipEncoder, Ready, per_group, slices
from pipeline.params import EmbedParams, Params

Results = dict[Stream, dict[str, np.ndarray | MediaError]]
"""Stream → content digest → vector, or why there is none."""

OF_GROUP = MediaError("too few clips of its group")


def clip_files(encoder: ClipEncoder, folder: Path, device: torch.device, embed: EmbedParams) -> MediaFiles:
    """Clips of a folder: (file, streams that are asked for) → stream → its vector, or why there is none."""

    def prepare(value: tuple[str, tuple[Stream, ...]]) -> Ready:
        file, names = value
        clip = media.read_clip(media.inside(folder, file), max_pixels=embed.max_pixels, **encoder.asks(names))
        return encoder.prepare(clip, names)

    def vectors(clips: list[Ready]) -> list[dict[Stream, np.ndarray | MediaError]]:
        made = [dict(clip) for clip in clips]
        for name, stream in encoder.streams.items():
            have = {at: part for at, clip in enumerate(clips) if isinstance(part := clip.get(name), np.ndarray)}
            encoded = stream.encode(list(have.values()), device) if have else ()
            for at, vector in zip(have, encoded, strict=True):
                made[at][name] = vector
        return made

    return MediaFiles(folder, prepare, vectors, encoder.batch, embed.workers, encoder.identity, device)


@dataclass(frozen=True)
class ClipRows:
    """Encodes clips, some rows at a time.

    Attributes:
        source: as ``clip_files``.
        stores: by stream.
        tallies: by stream, of the rows that named a clip.
    """

    source: ModalitySource
    stores: Mapping[Stream, Store]
    tallies: dict[Stream, Tally] = field(default_factory=dict)

    def results(
        self, values: Sequence[str | None], digests: Sequence[str | MediaError], advance: Callable[[int], None]
    ) -> list[np.ndarray | MediaError]:
        """Each row's vector, float32 [width], with NaN where a stream is not there; or why it has none."""
        encoded = self._encoded(values, digests, advance)
        columns, width = slices(self.source.identity), self.source.identity["width"]
        rows: list[np.ndarray | MediaError] = []
        for digest in digests:
            if isinstance(digest, MediaError):
                rows.append(digest)
                continue
            parts: dict[Stream, np.ndarray | MediaError] = {name: encoded[name][digest] for name in columns}
            vector = np.full(width, np.nan, dtype=np.float32)
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
        pending: dict[str, tuple[str, tuple[Stream, ...]]] = {}
        for digest, value in zip(digests, values, strict=True):
            lacking: tuple[Stream, ...] = tuple(
                name for name in self.stores if isinstance(digest, str) and digest not in encoded[name]
            )
            if isinstance(digest, str) and value is not None and lacking:
                pending.setdefault(digest, (value, lacking))
        advance(len(values) - sum(count[digest] for digest in pending))
        for batch in self.source.encode(pending):
            for name, store in self.stores.items():
                made = {
                    key: of if isinstance(of, MediaError) else of[name]
                    for key, of in batch.items()
                    if name in pending[key][1]
                }
                store.put({key: vector for key, vector in made.items() if not isinstance(vector, MediaError)})
                encoded[name].update(made)
            advance(sum(count[digest] for digest in batch))
        return encoded


def embed_clips(posts: pd.DataFrame, source: ModalitySource, params: Params, layout: Layout) -> dict[str, Any]:
    """Writes the embeddings of the clips; returns what became of the rows, and of each stream of them.

    Raises InputError when more files than ``embed.max_bad_share`` cannot be read.
    """
    tally, path, identity = Tally(), layout.embeddings("posts", "video"), source.identity
    with ExitStack() as stack:
        stores: dict[Stream, Store] = {
            name: stack.enter_context(open_store(of, source.computed, layout))
            for name, of in identity["streams"].items()
        }
        rows = ClipRows(source, stores)
        writer = stack.enter_context(artifacts.embeddings_writer(path, identity["width"], identity))
        advance = stack.enter_context(progress("embedding video", len(posts)))
        for at in range(0, len(posts), CHUNK * source.chunks):
            some = posts.iloc[at : at + CHUNK * source.chunks]
            values = some["video_path"].tolist()
            digests = content_digests(values, source)
            results = rows.results(values, digests, advance)
            write_results(writer, some["sample_id"].tolist(), results, digests, identity["width"])
            tally.add(values, results)
        tally.check("video", params.embed.max_bad_share)
    if identity["per_group"]:
        _standardise(posts, identity, layout)
    streams = {name: of.report(identity["streams"][name]) for name, of in rows.tallies.items()}
    return tally.report(identity) | {"per_group": identity["per_group"], "streams": streams}


def _standardise(posts: pd.DataFrame, identity: dict[str, Any], layout: Layout) -> None:
    """Writes the table of the clips again, each stream standardised within its group."""
    path = layout.embeddings("posts", "video")
    raw = artifacts.read_embeddings_of(posts, path)
    reasons = artifacts.read_parquet(path)["reason"].to_pylist()
    vectors = np.where(raw.present[:, None], raw.vectors, np.float32(np.nan))
    made = per_group(vectors, posts["group_id"].to_numpy(), slices(identity))
    results: list[np.ndarray | MediaError] = []
    for vector, reason in zip(made, reasons, strict=True):
        if reason is None and np.isnan(vector).all():
            results.append(OF_GROUP)
        else:
            results.append(vector if reason is None else MediaError(reason))
    with artifacts.embeddings_writer(path, identity["width"], identity) as writer:
        write_results(writer, raw.sample_ids.tolist(), results, [str(of) for of in raw.content], identity["width"])
