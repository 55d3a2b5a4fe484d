"""Micro-batching: what is asked at the same time is answered together, by the one thread that uses the model.

While a batch is worked on the next one gathers, so nobody waits for company, and the busier it gets the larger, and
cheaper, batches become.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


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
        self._waiting: asyncio.Queue[tuple[Item, asyncio.Future[Answer]]] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def __aenter__(self) -> Self:
        self._worker = asyncio.create_task(self._answer_all())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Answers what waits, then stops."""
        await self._waiting.join()
        self._worker.cancel()
        await asyncio.to_thread(self._thread.shutdown)

    async def answer(self, item: Item) -> Answer:
        """Raises what ``work`` raises. One who stops waiting (by a time limit, say) is left out of the next batch."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((item, future))
        return await future

    async def _answer_all(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < self._most and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            wanted = [(item, future) for item, future in batch if not future.done()]
            if wanted:
                self._observe(len(wanted))
                await self._settle(wanted)
            for _ in batch:
                self._waiting.task_done()

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
