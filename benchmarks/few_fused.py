"""Few posts with all of their modalities: the fusion that inner folds choose, against every baseline of `evaluate`.

    python -m benchmarks.few_fused MANIFEST.parquet [--media FOLDER] [--sizes 100,300,700] [--draws 5]

Draws so many training posts from a manifest with a split, runs the stages of the posts track on them, and scores on all
of its validation posts, which `split` then takes for test rows. Embeddings are made once and kept. Encoders are not
tuned. Prints a line of Markdown a size: macro-F1, mean over the draws, and how far the fusion is above each of the
others, with the standard error over draws.
"""

import argparse
import importlib
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core import artifacts
from pipeline.core.layout import Layout
from pipeline.params import Params

STAGES = ("split", "embed", "train_text", "train_image", "train_video", "fuse", "evaluate")
FROZEN = ("majority", "stream_logreg", "logreg", "tfidf_logreg", "joint_logreg", "head")


def drawn(posts: pd.DataFrame, size: int, seed: int) -> pd.DataFrame:
    """So many training posts, and all validation posts."""
    train = np.flatnonzero(posts["split"] == "train")
    chosen = np.random.default_rng(seed).choice(train, min(size, len(train)), replace=False)
    return posts.iloc[np.sort(np.concatenate([chosen, np.flatnonzero(posts["split"] == "val")]))]


def scored(posts: pd.DataFrame, media: Path, scratch: Path) -> tuple[str, dict[str, float]]:
    """What the fusion took, and macro-F1 on the test rows: of the fusion, of its parts, and of the baselines."""
    manifest = scratch / "manifest.parquet"
    posts.to_parquet(manifest)
    params = Params.model_validate(
        {
            "tracks": ["posts"],
            "device": "cpu",
            "processes": 1,
            "posts": {"manifest": str(manifest), "media": str(media)},
            "specialist": {"candidates": FROZEN},
        }
    )
    layout = Layout(scratch)
    for stage in STAGES:
        importlib.import_module(f"pipeline.stages.{stage}").run(params, layout)
    of = artifacts.read_json(layout.details("evaluate"))["posts"]
    taken = artifacts.read_json(layout.details("fuse"))["posts"]["choice"]["taken"]
    figures = {"fusion": of["fusion"]["macro_f1"]}
    alone = [name for name in ("text", "image", "video") if of.get(name, {}).get("n")]
    figures |= {f"{name} alone": of[name]["macro_f1"] for name in alone}
    return taken, figures | {name: line["macro_f1"] for name, line in of["baselines"].items()}


def line(size: int, figures: list[dict[str, float]], taken: Iterable[str]) -> str:
    table = pd.DataFrame(figures)
    cells = [f"{table['fusion'].mean():.3f}"]
    for name in table.columns[1:]:
        difference = table["fusion"] - table[name]
        error = f" ± {difference.std() / len(difference) ** 0.5:.3f}" * (len(difference) > 1)
        cells.append(f"{table[name].mean():.3f} ({difference.mean():+.3f}{error})")
    counts = ", ".join(f"{name} {count}" for name, count in pd.Series(list(taken)).value_counts().items())
    return f"| {size} | {' | '.join(cells)} | {counts} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--media", type=Path)
    parser.add_argument("--sizes", default="100,300,700")
    parser.add_argument("--draws", type=int, default=5)
    given = parser.parse_args()
    posts, media = pd.read_parquet(given.manifest), (given.media or given.manifest.parent).resolve()
    for name in {"image", "video"} & set(posts):
        posts[name] = posts[name].map(lambda path: str(given.manifest.parent.resolve() / path), "ignore")
    heading = False
    with tempfile.TemporaryDirectory() as folder:
        for size in map(int, given.sizes.split(",")):
            made = [scored(drawn(posts, size, seed), media, Path(folder)) for seed in range(given.draws)]
            if not heading:
                print(f"| posts | {' | '.join(made[0][1])} | what was taken |", flush=True)
                heading = True
            print(line(size, [figures for _, figures in made], [taken for taken, _ in made]), flush=True)


if __name__ == "__main__":
    main()
