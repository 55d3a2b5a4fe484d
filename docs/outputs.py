"""Renews what commands print in the README and in this folder: ``python -m docs.outputs``, after ``make repro``;
``--check`` compares only, and names what is out of date.

A fenced block after ``<!-- output: COMMAND -->`` holds ``$ COMMAND`` and what it prints; after
``<!-- output, 8 lines: COMMAND -->`` only its first lines. A block in ``sh`` after ``<!-- run -->`` is run as it is.
The commands of a page run in order, in a copy of the project with the outputs of the last run, so that no experiment
changes the project itself. What goes to standard error is not shown. Needs the extra ``test`` and a POSIX shell.
"""

import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
DVC = (sys.executable, "-m", "dvc")
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
MARK = re.compile(
    r"<!-- output(?:, (?P<most>\d+) lines)?: (?P<command>[^\n]+) -->\n```\n(?P<shown>(?s:.*?))```\n"
    r"|<!-- run -->\n```sh\n(?P<script>(?s:.*?))```\n"
)
"""A mark and the block after it."""

WIDTH = "100"
"""Columns of the terminal that commands print to."""

LONGEST = 160
"""Longer lines, such as those of JSON, are cut."""

VOLATILE = re.compile(r"\d\d-\d\d \d\d:\d\d|\b(?=\d*[a-f])[0-9a-f]{7}\b")
"""Times and revisions, which every run makes anew: a block that differs in nothing else stays."""


@dataclass(frozen=True)
class Step:
    """One mark of a page: ``shown`` is None for what only runs, ``most`` for what is shown in full."""

    command: str
    shown: str | None
    most: int | None


def steps(page: str) -> list[Step]:
    """The marks of a page in order. Raises ValueError when one has no block of its kind right after it."""
    found = [
        Step(mark["command"] or mark["script"], mark["shown"], int(mark["most"]) if mark["most"] else None)
        for mark in MARK.finditer(page)
    ]
    if len(found) != len(re.findall(r"<!-- (?:output|run)\b", page)):
        raise ValueError("a mark without a fenced block right after it")
    return found


def copied(to: Path) -> None:
    """The project as it lies here, committed, with the outputs that its ``dvc.lock`` names."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, to / name)
    cache = subprocess.run([*DVC, "cache", "dir"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    who = ["-c", "user.name=docs", "-c", "user.email=docs@localhost"]
    for command in (
        ["git", "init", "--quiet", "--initial-branch", "main"],
        [*DVC, "cache", "dir", "--local", cache],
        ["git", "add", "--all"],
        ["git", *who, "commit", "--quiet", "--message", "As it is"],
        [*DVC, "checkout", "--quiet"],
    ):
        subprocess.run(command, cwd=to, check=True, stdout=subprocess.DEVNULL)


def played(step: Step, where: Path) -> str | None:
    """What the block of a command shall hold; None where it failed, or has nothing to show."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    # DVC lists files of metrics in the order of a set, hence the seed.
    fixed = {"COLUMNS": WIDTH, "TERM": "dumb", "NO_COLOR": "1", "PYTHONHASHSEED": "0"}
    clean = os.environ | {"PATH": path} | fixed
    script = f"set -e\n{step.command}"
    given = {"shell": True, "cwd": where, "env": clean, "stdin": subprocess.DEVNULL}
    done = subprocess.run(script, **given, capture_output=True, text=True, check=False)
    # What is shown may end with another status than 0, as a filter does that met a bad line.
    if done.returncode if step.shown is None else not done.stdout:
        print(f"failed: {step.command}\n{done.stderr.strip()}", file=sys.stderr)
        return None
    printed = [_cut(line.rstrip()) for line in done.stdout.strip("\n").split("\n")]
    if step.most is not None and len(printed) > step.most:
        printed = [*printed[: step.most], "…"]
    return "\n".join([f"$ {step.command}", *printed, ""])


def _cut(line: str) -> str:
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def renewed(page: str, where: Path) -> tuple[str, bool]:
    """The page with what its commands print now, and whether all worked; the block of one that did not stays."""
    whole = True
    for step in steps(page):
        printed = played(step, where)
        whole &= printed is not None
        if step.shown is None or printed is None:
            continue
        if VOLATILE.sub("", step.shown) != VOLATILE.sub("", printed):
            mark = next(mark for mark in MARK.finditer(page) if mark["command"] == step.command)
            page = page[: mark.start("shown")] + printed + page[mark.end("shown") :]
    return page, whole


def main(arguments: list[str]) -> int:
    good = True
    for path in PAGES:
        page = path.read_text(encoding="utf-8")
        if not steps(page):
            continue
        with tempfile.TemporaryDirectory() as folder:
            copied(Path(folder))
            now, whole = renewed(page, Path(folder))
        good &= whole
        if "--check" in arguments:
            good &= now == page
            sys.stdout.writelines(difflib.unified_diff(page.splitlines(True), now.splitlines(True), path.name, "now"))
        else:
            path.write_text(now, encoding="utf-8", newline="\n")
    return int(not good)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
