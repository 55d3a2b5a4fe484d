"""The source model against nets of MMSA (pip's ``mmsa``) on the same rows, splits and features, seed by seed.

    pip install mmsa
    python -m benchmarks.mmsa_peer MOSEI/corpus.parquet [--folds 5] [--seeds 3] [--ways ridge,TFN] [--out FILE.json]

One row a video, standardised on the training rows, whatever is not there being 0. Each fold is scored by nets that
never saw it; 15 % of the other rows stop the training. MMSA's nets have its own settings for small corpora ("mosi"),
early stopping included, but convolutions of width 1, since a row is a sequence of one. Ridge learns from the rows that
stop the others, too, and so does the source model, whose candidates inner folds compare. Seconds are of the processor,
one thread; ours hold the inner folds and the predictions of all subsets as well.

``MISA`` and ``Self_MM`` are not among them: they read words by a BERT of their own, not features.
"""

import argparse
import json
import pickle
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold, GroupShuffleSplit
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pipeline.core.schemas import SourceCandidate
from pipeline.params import Params, TrainSourceParams
from pipeline.scoring.sentiment import report
from pipeline.sentiment import source_candidates
from pipeline.sentiment.data import FeatureColumns
from pipeline.sentiment.source_model import fit_source_model, score
from pipeline.training.loop import FitResult, fit

OURS: Mapping[str, tuple[SourceCandidate, ...]] = {"the source model": ("ridge", "net"), "its net": ("net",)}
RIDGE = "ridge"
NETS = ("LF_DNN", "TFN", "MulT")
WAYS = (RIDGE, *OURS, *NETS)
BLOCKS = {"text": "text", "audio": "audio", "visual": "vision"}
"""Our names of features, and MMSA's."""

VAL_SHARE = 0.15


class Made(NamedTuple):
    """Predictions of the held-out rows, processor seconds, and epochs; 0 epochs where there are none."""

    scores: np.ndarray
    seconds: float
    epochs: int


class Fold(NamedTuple):
    """One division of a corpus: rows of each part, and float32 [N, columns] of each block, standardised."""

    table: pd.DataFrame
    parts: Mapping[str, np.ndarray]
    blocks: Mapping[str, np.ndarray]

    @property
    def scores(self) -> np.ndarray:
        return self.table["score"].to_numpy(np.float32)


def folds(corpus: Path, count: int) -> Iterator[Fold]:
    table = pd.read_parquet(corpus)
    table = table[table["split"].isin(["train", "val"])].reset_index(drop=True)
    raw = {name: np.stack(table[name].to_list()).astype(np.float64) for name in BLOCKS}
    divided = GroupKFold(count, shuffle=True, random_state=0)
    for rest, test in divided.split(table, groups=table["group"]):
        inner = GroupShuffleSplit(1, test_size=VAL_SHARE, random_state=0)
        train, val = next(inner.split(rest, groups=table["group"].iloc[rest]))
        parts = {"train": rest[train], "valid": rest[val], "test": test}
        yield Fold(table, parts, {name: _standardised(block, parts["train"]) for name, block in raw.items()})


def _standardised(block: np.ndarray, train: np.ndarray) -> np.ndarray:
    known = np.where(np.isfinite(block), block, np.nan)
    mean, deviation = np.nanmean(known[train], axis=0), np.nanstd(known[train], axis=0)
    varies = deviation > 1e-8
    return np.nan_to_num((known - mean)[:, varies] / deviation[varies]).clip(-10, 10).astype(np.float32)


def ours(fold: Fold, seed: int, candidates: tuple[SourceCandidate, ...]) -> Made:
    """The source model as `train_source` chooses and fits it; epochs are those of inner folds, too."""
    split = np.full(len(fold.table), "test", dtype=object)
    split[fold.parts["train"]], split[fold.parts["valid"]] = "train", "val"
    names = {"id": "sample_id", "group": "group_id"}
    source = fold.table[["id", "group", "score"]].rename(columns=names).assign(split=split)
    there = torch.ones(len(source), dtype=torch.bool)
    columns = FeatureColumns(
        {name: torch.from_numpy(block) for name, block in fold.blocks.items()}, dict.fromkeys(fold.blocks, there)
    )
    began = time.process_time()
    params = Params(seed=seed, device="cpu", train_source=TrainSourceParams(candidates=candidates))
    histories: list[list[dict[str, float]]] = []

    def counted(*given: Any, **named: Any) -> FitResult:
        result = fit(*given, **named)
        histories.append(result.history)
        return result

    with patch.object(source_candidates, "fit", counted):
        fitted = fit_source_model(source, columns, params)
    seconds = time.process_time() - began
    return Made(score(fitted.net, columns, columns.modalities)[fold.parts["test"]], seconds, sum(map(len, histories)))


def ridge(fold: Fold) -> Made:
    began, columns = time.process_time(), np.concatenate(list(fold.blocks.values()), axis=1)
    rest = np.concatenate([fold.parts["train"], fold.parts["valid"]])
    model = RidgeCV(np.logspace(0, 5, 11)).fit(columns[rest], fold.scores[rest])
    return Made(model.predict(columns[fold.parts["test"]]), time.process_time() - began, 0)


def mmsa(name: str, fold: Fold, seed: int, folder: Path) -> Made:
    """Trains one of MMSA's nets as ``MMSA_run`` does, which wants a graphics card to begin with."""
    package, config, loading, models, trains, utils = (
        import_module(name)
        for name in ("MMSA", "MMSA.config", "MMSA.data_loader", "MMSA.models", "MMSA.trains", "MMSA.utils")
    )
    _without_verbose(name)
    settings = Path(str(package.__file__)).parent / "config" / "config_regression.json"
    args = config.get_config_regression(name.lower(), "mosi", settings)
    args.update({f"conv1d_kernel_size_{of}": 1 for of in "lav"})
    features = folder / "features.pkl"
    with features.open("wb") as file:
        pickle.dump({part: _features(fold, rows) for part, rows in fold.parts.items()}, file)
    args.update(custom_feature=str(features), feature_T="", feature_A="", feature_V="", device=torch.device("cpu"))
    args.update(model_save_path=folder / "best.pth", train_mode="regression", cur_seed=1)
    utils.setup_seed(seed)
    with redirect_stderr(StringIO()):  # a bar for each epoch
        loaders, net, trainer = loading.MMDataLoader(args, 0), models.AMIO(args), trains.ATIO().getTrain(args)
        looked, score_epoch = [], trainer.do_test

        def counted(*given: Any, **named: Any) -> Any:
            looked.append(1)
            return score_epoch(*given, **named)

        trainer.do_test = counted
        began = time.process_time()
        trainer.do_train(net, loaders)
        seconds, epochs = time.process_time() - began, len(looked)
        net.load_state_dict(torch.load(args["model_save_path"], weights_only=True))
    predicted = np.empty(len(fold.parts["test"]), dtype=np.float32)
    with torch.inference_mode():
        for batch in loaders["test"]:  # in any order
            said = net.eval()(batch["text"], batch["audio"], batch["vision"])["M"]
            predicted[batch["index"].numpy()] = said.reshape(-1).numpy()
    return Made(predicted, seconds, epochs)


def _without_verbose(name: str) -> None:
    """torch's schedulers no longer know an argument that MMSA 2.2.1 gives them."""
    module = import_module(f"MMSA.trains.singleTask.{name.upper()}")
    if getattr(module, "ReduceLROnPlateau", None) is ReduceLROnPlateau:
        setattr(module, "ReduceLROnPlateau", lambda *given, verbose=None, **named: ReduceLROnPlateau(*given, **named))  # noqa: B010


def _features(fold: Fold, rows: np.ndarray) -> dict[str, Any]:
    ids = fold.table["id"].iloc[rows].tolist()
    lengths = {f"{name}_lengths": [1] * len(rows) for name in ("audio", "vision")}
    blocks = {theirs: fold.blocks[name][rows][:, None, :] for name, theirs in BLOCKS.items()}
    return {**blocks, **lengths, "raw_text": ids, "id": ids, "regression_labels": fold.scores[rows]}


def measured(corpus: Path, count: int, seeds: int, ways: Sequence[str]) -> pd.DataFrame:
    """Rows of ``way, seed, pearson, mae, seconds, epochs`` over all held-out rows."""
    made: dict[tuple[str, int], list[Made]] = {(way, seed): [] for way in ways for seed in range(seeds)}
    truth = []
    with tempfile.TemporaryDirectory() as scratch:
        for fold in folds(corpus, count):
            truth.append(fold.scores[fold.parts["test"]])
            for way, seed in made:
                if way == RIDGE:
                    made[way, seed].append(ridge(fold))
                else:
                    of = ours(fold, seed, OURS[way]) if way in OURS else mmsa(way, fold, seed, Path(scratch))
                    made[way, seed].append(of)
    rows = []
    for (way, seed), parts in made.items():
        of = report(np.concatenate(truth), np.concatenate([part.scores for part in parts]))
        seconds, epochs = sum(part.seconds for part in parts), sum(part.epochs for part in parts)
        rows.append((way, seed, of["pearson"], of["mae"], seconds, epochs))
    return pd.DataFrame(rows, columns=["way", "seed", "pearson", "mae", "seconds", "epochs"])


def page(rows: pd.DataFrame) -> str:
    lines = ["| way | r, of each seed | MAE | epochs in all | seconds an epoch |", "|---|---|---|---|---|"]
    for way, of in rows.groupby("way", sort=False):
        scores, errors = (", ".join(f"{value:.3f}" for value in of[name]) for name in ("pearson", "mae"))
        epochs, seconds = of["epochs"].sum(), of["seconds"].sum()
        rate = f"{epochs} | {seconds / epochs:.3f}" if epochs else "– | –"
        lines.append(f"| {way} | {scores} | {errors} | {rate} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ways", default=",".join(WAYS), help="which of the ways, named as in the table")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ways = arguments.ways.split(",")
    if unknown := set(ways) - set(WAYS):
        parser.error(f"--ways: {', '.join(sorted(unknown))}: there are {', '.join(WAYS)}")
    rows = measured(arguments.corpus, arguments.folds, arguments.seeds, ways)
    if arguments.out:
        arguments.out.write_text(json.dumps(rows.to_dict("records"), indent=2) + "\n", encoding="utf-8")
    print(page(rows))


if __name__ == "__main__":
    main()
