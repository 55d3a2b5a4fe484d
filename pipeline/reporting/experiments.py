"""The experiments of a repository as DVC knows them: params and headline metrics of the workspace, commits and runs.

DVC is asked as a program, ``dvc exp show --json``; nothing here imports it.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.core.metrics import HEADLINES, get_nested

WORKSPACE = "workspace"
SHORT = 7
"""Letters of a revision that stand for it, as in Git."""


@dataclass(frozen=True)
class Experiment:
    """
    Attributes:
        name: as the user wrote it, else DVC's name, else the short revision.
        created: ISO 8601; None for the workspace.
        params: dotted key → value as JSON, without quotes around texts.
        metrics: ``(stage, headline)`` → value; empty where the run failed, waits, or lies in another cache.
        built_in: the corpora that are the built-in examples, or ``none``; a dash where that is not known.
    """

    name: str
    revision: str
    created: str | None
    params: Mapping[str, str]
    metrics: Mapping[tuple[str, str], float]
    built_in: str = "-"

    def is_called(self, name: str) -> bool:
        return name == self.name or (len(name) >= SHORT and self.revision.startswith(name))


@dataclass(frozen=True)
class Experiments:
    """What DVC lists by itself; ``runs`` are those made from the current commit, the newest last."""

    workspace: Experiment
    head: Experiment
    runs: tuple[Experiment, ...]

    def named(self, name: str) -> Experiment | None:
        """Raises no error: a name that is not listed may still be a revision."""
        if name == "HEAD":
            return replace(self.head, name=name)
        return next((run for run in (self.workspace, self.head, *self.runs) if run.is_called(name)), None)


def listed(layout: Layout) -> Experiments:
    """The workspace, the current commit and its experiments.

    Raises InputError when DVC is not installed or fails, or when nothing was committed yet.
    """
    commits = _show(layout)
    if len(commits) < 2:
        raise InputError(f"{layout.root.resolve()}: nothing was committed yet; `git commit` first, then compare")
    workspace, head = (_read(commit["rev"], commit["name"], commit["data"]) for commit in commits[:2])
    # DVC lists the newest first, to the second: turned round, a stable sort keeps the order of those of one second.
    runs = [_read(run["rev"], run["name"], run["data"]) for run in reversed(list(_runs(commits[1])))]
    return Experiments(workspace, head, tuple(sorted(runs, key=lambda run: run.created or "")))


def revision(layout: Layout, name: str) -> Experiment:
    """An experiment of another commit, or any commit. Raises InputError when there is none of this name."""
    try:
        commits = _show(layout, "--rev", name)
    except InputError as error:
        if "unknown Git revision" not in str(error):
            raise
        raise InputError(
            f"{name}: no experiment or revision of this repository; `dvc exp list` names the experiments"
        ) from None
    return _read(commits[1]["rev"], name, commits[1]["data"])


def _runs(commit: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Of each experiment of a commit its result."""
    for experiment in commit["experiments"] or []:
        revisions = experiment["revs"] or []
        if revisions:
            yield {**revisions[0], "name": experiment["name"] or revisions[0]["name"]}


def _show(layout: Layout, *options: str) -> list[dict[str, Any]]:
    """What ``dvc exp show --json`` says. Raises InputError with DVC's own words where it fails."""
    command = [_dvc(), "exp", "show", "--json", *options]
    done = subprocess.run(command, cwd=layout.root, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode:
        lines = [line.partition("ERROR: ")[2] for line in done.stderr.splitlines() if "ERROR: " in line]
        why = lines[-1] if lines else f"exit status {done.returncode}"
        raise InputError(f"{layout.root.resolve()}: `dvc exp show` says: {why}")
    try:
        return json.loads(done.stdout)
    except json.JSONDecodeError as error:
        raise InputError(f"`dvc exp show --json` printed no JSON ({error}); is it DVC 3?") from None


def _dvc() -> str:
    """DVC of this environment, else the one on PATH. Raises InputError where there is neither."""
    program = shutil.which("dvc", path=str(Path(sys.executable).parent)) or shutil.which("dvc")
    if program is None:
        raise InputError("dvc: not found beside this Python nor on PATH; `pip install -c constraints.txt -e .`")
    return program


def _read(rev: str, name: str | None, data: Mapping[str, Any] | None) -> Experiment:
    """``data`` is None where DVC could not read a revision."""
    data = data or {}
    params: dict[str, str] = {}
    for file in (data.get("params") or {}).values():
        params |= dict(_flat(file.get("data") or {}))
    metrics = {
        (stage, key): value
        for stage, names in HEADLINES.items()
        for key in names
        if isinstance(value := get_nested(_measured(data, stage), key), int | float)
    }
    name = name or (rev if rev == WORKSPACE else rev[:SHORT])
    built_in = str(_measured(data, "split").get("built_in", "-"))
    return Experiment(name, rev, data.get("timestamp"), params, metrics, built_in)


def _measured(data: Mapping[str, Any], stage: str) -> Mapping[str, Any]:
    for path, file in (data.get("metrics") or {}).items():
        if path.replace("\\", "/") == f"metrics/{stage}.json":
            return file.get("data") or {}
    return {}


def _flat(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def choose(layout: Layout, names: Sequence[str]) -> list[Experiment]:
    """The experiments of these names, in their order. Raises InputError for one that there is not."""
    known = listed(layout)
    return [known.named(name) or revision(layout, name) for name in names]
