"""Micro-batching: what is asked at the same time is answered together, by the one thread that uses the model.

While a batch is worked on the next one gathers, so nobody waits for company, and the busier it gets the larger, and
cheaper, batches become. What takes long is done in steps, between which everything else goes first.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")

Steps = Generator[None, None, Any]
"""Work that is done up to the next ``yield`` at a time; what it returns is its result."""


@dataclass(frozen=True)
class _Long:
    steps: Steps
    future: asyncio.Future[Any]


class Batcher(Generic[Item, Answer]):
    """Answers items in batches; lives inside one event loop, between ``async with`` and its end.

    How many may wait is for the caller to limit.

    Args:
        work: answers a batch in order, in a thread that runs no two batches at once. When it fails for several, each
            is tried alone, so that nobody's item fails another's.
        most: items in a batch.
        observe: is told the size of each batch.
    """

    def __init__(
        self, work: Callable[[Sequence[Item]], Sequence[Answer]], most: int, observe: Callable[[int], object]
    ) -> None:
        self._work, self._most, self._observe = work, most, observe
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._long: deque[_Long] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def __aenter__(self) -> Self:
        self._something, self._ending = asyncio.Event(), False
        self._worker = asyncio.create_task(self._answer_all())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Answers what waits, then stops."""
        self._ending = True
        self._something.set()
        await self._worker
        await asyncio.to_thread(self._thread.shutdown)

    async def answer(self, item: Item) -> Answer:
        """Raises what ``work`` raises. One who stops waiting (by a time limit, say) is left out of the next batch."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._something.set()
        return await future

    async def in_steps(self, steps: Steps) -> Any:
        """The result of work that is done step by step, in the same thread, while no item waits.

        Several such works take turns. Raises what it raises. When one stops waiting, no further step is begun.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._long.append(_Long(steps, future))
        self._something.set()
        return await future

    async def _answer_all(self) -> None:
        while True:
            if self._waiting:
                size = min(self._most, len(self._waiting))
                batch = [self._waiting.popleft() for _ in range(size)]
                pending = [(item, future) for item, future in batch if not future.done()]
                if pending:
                    self._observe(len(pending))
                    await self._settle(pending)
            elif self._long:
                await self._step(self._long.popleft())
            elif self._ending:
                return
            else:
                self._something.clear()
                await self._something.wait()

    async def _settle(self, batch: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        try:
            loop = asyncio.get_running_loop()
            answers = await loop.run_in_executor(self._thread, self._work, [item for item, _ in batch])
        except Exception as error:
            if len(batch) > 1:
                for one in batch:
                    await self._settle([one])
            elif not batch[0][1].done():
                batch[0][1].set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)

    async def _step(self, long: _Long) -> None:
        if long.future.done():
            long.steps.close()
            return
        try:
            ended = await asyncio.get_running_loop().run_in_executor(self._thread, _advance, long.steps)
        except Exception as error:
            if not long.future.done():
                long.future.set_exception(error)
            return
        if ended is None:
            self._long.append(long)
        elif not long.future.done():
            long.future.set_result(ended[0])


def _advance(steps: Steps) -> tuple[Any] | None:
    """Does one step; what the whole work returns, as a tuple, once it has ended."""
    try:
        next(steps)
    except StopIteration as end:
        return (end.value,)
    return None
