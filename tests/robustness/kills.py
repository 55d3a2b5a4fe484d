"""Stages that are ended at any moment: run again, they write the same bytes and leave nothing.

    python -m tests.robustness.kills [--kills 200] [--seed 0]

Each round empties a stage's outputs, as DVC does, starts it as a process, ends it in one of ``WAYS`` at a random
moment, sees that none of its processes goes on and that no traceback was printed, runs it again and compares the bytes.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil
from ruamel.yaml import YAML

from tests import tracks
from tests.tracks import everything

WAYS = ("SIGKILL", "SIGTERM", "SIGINT", "child", "full")
"""A signal to the stage (Ctrl-C: to all its processes, as a terminal does it), to one of its children, no room."""

ROOM_KB = 4
"""How large a file may grow where there is no room."""

STAGES = ("train_adapters", "finetune_e2e")
PROCESSES = 2


@dataclass(frozen=True)
class Project:
    """A small track with a source model; ``whole`` is what each stage writes where nothing ends it, ``seconds`` how
    long that takes.
    """

    root: Path
    whole: dict[str, dict[str, bytes]]
    seconds: dict[str, float]


def project(root: Path, stages: tuple[str, ...] = STAGES) -> Project:
    track = tracks.run(tracks.make(root, folds=2), "train_source")
    settings = {**tracks.SMALL, "target": {"processes": PROCESSES}, "device": "cpu"}
    settings["finetune_e2e"] = {**settings["finetune_e2e"], "curve": [10]}
    YAML(typ="safe").dump(tracks_params(settings), track.layout.params)
    made = Project(root, {}, {})
    for stage in stages:
        started = time.monotonic()
        status, said = finish(start(made, stage))
        assert status == 0, said
        made.seconds[stage] = time.monotonic() - started
        made.whole[stage] = outputs(made, stage)
    return made


def tracks_params(settings: dict) -> dict:
    """Tuples as lists, which YAML knows."""
    return {
        name: {key: list(of) if isinstance(of, tuple) else of for key, of in block.items()}
        if isinstance(block, dict)
        else block
        for name, block in settings.items()
    }


def outputs(of: Project, stage: str) -> dict[str, bytes]:
    folders = [of.root / kind / stage for kind in ("models", "plots")]
    files = {f"{folder.parent.name}/{name}": data for folder in folders for name, data in everything(folder).items()}
    metrics = [of.root / "metrics" / f"{stage}.json", of.root / "metrics" / "details" / f"{stage}.json"]
    return files | {str(path.relative_to(of.root)): path.read_bytes() for path in metrics}


def start(of: Project, stage: str, room_kb: int | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipeline", stage, "--project", str(of.root)]
    if room_kb is not None:
        command = ["sh", "-c", f'ulimit -f {2 * room_kb}; exec "$@"', "sh", *command]
    environment = {**os.environ, "EMOCARE_CACHE": str(of.root / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = process.communicate(timeout=600)
    return process.returncode, said


def end(process: subprocess.Popen[str], way: str, rng: random.Random) -> list[psutil.Process]:
    """Ends it; returns the processes that it had."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    if way == "SIGINT":
        os.killpg(process.pid, signal.SIGINT)
    elif way == "child" and children:
        rng.choice(children).kill()
    elif way != "full" and process.poll() is None:
        process.send_signal(signal.SIGKILL if way == "child" else getattr(signal, way))
    return children


def killed(of: Project, stage: str, way: str, rng: random.Random) -> str | None:
    """What is wrong after a round; None where all is as if nothing had ended the stage."""
    for kind in ("models", "plots"):
        shutil.rmtree(of.root / kind / stage, ignore_errors=True)
    process = start(of, stage, ROOM_KB if way == "full" else None)
    if way != "full":
        time.sleep(rng.uniform(0.0, of.seconds[stage]))
    children = end(process, way, rng)
    status, said = finish(process)
    _, left = psutil.wait_procs(children, timeout=20)
    if left:
        return f"processes go on: {left}"
    if "Traceback" in said and status != 130:  # Ctrl-C while Python itself starts
        return f"a traceback: {said[-1500:]}"
    if way == "full" and (status != 1 or "File too large" not in said):
        return f"status {status} where there was no room: {said[-300:]}"
    status, said = finish(start(of, stage))
    if status:
        return f"run again: status {status}: {said[-300:]}"
    if outputs(of, stage) != of.whole[stage]:
        return "other bytes than without"
    kept = list((of.root / "cache" / "finished").glob("*"))
    rest = kept + [path for path in of.root.rglob("*") if path.name.endswith(".tmp")]
    return f"left behind: {rest}" if rest else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, tried, held = random.Random(arguments.seed), Counter(), Counter()
    with tempfile.TemporaryDirectory() as folder:
        made = project(Path(folder))
        for at in range(arguments.kills):
            stage, way = rng.choice(STAGES), WAYS[at % len(WAYS)]
            wrong = killed(made, stage, way, rng)
            tried[way] += 1
            held[way] += wrong is None
            if wrong is not None:
                print(f"{at}: {stage}, {way}: {wrong}", flush=True)
    for way in WAYS:
        print(f"{way:10}{held[way]:5} of {tried[way]}")
    sys.exit(held != tried)


if __name__ == "__main__":
    main()
