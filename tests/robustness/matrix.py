"""The tests on every Python and every set of dependencies that `pyproject.toml` allows.

    python -m tests.robustness.matrix [--cell 3.12-pinned ...] [--folder build/matrix] [-- pytest options]
    make matrix                                            # installs uv and pip-audit first

A cell is a Python and a set: ``pinned`` by `constraints.txt`, the ``lowest`` versions that `pyproject.toml` allows of
what it names, or the ``newest`` of all. Each gets an environment of its own, made by uv, which is kept. Then pip-audit
asks for known vulnerabilities of what is pinned. A Python is found as uv finds it: on PATH, as ``python3.12``.
"""

import argparse
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

from tests.imports import ROOT

AUDIT = "audit"
CELLS = ("3.11-pinned", "3.12-pinned", "3.13-pinned", "3.11-lowest", "3.13-newest", AUDIT)
SETS = {
    "pinned": ["--constraint", "constraints.txt"],
    "lowest": ["--resolution", "lowest-direct"],
    "newest": ["--upgrade"],
}
LEFT_OUT = {"bench", "dev", "matrix"}
"""Extras that no test needs."""

SUMMARY = re.compile(r"^=*\s*(\d+ (?:passed|failed|error|skipped).*? in [\d.]+s.*?)\s*=*$", re.MULTILINE)


def run(*command: str | Path, log: Path, **environment: str) -> int:
    """The exit status; what is said goes to the end of ``log``."""
    with log.open("a", encoding="utf-8") as said:
        return subprocess.run(
            list(map(str, command)), cwd=ROOT, env=os.environ | environment, stdout=said, stderr=said, check=False
        ).returncode


def extras() -> list[str]:
    named = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    return [f"--extra={name}" for name in named if name not in LEFT_OUT]


def try_cell(cell: str, folder: Path, options: list[str]) -> tuple[bool, str]:
    """Whether the tests of a cell pass, and what is to be said of them."""
    python, _, versions = cell.partition("-")
    place, log, wanted = folder / cell, folder / f"{cell}.log", folder / f"{cell}.txt"
    log.write_text("", encoding="utf-8")
    binaries = place / ("Scripts" if sys.platform == "win32" else "bin")
    of = ("--quiet", "--python", binaries / "python")
    steps = (
        ("uv", "venv", "--quiet", "--allow-existing", "--python", python, place),
        ("uv", "pip", "compile", *of, *SETS[versions], *extras(), "pyproject.toml", "--output-file", wanted),
        ("uv", "pip", "sync", *of, wanted),
    )
    for step in steps:
        if run(*step, log=log):
            return False, f"{' '.join(map(str, step[:3]))} failed, see {log}"
    # The project itself is taken from where it lies; what tests start finds this environment first.
    surroundings = {"PATH": f"{binaries.resolve()}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    status = run(binaries / "python", "-m", "pytest", "-p", "no:cacheprovider", *options, log=log, **surroundings)
    summaries = SUMMARY.findall(log.read_text(encoding="utf-8"))
    return status == 0, f"{summaries[-1] if summaries else f'pytest ended with status {status}'}, see {log}"


def audited(folder: Path) -> tuple[bool, str]:
    """Whether nothing is known against the pinned versions; it asks a service on the network."""
    log = folder / "audit.log"
    log.write_text("", encoding="utf-8")
    status = run("pip-audit", "--requirement", "constraints.txt", "--no-deps", "--disable-pip", log=log)
    said = log.read_text(encoding="utf-8")
    unknown = said.count("could not be audited")
    if unknown:
        return False, f"{unknown} packages could not be looked up, see {log}"
    return status == 0, f"{said.strip().splitlines()[0] if said.strip() else 'no answer'}, see {log}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", action="append", help=f"of {', '.join(CELLS)}, or another Python and set")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "matrix", help="for environments and logs")
    parser.add_argument("options", nargs="*", help="for pytest, after --")
    arguments = parser.parse_args()
    cells = arguments.cell or CELLS
    for cell in cells:
        if cell != AUDIT and not re.fullmatch(rf"[\w./]+-({'|'.join(SETS)})", cell):
            parser.error(f"--cell {cell}: give {AUDIT}, or a Python and one of {', '.join(SETS)}: {CELLS[0]}")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    held = True
    for cell in cells:
        started = time.monotonic()
        fine, said = audited(arguments.folder) if cell == AUDIT else try_cell(cell, arguments.folder, arguments.options)
        held &= fine
        print(f"{cell:12} {'held' if fine else 'FAILED':7}{time.monotonic() - started:6.0f} s  {said}", flush=True)
    sys.exit(not held)


if __name__ == "__main__":
    main()
