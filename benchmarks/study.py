"""Experiments of DVC side by side, judged by out-of-fold predictions, and each by its difference to the first.

    python -m benchmarks.study main no-weights focal …

Takes revisions and names of experiments that learned from the same posts. `compare` shows what each scored; this
fetches the models of each (DVC finds them in its cache) and scores all of them on the same resamples of whole groups,
so that a difference carries an interval. Training and validation rows, each predicted by a fold that left it out, are
what a choice may rest on; the last column is of test rows, for whoever asks afterwards. The calibration of each was
fitted on the same out-of-fold rows, a few numbers on thousands of rows. Prints a line of Markdown an experiment.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from dvc.api import DVCFileSystem
from scipy.special import softmax

from pipeline.core import artifacts
from pipeline.core.descriptions import read_description
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.posts.descriptions import FusionDescription
from pipeline.posts.labels import codes_of
from pipeline.scoring import emotion, intervals
from pipeline.scoring.calibration import expected_calibration_error

RESAMPLES, CONFIDENCE, BINS, SEED = 2000, 0.95, 15, 0


@dataclass(frozen=True)
class Part:
    """Posts of one part, n rows: their classes, the classes decided for, and calibrated probabilities [n, K]."""

    ids: np.ndarray
    groups: np.ndarray
    codes: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class Run:
    """An experiment: its name, which candidate its fusion took, and its predictions of both parts.

    Attributes:
        learned: training and validation rows, each as a fold predicted it that had left it out.
    """

    name: str
    taken: str
    learned: Part
    test: Part


def fetched(name: str, folder: Path) -> Run:
    """Raises InputError where the experiment has no whole fusion, and what DVC raises where it is not there."""
    files = DVCFileSystem(rev=None if name == "workspace" else name)
    layout = Layout(folder)
    for path in (Layout().model("fuse"), Layout().table("posts")):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        files.get(path.as_posix(), (folder / path).as_posix(), recursive=True)
    description = read_description(layout.model("fuse"), FusionDescription)
    posts = pd.read_parquet(layout.table("posts"))
    predictions = artifacts.read_predictions(layout.predictions("fuse"), len(description.labels))
    whole = predictions.where((predictions.rows["kind"] == "fusion").to_numpy())
    parts = []
    for splits in (("train", "val"), ("test",)):
        rows = posts[posts["split"].isin(splits)].reset_index(drop=True)
        part = whole.where(whole.rows["split"].isin(splits).to_numpy())
        at = pd.Index(part.rows["sample_id"]).get_indexer(pd.Index(rows["sample_id"]))
        if (at < 0).any():
            raise InputError(f"{name}: some posts of {splits[0]} have no prediction of the fusion")
        calibrated = description.calibration.calibrated(part.logits[at])
        parts.append(
            Part(
                rows["sample_id"].to_numpy(),
                rows["group_id"].to_numpy(),
                codes_of(rows, description.labels),
                description.calibration.decide(calibrated),
                softmax(calibrated, axis=1),
            )
        )
    return Run(name, description.candidate or "the only specialist", *parts)


def line(run: Run, base: Run) -> str:
    """Raises InputError where both did not learn from the same posts."""
    mine, other = run.learned, base.learned
    if not (np.array_equal(mine.ids, other.ids) and np.array_equal(mine.codes, other.codes)):
        raise InputError(f"{run.name} and {base.name}: learned from other posts; only runs of one corpus compare")
    classes = mine.probabilities.shape[1]
    drawn = intervals.resampled_macro_f1(mine.codes, mine.predicted, mine.groups, classes, RESAMPLES, SEED)
    less = intervals.resampled_macro_f1_difference(
        mine.codes, mine.predicted, other.predicted, mine.groups, classes, RESAMPLES, SEED
    )
    low, high = less.interval(CONFIDENCE) or (np.nan, np.nan)
    difference = "" if run is base else f"{less.value:+.3f} [{low:+.3f}, {high:+.3f}]"
    error = expected_calibration_error(mine.probabilities, mine.codes, BINS)
    tested = emotion.macro_f1(run.test.codes, run.test.predicted, classes)
    return f"| {run.name} | {run.taken} | {drawn.value:.3f} | {difference} | {error:.3f} | {tested:.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="+", help="names or revisions; the first is what others are compared with")
    print("| experiment | the fusion took | macro-F1 out of fold | less the first | ECE | macro-F1 of test rows |")
    print("|---|---|---|---|---|---|")
    base = None
    for name in parser.parse_args().experiments:
        with tempfile.TemporaryDirectory() as folder:
            run = fetched(name, Path(folder))
        base = base or run
        print(line(run, base), flush=True)


if __name__ == "__main__":
    main()
