"""Independent trainings in processes of their own, with results that do not depend on how many there are."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

from pipeline.core.progress import mute, progress

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_processes(work: Callable[[Task], Result], jobs: Sequence[Task], processes: int, what: str) -> Iterator[Result]:
    """The results in the order of the jobs, each in a process with one thread; with one process or job, in this one.

    Results do not depend on how many processes there are, nor on how many cores.
    """
    with progress(what, len(jobs)) as advance:
        if processes == 1 or len(jobs) == 1:
            for job in jobs:
                with threadpool_limits(1, user_api="blas"):
                    result = work(job)
                yield result
                advance(1)
            return
        # A forked copy of a process in which torch has started threads can hang; and Windows cannot fork.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(processes, len(jobs)), context, initializer=_begin) as pool:
            for result in pool.map(work, jobs):
                yield result
                advance(1)


def _begin() -> None:
    torch.set_num_threads(1)
    threadpool_limits(1, user_api="blas")  # numpy's own threads: two processes with two each wait for one another
    mute()
