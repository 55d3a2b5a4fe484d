"""Commands that are ended at any moment: run again, they write the same bytes and leave nothing.

    python -m tests.robustness.kills [--kills 200] [--seed 0] [--folder FOLDER]

Each round empties what a stage, `predict` or `export` writes, as DVC does, starts it, ends it in one of ``WAYS`` at a
random moment, sees that none of its processes goes on and that no traceback was printed, runs it again, sees that no
finished piece of a training was made again, and compares the bytes. A round in which the command was done sooner counts
for nothing.

Processes are forks of one that has imported everything, and their workers forks of them, so that a round takes seconds;
each twentieth is a new one from the shell. Where FOLDER lies on a small file system, as by `mount -t tmpfs -o size=64m
tmpfs FOLDER`, no room is none on that; otherwise it is a limit on the size of files.
"""

import argparse
import faulthandler
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil
from ruamel.yaml import YAML

from pipeline.cli import STAGES
from tests import processes
from tests.imports import ROOT

WAYS = ("SIGKILL", "SIGTERM", "SIGINT", "child", "full")
"""A signal to the command (Ctrl-C: to all its processes, as a terminal does it), to one of its children, no room."""

WITH_WORKERS = ("train_adapters", "finetune_e2e", "fuse")
"""Whose children are killed; of the other commands none lives long enough."""

COMMANDS = (*STAGES, "export", "predict")

SLOW = ("finetune_e2e", "evaluate")
"""Commands that are ended a third as often."""

EACH_COLD = 20
"""Of so many rounds one starts a process from the shell."""

PATIENCE_S, HANGS = 600.0, 124
"""Seconds after which a process hangs, and what stands for its exit status then."""

NO_ROOM = ("File too large", "No space left", "disk is full", "disk I/O error")
"""How the system says it, and SQLite, whose files may not grow."""

SMALL_DISK = 2**30
"""A file system with fewer bytes is one that may be filled."""


@dataclass(frozen=True)
class Project:
    """A small project of both tracks.

    Attributes:
        aside: a folder for what is said of a round, where there is always room.
        whole: what each command writes where nothing ends it.
        seconds: how long that takes.
    """

    root: Path
    aside: Path
    whole: dict[str, dict[str, bytes]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def said(self) -> Path:
        """What the last process printed."""
        return self.aside / "said.txt"

    @property
    def pieces(self) -> Path:
        """Where the second run says which finished pieces of its training it was left with."""
        return self.aside / "pieces.json"

    def words(self, command: str) -> list[str]:
        """What stands after ``python -m pipeline``."""
        posts, out = self.root / "posts", self.root / "answers" / "predictions.parquet"
        more = {
            "export": [str(self.root / "bundle")],
            "predict": ["--manifest", str(posts / "manifest.csv"), "--media", str(posts), "--out", str(out)],
        }
        return [command, *more.get(command, []), "--project", str(self.root)]

    def outs(self, command: str) -> list[Path]:
        """The files and folders that a command writes."""
        if command in ("export", "predict"):
            return [self.root / {"export": "bundle", "predict": "answers"}[command]]
        graph = YAML(typ="safe").load(ROOT / "dvc.yaml")
        return [self.root / out for out in graph["stages"][command]["outs"]]

    def written(self, command: str) -> dict[str, bytes]:
        files = [
            path
            for out in self.outs(command)
            for path in ([out] if out.is_file() else out.rglob("*"))
            if path.is_file()
        ]
        return {str(path.relative_to(self.root)): path.read_bytes() for path in files}

    def empty(self, command: str) -> None:
        """Removes what a command writes, and all that is kept for a next run."""
        for out in self.outs(command):
            shutil.rmtree(out) if out.is_dir() else out.unlink(missing_ok=True)
        shutil.rmtree(self.cache, ignore_errors=True)


# --- processes -------------------------------------------------------------------------------------------------------


class Process:
    """A command at work: a fork of a process that has imported everything, or with ``cold`` a new one."""

    def __init__(
        self, of: Project, command: str, *, cold: bool = False, room: int | None = None, noted: bool = False
    ) -> None:
        self._said = of.said
        self._said.unlink(missing_ok=True)
        self._child = _new(of, command, room) if cold else _forked(of, command, room, noted)
        self.pid = self._child.pid
        while self.alive() and not self._leads():
            time.sleep(0.002)

    def _leads(self) -> bool:
        try:
            return os.getpgid(self.pid) == self.pid
        except ProcessLookupError:
            return True

    @property
    def _status(self) -> int | None:
        child = self._child
        return child.poll() if isinstance(child, subprocess.Popen) else child.process.exitcode

    def alive(self) -> bool:
        return self._status is None

    def finish(self) -> tuple[int, str]:
        """The exit status, below zero for a signal, and what was printed; one that hangs is ended."""
        until = time.monotonic() + PATIENCE_S
        while self.alive() and time.monotonic() < until:
            time.sleep(0.01)
        if self._status is None:
            os.killpg(self.pid, signal.SIGKILL)
            return HANGS, f"it did not end: {self._said.read_text(errors='replace')[-1500:]}"
        return self._status, self._said.read_text(errors="replace") if self._said.exists() else ""


def _new(of: Project, command: str, room: int | None) -> subprocess.Popen[bytes]:
    limit = f"ulimit -f {room // 512}; " if room else ""
    return subprocess.Popen(
        ["sh", "-c", f'{limit}exec "$@"', "sh", sys.executable, "-m", "pipeline", *of.words(command)],
        env={**os.environ, "EMOCARE_CACHE": str(of.cache), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=of.said.open("wb"),
        start_new_session=True,
    )


def _forked(of: Project, command: str, room: int | None, noted: bool) -> processes.Started:
    begin = partial(_as_in_a_terminal, of, noted)
    started = processes.start(*of.words(command), largest_file=room, before=begin)
    with started.stdout, started.stderr:  # what is said goes to a file, which no pipe must be read for
        return started


def _as_in_a_terminal(of: Project, noted: bool) -> None:
    """Gives a forked process a session of its own, its cache and its file for what it says."""
    said = os.open(of.said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.environ["EMOCARE_CACHE"] = str(of.cache)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
    faulthandler.dump_traceback_later(PATIENCE_S - 10, file=sys.stderr)
    if noted:
        _note_pieces(of)
    os.setsid()


def _note_pieces(of: Project) -> None:
    from pipeline.training.finished import Finished

    clear = Finished.clear

    def noted(self: Finished) -> None:
        of.pieces.write_text(json.dumps(pieces(of)))
        clear(self)

    Finished.clear = noted


def pieces(of: Project) -> dict[str, list[int]]:
    """The finished pieces of trainings: one that is made again is another file."""
    files = {path: path.stat() for path in sorted((of.cache / "finished").glob("*/[!.]*.safetensors"))}
    return {str(path): [status.st_ino, status.st_mtime_ns] for path, status in files.items()}


# --- rounds ----------------------------------------------------------------------------------------------------------


def project(root: Path, aside: Path, commands: Sequence[str] = COMMANDS) -> Project:
    """Runs the commands, in this order, and notes what they write and how long they take."""
    made = Project(root, aside)
    maker = processes.CONTEXT.Process(target=_make, args=(root,))
    maker.start()
    maker.join()
    assert maker.exitcode == 0
    for command in commands:
        made.empty(command)
        started = time.monotonic()
        status, said = Process(made, command).finish()
        assert status == 0, said
        made.seconds[command] = time.monotonic() - started
        made.whole[command] = made.written(command)
    return made


def _make(root: Path) -> None:
    from tests.robustness import small

    small.make(root)


def end(process: Process, way: str, rng: random.Random) -> list[psutil.Process]:
    """Ends it, which is at work; returns the processes that it had."""
    children = psutil.Process(process.pid).children(recursive=True)
    if way == "SIGINT":
        os.killpg(process.pid, signal.SIGINT)
    elif way == "child":
        rng.choice(children).kill()
    else:
        os.kill(process.pid, getattr(signal, way))
    return children


class TooLate(Exception):
    """The command was done, or had no child, when it was to be ended."""


def killed(of: Project, command: str, way: str, rng: random.Random, *, cold: bool = False) -> str | None:
    """What is wrong after a round; None where all is as if nothing had ended the command.

    Raises TooLate where nothing has.
    """
    of.empty(command)
    if way == "full":
        status, said = _without_room(of, command, rng, cold=cold)
        if status != 1 or not any(words in said for words in NO_ROOM):
            return f"status {status} where there was no room: {said[-300:]}"
    else:
        status, said = _ended(of, command, way, rng, cold=cold)
        if status == HANGS or "go on" in said[:20]:
            return said
    if "Traceback" in said and not (cold and status == 130):  # Ctrl-C while Python itself starts
        return f"a traceback: {said[-1500:]}"
    kept = pieces(of)
    of.pieces.unlink(missing_ok=True)
    status, said = Process(of, command, noted=True).finish()
    if status:
        return f"run again: status {status}: {said[-300:]}"
    if kept and not kept.items() <= json.loads(of.pieces.read_text()).items():
        return "finished pieces were made again"
    if (made := of.written(command)) != of.whole[command]:
        return f"other bytes than without: {[name for name in made if made[name] != of.whole[command].get(name)]}"
    left = [*(of.cache / "finished").glob("*"), *(of.cache / "training").glob("*")]
    left += [path for path in of.root.rglob(".*") if path.name.endswith((".tmp", ".parts", ".lock"))]
    return f"left behind: {left}" if left else None


def _ended(of: Project, command: str, way: str, rng: random.Random, *, cold: bool) -> tuple[int, str]:
    imports = 4.0 if cold else 0.0
    process, begun = Process(of, command, cold=cold), time.monotonic()
    time.sleep(rng.uniform(0.005, imports + of.seconds[command]))
    try:
        if way == "child":  # workers come and go
            until = time.monotonic() + of.seconds[command]
            while not psutil.Process(process.pid).children() and time.monotonic() < until:
                time.sleep(0.01)
        children = end(process, way, rng)
    except (psutil.NoSuchProcess, ProcessLookupError, IndexError):
        process.finish()
        if not cold:  # it was measured when the machine was busier than now
            of.seconds[command] = min(of.seconds[command], time.monotonic() - begun)
        raise TooLate from None
    status, said = process.finish()
    _, left = psutil.wait_procs(children, timeout=20)
    if left:
        return status, f"processes go on: {left}"
    if status == 0:
        raise TooLate
    return status, said


def _without_room(of: Project, command: str, rng: random.Random, *, cold: bool) -> tuple[int, str]:
    """Runs the command where there is room for a part of what it writes, or for a part of its largest file."""
    sizes = [len(data) for data in of.whole[command].values()]
    disk = os.statvfs(of.root)
    if disk.f_blocks * disk.f_frsize >= SMALL_DISK:
        return Process(of, command, cold=cold, room=512 * int(rng.uniform(1, max(sizes) / 512))).finish()
    free = int(rng.uniform(0, sum(sizes)))
    ballast = of.root / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, disk.f_bavail * disk.f_frsize - free))
    try:
        return Process(of, command, cold=cold).finish()
    finally:
        ballast.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the project is made")
    arguments = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rng, tried, held, late = random.Random(arguments.seed), Counter(), Counter(), 0
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder, tempfile.TemporaryDirectory() as aside:
        made = project(Path(folder), Path(aside))
        print({name: round(seconds, 1) for name, seconds in made.seconds.items()}, flush=True)
        while tried.total() < arguments.kills:
            at = tried.total() + late
            way = WAYS[at % len(WAYS)]
            commands = WITH_WORKERS if way == "child" else COMMANDS
            (command,) = rng.choices(commands, [1 if name in SLOW else 3 for name in commands])
            try:
                wrong = killed(
                    made, command, way, rng, cold=at % EACH_COLD == EACH_COLD - 1 - at // EACH_COLD % len(WAYS)
                )
            except TooLate:
                late += 1
                continue
            tried[way, command] += 1
            held[way, command] += wrong is None
            print(f"{tried.total()}: {command}, {way}", end="\r", flush=True)
            if wrong is not None:
                print(f"{tried.total()}: {command}, {way}: {wrong}", flush=True)
                _restore(made, command)
    for of, names in enumerate((WAYS, COMMANDS)):
        for name in names:
            counts = [sum(count for key, count in counter.items() if key[of] == name) for counter in (tried, held)]
            print(f"{name:15}{counts[0]:5} tried {counts[1]:5} survived")
    sys.exit(held != tried)


def _restore(of: Project, command: str) -> None:
    """Writes what the command would have, so that the next round begins as all do."""
    of.empty(command)
    for name, data in of.whole[command].items():
        path = of.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


if __name__ == "__main__":
    main()
