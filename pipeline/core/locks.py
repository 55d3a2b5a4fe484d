"""One process at a time: whoever comes second is told who is at work, and ends."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.core.errors import InputError

DIVISIBLE = ("train_text", "train_image", "train_video", "train_source")
"""The stages that may tune an encoder on many rows, which processes of a launcher can do together."""


@contextmanager
def exclusive(lock: Path, what: str, remedy: str) -> Iterator[None]:
    """Holds the file ``lock``, which says whose it is, and removes it; one that a killed process left holds nobody up.

    Args:
        what: what is done, which begins the message: a file or a stage.
        remedy: what the one who comes second can do.

    Raises InputError when another process, or another call in this one, holds it, or when it cannot be made.
    """
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        if not lock.exists():
            raise InputError(f"{what}: {lock} cannot be made; give a folder that takes files") from None
        raise InputError(f"{what}: {_holder(lock)} is at work on it; {remedy}") from None
    try:
        if sys.platform != "win32":  # there nobody else could read it
            lock.write_text(f"{os.getpid()}\n", encoding="ascii")
        yield
    finally:
        if sys.platform != "win32":  # there the lock removes its file itself; here whoever holds it may
            lock.unlink(missing_ok=True)
        held.release()


def _holder(lock: Path) -> str:
    with suppress(OSError, ValueError):
        return f"process {int(lock.read_text(encoding='ascii'))}"
    return "another process"


def is_launched(stage: str, environment: Mapping[str, str]) -> bool:
    """Whether ``torchrun`` or ``accelerate launch`` started several processes of this stage.

    Raises InputError in each of them where the stage cannot be divided among processes; in the first one, too: it would
    be ended as soon as another one fails.
    """
    several = environment.get("WORLD_SIZE", "1")
    if not several.isdecimal() or int(several) < 2:
        return False
    if stage not in DIVISIBLE:
        raise InputError(
            f"{stage}: a launcher started {several} processes (WORLD_SIZE), and this stage runs in one: they would "
            f"write over each other; run `python -m pipeline {stage}`, or let the launcher start one process"
        )
    return True
