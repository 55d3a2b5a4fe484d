"""Processes: whether one lives, and how a worker ends when whoever started it has."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

ENDING = (signal.SIGINT, signal.SIGTERM)
"""What asks a process to end: Ctrl-C, and ``kill``."""


def is_alive(pid: int) -> bool:
    """Whether a process of this machine has the number; of another user's, too."""
    if sys.platform == "win32":
        import ctypes

        query, still_active, code = 0x1000, 259, ctypes.c_ulong()
        handle = ctypes.windll.kernel32.OpenProcess(query, False, pid)  # os.kill would end it there
        if not handle:
            return False
        ctypes.windll.kernel32.GetExitCodeProcess(handle, ctypes.byref(code))
        ctypes.windll.kernel32.CloseHandle(handle)
        return code.value == still_active
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


@contextmanager
def starting_workers() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until this ends, and then take effect: a worker is started whole or not at all.

    Processes that multiprocessing starts here let both wait, too, until they call ``work_for_parent``: of Ctrl-C, which
    reaches all processes of a terminal, they would print tracebacks from the middle of an import. Windows, which has no
    signals to hold back, does without.
    """
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # started later, it would let the signals through
    late: list[int] = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    # The mask is that of this thread and of who is started. Another thread may take a signal, and Python calls the
    # handler here all the same.
    is_main = threading.current_thread() is threading.main_thread()  # only there handlers can be set
    handlers = {number: signal.getsignal(number) or signal.SIG_DFL for number in ENDING if is_main}
    for number in handlers:
        signal.signal(number, lambda number, _: late.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number in late[:1]:
            signal.raise_signal(number)


def work_for_parent() -> None:
    """Makes this process, which multiprocessing started, end with the one that started it, however that ends.

    Ctrl-C reaches all processes of a terminal; here it is left to the parent, which says one line for all.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)  # whatever it is doing: nobody waits for the result

    threading.Thread(target=watch, daemon=True, name="parent").start()
