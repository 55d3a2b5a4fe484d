"""A progress bar on a terminal; a line now and then where output goes to a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LOG_EVERY_S = 15.0

_muted = False


def mute() -> None:
    """No more bars or lines from this process: it works for another one that shows the progress of all."""
    global _muted
    _muted = True


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yields ``advance(steps)``; ``total`` is None where it is not known beforehand.

    On a terminal this draws a bar with the time left. Elsewhere a log gets one line each quarter of a minute, so a
    long stage under CI or in a DVC queue is seen to be alive.
    """
    if _muted:
        yield lambda steps: None
        return
    console = Console(file=sys.stderr)
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as bar:
            task = bar.add_task(what, total=total)
            yield lambda steps: bar.advance(task, steps)
        return

    done, last = 0, time.monotonic()

    def advance(steps: int) -> None:
        nonlocal done, last
        done += steps
        if time.monotonic() - last > LOG_EVERY_S:
            last = time.monotonic()
            print(f"{what}: {done}" + (f" of {total}" if total else ""), file=sys.stderr, flush=True)

    yield advance
