"""What waits together is answered together, in order, and nobody pays for another's item."""

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest

from pipeline.serving.batching import Batcher, Steps


def run(work, items: Sequence[int], most: int = 4) -> tuple[list, list[int]]:
    """Asks for all items at once; answers (or exceptions), and the sizes of the batches."""
    sizes: list[int] = []

    async def ask() -> list:
        async with Batcher(work, most, sizes.append) as batcher:
            return await asyncio.gather(*map(batcher.answer, items), return_exceptions=True)

    return asyncio.run(ask()), sizes


def test_what_waits_is_answered_in_batches_by_one_thread() -> None:
    threads = set()

    def work(batch: Sequence[int]) -> list[int]:
        threads.add(threading.get_ident())
        return [10 * item for item in batch]

    answers, sizes = run(work, range(11))
    assert answers == [10 * item for item in range(11)]
    assert sizes == [4, 4, 3]
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


def test_one_who_fails_fails_alone() -> None:
    def work(batch: Sequence[int]) -> list[float]:
        return [1 / item for item in batch]

    answers, _ = run(work, [1, 2, 0, 4])
    assert answers[:2] + answers[3:] == [1, 0.5, 0.25]
    assert isinstance(answers[2], ZeroDivisionError)


def test_a_lone_item_does_not_wait_for_company() -> None:
    answers, sizes = run(list, [7])
    assert (answers, sizes) == ([7], [1])


def test_one_who_stopped_waiting_is_not_worked_for() -> None:
    worked: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    def work(batch: Sequence[int]) -> list[int]:
        worked.extend(batch)
        begun.set()
        assert go_on.wait(10)
        return list(batch)

    async def ask() -> int:
        async with Batcher(work, 1, lambda _: None) as batcher:
            first = asyncio.create_task(batcher.answer(1))
            await asyncio.to_thread(begun.wait, 10)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(batcher.answer(2), 0.01)
            last = asyncio.create_task(batcher.answer(3))
            await asyncio.sleep(0)
            go_on.set()
            return await first + await last

    assert asyncio.run(ask()) == 4
    assert worked == [1, 3]


def test_the_end_answers_what_still_waits() -> None:
    async def ask() -> list[int]:
        async with Batcher(list, 2, lambda _: None) as batcher:
            waiting = [asyncio.create_task(batcher.answer(item)) for item in range(5)]
            await asyncio.sleep(0)
        return [task.result() for task in waiting]

    assert asyncio.run(ask()) == list(range(5))


def counted(done: list[str], name: str, steps: int, before: Callable[[], object] = lambda: None) -> Steps:
    for at in range(steps):
        before()
        done.append(f"{name}{at}")
        yield
    return f"{name} is done"


def test_what_takes_long_waits_for_every_item_and_takes_turns() -> None:
    done: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        assert go_on.wait(10)

    def work(batch: Sequence[int]) -> list[int]:
        done.extend(f"item {item}" for item in batch)
        return list(batch)

    async def ask() -> list:
        async with Batcher(work, 4, lambda _: None) as batcher:
            long = [asyncio.create_task(batcher.in_steps(counted(done, name, 3, hold))) for name in "ab"]
            await asyncio.to_thread(begun.wait, 10)
            items = [asyncio.create_task(batcher.answer(item)) for item in (1, 2)]
            await asyncio.sleep(0)
            go_on.set()
            return await asyncio.gather(*items, *long)

    assert asyncio.run(ask()) == [1, 2, "a is done", "b is done"]
    assert done == ["a0", "item 1", "item 2", "b0", "a1", "b1", "a2", "b2"]


def test_no_further_step_is_done_for_one_who_has_left() -> None:
    done: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        assert go_on.wait(10)

    async def ask() -> int:
        async with Batcher(list, 1, lambda _: None) as batcher:
            long = asyncio.create_task(batcher.in_steps(counted(done, "a", 100, hold)))
            await asyncio.to_thread(begun.wait, 10)
            long.cancel()
            await asyncio.sleep(0)
            go_on.set()
            return await batcher.answer(7)

    assert asyncio.run(ask()) == 7
    assert done == ["a0"]


def test_long_work_that_fails_fails_alone() -> None:
    def broken() -> Steps:
        yield
        raise ZeroDivisionError

    async def ask() -> list:
        async with Batcher(list, 1, lambda _: None) as batcher:
            long = [batcher.in_steps(broken()), batcher.in_steps(counted([], "b", 2))]
            return await asyncio.gather(*long, batcher.answer(1), return_exceptions=True)

    failed, *others = asyncio.run(ask())
    assert isinstance(failed, ZeroDivisionError)
    assert others == ["b is done", 1]
