"""``python -m pipeline <command>``; see ``pipeline/cli.py`` for the commands."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path


def _project_python() -> str | None:
    """The interpreter of the ``.venv`` that holds the project, when this one has not what the project needs.

    DVC starts ``python`` as PATH finds it, so ``.venv/bin/dvc repro`` without an activated environment lands in the
    wrong one. DVC's temporary workspaces lie below the project, hence the walk upwards.
    """
    if importlib.util.find_spec("typer") is not None:
        return None
    name = Path("Scripts", "python.exe") if os.name == "nt" else Path("bin", "python")
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / ".venv" / name).is_file():
            return str(folder / ".venv" / name)
    sys.exit("error: the project's packages are not installed here; run `make repro`, or see the README")


SLEEP = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}
"""For libgomp and for Intel's OpenMP, before torch loads one of them: threads that wait for each other sleep. Spinning,
they take the processor from whom they wait for, where another process is busy, too (``benchmarks/threads.py``)."""


def main() -> None:
    for name, value in SLEEP.items():
        os.environ.setdefault(name, value)
    python = _project_python()
    if python is not None:
        sys.exit(subprocess.run([python, "-m", "pipeline", *sys.argv[1:]], check=False).returncode)
    try:
        from pipeline.cli import app

        app()
    except KeyboardInterrupt:  # while modules are imported; later the commands say it
        sys.exit(130)


if __name__ == "__main__":
    main()
