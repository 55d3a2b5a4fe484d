"""The steps of encoding in the processes of a Ray cluster: readers decode, encoders encode, this process writes.

Readers and encoders are Ray actors with a bounded number of batches under way, so memory is bounded on every machine.
An actor that dies is started anew and given the same batch again; vectors are a function of their content alone, so
the tables do not show it. Only this process writes: every batch goes into the store as it comes, and a run that was
cut off goes on from there.

Ray is an extra (``pip install "emocare-pipeline[ray]"``), and is imported here alone, when it is asked for. Every
machine of a cluster needs this project installed, in the same version, and the media under the same path.
"""

import hashlib
import importlib
import logging
import os
import platform
import signal
import socket
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

import pipeline
from pipeline.core.errors import InputError
from pipeline.core.files import MediaError
from pipeline.core.prefetch import ahead
from pipeline.encoders import image, text
from pipeline.encoders.sources import Encoded, Steps, TextContents, computation, encoded_batch, picture_files
from pipeline.params import EmbedParams, RayParams

RETRIES = 3
"""Times that work is given out again after the process that had it died; a file that kills its reader ends the run."""

START_S = 600.0
"""How long to wait until all processes have begun."""

KNOCK_S = 10.0
"""How long a machine of the cluster may take to answer at its address."""

DEPTH = 2
"""Batches that each process has at hand, so that it need not wait for the next."""

DIGESTED = 64
"""Files that a reader takes the digests of in one go."""

CHUNKS = 4
"""Chunks of rows for each encoder at once: at the end of them some have nothing to do."""


Divided = Literal["text", "image"]
"""Modalities whose work is divided; clips, of which much is opened once for several streams, are encoded here."""


class _Worker:
    """One process of the cluster, reader or encoder; an encoder is loaded when its modality comes first."""

    def __init__(self, embed: EmbedParams, folder: str, device: str) -> None:
        self.embed, self.folder, self.device = embed, Path(folder), torch.device(device)
        self.steps: dict[Divided, Steps] = {}

    def begun(self) -> dict[str, Any]:
        """Who this is, for ``_check``."""
        if self.device.type == "cpu":
            torch.set_num_threads(1)
        return {
            "node": platform.node(),
            "code": _code(),
            "computed": computation(self.device),
            "media": self.folder.is_dir(),
        }

    def digests(self, modality: Divided, values: Sequence[str]) -> list[str | MediaError]:
        return list(self._of(modality).digests(values))

    def read(self, modality: Divided, values: Sequence[Any]) -> list[Any]:
        return list(ahead(self._of(modality).read, values, workers=self.embed.workers, depth=len(values)))

    def vectors(self, modality: Divided, keys: Sequence[str], items: Sequence[Any]) -> dict[str, Any]:
        return encoded_batch(self._of(modality), dict(zip(keys, items, strict=True)))

    def _of(self, modality: Divided) -> Steps:
        if modality not in self.steps:
            if self.device.type == "cpu":
                torch.set_num_threads(1)  # of which Ray's own default may be another, in a process begun anew
            self.steps[modality] = self._loaded(modality)
        return self.steps[modality]

    def _loaded(self, modality: Divided) -> Steps:
        if modality == "text":
            return TextContents(text.load(self.embed.text), self.device)
        return picture_files(image.load(self.embed.image), self.folder, self.device, self.embed)


def _code() -> str:
    """sha256 of this project's modules: workers with others could make other vectors."""
    root, digest = Path(str(pipeline.__path__[0])), hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


@dataclass
class Pool:
    """The processes of one run.

    Attributes:
        ray: the package.
        device: where the encoders compute.
        computed: how they do, as ``sources.computation``.
    """

    ray: Any
    readers: list[Any]
    encoders: list[Any]
    device: torch.device
    computed: dict[str, Any] = field(default_factory=dict)

    def result(self, reference: Any, what: str) -> Any:
        """Raises InputError where it was one in the other process, or where that died again and again."""
        try:
            return self.ray.get(reference)
        except InputError as error:
            raise InputError(str(getattr(error, "cause", error))) from None
        except self.ray.exceptions.RayTaskError:
            raise  # a bug of ours, with the other process's traceback
        except self.ray.exceptions.RayError as error:
            raise InputError(
                f"embed.engine: ray: the process at work on {what} died {RETRIES + 1} times "
                f"({_first_line(error)}); if it lacked memory, give it more; the run goes on from here, also with "
                "embed.engine=local"
            ) from None


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
    """A modality's content, encoded by the processes of a pool; see ``sources.ModalitySource``.

    Attributes:
        steps: the same in this process, which cuts the batches and takes the digests of texts.
    """

    modality: Divided
    steps: Steps
    pool: Pool

    @property
    def identity(self) -> dict[str, Any]:
        return self.steps.identity

    @property
    def computed(self) -> dict[str, Any]:
        return self.pool.computed

    @property
    def chunks(self) -> int:
        return CHUNKS * len(self.pool.encoders)

    def digests(self, values: Sequence[str]) -> Iterator[str | MediaError]:
        if not self.steps.of_files:
            yield from self.steps.digests(values)
            return
        parts = (list(values[at : at + DIGESTED]) for at in range(0, len(values), DIGESTED))
        asked: deque[tuple[Any, list[str]]] = deque()
        for number, part in enumerate(parts):
            reader = self.pool.readers[number % len(self.pool.readers)]
            asked.append((reader.digests.remote(self.modality, part), part))
            if len(asked) >= DEPTH * len(self.pool.readers):
                yield from self._digested(*asked.popleft())
        while asked:
            yield from self._digested(*asked.popleft())

    def _digested(self, reference: Any, part: list[str]) -> list[str | MediaError]:
        return self.pool.result(reference, f"the files {part[0]} … {part[-1]}")

    def encode(self, pending: Mapping[str, Any]) -> Iterator[Encoded]:
        """Batches come as they are done, in any order."""
        batches, now = self.steps.batches(pending), _UnderWay()
        while True:
            self._read(batches, now)
            self._encode(now)
            if not now.reading and not now.encoding:
                return
            (done,), _ = self.pool.ray.wait([*now.encoding, *now.reading], num_returns=1)
            if done in now.reading:
                keys, values, at = now.reading.pop(done)
                now.of_reader[at] -= 1
                now.waiting.append((keys, values, done))
            else:
                values, at = now.encoding.pop(done)
                now.of_encoder[at] -= 1
                yield self.pool.result(done, _some(values))

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
            now.encoding[self.pool.encoders[at].vectors.remote(self.modality, keys, items)] = (values, at)
            now.of_encoder[at] += 1


def _least(load: Counter[int], workers: Sequence[Any]) -> int:
    return min(range(len(workers)), key=lambda at: load[at])


def _some(values: Sequence[Any]) -> str:
    """What a batch holds, for messages: files by their names, or how many texts."""
    files = [value for value in values if isinstance(value, str)]
    return f"the files {files[0]} … {files[-1]}" if files else f"{len(values)} texts"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


# --- the cluster -----------------------------------------------------------------------------------------------------


@contextmanager
def started(embed: EmbedParams, folder: Path) -> Iterator[Pool]:
    """The processes that params ``embed.ray`` ask for, of a cluster of this machine's own or of the one named.

    Raises InputError where Ray is not installed, no cluster answers, or its machines cannot do the work.
    """
    ray = _package()
    before = signal.getsignal(signal.SIGTERM)
    _connect(ray, embed)
    try:
        signal.signal(signal.SIGTERM, before)  # which Ray has replaced by its own
        pool = _pool(ray, embed, folder)
        yield pool
    finally:
        ray.shutdown()


def _package() -> Any:
    # Read when Ray is imported: nothing is told to anybody, and processors are not hidden from processes without GPUs.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise InputError(
            'params.yaml: embed.engine: ray is not installed; `pip install "emocare-pipeline[ray]"`, or give local'
        ) from None


def _processors(embed: EmbedParams) -> int:
    return embed.ray.encoders + embed.ray.readers * embed.workers


def _connect(ray: Any, embed: EmbedParams) -> None:
    asked: RayParams = embed.ray
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if asked.address == "local":
        store = asked.object_store_mb * 2**20
        # As many processors as are asked for, not as there are: readers and encoders may take turns on one.
        ray.init("local", num_cpus=_processors(embed), object_store_memory=store, include_dashboard=False, **quiet)
        return
    try:
        _knock(asked.address)
        ray.init(asked.address, **quiet)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:  # a port of 99999 overflows
        raise InputError(
            f"params.yaml: embed.ray.address: no Ray cluster answers at {asked.address} ({_first_line(error)}); start "
            "one with `ray start --head` and `ray start --address=…`, or give local"
        ) from None


def _knock(address: str) -> None:
    """Raises OSError where nothing listens at ``host:port``: Ray itself would try again for minutes."""
    host, _, port = address.rpartition(":")
    if host and "/" not in address and port.isdecimal():  # not `auto`, nor the `ray://…` of a client
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()


def _pool(ray: Any, embed: EmbedParams, folder: Path) -> Pool:
    asked = embed.ray
    there, wanted = ray.cluster_resources(), {"CPU": _processors(embed), "GPU": asked.encoders * asked.gpus}
    for kind, count in wanted.items():
        if count > there.get(kind, 0):
            raise InputError(
                f"params.yaml: embed.ray: {asked.encoders} encoders and {asked.readers} readers want {count:g} {kind}, "
                f"and the cluster has {there.get(kind, 0):g}; ask for fewer, or add machines"
            )
    device = torch.device("cuda" if asked.gpus else "cpu")
    anew = {"max_restarts": -1, "max_task_retries": RETRIES}
    reader = ray.remote(num_cpus=embed.workers, **anew)(_Worker)
    encoder = ray.remote(num_cpus=1, num_gpus=asked.gpus, **anew)(_Worker)
    given = (embed, str(folder.resolve()))
    readers = [reader.remote(*given, "cpu") for _ in range(asked.readers)]
    encoders = [encoder.remote(*given, device.type) for _ in range(asked.encoders)]
    pool = Pool(ray, readers, encoders, device)
    begun = _begun(pool, [*readers, *encoders])
    _check(begun, folder)
    computed = {str(of["computed"]): of for of in begun[len(readers) :]}
    if len(computed) > 1:
        one, other, *_ = computed.values()
        raise InputError(
            f"embed.engine: ray: {one['node']} computes with {one['computed']}, {other['node']} with "
            f"{other['computed']}; their vectors may differ in the last digits, so give the encoders machines of a kind"
        )
    pool.computed = begun[-1]["computed"]
    return pool


def _begun(pool: Pool, workers: Iterable[Any]) -> list[dict[str, Any]]:
    try:
        return pool.ray.get([worker.begun.remote() for worker in workers], timeout=START_S)
    except pool.ray.exceptions.GetTimeoutError:
        problem = f"not all processes began within {START_S:.0f} s; the cluster is busy, or its machines are too small"
    except pool.ray.exceptions.RayError as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        problem = f"a process did not begin ({lines[-1]}); install this project on every machine of the cluster"
    raise InputError(f"embed.engine: ray: {problem}")


def _check(begun: Iterable[Mapping[str, Any]], folder: Path) -> None:
    for of in begun:
        if of["code"] != _code():
            raise InputError(f"embed.engine: ray: {of['node']} has another version of this project; install this one")
        if not of["media"]:
            raise InputError(f"embed.engine: ray: {of['node']} has no folder {folder.resolve()}; mount it there")
