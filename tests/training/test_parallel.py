"""Workers: they end with whoever started them, and say nothing of Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline.core.errors import InputError
from pipeline.training.parallel import in_processes

SCRIPT = """
import os, signal, sys
from pathlib import Path
from pipeline.training.parallel import in_processes

def work(folder):
    Path(folder, f"started-{os.getpid()}").touch()
    while True:
        sum(range(1000))

if __name__ == "__main__":
    # Whoever is started in the background takes no notice of Ctrl-C, and neither do those whom it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    list(in_processes(work, [sys.argv[1]] * 2, 2, "working"))
"""


def square(number: int) -> int:
    return number * number


def fall(number: int) -> int:
    if number:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_results_come_in_the_order_of_the_jobs() -> None:
    assert list(in_processes(square, range(5), 2, "squares")) == [0, 1, 4, 9, 16]


def test_a_process_that_is_ended_from_outside_is_one_line() -> None:
    with pytest.raises(InputError, match="falling: a process was ended from outside"):
        list(in_processes(fall, range(2), 2, "falling"))


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
    time.sleep(1)  # while it starts workers the parent takes no notice of Ctrl-C
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
