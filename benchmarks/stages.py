"""Times every stage of the graph on the built-in corpora, each as a process of its own, from empty caches.

Run from the project's folder: ``python -m benchmarks.stages``. Prints a table for ``benchmarks/README.md``.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline.cli import STAGES


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copy("params.yaml", root)
        environment = {**os.environ, "EMOCARE_CACHE": str(root / "cache"), "PYTHONPATH": str(Path.cwd())}
        machine = f"{platform.system()}, {platform.machine()}, {os.cpu_count()} cores"
        print(f"{machine}, Python {platform.python_version()}\n")
        print("| stage | seconds |\n|---|---|")
        total = 0.0
        for stage in STAGES:
            start = time.monotonic()
            command = [sys.executable, "-m", "pipeline", stage]
            subprocess.run(command, cwd=root, env=environment, check=True, stderr=subprocess.DEVNULL)
            seconds = time.monotonic() - start
            total += seconds
            print(f"| `{stage}` | {seconds:.1f} |", flush=True)
        print(f"| together | {total:.1f} |")


if __name__ == "__main__":
    main()
