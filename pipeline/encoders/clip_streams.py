"""Cached encoding of clips: each stream is kept under its own identity, and a file is opened once for all that lack."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
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
from pipeline.encoders.embedding import open_store
from pipeline.encoders.sources import computation, file_digests, or_error
from pipeline.encoders.store import Store
from pipeline.encoders.streams import ClipEncoder, Ready
from pipeline.encoders.transcription import Recogniser, Words
from pipeline.media import NO_FACE, NO_PICTURES, NO_SOUND, NO_WORDS, UNDECODED, UNKNOWN_CODEC
from pipeline.params import EmbedParams

Results = dict[Stream, dict[str, np.ndarray | MediaError]]
"""Stream → content digest → vector, or why there is none."""


@dataclass(frozen=True)
class Encoded:
    """What is known of the contents of some rows.

    Attributes:
        words: content digest → what is said, where a recogniser is asked, or why there are no words.
    """

    streams: Results
    words: dict[str, Words | MediaError]


@dataclass(frozen=True)
class Lacking:
    """What is to be made of a content.

    Attributes:
        value: a file that holds it.
        streams: those that were not made yet.
        words: whether its words are to be heard.
    """

    value: str
    streams: list[Stream]
    words: bool


@dataclass(frozen=True)
class ClipStreams:
    """Encodes clips of a folder, stream by stream; what was made once, or is known not to be there, comes from stores.

    Attributes:
        stores: by stream.
        recogniser: what hears words, where they are asked for, or are a stream.
        said: where words are kept.
    """

    encoder: ClipEncoder
    folder: Path
    device: torch.device
    max_pixels: int
    workers: int
    stores: Mapping[Stream, Store]
    recogniser: Recogniser | None = None
    said: Store | None = None

    def digests(self, values: Sequence[str]) -> Iterator[str | MediaError]:
        """What identifies the content of each file, or why it cannot be read."""
        return file_digests(self.folder, values, self.workers)

    def encode(
        self,
        values: Sequence[str | None],
        digests: Sequence[str | MediaError],
        advance: Callable[[int], None],
        mute: Set[str] = frozenset(),
    ) -> Encoded:
        """Every stream of every content in these rows: from the stores, or encoded once and put there at once.

        Of the contents in ``mute`` no words are heard.
        """
        count = Counter(digest for digest in digests if isinstance(digest, str))
        keys = list(count)
        made: Results = {name: {**store.absent(keys), **store.get(keys)} for name, store in self.stores.items()}
        encoded = Encoded(made, self._known_words(keys))
        pending: dict[str, Lacking] = {}
        for digest, value in zip(digests, values, strict=True):
            if isinstance(digest, str) and value is not None:
                streams: list[Stream] = [name for name in self.stores if digest not in made[name]]
                words = self.said is not None and digest not in encoded.words and digest not in mute
                if streams or words:
                    pending.setdefault(digest, Lacking(value, streams, words))
        advance(len(values) - sum(count[digest] for digest in pending))
        for batch in self._batches(pending):
            heard = {key: of.words for key, of in batch.items() if of.words is not None}
            encoded.words.update(heard)
            self._keep_words(heard)
            for name in self.stores:
                items = {
                    key: _text(encoded.words[key]) if name == "transcript" else of.streams[name]
                    for key, of in batch.items()
                    if name in pending[key].streams
                }
                made[name].update(self._keep(name, items))
            advance(sum(count[digest] for digest in batch))
        return encoded

    def _known_words(self, keys: Sequence[str]) -> dict[str, Words | MediaError]:
        if self.said is None:
            return {}
        words = {key: Words.unpacked(data) for key, data in self.said.words(keys).items()}
        return {**self.said.absent(keys), **words}

    def _keep_words(self, heard: Mapping[str, Words | MediaError]) -> None:
        if self.said is not None:
            self.said.put_words({key: of.packed() for key, of in heard.items() if isinstance(of, Words)})
            self.said.put_absent({key: of for key, of in heard.items() if isinstance(of, MediaError) and _lasts(of)})

    def _keep(self, name: Stream, items: Mapping[str, Any]) -> dict[str, np.ndarray | MediaError]:
        """Encodes one stream of a batch, and keeps it."""
        good = {key: item for key, item in items.items() if not isinstance(item, MediaError)}
        errors = {key: item for key, item in items.items() if isinstance(item, MediaError)}
        vectors = self.encoder.streams[name].encode(list(good.values()), self.device) if good else ()
        made = dict(zip(good, vectors, strict=True))
        self.stores[name].put(made)
        self.stores[name].put_absent({key: error for key, error in errors.items() if _lasts(error)})
        return {**errors, **made}

    def _batches(self, pending: Mapping[str, Lacking]) -> Iterator[dict[str, "Read"]]:
        """What was read of each content, by threads while others are encoded."""
        batch = self.encoder.batch
        ready = ahead(self._read, pending.values(), workers=self.workers, depth=2 * batch + self.workers)
        keyed = zip(pending, ready, strict=True)
        while some := dict(islice(keyed, batch)):
            yield some

    def _read(self, lacking: Lacking) -> "Read":
        """Opens a clip once for all that is lacking; not at all where its words are known and nothing else is."""
        names: list[Stream] = [name for name in lacking.streams if name != "transcript"]
        asked = self.encoder.asks(names)
        if lacking.words and self.recogniser is not None:
            asked["sound_seconds"] = max(asked["sound_seconds"], self.recogniser.seconds)
        elif not names:
            return Read({}, None)

        def clip() -> media.Clip:
            path = media.inside(self.folder, lacking.value)
            return media.read_clip(path, max_pixels=self.max_pixels, **asked)

        opened = or_error(clip)
        if isinstance(opened, MediaError):
            return Read(dict.fromkeys(names, opened), opened if lacking.words else None)
        heard = self.recogniser if lacking.words else None
        words = None if heard is None else or_error(lambda: heard.hear(opened))
        return Read(self.encoder.prepare(opened, names), words)


@dataclass(frozen=True)
class Read:
    """A clip as the encoders of its streams take it, and its words where they were to be heard."""

    streams: Ready
    words: Words | MediaError | None


def _text(words: Words | MediaError) -> str | MediaError:
    return words if isinstance(words, MediaError) else words.text


def _lasts(error: MediaError) -> bool:
    """Whether a content lacks this whenever it is read; a file that is damaged is tried again."""
    return error.kind in (NO_SOUND, NO_FACE, NO_PICTURES, NO_WORDS) and not str(error).endswith(
        (UNKNOWN_CODEC, UNDECODED)
    )


@contextmanager
def opened(
    encoder: ClipEncoder,
    folder: Path,
    device: torch.device,
    embed: EmbedParams,
    layout: Layout,
    recogniser: Recogniser | None = None,
) -> Iterator[ClipStreams]:
    """With the stores of all streams open; ``recogniser`` is asked for words, where they are no stream.

    Raises InputError as ``Store``.
    """
    if encoder.transcript is not None:
        recogniser = encoder.transcript.recogniser
    with ExitStack() as stack:
        stores: dict[Stream, Store] = {
            name: stack.enter_context(open_store(of.identity, computation(device), layout))
            for name, of in encoder.streams.items()
        }
        said = None
        if recogniser is not None:  # it computes on the processor, whatever the device
            said = stack.enter_context(open_store(recogniser.identity, computation(torch.device("cpu")), layout))
        yield ClipStreams(encoder, folder, device, embed.max_pixels, embed.workers, stores, recogniser, said)
