"""Ways of doing one piece of work, run turn and turn about, so that whatever else the machine does hits all alike."""

import importlib
import importlib.metadata
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

OURS = "this pipeline"


@dataclass(frozen=True)
class Work:
    """One row of the table.

    Attributes:
        name: what is done.
        unit: what ``amount`` counts.
        ways: what is compared, ours first; each does the whole work, and returns what ``check`` looks at.
        target: by which factor ours is to be faster than the best of the others; None where none was set.
        check: what the ways gave, by their names → whether it is the same, in words.
        missing: peers that are not here → why.
    """

    name: str
    unit: str
    amount: int
    ways: Mapping[str, Callable[[], Any]]
    target: float | None = None
    check: Callable[[Mapping[str, Any]], str] = lambda given: ""
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Timing:
    """Seconds of each run of one way: by the clock, and of processors (all threads, and processes that have ended)."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Measured:
    """What came of one ``Work``."""

    name: str
    unit: str
    amount: int
    target: float | None
    timings: Mapping[str, Timing]
    note: str
    missing: Mapping[str, str]
    load: float
    """Processes that wanted a processor in the last minute, as the system counts them; ours is one."""

    def ratio(self, other: str) -> float:
        """How many times as long ``other`` took by the clock as ours: the median over the rounds."""
        ours = self.timings[OURS].wall
        return statistics.median(b / a for a, b in zip(ours, self.timings[other].wall, strict=True))

    def cpu_ratio(self, other: str) -> float:
        """The same of processor seconds."""
        ours = self.timings[OURS].cpu
        return statistics.median(b / max(a, 1e-9) for a, b in zip(ours, self.timings[other].cpu, strict=True))

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "ratio": {way: self.ratio(way) for way in self.timings if way != OURS},
            "cpu_ratio": {way: self.cpu_ratio(way) for way in self.timings if way != OURS},
        }


def measure(work: Work, rounds: int) -> Measured:
    """Runs every way once to warm up, then ``rounds`` times, each round beginning with another one."""
    ways = list(work.ways)
    given = {way: work.ways[way]() for way in ways}
    timings = {way: Timing() for way in ways}
    for at in range(rounds):
        for way in (*ways[at % len(ways) :], *ways[: at % len(ways)]):
            wall, cpu = time.perf_counter(), processor_seconds()
            work.ways[way]()
            timings[way].wall.append(time.perf_counter() - wall)
            timings[way].cpu.append(processor_seconds() - cpu)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    note = work.check(given)
    return Measured(work.name, work.unit, work.amount, work.target, timings, note, work.missing, load)


def processor_seconds() -> float:
    """Of this process, all its threads, and those of its processes that have ended."""
    if sys.platform == "win32":  # which does not count the ended ones
        return sum(os.times()[:2])
    import resource

    used = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(of.ru_utime + of.ru_stime for of in used)


def most_memory() -> float:
    """The most that this process has held so far, in MB."""
    if sys.platform == "linux":  # getrusage counts what the parent held before this program was started, too
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(status["VmHWM"].split()[0]) / 2**10
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes


def peers(names: Iterable[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The packages that load, and of the others why they do not."""
    here: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            here[name] = importlib.import_module(name)
        except Exception as error:  # a broken package may raise whatever it likes; it is named, and left out
            missing[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return here, missing


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """What the figures depend on, without names of this machine."""
    versions = {}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return {
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions,
    }


def markdown(results: Sequence[Measured], about: Mapping[str, Any], threads: int) -> str:
    """The table, under a line on the machine; notes and what is missing stand below."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [
        f"{about['processors']} processors ({about['architecture']}, {about['system']}), Python {about['python']}, "
        f"torch with {threads} thread{'s' * (threads != 1)}; {versions}.",
        "",
        "| work | way | a second, median [min, max] | processor s | ours is faster by (processor) | target | load |",
        "|---|---|---|---|---|---|---|",
    ]
    for of in results:
        lines += [_line(of, way) for way in of.timings]
    lines.append("")
    for of in results:
        lines += [f"* {of.name}: {of.note}."] * bool(of.note)
        lines += [f"* {of.name}: without {name}: {why}." for name, why in of.missing.items()]
    return "\n".join(lines) + "\n"


def _line(of: Measured, way: str) -> str:
    timing, ours = of.timings[way], way == OURS
    rates = sorted(of.amount / seconds for seconds in timing.wall)
    faster = "" if ours else f"{of.ratio(way):.2f} x ({of.cpu_ratio(way):.2f} x)"
    target = f"{of.target:g} x" if of.target and not ours else ""
    what = f"{of.name}, {of.amount:,} {of.unit}" if ours else ""
    spread = f"{statistics.median(rates):.4g} [{rates[0]:.4g}, {rates[-1]:.4g}]"
    return f"| {what} | {way} | {spread} | {statistics.median(timing.cpu):.2f} | {faster} | {target} | {of.load:.1f} |"
