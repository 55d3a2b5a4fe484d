"""Chooses and fits the fusion of the specialists; predicts with it whole, with modalities masked, and without them.

The specialists are frozen. Training and validation rows come with out-of-fold predictions; test rows with those of the
final specialists, which saw none of them. In a corpus of one modality there is nothing to fuse, and its specialist's
predictions are the fusion's.

Reads:  data/split/posts.parquet, data/embeddings/posts/*.parquet, models/train_{text,image,video}/.
Writes: models/fuse/, metrics/fuse.json, metrics/details/fuse.json, plots/fuse/.
"""

import numpy as np
import pandas as pd

from pipeline.core import artifacts, off
from pipeline.core.artifacts import Predictions
from pipeline.core.fitted import write_fitted
from pipeline.core.layout import Layout
from pipeline.core.metrics import write_metrics
from pipeline.core.schemas import FINAL, subset_name
from pipeline.params import Params
from pipeline.posts.descriptions import FusionDescription
from pipeline.posts.folds import all_fitted_rows, predicted_in
from pipeline.posts.fusion import FusionOutcome, choose_fusion, unfused
from pipeline.posts.fusion_rows import FusionRows, read_fusion_rows
from pipeline.posts.out_of_fold import OutOfFold
from pipeline.training.checkpoint import write_model
from pipeline.training.loop import HISTORY


def run(params: Params, layout: Layout) -> None:
    if off.left_empty("fuse", "posts", layout):
        return
    corpus = read_fusion_rows(params, layout)
    outcome = unfused(corpus, layout) if len(corpus.modalities) == 1 else choose_fusion(corpus, params, layout)
    with artifacts.replacing_folder(layout.model("fuse")) as folder:
        artifacts.write_predictions(folder / "predictions.parquet", _predictions(corpus, outcome))
        description = FusionDescription(
            stage="fuse",
            candidate=None if outcome.taken is None else outcome.taken.name,
            labels=corpus.labels,
            modalities=corpus.modalities,
            net=None if outcome.final is None else outcome.final.described,
            nothing=outcome.nothing,
            seed=params.seed,
            best_epoch=None if outcome.final is None else outcome.final.best_epoch,
            calibration=outcome.choice.calibration,
            fitted=write_fitted(folder, all_fitted_rows(corpus.posts, outcome.folds)),
            parents=tuple(f"train_{name}" for name in corpus.modalities),
        )
        write_model(folder, None if outcome.final is None else outcome.final.net, description)
    _report(corpus, outcome, layout)
    corpus.finished.clear()


def _predictions(corpus: FusionRows, outcome: FusionOutcome) -> Predictions:
    """The whole fusion's of every row that some model had not seen, and those of the subsets of the test rows."""
    made_by = predicted_in(outcome.folds, len(corpus.posts))
    at = np.flatnonzero(made_by.notna())
    keys = corpus.posts[["sample_id", "split"]]
    whole = keys.iloc[at].assign(fold=made_by.iloc[at].to_numpy(), kind="fusion", subset=subset_name(corpus.modalities))
    test = keys.iloc[corpus.grouping.part("test")]
    tables = [whole, *(test.assign(fold=FINAL, kind=kind, subset=subset) for kind, subset in outcome.subsets)]
    logits = np.concatenate([outcome.logits[at], *outcome.subsets.values()])
    return Predictions(pd.concat(tables, ignore_index=True), logits)


def _report(corpus: FusionRows, outcome: FusionOutcome, layout: Layout) -> None:
    """What was chosen and why, and how it does on the rows out of fold; the test rows are left to `evaluate`."""
    compared = corpus.grouping.compared(outcome.folds)
    out_of_fold = OutOfFold.of(
        outcome.logits[compared], corpus.codes.numpy()[compared], corpus.labels, outcome.choice.calibration
    )
    settings = {} if outcome.taken is None else outcome.taken.settings
    metrics = {
        "choice": outcome.choice.report() | {"settings": settings},
        "out_of_fold": out_of_fold.metrics(),
    }
    write_metrics(layout, "fuse", {"posts": metrics})

    history = pd.DataFrame(outcome.final.history if outcome.final else [], columns=HISTORY)
    with artifacts.replacing_folder(layout.plots("fuse")) as plots:
        artifacts.write_csv(plots / "history.csv", history)
        artifacts.write_csv(plots / "confusion.csv", out_of_fold.confusion())
