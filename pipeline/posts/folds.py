"""The inner folds on which the candidates of specialists and fusion are compared."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.core.fitted import fitted_rows
from pipeline.core.folds import Fold, folds_of
from pipeline.core.schemas import FINAL
from pipeline.corpora.splits import ENOUGH_SHARE, grouped_folds

STOPPING_SHARE = 8
"""One in so many of a fold's training groups decides when an iterative training stops."""

FEWEST_STOPPING_GROUPS = 8
"""On fewer groups nothing is stopped: one would decide for all."""


@dataclass(frozen=True)
class NamedFold(Fold):
    """One model to fit, of the corpus's rows.

    Attributes:
        val: rows on which an iterative training stops; None: it runs for as long as its params say.
    """

    name: str
    val: np.ndarray | None = None


def predicted_in(folds: Sequence[NamedFold], rows: int) -> pd.Series:
    """The name of the fold whose model predicted each of the corpus's ``rows``; missing where none did."""
    names = pd.Series(index=range(rows), dtype=object)
    for fold in folds:
        names.iloc[fold.held_out] = fold.name
    return names


def all_fitted_rows(posts: pd.DataFrame, folds: Sequence[NamedFold]) -> pd.DataFrame:
    """Every row that a model of one of the folds was fitted or stopped on, as ``core.fitted`` lists them."""
    nobody = np.array([], dtype=int)
    fitted = [fitted_rows(posts, fold.name, fold.train, nobody if fold.val is None else fold.val) for fold in folds]
    return pd.concat(fitted)


@dataclass(frozen=True)
class Grouping:
    """What folds are made by: the ``split`` of the corpus's N rows, their ``groups`` and their classes ``codes``."""

    split: np.ndarray
    groups: np.ndarray
    codes: np.ndarray
    seed: int

    @staticmethod
    def of(posts: pd.DataFrame, codes: np.ndarray, seed: int) -> "Grouping":
        return Grouping(posts["split"].to_numpy(), posts["group_id"].to_numpy(), codes, seed)

    def part(self, *splits: str) -> np.ndarray:
        """Positions of the rows of these parts."""
        return np.flatnonzero(np.isin(self.split, splits))

    def inner(self, folds: int, most: int) -> list[NamedFold]:
        """Grouped folds of the training and validation rows; of more than ``most``, the one fold that they make.

        That one fold is called ``final``: its models are not fitted again, so they stop and are compared on the
        validation rows, and predict the test rows too. Where these are less than a twentieth of ``most``, they are too
        few to judge by, and grouped folds do.
        """
        known, val = self.part("train", "val"), self.part("val")
        if len(known) > most and len(val) >= most / ENOUGH_SHARE:
            return [NamedFold(self.part("train"), self.part("val", "test"), FINAL, val)]
        return self.cross(known, folds)

    def cross(self, rows: np.ndarray, folds: int) -> list[NamedFold]:
        """Each of the ``rows`` unseen in one of the folds, groups whole and classes spread."""
        groups, codes = self.groups[rows].tolist(), self.codes[rows].tolist()
        fold_of = grouped_folds(groups, codes, folds, np.random.default_rng(self.seed))
        return [NamedFold(fold.train, fold.held_out, f"fold-{at}") for at, fold in enumerate(folds_of(rows, fold_of))]

    def whole(self) -> NamedFold:
        """The model that is fitted last, on all training and validation rows, to predict the test rows."""
        return NamedFold(self.part("train", "val"), self.part("test"), FINAL)

    def with_stopping_rows(self, fold: NamedFold) -> NamedFold:
        """The fold with some of its training groups set aside to stop on, where it has none and there are enough."""
        if fold.val is not None or len(set(self.groups[fold.train])) < STOPPING_SHARE * FEWEST_STOPPING_GROUPS:
            return fold
        aside = self.cross(fold.train, STOPPING_SHARE)[0]
        return NamedFold(aside.train, fold.held_out, fold.name, aside.held_out)

    def compared(self, folds: list[NamedFold]) -> np.ndarray:
        """Positions of the rows on which candidates are compared: those that a fold left unseen, test rows aside."""
        return np.intersect1d(np.concatenate([fold.held_out for fold in folds]), self.part("train", "val"))

    def judged(self, folds: list[NamedFold]) -> np.ndarray:
        """Those of ``compared`` whose class the fold that left them unseen could learn; all, where that is none.

        The rows of a class that stands in one group are in no fold both learned and asked for: how boldly a candidate
        denies that class is no measure of it.
        """
        compared, learnable = self.compared(folds), np.zeros(len(self.codes), dtype=bool)
        for fold in folds:
            learnable[fold.held_out] = np.isin(self.codes[fold.held_out], self.codes[fold.train])
        return judged if len(judged := compared[learnable[compared]]) else compared
