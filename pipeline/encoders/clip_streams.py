"""Cached encoding of clips: each stream is kept under its own identity, and a file is opened once for all that lack."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline import media
from pipeline.core.files import MediaError
from pipeline.core.layout import Layout
from pipeline.core.prefetch import ahead
from pipeline.core.schemas import Stream
from pipeline.encoders.embedding import file_digests, open_store, or_error
from pipeline.encoders.store import Store
from pipeline.encoders.streams import ClipEncoder, Ready
from pipeline.media import NO_FACE, NO_PICTURES, NO_SOUND, UNDECODED, UNKNOWN_CODEC
from pipeline.params import EmbedParams

Results = dict[Stream, dict[str, np.ndarray | MediaError]]
"""Stream → content digest → vector, or why there is none."""


@dataclass(frozen=True)
class ClipStreams:
    """Encodes clips of a folder, stream by stream; what was made once, or is known not to be there, comes from stores.

    Attributes:
        stores: by stream.
    """

    encoder: ClipEncoder
    folder: Path
    device: torch.device
    max_pixels: int
    workers: int
    stores: Mapping[Stream, Store]

    def digests(self, values: Sequence[str]) -> Iterator[str | MediaError]:
        """What identifies the content of each file, or why it cannot be read."""
        return file_digests(self.folder, values, self.workers)

    def encode(
        self, values: Sequence[str | None], digests: Sequence[str | MediaError], advance: Callable[[int], None]
    ) -> Results:
        """Every stream of every content in these rows: from the stores, or encoded once and put there at once."""
        count = Counter(digest for digest in digests if isinstance(digest, str))
        keys = list(count)
        encoded: Results = {name: {**store.absent(keys), **store.get(keys)} for name, store in self.stores.items()}
        pending: dict[str, tuple[str, list[Stream]]] = {}
        for digest, value in zip(digests, values, strict=True):
            lacking: list[Stream] = [
                name for name in self.stores if isinstance(digest, str) and digest not in encoded[name]
            ]
            if isinstance(digest, str) and value is not None and lacking:
                pending.setdefault(digest, (value, lacking))
        advance(len(values) - sum(count[digest] for digest in pending))
        for batch in self._batches(pending):
            for name in self.stores:
                encoded[name].update(self._keep(name, {key: of[name] for key, of in batch.items() if name in of}))
            advance(sum(count[digest] for digest in batch))
        return encoded

    def _keep(self, name: Stream, items: Mapping[str, np.ndarray | MediaError]) -> dict[str, np.ndarray | MediaError]:
        """Encodes one stream of a batch, and keeps it."""
        good = {key: item for key, item in items.items() if not isinstance(item, MediaError)}
        errors = {key: item for key, item in items.items() if isinstance(item, MediaError)}
        vectors = self.encoder.streams[name].encode(list(good.values()), self.device) if good else ()
        made = dict(zip(good, vectors, strict=True))
        self.stores[name].put(made)
        self.stores[name].put_absent({key: error for key, error in errors.items() if _lasts(error)})
        return {**errors, **made}

    def _batches(self, pending: Mapping[str, tuple[str, list[Stream]]]) -> Iterator[dict[str, Any]]:
        """Digest → the clip's streams as their encoders take them, read by threads while others are encoded."""
        batch = self.encoder.batch
        ready = ahead(self._read, pending.values(), workers=self.workers, depth=2 * batch + self.workers)
        keyed = zip(pending, ready, strict=True)
        while some := dict(islice(keyed, batch)):
            yield some

    def _read(self, item: tuple[str, list[Stream]]) -> Ready:
        value, names = item

        def clip() -> media.Clip:
            path = media.inside(self.folder, value)
            return media.read_clip(path, max_pixels=self.max_pixels, **self.encoder.asks(names))

        opened = or_error(clip)
        return dict.fromkeys(names, opened) if isinstance(opened, MediaError) else self.encoder.prepare(opened, names)


def _lasts(error: MediaError) -> bool:
    """Whether a content lacks this whenever it is read; a file that is damaged is tried again."""
    return error.kind in (NO_SOUND, NO_FACE, NO_PICTURES) and not str(error).endswith((UNKNOWN_CODEC, UNDECODED))


@contextmanager
def opened(
    encoder: ClipEncoder, folder: Path, device: torch.device, embed: EmbedParams, layout: Layout
) -> Iterator[ClipStreams]:
    """With the stores of all streams open. Raises InputError as ``Store``."""
    with ExitStack() as stack:
        stores: dict[Stream, Store] = {
            name: stack.enter_context(open_store(of.identity, device, layout)) for name, of in encoder.streams.items()
        }
        yield ClipStreams(encoder, folder, device, embed.max_pixels, embed.workers, stores)
