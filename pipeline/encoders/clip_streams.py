"""Cached encoding of clips: each stream is kept under its own identity, and a file is opened once for all that lack."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline import media
from pipeline.core.files import MediaError
from pipeline.core.layout import Layout
from pipeline.core.schemas import Stream
from pipeline.encoders.embedding import open_store
from pipeline.encoders.sources import MediaFiles, ModalitySource
from pipeline.encoders.store import Store
from pipeline.encoders.streams import ClipEncoder, Ready
from pipeline.media import NO_FACE, NO_PICTURES, NO_SOUND, UNDECODED, UNKNOWN_CODEC
from pipeline.params import EmbedParams

Results = dict[Stream, dict[str, np.ndarray | MediaError]]
"""Stream → content digest → vector, or why there is none."""


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
class ClipStreams:
    """Encodes clips stream by stream; what was made once, or is known not to be there, comes from stores.

    Attributes:
        source: as ``clip_files``.
        stores: by stream.
    """

    source: ModalitySource
    stores: Mapping[Stream, Store]

    def encode(
        self, values: Sequence[str | None], digests: Sequence[str | MediaError], advance: Callable[[int], None]
    ) -> Results:
        """Every stream of every content in these rows: from the stores, or encoded once and put there at once."""
        count = Counter(digest for digest in digests if isinstance(digest, str))
        keys = list(count)
        encoded: Results = {name: {**store.absent(keys), **store.get(keys)} for name, store in self.stores.items()}
        pending: dict[str, tuple[str, tuple[Stream, ...]]] = {}
        for digest, value in zip(digests, values, strict=True):
            lacking: tuple[Stream, ...] = tuple(
                name for name in self.stores if isinstance(digest, str) and digest not in encoded[name]
            )
            if isinstance(digest, str) and value is not None and lacking:
                pending.setdefault(digest, (value, lacking))
        advance(len(values) - sum(count[digest] for digest in pending))
        for batch in self.source.encode(pending):
            for name in self.stores:
                asked = {key: of for key, of in batch.items() if name in pending[key][1]}
                made = {key: of if isinstance(of, MediaError) else of[name] for key, of in asked.items()}
                self._keep(name, made)
                encoded[name].update(made)
            advance(sum(count[digest] for digest in batch))
        return encoded

    def _keep(self, name: Stream, made: Mapping[str, np.ndarray | MediaError]) -> None:
        self.stores[name].put({key: vector for key, vector in made.items() if not isinstance(vector, MediaError)})
        errors = {key: error for key, error in made.items() if isinstance(error, MediaError)}
        self.stores[name].put_absent({key: error for key, error in errors.items() if _lasts(error)})


def _lasts(error: MediaError) -> bool:
    """Whether a content lacks this whenever it is read; a file that is damaged is tried again."""
    return error.kind in (NO_SOUND, NO_FACE, NO_PICTURES) and not str(error).endswith((UNKNOWN_CODEC, UNDECODED))


@contextmanager
def opened(source: ModalitySource, layout: Layout) -> Iterator[ClipStreams]:
    """With the stores of all streams open. Raises InputError as ``Store``."""
    with ExitStack() as stack:
        stores: dict[Stream, Store] = {
            name: stack.enter_context(open_store(of, source.computed, layout))
            for name, of in source.identity["streams"].items()
        }
        yield ClipStreams(source, stores)
