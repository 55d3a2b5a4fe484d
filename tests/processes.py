"""`python -m pipeline` as a process of its own that begins with everything imported: a fork of one that did that once.

To import torch and transformers takes longer than what a test asks of a process. Windows cannot fork: there each
imports them anew.
"""

import importlib
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import IO, Any

import psutil

from pipeline.cli import STAGES
from pipeline.core.processes import ENDING
from tests.imports import ROOT

CAN_FORK = "forkserver" in multiprocessing.get_all_start_methods()
CONTEXT: Any = multiprocessing.get_context("forkserver" if CAN_FORK else "spawn")
SERVING = [f"pipeline.serving.{name}" for name in ("app", "bundle", "command")]
LATE = ["tests.tiny", "uvicorn.main"]
"""What is imported when an encoder is loaded, and a server is started."""
CONTEXT.set_forkserver_preload(["tests.processes", *SERVING, *LATE, *(f"pipeline.stages.{name}" for name in STAGES)])


@dataclass(frozen=True)
class Started:
    """A command under way, and what it writes; it knows of ``subprocess.Popen`` what tests ask for."""

    process: Any
    stdout: IO[str]
    stderr: IO[str]

    @property
    def pid(self) -> int:
        return self.process.pid

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self.process.terminate()

    def wait(self, seconds: float | None = None) -> int:
        """Its exit status, negative after a signal."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired("pipeline", seconds or 0.0)
        return self.process.exitcode


def start(*arguments: object, largest_file: int | None = None, before: Callable[[], None] | None = None) -> Started:
    """Starts ``pipeline`` with these arguments; bytes are passed as they are.

    ``largest_file`` is how many bytes a file may grow to, as if there were no more room. ``before``, a function of a
    module, is called there first.
    """
    given = [of if isinstance(of, bytes) else os.fsencode(str(of)) for of in arguments]
    with ExitStack() as stack:
        (out, out_end), (err, err_end) = (CONTEXT.Pipe(duplex=False) for _ in range(2))
        ends = [stack.enter_context(end) for end in (out_end, err_end)]
        process = CONTEXT.Process(target=_run, args=(given, dict(os.environ), ends, largest_file, before))
        process.start()
    return Started(process, _text(out), _text(err))


def run(*arguments: object, largest_file: int | None = None) -> subprocess.CompletedProcess[str]:
    """As ``start``, to the end. What is written to stderr must fit a pipe while stdout is read."""
    started = start(*arguments, largest_file=largest_file)
    with started.stdout, started.stderr:
        out, err = started.stdout.read(), started.stderr.read()
    return subprocess.CompletedProcess([str(of) for of in arguments], started.wait(), out, err)


def _text(end: Connection) -> IO[str]:
    with end:
        return os.fdopen(os.dup(end.fileno()), encoding="utf-8", errors="surrogateescape")


def _run(
    given: Sequence[bytes],
    environment: Mapping[str, str],
    ends: Sequence[Connection],
    room: int | None,
    before: Callable[[], None] | None,
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    if CAN_FORK:  # workers of a stage may have been started before, who let these wait
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        _fork_for_workers()
    for number, end in enumerate(ends, start=1):
        os.dup2(end.fileno(), number)
        end.close()
    if room is not None:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    if before is not None:
        before()
    sys.argv = ["pipeline", *map(os.fsdecode, given)]
    importlib.import_module("pipeline.__main__").main()


def _fork_for_workers() -> None:
    """What workers are copies of is itself a fork of this process, and not one that begins with imports."""
    from multiprocessing import util

    spawn = util.spawnv_passfds

    def forked(path: bytes, arguments: list[str], passed: list[int]) -> int:
        if not arguments[-1].startswith("from multiprocessing.forkserver"):
            return spawn(path, arguments, passed)
        pid = os.fork()
        if pid:
            return pid
        try:  # as a new process would be: with handlers of its own, and files that it was given
            for number in ENDING:
                signal.signal(number, signal.SIG_DFL)
            for low, high in itertools.pairwise(sorted([2, *passed, 1024])):
                os.closerange(low + 1, high)
            sys.modules.pop("pipeline.core.forked_from", None)  # which each that is imported for must do
            exec(arguments[-1], {})
        finally:
            os._exit(1)

    util.spawnv_passfds = forked


def ray_workers(pid: int) -> list[psutil.Process]:
    """The actors of this project that a process has started on a Ray cluster of its own: Ray names them after their
    class and what they do.
    """
    workers = []
    for process in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::_Worker"):
                workers.append(process)
    return workers
