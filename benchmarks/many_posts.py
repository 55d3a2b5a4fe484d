"""How long `split` takes for so many posts, and how much memory.

    python -m benchmarks.many_posts --posts 100000 1000000 [--parts 8] [--folder FOLDER]

The posts are made: ids in no order, five classes, authors of five posts each, texts of 3 to 20 words drawn by
Zipf's law from 50,000, of which two in a hundred are copies of an earlier one and one in a hundred has a word changed.
The manifest is a folder of ``--parts`` Parquet files; `split` runs in a process of its own. Prints a line of Markdown
for each size: seconds by the clock and of the processor, the most memory that was resident, in all and a post.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

LABELS, SHARES = ("Anger", "Joy", "Neutral", "Sadness", "Surprise"), (0.27, 0.29, 0.32, 0.05, 0.07)
WORDS, COPIED, CHANGED = 50_000, 0.02, 0.01
AT_ONCE = 100_000

CHILD = """
import resource, time
from pathlib import Path
from pipeline import params
from pipeline.core.layout import Layout
from pipeline.stages import split
begun = time.perf_counter()
layout = Layout(Path())
split.run(params.load(layout.params), layout)
used = resource.getrusage(resource.RUSAGE_SELF)
print(time.perf_counter() - begun, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="where to work and leave everything; a temporary one otherwise")
    arguments = parser.parse_args()
    print("| posts | seconds | processor s | MB at most | bytes a post |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for count in arguments.posts:
            project = (arguments.folder or Path(scratch)) / str(count)
            make_project(project, count, arguments.parts)
            environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
            done = subprocess.run(
                [sys.executable, "-c", CHILD], cwd=project, env=environment, check=True, stdout=subprocess.PIPE
            )
            seconds, processor, memory = map(float, done.stdout.split())
            a_post = memory * 2**20 / count
            print(f"| {count:,} | {seconds:.1f} | {processor:.1f} | {memory:.0f} | {a_post:.0f} |", flush=True)


def make_project(project: Path, count: int, parts: int) -> None:
    """A project whose posts are these."""
    manifest = project / "posts.parquet"
    manifest.mkdir(parents=True, exist_ok=True)
    made = 0
    rng = np.random.default_rng(count)
    for part, size in enumerate(np.diff(np.linspace(0, count, parts + 1).astype(int))):
        pieces = []
        while size > 0:
            pieces.append(_posts(made, min(size, AT_ONCE), count, rng))
            made, size = made + len(pieces[-1]), size - len(pieces[-1])
        pd.concat(pieces).to_parquet(manifest / f"part-{part:03d}.parquet", index=False)
    settings = {"tracks": ["posts"], "posts": {"manifest": manifest.name, "media": "."}}
    (project / "params.yaml").write_text(json.dumps(settings), encoding="utf-8")


def _posts(start: int, count: int, of: int, rng: np.random.Generator) -> pd.DataFrame:
    lengths = rng.integers(3, 21, count)
    words = iter(np.minimum(rng.zipf(1.2, lengths.sum()), WORDS).tolist())
    texts = [[f"w{next(words)}" for _ in range(length)] for length in lengths.tolist()]
    for at in np.flatnonzero(rng.random(count) < COPIED + CHANGED).tolist():
        texts[at] = list(texts[rng.integers(at + 1)])
        if rng.random() < CHANGED / (COPIED + CHANGED):
            texts[at][rng.integers(len(texts[at]))] = "changed"
    numbers = (np.arange(start, start + count) * 7_368_787) % 99_999_989  # all different, in no order
    return pd.DataFrame(
        {
            "id": [f"t3_{number:08d}" for number in numbers.tolist()],
            "label": rng.choice(LABELS, count, p=SHARES),
            "group": [f"u/author{author}" for author in rng.integers(0, max(of // 5, 2), count).tolist()],
            "text": [" ".join(text) for text in texts],
        }
    )


if __name__ == "__main__":
    main()
