"""Cached encoding of clips: each stream is kept under its own identity, and a file is opened once for all that lack."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.core.files import MediaError
from pipeline.core.layout import Layout
from pipeline.core.prefetch import ahead
from pipeline.core.schemas import Stream
from pipeline.encoders.embedding import open_store
from pipeline.encoders.sources import computation, computation_of_texts, file_digests, or_error
from pipeline.encoders.store import Store
from pipeline.encoders.streams import ClipEncoder, Ready, StreamEncoder
from pipeline.encoders.words import Recogniser, Words, WordsEncoder
from pipeline.media import NO_FACE, NO_PICTURES, NO_SOUND, NO_WORDS, UNDECODED, UNKNOWN_CODEC, Clip, inside
from pipeline.params import EmbedParams

SAID: Stream = "transcript"
"""The stream under which words are told that no stream reads."""

Results = dict[Stream, dict[str, np.ndarray | MediaError]]
"""Stream → content digest → vector, or why there is none."""


@dataclass(frozen=True)
class Encoded:
    """What is known of the contents of some rows.

    Attributes:
        words: stream of words → content digest → what they are, where they were asked for, or why there are none.
    """

    streams: Results
    words: dict[Stream, dict[str, Words | MediaError]]


@dataclass(frozen=True)
class Lacking:
    """What is to be made of a content.

    Attributes:
        value: a file that holds it.
        streams: those that were not made yet.
        words: of which streams its words are to be recognised.
    """

    value: str
    streams: list[Stream]
    words: list[Stream]


@dataclass(frozen=True)
class ClipStreams:
    """Encodes clips of a folder, stream by stream; what was made once, or is known not to be there, comes from stores.

    Attributes:
        stores: by stream.
        recognisers: what tells words, where they are asked for, or are a stream.
        said: where the words of each are kept.
    """

    encoder: ClipEncoder
    folder: Path
    device: torch.device
    max_pixels: int
    workers: int
    stores: Mapping[Stream, Store]
    recognisers: Mapping[Stream, Recogniser]
    said: Mapping[Stream, Store]

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

        Of the contents in ``mute`` no words are told that are no stream.
        """
        count = Counter(digest for digest in digests if isinstance(digest, str))
        keys = list(count)
        made: Results = {name: {**store.absent(keys), **store.get(keys)} for name, store in self.stores.items()}
        encoded = Encoded(made, {name: _known(store, keys) for name, store in self.said.items()})
        pending = self._lacking(values, digests, encoded, mute)
        advance(len(values) - sum(count[digest] for digest in pending))
        for batch in self._batches(pending):
            for name, store in self.said.items():
                told = {key: of.words[name] for key, of in batch.items() if name in of.words}
                encoded.words[name].update(told)
                _keep_words(store, told)
            for name in self.stores:
                items = {
                    key: _text(encoded.words[name][key]) if name in self.said else of.streams[name]
                    for key, of in batch.items()
                    if name in pending[key].streams
                }
                made[name].update(self._keep(name, items))
            advance(sum(count[digest] for digest in batch))
        return encoded

    def _lacking(
        self,
        values: Sequence[str | None],
        digests: Sequence[str | MediaError],
        encoded: Encoded,
        mute: Set[str],
    ) -> dict[str, Lacking]:
        """What is to be made of each content of which something is not known."""
        pending: dict[str, Lacking] = {}
        for digest, value in zip(digests, values, strict=True):
            if isinstance(digest, str) and value is not None:
                streams: list[Stream] = [name for name in self.stores if digest not in encoded.streams[name]]
                words: list[Stream] = [
                    name
                    for name, known in encoded.words.items()
                    if digest not in known and (digest not in mute or name in self.stores)
                ]
                if streams or words:
                    pending.setdefault(digest, Lacking(value, streams, words))
        return pending

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
        names: list[Stream] = [name for name in lacking.streams if name not in self.recognisers]
        telling: dict[Stream, Recogniser] = {name: self.recognisers[name] for name in lacking.words}
        if not names and not telling:
            return Read({}, {})

        def clip() -> Clip:
            path = inside(self.folder, lacking.value)
            return self.encoder.read(path, self.max_pixels, names, list(telling.values()))

        opened = or_error(clip)
        words: dict[Stream, Words | MediaError] = {}
        for name, of in telling.items():
            words[name] = opened if isinstance(opened, MediaError) else or_error(partial(of.recognise, opened))
        if isinstance(opened, MediaError):
            return Read(dict.fromkeys(names, opened), words)
        return Read(self.encoder.prepare(opened, names), words)


@dataclass(frozen=True)
class Read:
    """A clip as the encoders of its streams take it, and its words by the streams whose they were to be told."""

    streams: Ready
    words: Mapping[Stream, Words | MediaError]


def _known(store: Store, keys: Sequence[str]) -> dict[str, Words | MediaError]:
    words = {key: Words.unpacked(data) for key, data in store.words(keys).items()}
    return {**store.absent(keys), **words}


def _keep_words(store: Store, told: Mapping[str, Words | MediaError]) -> None:
    store.put_words({key: of.packed() for key, of in told.items() if isinstance(of, Words)})
    store.put_absent({key: of for key, of in told.items() if isinstance(of, MediaError) and _lasts(of)})


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
    """With the stores of all streams open; ``recogniser`` is asked for what is said, where that is no stream.

    Raises InputError as ``Store``.
    """
    recognisers: dict[Stream, Recogniser] = {} if recogniser is None else {SAID: recogniser}
    recognisers |= encoder.recognisers
    with ExitStack() as stack:
        stores: dict[Stream, Store] = {
            name: stack.enter_context(open_store(of.identity, _computation(of, device), layout))
            for name, of in encoder.streams.items()
        }
        said: dict[Stream, Store] = {  # words are told on the processor, whatever the device
            name: stack.enter_context(open_store(of.identity, computation(torch.device("cpu")), layout))
            for name, of in recognisers.items()
        }
        yield ClipStreams(encoder, folder, device, embed.max_pixels, embed.workers, stores, recognisers, said)


def _computation(of: StreamEncoder, device: torch.device) -> dict[str, Any]:
    """As ``sources.computation``; what is said or shown is encoded by the encoder of texts."""
    if isinstance(of, WordsEncoder):
        return computation_of_texts(of.texts.runtime, of.texts.precision, device)
    return computation(device)
