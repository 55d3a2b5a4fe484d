"""Workers: they end with whoever started them, and say nothing of Ctrl-C."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.core.errors import InputError
from pipeline.core.parallel import in_processes
from tests.imports import ROOT

SCRIPT = """
import os, signal, sys
from pathlib import Path
from pipeline.core.parallel import in_processes

def work(folder):
    Path(folder, f"started-{os.getpid()}").touch()
    while True:
        sum(range(1000))

if __name__ == "__main__":
    # Whoever is started in the background takes no notice of Ctrl-C, and neither do those whom it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    list(in_processes(work, [sys.argv[1]] * 2, 2, "working"))
"""

PREPARED = """
import os, sys
from pipeline.core.parallel import in_processes, prepare_workers

def seen(_):
    assert "UNSET_LATER" not in os.environ
    return "colorsys" in sys.modules, os.environ["SET_LATER"], os.environ["OMP_NUM_THREADS"]

if __name__ == "__main__":
    os.environ["UNSET_LATER"] = "1"
    prepare_workers(["colorsys", "no_such_module"])
    os.environ["SET_LATER"] = "yes"
    del os.environ["UNSET_LATER"]
    print(*in_processes(seen, range(2), 2, "seeing"))
"""

ENDED = """
from pipeline.core.errors import InputError
from pipeline.core.parallel import in_processes, prepare_workers

if __name__ == "__main__":
    prepare_workers(["ends_itself"])
    try:
        list(in_processes(abs, range(2), 2, "falling"))
    except InputError as error:
        print(error)
"""


def square(number: int) -> int:
    return number * number


class Signalled(list[int]):
    """Jobs of which the second comes with a signal to us: when it is asked for, the workers are being started."""

    def __init__(self, how: signal.Signals) -> None:
        super().__init__(range(2))
        self.how = how

    def __iter__(self) -> Iterator[int]:
        yield 0
        os.kill(os.getpid(), self.how)
        yield 1


def fall(number: int) -> int:
    if number:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_no_jobs_have_no_results() -> None:
    assert list(in_processes(str, [], 2, "nothing")) == []


def test_results_come_in_the_order_of_the_jobs() -> None:
    assert list(in_processes(square, range(5), 2, "squares")) == [0, 1, 4, 9, 16]


def test_a_process_that_is_ended_from_outside_is_one_line() -> None:
    with pytest.raises(InputError, match="falling: a process was ended from outside"):
        list(in_processes(fall, range(2), 2, "falling"))


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")
def test_workers_that_no_longer_answer_hold_nobody_up() -> None:
    """One that is killed while it waits for work takes a lock with it, for which the others wait for ever."""
    results = in_processes(square, range(2), 2, "squares")
    assert [next(results), next(results)] == [0, 1]
    workers = multiprocessing.active_children()
    for worker in workers:
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGSTOP)  # the pool does not notice that, as it may not notice a death just now
    freed: list[int] = []

    def free() -> None:
        freed.extend(worker.pid or 0 for worker in workers)
        for worker in workers:
            worker.kill()

    rescue = threading.Timer(60, free)
    rescue.start()
    assert list(results) == []
    rescue.cancel()
    assert not freed
    assert multiprocessing.active_children() == []


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_while_workers_are_started_is_not_lost(how: signal.Signals) -> None:
    before = signal.signal(how, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(in_processes(square, Signalled(how), 2, "squares"))
    finally:
        signal.signal(how, before)
    assert multiprocessing.active_children() == []
    assert how not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_whoever_started_them(tmp_path: Path, how: signal.Signals) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path)]
    started = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        if len(list(tmp_path.glob("started-*"))) == 2:
            break
        time.sleep(0.1)
    workers = psutil.Process(started.pid).children(recursive=True)
    assert len(workers) >= 2
    if how is signal.SIGINT:
        os.killpg(started.pid, how)  # as a terminal does it: all of them
    else:
        started.send_signal(how)
    try:
        _, said = started.communicate(timeout=30)
    finally:
        started.kill()  # where this fails nothing may go on
    _gone, left = psutil.wait_procs(workers, timeout=15)
    assert left == [], "workers go on"
    assert said.count("Traceback") == (how is signal.SIGINT), "only the parent's own, which the command makes a line"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers import for themselves")
def test_workers_begin_with_what_was_prepared_and_the_environment_of_now(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(PREPARED)
    made = subprocess.run([sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == "(True, 'yes', '1') (True, 'yes', '1')"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers import for themselves")
def test_what_workers_are_copies_of_may_be_ended_from_outside(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(ENDED)
    (tmp_path / "ends_itself.py").write_text("import os, time; time.sleep(1); os.kill(os.getpid(), 9)")
    command = [sys.executable, str(tmp_path / "script.py")]
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    made = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "UNSET_LATER": "1"},
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("falling: a process was ended from outside")
    assert "Traceback" not in made.stderr
