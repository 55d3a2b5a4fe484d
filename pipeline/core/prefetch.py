"""Work done ahead of the one who needs it, by threads: Pillow, PyAV and hashlib let go of the interpreter's lock."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch_map(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, depth: int
) -> Iterator[Result]:
    """``map(function, items)``, computed by ``workers`` threads.

    Results come in the order of the items; at most ``depth`` of them (at least one) are under way or waiting, which
    bounds memory. An exception of ``function`` is raised where its result would have come. A consumer that stops early
    waits only for what is being computed at that moment; nothing further is started.
    """
    source = iter(items)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="ahead")
    try:
        waiting: deque[Future[Result]] = deque(pool.submit(function, item) for item in islice(source, max(depth, 1)))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(source, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
