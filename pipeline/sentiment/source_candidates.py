"""What the source model is chosen from: ridge regression, and the same net trained on from there.

Grouped inner folds of the training and validation rows choose the ridge's penalty, how long the net is trained, and
between the two: the net is taken if it betters ridge by more than a standard error. So the source model never falls
below the obvious because of gradients that few rows led astray.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipeline.core.errors import InputError
from pipeline.core.folds import Fold, folds_of
from pipeline.corpora.splits import ENOUGH_SHARE, grouped_folds, score_strata
from pipeline.nets.losses import mixed
from pipeline.nets.transfer import ScoreNet
from pipeline.params import Params, TrainSourceParams
from pipeline.scoring import score_selection, sentiment
from pipeline.scoring.dropout_ridge import LinearModel, dropout_ridge
from pipeline.scoring.ridge import ALPHAS
from pipeline.scoring.units import score_unit
from pipeline.sentiment.data import FeatureColumns
from pipeline.sentiment.descriptions import ScoreNetArguments
from pipeline.training.device import pick
from pipeline.training.loop import HISTORY, FitResult, TrainingPlan, fit
from pipeline.training.optim import adamw
from pipeline.training.rows import TensorRows

MSE, MAE, CORRELATION = 0.3, 1.0, 0.3
"""Weights of the loss: mostly the absolute error, as scores are noisy; a little of the others for spread and order."""


@dataclass(frozen=True)
class SourceChoice:
    """Which candidate was taken, and what was known of them.

    Attributes:
        penalty: of the ridge that is taken, or that the net begins with.
        epochs: that the net is to be trained; 0 where ridge was taken.
        rows: int64 [n], positions of the rows that folds held.
        held: float64 [n], out-of-fold predictions of the chosen candidate.
        history: ``HISTORY`` of the net's epochs, means over the folds; empty where it is no candidate.
    """

    penalty: float
    epochs: int
    rows: np.ndarray
    held: np.ndarray
    report: dict[str, Any]
    history: pd.DataFrame


@dataclass(frozen=True)
class SourceRows:
    """The source's N rows as its candidates read them.

    ``table`` has the columns ``sample_id, group_id, split, score``; the candidates learn its scores in ``unit``.
    """

    table: pd.DataFrame
    columns: FeatureColumns
    params: Params

    @property
    def block(self) -> TrainSourceParams:
        return self.params.train_source

    @cached_property
    def unit(self) -> float:
        return score_unit(self.table["score"].to_numpy()[self.part("train", "val")])

    @cached_property
    def actual(self) -> np.ndarray:
        """float64 [N], in units."""
        return self.table["score"].to_numpy(np.float64) / self.unit

    @property
    def groups(self) -> np.ndarray:
        return self.table["group_id"].to_numpy(dtype=str)

    def part(self, *names: str) -> np.ndarray:
        return np.flatnonzero(self.table["split"].isin(names))

    def tensors(self, rows: np.ndarray) -> TensorRows:
        scores = torch.from_numpy(self.actual[rows].astype(np.float32))
        return TensorRows(self.columns.at(rows), scores, self.block.batch)

    def folds(self) -> list[Fold]:
        """Grouped folds of the training and validation rows; of very many, the validation rows are the one held, unless
        they are less than a twentieth of so many.

        Raises InputError where all these rows are of one group.
        """
        train, val = self.part("train"), self.part("val")
        rows = np.sort(np.concatenate([train, val]))
        if len(rows) > self.block.inner_rows and len(val) >= max(self.block.inner_rows / ENOUGH_SHARE, 1):
            return [Fold(train, val)]
        if len(set(self.groups[rows])) < 2:
            raise InputError(
                f"source.corpus: its {len(rows)} training and validation rows are of one group, and inner folds need "
                "two at least; give more groups"
            )
        strata, rng = score_strata(self.actual[rows].tolist()), np.random.default_rng(self.params.seed)
        numbers = grouped_folds(self.groups[rows].tolist(), strata["tercile"].tolist(), self.block.inner_folds, rng)
        return folds_of(rows, numbers)


def describe_source(columns: FeatureColumns, block: TrainSourceParams, unit: float = 1.0) -> ScoreNetArguments:
    """The net for these columns, as ``model.json`` describes it."""
    shape = block.model_dump(include={"width", "heads", "hidden", "dropout", "modality_dropout"})
    return ScoreNetArguments(widths=columns.widths, unit=unit, **shape)


def choose(source: SourceRows) -> SourceChoice:
    """Fits the candidates on every inner fold, and takes the simplest that is not bettered.

    The rows that compare candidates have also chosen the penalty and the epochs, so predictions of them flatter a
    little; test rows are for `evaluate`.
    """
    folds, candidates = source.folds(), source.block.candidates
    rows = np.concatenate([fold.held_out for fold in folds])
    actual, groups = source.actual[rows], source.groups[rows]
    nets, penalty, predicted = _by_ridge(source, folds)
    by_candidate = {"ridge": predicted} if "ridge" in candidates else {}
    epochs, history = 0, pd.DataFrame(columns=HISTORY)
    if "net" in candidates:
        by_epoch, history = _by_net(source, folds, nets)
        epochs = 1 + int(np.argmin([((predicted - actual) ** 2).sum() for predicted in by_epoch]))
        by_candidate["net"] = by_epoch[epochs - 1]
    by_candidate = {name: predicted * source.unit for name, predicted in by_candidate.items()}
    taken, report = score_selection.choose(by_candidate, actual * source.unit, groups)
    report |= {"inner_folds": len(folds), "penalty": penalty}
    epochs = epochs if taken == "net" else 0
    return SourceChoice(penalty, epochs, rows, by_candidate[taken], report | {"epochs": epochs}, history)


def fit_final(source: SourceRows, choice: SourceChoice) -> ScoreNet:
    """The candidate taken, fitted on training and validation rows; it gives scores of the corpus."""
    learn = np.sort(source.part("train", "val"))
    net = _standardised_net(source, learn)
    _begin_with(net, _ridges(net, source, learn, [choice.penalty])[0])
    if choice.epochs:
        _train(net, source, learn, choice.epochs)
    net.unit = source.unit
    return net.eval()


# --- ridge -----------------------------------------------------------------------------------------------------------


def _by_ridge(source: SourceRows, folds: list[Fold]) -> tuple[list[ScoreNet], float, np.ndarray]:
    """A net for each fold that is ridge regression, the penalty, and the out-of-fold predictions, float64 [n].

    One penalty serves all folds: that of least squared error, of equal ones the strongest.
    """
    nets = [_standardised_net(source, fold.train) for fold in folds]
    models = [_ridges(net, source, fold.train, ALPHAS.tolist()) for net, fold in zip(nets, folds, strict=True)]
    held = [_standard(net, source.columns, fold.held_out) for net, fold in zip(nets, folds, strict=True)]
    predicted = [
        np.concatenate([of_fold[at].scores(blocks) for of_fold, blocks in zip(models, held, strict=True)])
        for at in range(len(ALPHAS))
    ]
    actual = source.actual[np.concatenate([fold.held_out for fold in folds])]
    errors = [float(((scores - actual) ** 2).sum()) for scores in predicted]
    best = max(range(len(ALPHAS)), key=lambda at: (-errors[at], at))
    for net, of_fold in zip(nets, models, strict=True):
        _begin_with(net, of_fold[best])
    return nets, float(ALPHAS[best]), predicted[best]


def _standardised_net(source: SourceRows, learn: np.ndarray) -> ScoreNet:
    torch.manual_seed(source.params.seed)
    net = ScoreNet(**describe_source(source.columns, source.block).arguments())
    net.standardise_like(*source.columns.at(learn))
    return net


def _ridges(net: ScoreNet, source: SourceRows, learn: np.ndarray, penalties: Sequence[float]) -> list[LinearModel]:
    blocks = _standard(net, source.columns, learn)
    return dropout_ridge(blocks, source.actual[learn], penalties, source.block.modality_dropout)


def _standard(net: ScoreNet, columns: FeatureColumns, rows: np.ndarray) -> list[np.ndarray]:
    """The columns as the net's probes see them, float32 [n, width] of each modality; zeros where one is absent."""
    vectors, present = columns.at(rows)
    return [(net.probe(name).standard(vectors[name]) * present[name][:, None]).numpy() for name in net.probes]


def _begin_with(net: ScoreNet, model: LinearModel) -> None:
    weights = np.split(model.weights, np.cumsum([net.widths[name] for name in net.probes])[:-1])
    net.begin_with(dict(zip(net.probes, map(torch.from_numpy, weights), strict=True)), model.offset)


# --- the net ---------------------------------------------------------------------------------------------------------


def _by_net(source: SourceRows, folds: list[Fold], nets: list[ScoreNet]) -> tuple[list[np.ndarray], pd.DataFrame]:
    """After each epoch, the predictions of the held-out rows, float64 [n]; and their history.

    The number of epochs is that of all folds, so none has one that flatters it alone. A fold that stops, since it gets
    no better, keeps its last prediction.
    """
    predicted: list[list[np.ndarray]] = []
    histories = []
    for net, fold in zip(nets, folds, strict=True):
        predicted.append([])
        result = _train(net, source, fold.train, source.block.epochs, fold.held_out, predicted[-1].append)
        histories.append(pd.DataFrame(result.history, columns=HISTORY))
    history = pd.concat(histories).groupby("epoch", as_index=False).mean()
    by_epoch = [
        np.concatenate([of_fold[min(at, len(of_fold) - 1)] for of_fold in predicted]) for at in range(len(history))
    ]
    return by_epoch, history


def _train(
    net: ScoreNet,
    source: SourceRows,
    learn: np.ndarray,
    epochs: int,
    held: np.ndarray | None = None,
    keep: Callable[[np.ndarray], None] | None = None,
) -> FitResult:
    """Trains for all epochs, or with ``held`` rows until these are no better; ``keep`` gets their predictions."""
    block = source.block

    def score(predicted: np.ndarray, actual: np.ndarray) -> float:
        if keep is not None:
            keep(predicted[:, 0].astype(np.float64))
        return sentiment.concordance(predicted, actual)

    return fit(
        net,
        source.tensors(learn),
        None if held is None else source.tensors(held),
        objective=mixed(MSE, MAE, CORRELATION),
        score=score,
        optimizer=adamw([(net, block.learning_rate)], block.weight_decay),
        plan=TrainingPlan(epochs, None if held is None else block.patience, source.params.seed),
        device=pick(source.params.device),
        what="train_source",
    )
