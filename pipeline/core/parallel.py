"""Independent pieces of work in processes of their own, with results that do not depend on how many there are."""

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from pipeline.core.errors import InputError
from pipeline.core.processes import starting_workers, work_for_parent
from pipeline.core.progress import mute, progress

Task = TypeVar("Task")
Result = TypeVar("Result")

CONTEXT: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
"""A forked copy of a process in which torch has started threads can hang, so none is made of this one. On Linux workers
are copies of a process that has only imported; elsewhere they import for themselves."""


def prepare_workers(modules: Sequence[str]) -> None:
    """Begins to import what workers will need, in the process that they are to be copies of.

    It goes on while this process imports for itself. Without it, workers import when they are started.
    """
    if sys.platform == "linux":
        from multiprocessing import forkserver

        CONTEXT.set_forkserver_preload(["pipeline.core.forked_from", *modules])
        with starting_workers():
            forkserver.ensure_running()


def in_processes(work: Callable[[Task], Result], jobs: Sequence[Task], processes: int, what: str) -> Iterator[Result]:
    """The results in the order of the jobs, each in a process with one thread; with one process or job, in this one.

    Results do not depend on how many processes there are, nor on how many cores. The exception are encoders that are
    tuned in this process: they use all threads of torch, and their last digits depend on how many. However this
    process ends, the others end with it. Raises InputError when one of them was ended from outside.
    """
    with progress(what, len(jobs)) as advance:
        if processes == 1 or len(jobs) < 2:
            for job in jobs:
                with threadpool_limits(1, user_api="blas"):
                    result = work(job)
                yield result
                advance(1)
            return
        others = set(multiprocessing.active_children())
        pool = ProcessPoolExecutor(min(processes, len(jobs)), CONTEXT, initializer=_begin, initargs=(dict(os.environ),))
        try:
            with starting_workers():
                futures = _submitted(pool, work, jobs)
            while futures:
                yield futures.pop(0).result()  # map() would cancel those left, of which a pool that breaks complains
                advance(1)
        except BrokenProcessPool:
            raise InputError(
                f"{what}: a process was ended from outside, perhaps for want of memory; run it again, with fewer "
                "`processes` in params.yaml: what was finished is kept"
            ) from None
        finally:
            # Also where all went well: a worker that was ended just now, while it waited for work, leaves the others
            # waiting for its lock, and the pool for them. SIGTERM would wait in one that is still being started.
            for worker in set(multiprocessing.active_children()) - others:
                worker.kill()
            pool.shutdown(cancel_futures=True)


def _submitted(pool: ProcessPoolExecutor, work: Callable[[Task], Result], jobs: Sequence[Task]) -> list[Future[Result]]:
    try:
        return [pool.submit(work, job) for job in jobs]
    except (EOFError, ConnectionError):  # what workers are copies of was ended while it imported
        raise BrokenProcessPool from None


def _begin(environment: Mapping[str, str]) -> None:
    """Takes the environment from who started it: what it is a copy of may have begun with another."""
    work_for_parent()
    os.environ.clear()  # variables of a launcher would have it wait for others
    os.environ.update(environment)
    os.environ["OMP_NUM_THREADS"] = "1"  # for torch, which only what is worked on may import
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    threadpool_limits(1, user_api="blas")  # numpy's own threads: two processes with two each wait for one another
    mute()
