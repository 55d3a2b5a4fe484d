"""A Ray cluster to work on: one of this machine's own, or one that others have started; and what goes wrong with it.

Ray is an extra (``pip install "emocare-pipeline[ray]"``), and is imported here alone, when it is asked for. Every
machine of a cluster needs this project installed, in the same version.
"""

import importlib
import logging
import os
import platform
import signal
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline.core.code import code_digest
from pipeline.core.errors import InputError

RETRIES = 3
"""Times that work is given out again after the process that had it died; a file that kills its reader ends the run."""

START_S = 600.0
"""How long to wait until all processes have begun."""

KNOCK_S = 10.0
"""How long a machine of the cluster may take to answer at its address."""

ANEW = {"max_restarts": -1, "max_task_retries": RETRIES}
"""An actor that dies is started again, and given the same work."""


@dataclass(frozen=True)
class ClusterRequest:
    """Which cluster is needed, and how error messages name the options for it.

    Attributes:
        address: ``local`` for one of this machine's own, or where one is.
        processors: that the work takes.
        object_store_mb: memory of a local one for what its processes hand each other.
        option: what asked for Ray.
        address_option: what gave the address.
        without: how to do without.
        again: how to go on without, after a run that broke off.
    """

    address: str
    processors: int
    object_store_mb: int
    option: str
    address_option: str
    without: str
    again: str


@dataclass(frozen=True)
class Cluster:
    """A connected cluster; ``ray`` is the package."""

    ray: Any
    request: ClusterRequest

    def require(self, resources: Mapping[str, float], requester: str) -> None:
        """Raises InputError where the cluster has less than this, by kind."""
        available = self.ray.cluster_resources()
        for kind, count in resources.items():
            if count > available.get(kind, 0):
                raise InputError(
                    f"{requester} want {count:g} {kind}, and the cluster has {available.get(kind, 0):g}; "
                    "ask for fewer, or add machines"
                )

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
                f"{self.request.option}: the process at work on {what} died {RETRIES + 1} times "
                f"({_first_line(error)}); if it lacked memory, give it more; "
                f"the run goes on from here, also {self.request.again}"
            ) from None

    def begun(self, workers: Iterable[Any]) -> list[dict[str, Any]]:
        """What ``begun`` of each actor gives, which has ``about``. Raises InputError where one does not begin."""
        try:
            answers = self.ray.get([worker.begun.remote() for worker in workers], timeout=START_S)
        except self.ray.exceptions.GetTimeoutError:
            problem = (
                f"not all processes began within {START_S:.0f} s; the cluster is busy, or its machines are too small"
            )
        except InputError as error:
            problem = str(getattr(error, "cause", error))
        except self.ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            problem = f"a process did not begin ({lines[-1]}); install this project on every machine of the cluster"
        else:
            for process in answers:
                if process["code"] != code_digest():
                    raise InputError(
                        f"{self.request.option}: {process['node']} has another version of this project; "
                        "install this one"
                    )
            return answers
        raise InputError(f"{self.request.option}: {problem}")


def about() -> dict[str, Any]:
    """What identifies a process: its machine's name and the digest of its code."""
    return {"node": platform.node(), "code": code_digest()}


@contextmanager
def connected(request: ClusterRequest) -> Iterator[Cluster]:
    """The cluster; it ends with the context where it is this machine's own.

    Raises InputError where Ray is not installed, or no cluster answers.
    """
    ray = _package(request)
    before = signal.getsignal(signal.SIGTERM)
    _connect(ray, request)
    try:
        signal.signal(signal.SIGTERM, before)  # which Ray has replaced by its own
        yield Cluster(ray, request)
    finally:
        ray.shutdown()


def _package(request: ClusterRequest) -> Any:
    # Read when Ray is imported: nothing is told to anybody, and processors are not hidden from processes without GPUs.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise InputError(
            f'{request.option} is not installed; `pip install "emocare-pipeline[ray]"`, or {request.without}'
        ) from None


def _connect(ray: Any, request: ClusterRequest) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if request.address == "local":
        store = request.object_store_mb * 2**20
        # As many processors as are asked for, not as there are: processes may take turns on one.
        ray.init("local", num_cpus=request.processors, object_store_memory=store, include_dashboard=False, **quiet)
        return
    try:
        _knock(request.address)
        ray.init(request.address, **quiet)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:  # a port of 99999 overflows
        raise InputError(
            f"{request.address_option}: no Ray cluster answers at {request.address} ({_first_line(error)}); "
            "start one with `ray start --head` and `ray start --address=…`, or give local"
        ) from None


def _knock(address: str) -> None:
    """Raises OSError where nothing listens at ``host:port``: Ray itself would try again for minutes."""
    host, _, port = address.rpartition(":")
    if host and "/" not in address and port.isdecimal():  # not `auto`, nor the `ray://…` of a client
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
