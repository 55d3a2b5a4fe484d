"""Experiments of DVC that run at the same time: each has the numbers that it has alone.

    python -m tests.robustness.experiments

Four that are queued and run by two workers; two at once in two clones that share the cache of the pipeline; two at once
in one workspace, where DVC may refuse the second. Their metrics are compared, byte by byte, with those of a clone with
caches of its own in which they ran one after another. Some minutes.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.robustness import small

EPOCHS = (3, 4, 5, 6)
"""What the experiments set ``fuse.epochs`` to."""

PATIENCE_S = 1800.0


def command(epochs: int) -> list[str]:
    return ["dvc", "exp", "run", "--name", f"epochs-{epochs}", "--set-param", f"fuse.epochs={epochs}"]


def metrics(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted((root / "metrics").rglob("*.json"))}


def applied(root: Path, epochs: int) -> dict[str, bytes]:
    """The metrics of an experiment that ended."""
    small.run(root, "dvc", "exp", "apply", f"epochs-{epochs}")
    return metrics(root)


def copied(root: Path, to: Path, *, cache: bool) -> Path:
    """The project in another place, with git and DVC's cache; with ``cache`` that of the pipeline, too, or its own."""
    shutil.copytree(root, to, symlinks=True)
    if cache:
        Path(f"{to}-cache").symlink_to(f"{root}-cache")
    else:
        shutil.copytree(f"{root}-cache", f"{to}-cache")
    return to


def queued(root: Path) -> dict[int, dict[str, bytes]]:
    for epochs in EPOCHS:
        small.run(root, *command(epochs), "--queue")
    small.run(root, "dvc", "queue", "start", "--jobs", "2")
    until = time.monotonic() + PATIENCE_S
    while any(word in (status := small.run(root, "dvc", "queue", "status")) for word in ("Queued", "Running")):
        assert time.monotonic() < until, status
        time.sleep(5)
    assert status.count("Success") == len(EPOCHS), status
    return {epochs: applied(root, epochs) for epochs in EPOCHS}


def at_once(roots: Sequence[Path], epochs: Sequence[int]) -> list[tuple[int, str]]:
    """Runs an experiment in each of the places; exit statuses, and what was said."""
    started = [
        subprocess.Popen(
            command(of),
            cwd=root,
            env=small.environment(root),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for root, of in zip(roots, epochs, strict=True)
    ]
    said = [process.communicate(timeout=PATIENCE_S)[0] for process in started]
    return [(process.returncode, told) for process, told in zip(started, said, strict=True)]


def compare(root: Path) -> list[str]:
    """Runs all of it beside a project that was run; what is wrong, one line each."""
    names = ("alone", "one", "first", "second")
    places = {name: copied(root, root.with_name(name), cache=name in ("first", "second")) for name in names}
    alone: dict[int, dict[str, bytes]] = {}
    for epochs in EPOCHS:
        small.run(places["alone"], *command(epochs))
        alone[epochs] = metrics(places["alone"])
    wrong = [] if len({str(of) for of in alone.values()}) == len(EPOCHS) else ["epochs change nothing"]
    wrong += [f"queued, epochs {epochs}: other metrics" for epochs, of in queued(root).items() if of != alone[epochs]]

    clones = [places["first"], places["second"]]
    for place, epochs, (status, said) in zip(clones, EPOCHS, at_once(clones, EPOCHS[:2]), strict=False):
        if status:
            wrong.append(f"two clones: {said[-300:]}")
        elif metrics(place) != alone[epochs]:
            wrong.append(f"two clones, epochs {epochs}: other metrics")
    return wrong + one_workspace(places["one"], alone)


def one_workspace(root: Path, alone: dict[int, dict[str, bytes]]) -> list[str]:
    wrong = []
    for epochs, (status, said) in zip(EPOCHS, at_once([root, root], EPOCHS[:2]), strict=False):
        print(f"one workspace, epochs {epochs}: status {status}: {said.strip().splitlines()[-1]}")
        if status and ("ERROR" not in said or "Traceback" in said):
            wrong.append(f"one workspace: {said[-300:]}")
        elif not status and applied(root, epochs) != alone[epochs]:
            wrong.append(f"one workspace, epochs {epochs}: other metrics")
    return wrong


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = small.under_dvc(Path(folder) / "project")
        small.run(root, "dvc", "repro")
        for words in (("add", "-A"), ("commit", "-qm", "a run")):
            small.run(root, "git", *words)
        wrong = compare(root)
    print("\n".join(wrong) or "all metrics are those of runs alone")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
