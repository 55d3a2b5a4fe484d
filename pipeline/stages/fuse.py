"""Trains the fusion of the specialists; predicts with it whole, with modalities masked, and retrained without them.

The specialists are frozen. Training rows come with out-of-fold predictions; validation and test rows with those of the
final specialists, which saw neither. In a corpus of one modality there is nothing to fuse, and its specialist's
predictions are the fusion's.

Reads:  data/split/posts.parquet, data/embeddings/posts/*.parquet, models/train_{text,image,video}/.
Writes: models/fuse/, metrics/fuse.json, metrics/details/fuse.json, plots/fuse/.
"""

import numpy as np
import pandas as pd

from pipeline.core import artifacts, off
from pipeline.core.artifacts import Predictions
from pipeline.core.fitted import fitted_rows, write_fitted
from pipeline.core.layout import Layout
from pipeline.core.metrics import write_metrics
from pipeline.core.schemas import FINAL, subset_name
from pipeline.nets.fusion import Fusion
from pipeline.params import Params
from pipeline.posts.descriptions import FusionDescription
from pipeline.posts.fusion import FusionRows, LogitsBySubset, describe_fusion, fit_fusions, read_fusion_rows
from pipeline.scoring import calibration, emotion
from pipeline.training.checkpoint import write_model
from pipeline.training.loop import HISTORY, FitResult


def run(params: Params, layout: Layout) -> None:
    if off.left_empty("fuse", "posts", layout):
        return
    corpus = read_fusion_rows(params, layout)
    split = corpus.posts["split"].to_numpy()
    train, val, held_out = (np.flatnonzero(split == part) for part in ("train", "val", "test"))
    scored = np.concatenate([val, held_out])
    everything = corpus.modalities
    if len(everything) == 1:
        net: Fusion | None = None
        fit_result: FitResult | None = None
        alone = corpus.expert_log_probs[everything[0]].numpy()[scored]
        logits: LogitsBySubset = {kind: {everything[0]: alone} for kind in ("fusion", "masked", "retrained")}
    else:
        net, fit_result, logits = fit_fusions(corpus, train, val, scored, params)

    val_logits, val_codes = logits["fusion"][subset_name(everything)][: len(val)], corpus.codes.numpy()[val]
    temperature = calibration.fit_temperature(val_logits, val_codes)
    keys = corpus.posts.loc[scored, ["sample_id", "split"]].assign(fold=FINAL)
    tables = [keys.assign(kind=kind, subset=subset) for kind, of in logits.items() for subset in of]
    with artifacts.replacing_folder(layout.model("fuse")) as folder:
        predictions = Predictions(
            pd.concat(tables, ignore_index=True),
            np.concatenate([part for of in logits.values() for part in of.values()]),
        )
        artifacts.write_predictions(folder / "predictions.parquet", predictions)
        description = FusionDescription(
            stage="fuse",
            labels=corpus.labels,
            modalities=everything,
            net=None if net is None else describe_fusion(corpus, everything, params.fuse),
            seed=params.seed,
            best_epoch=fit_result.best_epoch if fit_result else None,
            temperature=temperature,
            fitted=write_fitted(folder, fitted_rows(corpus.posts, FINAL, train, val)),
            parents=tuple(f"train_{name}" for name in everything),
        )
        write_model(folder, net, description)
    _report(corpus, logits, val, fit_result, temperature, layout)


def _report(
    corpus: FusionRows,
    logits: LogitsBySubset,
    val: np.ndarray,
    fit_result: FitResult | None,
    temperature: float,
    layout: Layout,
) -> None:
    """Scores validation rows; the test rows are left to `evaluate`."""
    codes = corpus.codes.numpy()[val]
    whole = logits["fusion"][subset_name(corpus.modalities)][: len(val)]
    subsets = {
        subset: {
            kind: emotion.macro_f1(codes, logits[kind][subset][: len(val)].argmax(axis=1), len(corpus.labels))
            for kind in ("masked", "retrained")
        }
        for subset in logits["masked"]
    }
    metrics = {
        "temperature": temperature,
        "val": {**emotion.report(whole, codes, corpus.labels, temperature), "subsets": subsets},
    }
    if fit_result is not None:
        metrics["best_epoch"] = fit_result.best_epoch
    write_metrics(layout, "fuse", {"posts": metrics})

    predicted = whole.argmax(axis=1)
    names = np.array(corpus.labels, dtype=object)
    history = pd.DataFrame(fit_result.history if fit_result else [], columns=HISTORY)
    with artifacts.replacing_folder(layout.plots("fuse")) as plots:
        artifacts.write_csv(plots / "history.csv", history)
        artifacts.write_csv(
            plots / "confusion.csv", pd.DataFrame({"actual": names[codes], "predicted": names[predicted]})
        )
