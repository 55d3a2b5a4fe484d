import threading
import time
from collections.abc import Iterator

import pytest

from pipeline.core.prefetch import prefetch_map


def test_results_keep_the_order_of_the_items() -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.02 if item == 0 else 0)
        return item * item

    assert list(prefetch_map(slow_first, range(20), workers=4, depth=8)) == [item * item for item in range(20)]
    assert list(prefetch_map(slow_first, [], workers=1, depth=1)) == []


def test_no_more_than_depth_items_are_drawn() -> None:
    drawn = []

    def items() -> Iterator[int]:
        for item in range(100):
            drawn.append(item)
            yield item

    results = prefetch_map(lambda item: item, items(), workers=2, depth=3)
    next(results)
    # One handed over, three under way.
    assert len(drawn) == 4
    del results
    assert len(drawn) == 4


def test_items_are_worked_on_side_by_side() -> None:
    meeting = threading.Barrier(2, timeout=10)
    # Each call waits for another one; with a single thread the barrier would break.
    assert len(list(prefetch_map(lambda _: meeting.wait(), range(4), workers=2, depth=2))) == 4


def test_an_exception_comes_in_its_place() -> None:
    def check(item: int) -> int:
        if item == 2:
            raise ValueError("two")
        return item

    results = prefetch_map(check, range(5), workers=2, depth=5)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)


def test_a_consumer_that_stops_leaves_no_thread() -> None:
    started = []

    def work(item: int) -> int:
        started.append(item)
        time.sleep(0.01)
        return item

    for item in prefetch_map(work, range(1000), workers=2, depth=50):
        if item == 3:
            break
    count = len(started)
    time.sleep(0.05)
    assert len(started) == count < 60
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]
