"""Cached encoding of clips: each stream is kept under its own identity, and a file is opened once for all that lack."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch

from pipeline.core.files import MediaError, inside
from pipeline.core.layout import Layout
from pipeline.core.schemas import Stream
from pipeline.encoders.embedding import open_store
from pipeline.encoders.sources import (
    Computation,
    computation,
    computation_of_texts,
    encoded_batch,
    file_digests,
    in_batches,
    or_error,
    read_ahead,
)
from pipeline.encoders.store import Store
from pipeline.encoders.streams import ClipEncoder, Ready
from pipeline.encoders.words import Recogniser, Words, WordsEncoder
from pipeline.media.clips import Clip
from pipeline.media.kinds import NO_FACE, NO_PICTURES, NO_SOUND, NO_WORDS, UNDECODED, UNKNOWN_CODEC
from pipeline.params import EmbedParams

TRANSCRIPT: Stream = "transcript"
"""The stream under which words are kept that no stream reads."""

Results = dict[Stream, dict[str, np.ndarray | MediaError]]
"""Stream → content digest → vector, or why there is none."""


@dataclass(frozen=True)
class StreamResults:
    """What is known of the contents of some rows.

    Attributes:
        words: stream of words → content digest → what they are, where they were asked for, or why there are none.
    """

    streams: Results
    words: dict[Stream, dict[str, Words | MediaError]]


@dataclass(frozen=True)
class PendingContent:
    """What is still to be computed of a content.

    Attributes:
        value: a file that holds it.
        streams: those that were not made yet.
        words: of which streams its words are to be recognised.
        known: stream → its words, where a stream of words was not made, but they were recognised before.
    """

    value: str
    streams: list[Stream]
    words: list[Stream]
    known: Mapping[Stream, Words | MediaError]


@dataclass(frozen=True)
class DecodedContent:
    """A clip as the encoders of its streams take it, and its words by the streams whose they were to be recognised."""

    pending: PendingContent
    streams: Ready
    words: Mapping[Stream, Words | MediaError]

    def item(self, name: Stream) -> Any:
        """What the encoder of a stream takes, or a MediaError."""
        if name in self.streams:
            return self.streams[name]
        words = self.words[name] if name in self.words else self.pending.known[name]
        return words if isinstance(words, MediaError) else words.text


@dataclass(frozen=True)
class EncodedContent:
    """What was computed of a pending content."""

    streams: Mapping[Stream, np.ndarray | MediaError]
    words: Mapping[Stream, Words | MediaError]


@dataclass(frozen=True)
class ClipContents:
    """The clips, or pictures, of a folder: how one is read, and what is made of it. It is one of ``sources.Steps``.

    Attributes:
        recognisers: what recognises words, where they are asked for, or are a stream.
    """

    encoder: ClipEncoder
    folder: Path
    device: torch.device
    max_pixels: int
    workers: int
    recognisers: Mapping[Stream, Recogniser]

    chunks = 1
    of_files = True

    @classmethod
    def of(
        cls,
        encoder: ClipEncoder,
        folder: Path,
        device: torch.device,
        embed: EmbedParams,
        recogniser: Recogniser | None = None,
    ) -> Self:
        """``recogniser`` is asked for what is said, where that is no stream."""
        recognisers: dict[Stream, Recogniser] = {} if recogniser is None else {TRANSCRIPT: recogniser}
        recognisers |= encoder.recognisers
        return cls(encoder, folder, device, embed.max_pixels, embed.workers, recognisers)

    @property
    def identity(self) -> dict[str, Any]:
        return self.encoder.identity

    @property
    def computed(self) -> dict[str, Any]:
        return computation(self.device)

    @property
    def computation(self) -> Computation:
        texts = [stream.texts for stream in self.encoder.streams.values() if isinstance(stream, WordsEncoder)]
        of_texts = computation_of_texts(texts[0].runtime, texts[0].precision, self.device) if texts else {}
        return Computation(self.computed, of_texts, computation(torch.device("cpu")))

    def digests(self, values: Sequence[str]) -> Iterator[str | MediaError]:
        """What identifies the content of each file, or why it cannot be read."""
        return file_digests(self.folder, values, self.workers)

    def batches(self, pending: Mapping[str, PendingContent]) -> Iterator[dict[str, PendingContent]]:
        return in_batches(pending, self.encoder.batch)

    def read(self, value: PendingContent) -> DecodedContent:
        """Opens a clip once for all that is lacking; not at all where its words are known and nothing else is."""
        names: list[Stream] = [name for name in value.streams if name not in self.recognisers]
        recognisers: dict[Stream, Recogniser] = {name: self.recognisers[name] for name in value.words}
        if not names and not recognisers:
            return DecodedContent(value, {}, {})

        def clip() -> Clip:
            path = inside(self.folder, value.value)
            return self.encoder.read(path, self.max_pixels, names, list(recognisers.values()))

        opened = or_error(clip)
        words: dict[Stream, Words | MediaError] = {}
        for name, recogniser in recognisers.items():
            words[name] = opened if isinstance(opened, MediaError) else or_error(partial(recogniser.recognise, opened))
        if isinstance(opened, MediaError):
            return DecodedContent(value, dict.fromkeys(names, opened), words)
        return DecodedContent(value, self.encoder.prepare(opened, names), words)

    def encoded(self, batch: Mapping[str, DecodedContent]) -> dict[str, EncodedContent]:
        """Digest → a clip that was read, to digest → what was lacking of it."""
        vectors_of: dict[str, dict[Stream, np.ndarray | MediaError]] = {key: {} for key in batch}
        for name, stream in self.encoder.streams.items():
            items = {key: read.item(name) for key, read in batch.items() if name in read.pending.streams}
            vectors = encoded_batch(lambda those, stream=stream: stream.encode(those, self.device), items)
            for key, vector in vectors.items():
                vectors_of[key][name] = vector
        return {key: EncodedContent(vectors_of[key], read.words) for key, read in batch.items()}

    def encode(self, pending: Mapping[str, PendingContent]) -> Iterator[dict[str, EncodedContent]]:
        """Encodes what was read of each content; yields after each batch."""
        yield from map(self.encoded, read_ahead(self.read, pending, self.encoder.batch, self.workers))


class ClipSource(Protocol):
    """Where clips are read and encoded: in this process, as by ``ClipContents``, or in others."""

    @property
    def computation(self) -> Computation: ...

    @property
    def chunks(self) -> int:
        """How many chunks of rows it had better be asked for at once."""
        ...

    def digests(self, values: Sequence[str]) -> Iterator[str | MediaError]: ...

    def encode(self, pending: Mapping[str, Any]) -> Iterator[Mapping[str, EncodedContent]]: ...


@dataclass(frozen=True)
class ClipStreams:
    """Encodes clips, stream by stream; what was made once, or is known not to be there, comes from stores.

    Attributes:
        contents: the clips, and how they are read.
        source: where they are.
        stores: by stream.
        word_stores: where the words of each stream of words are kept.
    """

    contents: ClipContents
    source: ClipSource
    stores: Mapping[Stream, Store]
    word_stores: Mapping[Stream, Store]

    def encode(
        self,
        values: Sequence[str | None],
        digests: Sequence[str | MediaError],
        advance: Callable[[int], None],
        mute: Set[str] = frozenset(),
    ) -> StreamResults:
        """Every stream of every content in these rows: from the stores, or encoded once and put there at once.

        Of the contents in ``mute`` no words are recognised that are no stream.
        """
        count = Counter(digest for digest in digests if isinstance(digest, str))
        keys = list(count)
        streams: Results = {name: {**store.absent(keys), **store.get(keys)} for name, store in self.stores.items()}
        encoded = StreamResults(streams, {name: _known(store, keys) for name, store in self.word_stores.items()})
        pending = self._pending(values, digests, encoded, mute)
        advance(len(values) - sum(count[digest] for digest in pending))
        for batch in self.source.encode(pending):
            for name, store in self.word_stores.items():
                words = {key: encoded.words[name] for key, encoded in batch.items() if name in encoded.words}
                encoded.words[name].update(words)
                _keep_words(store, words)
            for name, store in self.stores.items():
                vectors = {key: encoded.streams[name] for key, encoded in batch.items() if name in encoded.streams}
                encoded.streams[name].update(vectors)
                _keep_vectors(store, vectors)
            advance(sum(count[digest] for digest in batch))
        return encoded

    def _pending(
        self,
        values: Sequence[str | None],
        digests: Sequence[str | MediaError],
        encoded: StreamResults,
        mute: Set[str],
    ) -> dict[str, PendingContent]:
        """What is to be made of each content of which something is not known."""
        pending: dict[str, PendingContent] = {}
        for digest, value in zip(digests, values, strict=True):
            if isinstance(digest, str) and value is not None:
                streams: list[Stream] = [name for name in self.stores if digest not in encoded.streams[name]]
                words: list[Stream] = [
                    name
                    for name, known in encoded.words.items()
                    if digest not in known and (digest not in mute or name in self.stores)
                ]
                known: dict[Stream, Words | MediaError] = {
                    name: encoded.words[name][digest] for name in streams if name in encoded.words and name not in words
                }
                if streams or words:
                    pending.setdefault(digest, PendingContent(value, streams, words, known))
        return pending


def _known(store: Store, keys: Sequence[str]) -> dict[str, Words | MediaError]:
    words = {key: Words.unpacked(data) for key, data in store.words(keys).items()}
    return {**store.absent(keys), **words}


def _keep_words(store: Store, words: Mapping[str, Words | MediaError]) -> None:
    store.put_words({key: recognised.packed() for key, recognised in words.items() if isinstance(recognised, Words)})
    store.put_absent(
        {key: error for key, error in words.items() if isinstance(error, MediaError) and _is_permanent(error)}
    )


def _keep_vectors(store: Store, vectors: Mapping[str, np.ndarray | MediaError]) -> None:
    store.put({key: vector for key, vector in vectors.items() if not isinstance(vector, MediaError)})
    store.put_absent(
        {key: error for key, error in vectors.items() if isinstance(error, MediaError) and _is_permanent(error)}
    )


def _is_permanent(error: MediaError) -> bool:
    """Whether a content lacks this whenever it is read; a file that is damaged is tried again."""
    return error.kind in (NO_SOUND, NO_FACE, NO_PICTURES, NO_WORDS) and not str(error).endswith(
        (UNKNOWN_CODEC, UNDECODED)
    )


@contextmanager
def opened(contents: ClipContents, source: ClipSource, layout: Layout) -> Iterator[ClipStreams]:
    """With the stores of all streams open. Raises InputError as ``Store``."""
    computed = source.computation
    with ExitStack() as stack:
        stores: dict[Stream, Store] = {}
        for name, stream in contents.encoder.streams.items():
            cache = computed.texts if isinstance(stream, WordsEncoder) else computed.vectors
            stores[name] = stack.enter_context(open_store(stream.identity, cache, layout, contents.max_pixels))
        word_stores: dict[Stream, Store] = {
            name: stack.enter_context(open_store(recogniser.identity, computed.words, layout, contents.max_pixels))
            for name, recogniser in contents.recognisers.items()
        }
        yield ClipStreams(contents, source, stores, word_stores)
