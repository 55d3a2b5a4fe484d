"""How long many posts take from stage to stage, and how much memory.

    python -m benchmarks.many_posts --posts 100000 1000000 [--through evaluate] [--parts 8] [--folder FOLDER]

The posts are made: ids in no order, five classes, authors of five posts each, texts of 3 to 20 words drawn by Zipf's
law from 50,000, of which two in a hundred are copies of an earlier one and one in a hundred has a word changed. The
manifest is a folder of ``--parts`` Parquet files, and each stage runs in a process of its own. The vectors that `embed`
finds in its store are made, too, and lean a little towards the class; no encoder is tuned. Prints a line of Markdown a
stage: seconds by the clock and of the processor, the most memory that was resident.
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
STAGES = ("split", "embed", "train_text", "train_image", "train_video", "fuse", "evaluate")

RUN = """
import importlib, resource, sys, time
from pathlib import Path
from pipeline import params
from pipeline.core.layout import Layout
layout = Layout(Path())
run = importlib.import_module("pipeline.stages." + sys.argv[1]).run
begun = time.perf_counter()
run(params.load(layout.params), layout)
seconds = time.perf_counter() - begun
both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(seconds, sum(used.ru_utime + used.ru_stime for used in both), max(used.ru_maxrss for used in both) / 1024)
"""

FILL = """
from pathlib import Path
import numpy as np
from pipeline import params
from pipeline.core import artifacts
from pipeline.core.layout import Layout
from pipeline.encoders import text
from pipeline.encoders.embedding import open_store
from pipeline.encoders.sources import TextContents
from pipeline.training.device import pick
layout = Layout(Path())
loaded = params.load(layout.params)
words = TextContents(text.load(loaded.embed.text), pick(loaded.device))
rng = np.random.default_rng(0)
centres = {}
with open_store(words.identity, words.computed, layout) as store:
    for rows in artifacts.read_posts_in_parts(layout.table("posts"), ["text", "label"], 4096):
        vectors = rng.normal(size=(len(rows), words.identity["width"])).astype(np.float32)
        for at, label in enumerate(rows["label"]):
            vectors[at] += 0.1 * centres.setdefault(label, rng.normal(size=vectors.shape[1]))
        store.put(dict(zip(words.digests(rows["text"].tolist()), vectors, strict=True)))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--through", choices=STAGES, default="split", help="the last stage that is run")
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="where to work and leave everything; a temporary one otherwise")
    arguments = parser.parse_args()
    print("| posts | stage | seconds | processor s | MB at most |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for count in arguments.posts:
            project = (arguments.folder or Path(scratch)) / str(count)
            make_project(project, count, arguments.parts)
            for stage in STAGES[: STAGES.index(arguments.through) + 1]:
                if stage == "embed":
                    _python(project, FILL)
                seconds, processor, memory = map(float, _python(project, RUN, stage).split())
                print(f"| {count:,} | `{stage}` | {seconds:.1f} | {processor:.1f} | {memory:.0f} |", flush=True)


def _python(project: Path, code: str, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(Path.cwd()), "EMOCARE_CACHE": str(project / "cache")}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=project, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


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
    settings = {
        "tracks": ["posts"],
        "posts": {"manifest": manifest.name, "media": "."},
        "specialist": {"candidates": ["majority", "logreg", "tfidf_logreg", "head"]},
    }
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
