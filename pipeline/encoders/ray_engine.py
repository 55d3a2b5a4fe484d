"""The steps of encoding in the processes of a Ray cluster: readers decode, encoders encode, this process writes.

Readers and encoders are Ray actors with a bounded number of batches under way, so memory is bounded on every machine.
An actor that dies is started anew and given the same batch again; vectors are a function of their content alone, so
the tables do not show it. Only this process writes: every batch goes into the store as it comes, and a run that was
cut off goes on from there.

Every machine of a cluster needs the media, and encoders that are folders, under the same path.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pipeline.core.errors import InputError
from pipeline.core.files import MediaError
from pipeline.core.prefetch import prefetch_map
from pipeline.core.ray_cluster import ANEW, Cluster, ClusterRequest, about, connected
from pipeline.core.schemas import IN_WORDS, Modality
from pipeline.encoders import image, streams, text, transcription
from pipeline.encoders.clip_streams import ClipContents, PendingContent
from pipeline.encoders.image import ImageEncoder
from pipeline.encoders.sources import (
    Computation,
    Steps,
    TextContents,
    computation,
    computation_of_texts,
    picture_files,
)
from pipeline.params import EmbedParams

DEPTH = 2
"""Batches that each process has at hand, so that it need not wait for the next."""

DIGESTED = 64
"""Files that a reader takes the digests of in one go."""

CHUNKS = 4
"""Chunks of rows for each encoder at once: at the end of them some have nothing to do."""


class _Worker:
    """One process of the cluster, reader or encoder; an encoder is loaded when its modality comes first."""

    def __init__(self, embed: EmbedParams, folder: str, device: str, transcribe: bool) -> None:
        self.embed, self.folder, self.device, self.transcribe = embed, Path(folder), torch.device(device), transcribe
        self.steps: dict[Modality, Steps | ClipContents] = {}

    def begun(self) -> dict[str, Any]:
        """Who this is, for ``_check``."""
        if self.device.type == "cpu":
            torch.set_num_threads(1)
        return {
            **about(),
            "computed": computation(self.device),
            "texts": computation_of_texts(self.embed.text.runtime, self.embed.text.precision, self.device),
            "media": self.folder.is_dir(),
        }

    def digests(self, modality: Modality, values: Sequence[str]) -> list[str | MediaError]:
        return list(self._of(modality).digests(values))

    def read(self, modality: Modality, values: Sequence[Any]) -> list[Any]:
        return list(prefetch_map(self._of(modality).read, values, workers=self.embed.workers, depth=len(values)))

    def encoded(self, modality: Modality, keys: Sequence[str], items: Sequence[Any]) -> Mapping[str, Any]:
        return self._of(modality).encoded(dict(zip(keys, items, strict=True)))

    def _of(self, modality: Modality) -> Steps | ClipContents:
        if modality not in self.steps:
            if self.device.type == "cpu":
                torch.set_num_threads(1)  # of which Ray's own default may be another, in a process begun anew
            self.steps[modality] = self._loaded(modality)
        return self.steps[modality]

    def _loaded(self, modality: Modality) -> Steps | ClipContents:
        embed = self.embed
        if modality == "text":
            return TextContents(text.load(embed.text), self.device)
        if modality == "image":
            pixels = image.load(embed.image) if "pixels" in embed.image.streams else None
            words = text.load(embed.text) if streams.reads_words(embed, ["image"]) else None
            pictures = streams.of_pictures(embed.image, pixels, words)
            if isinstance(pictures, ImageEncoder):
                return picture_files(pictures, self.folder, self.device, embed)
            return ClipContents.of(pictures, self.folder, self.device, embed)
        recogniser = transcription.load(embed.video.transcript) if self.transcribe else None
        return ClipContents.of(streams.load(embed), self.folder, self.device, embed, recogniser)


@dataclass
class Pool:
    """The processes of one run.

    Attributes:
        device: where the encoders compute.
        computation: how they do.
    """

    cluster: Cluster
    readers: list[Any]
    encoders: list[Any]
    device: torch.device
    computation: Computation


@dataclass
class _UnderWay:
    """Batches between the steps: read, then waiting for an encoder, then encoded."""

    reading: dict[Any, tuple[list[str], list[Any], int]] = field(default_factory=dict)
    waiting: deque[tuple[list[str], list[Any], Any]] = field(default_factory=deque)
    encoding: dict[Any, tuple[list[Any], int]] = field(default_factory=dict)
    of_reader: Counter[int] = field(default_factory=Counter)
    of_encoder: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True)
class RaySource:
    """A modality's content, encoded by the processes of a pool: a ``sources.ModalitySource``, and of clips a
    ``clip_streams.ClipSource``.

    Attributes:
        steps: the same in this process, which cuts the batches and takes the digests of texts.
    """

    modality: Modality
    steps: Steps | ClipContents
    pool: Pool

    @property
    def identity(self) -> dict[str, Any]:
        return self.steps.identity

    @property
    def computed(self) -> dict[str, Any]:
        return self.computation.texts if self.modality == "text" else self.computation.vectors

    @property
    def computation(self) -> Computation:
        return self.pool.computation

    @property
    def chunks(self) -> int:
        return CHUNKS * len(self.pool.encoders)

    def digests(self, values: Sequence[str]) -> Iterator[str | MediaError]:
        if not self.steps.of_files:
            yield from self.steps.digests(values)
            return
        parts = (list(values[at : at + DIGESTED]) for at in range(0, len(values), DIGESTED))
        pending: deque[tuple[Any, list[str]]] = deque()
        for number, part in enumerate(parts):
            reader = self.pool.readers[number % len(self.pool.readers)]
            pending.append((reader.digests.remote(self.modality, part), part))
            if len(pending) >= DEPTH * len(self.pool.readers):
                yield from self._digested(*pending.popleft())
        while pending:
            yield from self._digested(*pending.popleft())

    def _digested(self, reference: Any, part: list[str]) -> list[str | MediaError]:
        return self.pool.cluster.result(reference, f"the files {part[0]} … {part[-1]}")

    def encode(self, pending: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Batches come as they are done, in any order."""
        batches, now = self.steps.batches(pending), _UnderWay()
        while True:
            self._read(batches, now)
            self._encode(now)
            if not now.reading and not now.encoding:
                return
            (done,), _ = self.pool.cluster.ray.wait([*now.encoding, *now.reading], num_returns=1)
            if done in now.reading:
                keys, values, at = now.reading.pop(done)
                now.of_reader[at] -= 1
                now.waiting.append((keys, values, done))
            else:
                values, at = now.encoding.pop(done)
                now.of_encoder[at] -= 1
                yield self.pool.cluster.result(done, _some(values))

    def _read(self, batches: Iterator[dict[str, Any]], now: _UnderWay) -> None:
        """Gives batches to the readers, or straight to the encoders where there is nothing to read."""
        workers = self.pool.readers if self.steps.of_files else self.pool.encoders
        while len(now.reading) + len(now.waiting) < DEPTH * len(workers):
            if (batch := next(batches, None)) is None:
                return
            keys, values = list(batch), list(batch.values())
            if self.steps.of_files:
                at = _least(now.of_reader, self.pool.readers)
                now.reading[self.pool.readers[at].read.remote(self.modality, values)] = (keys, values, at)
                now.of_reader[at] += 1
            else:
                now.waiting.append((keys, values, values))

    def _encode(self, now: _UnderWay) -> None:
        """Gives what is read to the encoders, as long as one of them has too little to do."""
        while now.waiting:
            at = _least(now.of_encoder, self.pool.encoders)
            if now.of_encoder[at] >= DEPTH:
                return
            keys, values, items = now.waiting.popleft()
            now.encoding[self.pool.encoders[at].encoded.remote(self.modality, keys, items)] = (values, at)
            now.of_encoder[at] += 1


def _least(load: Counter[int], workers: Sequence[Any]) -> int:
    return min(range(len(workers)), key=lambda at: load[at])


def _some(values: Sequence[Any]) -> str:
    """What a batch holds, for messages: files by their names, or how many texts."""
    files = [value.value if isinstance(value, PendingContent) else value for value in values]
    files = [value for value in files if isinstance(value, str)]
    return f"the files {files[0]} … {files[-1]}" if files else f"{len(values)} texts"


# --- the cluster -----------------------------------------------------------------------------------------------------


@contextmanager
def started(embed: EmbedParams, folder: Path, *, transcribe: bool = False) -> Iterator[Pool]:
    """The processes that params ``embed.ray`` ask for, of a cluster of this machine's own or of the one named.

    ``transcribe``: whether what is said in clips is asked for, though it is no stream.

    Raises InputError where Ray is not installed, no cluster answers, or its machines cannot do the work.
    """
    request = ClusterRequest(
        embed.ray.address,
        embed.ray.encoders + embed.ray.readers * embed.workers,
        embed.ray.object_store_mb,
        option="params.yaml: embed.engine: ray",
        address_option="params.yaml: embed.ray.address",
        without="give local",
        again="with embed.engine=local",
    )
    with connected(request) as cluster:
        yield _pool(cluster, embed, folder, transcribe)


def _pool(cluster: Cluster, embed: EmbedParams, folder: Path, transcribe: bool) -> Pool:
    ray = embed.ray
    requester = f"params.yaml: embed.ray: {ray.encoders} encoders and {ray.readers} readers"
    cluster.require({"CPU": cluster.request.processors, "GPU": ray.encoders * ray.gpus}, requester)
    device = torch.device("cuda" if ray.gpus else "cpu")
    reader = cluster.ray.remote(num_cpus=embed.workers, **ANEW)(_Worker)
    encoder = cluster.ray.remote(num_cpus=1, num_gpus=ray.gpus, **ANEW)(_Worker)
    path = str(folder.resolve())
    readers = [reader.remote(embed, path, "cpu", transcribe) for _ in range(ray.readers)]
    encoders = [encoder.remote(embed, path, device.type, transcribe) for _ in range(ray.encoders)]
    begun = cluster.begun([*readers, *encoders])
    for worker in begun:
        if not worker["media"]:
            raise InputError(f"embed.engine: ray: {worker['node']} has no folder {path}; mount it there")
    read, encoding = begun[: len(readers)], begun[len(readers) :]
    _check_alike(encoding, "encoders")
    if transcribe or {*embed.image.streams, *embed.video.streams} & set(IN_WORDS):
        _check_alike(read, "readers")  # which recognise words
    computation = Computation(encoding[0]["computed"], encoding[0]["texts"], read[0]["computed"])
    return Pool(cluster, readers, encoders, device, computation)


def _check_alike(begun: Sequence[Mapping[str, Any]], kind: str) -> None:
    """Raises InputError where some of these processes may round otherwise than others."""
    one, *others = {str((worker["computed"], worker["texts"])): worker for worker in begun}.values()
    for other in others:
        raise InputError(
            f"embed.engine: ray: {one['node']} computes with {one['texts']}, {other['node']} with {other['texts']}; "
            f"their results may differ in the last digits, so give the {kind} machines of a kind"
        )
