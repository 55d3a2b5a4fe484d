"""Where torch computes."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from pipeline.core.errors import InputError
from pipeline.core.prefetch import prefetch_map

Item = TypeVar("Item")
Result = TypeVar("Result")


def pick(device: str) -> torch.device:
    """The device for params ``device``; ``auto`` takes an accelerator if there is one.

    Raises InputError when the device that was asked for is not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(name for name, usable in available.items() if usable))
    if not available[device]:
        raise InputError(f"params.yaml: device: torch finds no `{device}` on this machine; give auto or cpu")
    return torch.device(device)


def workers(processes: int, device: str) -> int:
    """How many processes params ``processes`` and ``device`` give: an accelerator is not shared, and has one."""
    return processes if pick(device).type == "cpu" else 1


@contextmanager
def one_thread() -> Iterator[None]:
    """For nets on cached vectors: on their small matrices threads cost more than they give.

    It also makes the result independent of the number of cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def side_by_side(function: Callable[[Item], Result], items: Iterable[Item], device: torch.device) -> Iterator[Result]:
    """``map(function, items)``; on a processor each item on one thread, and as many items at once as torch has threads.

    A matrix product that is split among threads rounds by how it was split, so that its last digits would follow the
    number of threads.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu":
        yield from map(function, items)
        return

    def alone(item: Item) -> Result:
        torch.set_num_threads(1)  # OpenMP keeps the number for each thread by itself
        return function(item)

    with one_thread():
        if threads == 1:
            yield from map(function, items)
        else:
            yield from prefetch_map(alone, items, workers=threads, depth=2 * threads)
