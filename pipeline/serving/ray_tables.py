"""Tables of predictions made by the processes of a Ray cluster, in order; this process reads, writes and joins them.

Each process loads the model for itself, so every machine needs the bundle or project, and the media, under the same
path. One that dies is started anew and given the same rows again.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import torch

from pipeline.core.errors import InputError
from pipeline.core.ray_cluster import ANEW, ClusterRequest, about, connected

DEPTH = 2
"""Chunks that each process has at hand, so that it need not wait for the next."""

OBJECT_STORE_MB = 512

Tables = Callable[[Iterable[Any]], Iterator[pa.Table]]


@dataclass(frozen=True)
class RayWorkers:
    """The processes that make the tables.

    Attributes:
        address: ``local`` for processes of this machine, or where a cluster is.
        workers: how many.
        load: gives what predicts, in each of them.
    """

    address: str
    workers: int
    load: Callable[[], Any]


class _Worker:
    def __init__(self, load: Callable[[], Any], make: Callable[[Any, Any], pa.Table]) -> None:
        self.load, self.make = load, make

    @cached_property
    def using(self) -> Any:
        torch.set_num_threads(1)
        return self.load()

    def begun(self) -> dict[str, Any]:
        return about() | {"model": self.using.model.identity}

    def table(self, chunk: Any) -> pa.Table:
        return self.make(self.using, chunk)


@contextmanager
def made(using: Any, make: Callable[[Any, Any], pa.Table], ray_workers: RayWorkers | None) -> Iterator[Tables]:
    """Makes tables of chunks one after another with ``using``, a predictor: here, or where ``ray_workers`` says.

    Args:
        make: what predicts, and a chunk → its table; a function that can be pickled.

    Raises InputError where the cluster cannot do it.
    """
    if ray_workers is None:
        yield lambda chunks: (make(using, chunk) for chunk in chunks)
        return
    request = ClusterRequest(
        ray_workers.address,
        ray_workers.workers,
        OBJECT_STORE_MB,
        option="--ray: ray",
        address_option="--ray",
        without="leave it out",
        again="without --ray",
    )
    with connected(request) as cluster:
        cluster.require({"CPU": ray_workers.workers}, f"--workers: {ray_workers.workers} processes")
        worker = cluster.ray.remote(num_cpus=1, **ANEW)(_Worker)
        workers = [worker.remote(ray_workers.load, make) for _ in range(ray_workers.workers)]
        for process in cluster.begun(workers):
            if process["model"] != using.model.identity:
                raise InputError(f"--ray: {process['node']} has another model under this path; copy this one there")

        def tables(chunks: Iterable[Any]) -> Iterator[pa.Table]:
            pending: deque[tuple[Any, int]] = deque()
            for number, chunk in enumerate(chunks):
                if len(pending) == DEPTH * len(workers):
                    yield cluster.result(*_named(pending.popleft()))
                pending.append((workers[number % len(workers)].table.remote(chunk), number))
            while pending:
                yield cluster.result(*_named(pending.popleft()))

        yield tables


def _named(pending: tuple[Any, int]) -> tuple[Any, str]:
    reference, number = pending
    return reference, f"part {number + 1} of those that were missing"
