"""The readers of ``fuzz``, given files that grow towards code which none of them has reached: coverage-guided fuzzing.

    pip install -e ".[fuzz]"
    python -m tests.robustness.guided [--minutes 7] [--reader csv ...] [--keep build/guided]

Each reader gets so many minutes in a process of its own, which ends at the first fault, a fault being what it is for
``fuzz``. The files that reached something new stay in a folder of ``keep``, from where a later run goes on, and what
was faulty lies beside it, with ``crash`` in its name.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["pipeline"]):  # pyright: ignore[reportAttributeAccessIssue]
    from tests.robustness import fuzz

SECONDS_OVER = 300
"""That a process may take beyond its time, to begin and for its last file, before it is ended."""


def grow(name: str, seconds: int, keep: Path) -> None:
    """Tries one reader; never returns, since libFuzzer ends the process: 0 where nothing was faulty."""
    reader, grown = fuzz.READERS[name], keep / name
    grown.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(reader.seeds().values()):
        (grown / f"seed-{number}").write_bytes(content)
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name, f"case{fuzz.ENDINGS.get(name, '')}")

    def one(content: bytes) -> None:
        path.write_bytes(content)
        wrong = fuzz.fault(reader.read, path)
        if wrong is not None:
            raise AssertionError(wrong)

    # A file's own limits of time and memory are those of `fuzz.fault`, whose alarm libFuzzer's would take away.
    limits = [f"-max_total_time={seconds}", "-timeout=0", f"-rss_limit_mb={fuzz.MOST_BYTES // 2**20}"]
    words = ["-seed=1", "-verbosity=0", "-print_final_stats=1", f"-artifact_prefix={keep / name}-"]
    atheris.Setup([sys.argv[0], *limits, *words, str(grown)], one)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=7.0, help="for each reader")
    parser.add_argument("--reader", action="append", choices=fuzz.READERS)
    parser.add_argument("--keep", type=Path, default=fuzz.ROOT / "build" / "guided", help="where files go")
    arguments = parser.parse_args()
    names, seconds, held = arguments.reader or list(fuzz.READERS), max(int(60 * arguments.minutes), 1), True
    if len(names) == 1:
        grow(names[0], seconds, arguments.keep)
    for name in names:
        words = ["--minutes", arguments.minutes, "--reader", name, "--keep", arguments.keep]
        command = [sys.executable, "-m", "tests.robustness.guided", *map(str, words)]
        try:
            done = subprocess.run(command, timeout=seconds + SECONDS_OVER, check=False, capture_output=True, text=True)
        except subprocess.TimeoutExpired:
            print(f"{name:12} was ended, {SECONDS_OVER} s beyond its time", flush=True)
            held = False
            continue
        tried = [line.split()[-1] for line in done.stderr.splitlines() if "number_of_executed_units" in line]
        print(f"{name:12}{tried[0] if tried else '?':>9} files, {'held' if done.returncode == 0 else 'a fault'}")
        if done.returncode:
            print(*done.stderr.splitlines()[-30:], sep="\n")
        sys.stdout.flush()
        held &= done.returncode == 0
    sys.exit(not held)


if __name__ == "__main__":
    main()
