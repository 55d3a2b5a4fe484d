"""The inner folds on which the candidates of specialists and fusion are compared."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.core.schemas import FINAL
from pipeline.corpora.splits import ENOUGH_SHARE, grouped_folds

STOPPING_SHARE = 8
"""One in so many of a fold's training groups decides when an iterative training stops."""

FEWEST_STOPPING_GROUPS = 8
"""On fewer groups nothing is stopped: one would decide for all."""


@dataclass(frozen=True)
class Fold:
    """One model to fit: on the rows ``train``, to predict ``unseen`` (positions in the corpus).

    Attributes:
        val: rows on which an iterative training stops; None: it runs for as long as its params say.
    """

    name: str
    train: np.ndarray
    unseen: np.ndarray
    val: np.ndarray | None = None


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

    def inner(self, folds: int, most: int) -> list[Fold]:
        """Grouped folds of the training and validation rows; of more than ``most``, the one fold that they make.

        That one fold is called ``final``: its models are not fitted again, so they stop and are compared on the
        validation rows, and predict the test rows too. Where these are less than a twentieth of ``most``, they are too
        few to judge by, and grouped folds do.
        """
        known, val = self.part("train", "val"), self.part("val")
        if len(known) > most and len(val) >= most / ENOUGH_SHARE:
            return [Fold(FINAL, self.part("train"), self.part("val", "test"), val)]
        return self.cross(known, folds)

    def cross(self, rows: np.ndarray, folds: int) -> list[Fold]:
        """Each of the ``rows`` unseen in one of the folds, groups whole and classes spread."""
        groups, codes = self.groups[rows].tolist(), self.codes[rows].tolist()
        fold_of = grouped_folds(groups, codes, folds, np.random.default_rng(self.seed))
        return [Fold(f"fold-{at}", rows[fold_of != at], rows[fold_of == at]) for at in range(int(fold_of.max()) + 1)]

    def whole(self) -> Fold:
        """The model that is fitted last, on all training and validation rows, to predict the test rows."""
        return Fold(FINAL, self.part("train", "val"), self.part("test"))

    def with_stopping_rows(self, fold: Fold) -> Fold:
        """The fold with some of its training groups set aside to stop on, where it has none and there are enough."""
        if fold.val is not None or len(set(self.groups[fold.train])) < STOPPING_SHARE * FEWEST_STOPPING_GROUPS:
            return fold
        aside = self.cross(fold.train, STOPPING_SHARE)[0]
        return Fold(fold.name, aside.train, fold.unseen, aside.unseen)

    def compared(self, folds: list[Fold]) -> np.ndarray:
        """Positions of the rows on which candidates are compared: those that a fold left unseen, test rows aside."""
        return np.intersect1d(np.concatenate([fold.unseen for fold in folds]), self.part("train", "val"))

    def judged(self, folds: list[Fold]) -> np.ndarray:
        """Those of ``compared`` whose class the fold that left them unseen could learn; all, where that is none.

        The rows of a class that stands in one group are in no fold both learned and asked for: how boldly a candidate
        denies that class is no measure of it.
        """
        compared, learnable = self.compared(folds), np.zeros(len(self.codes), dtype=bool)
        for fold in folds:
            learnable[fold.unseen] = np.isin(self.codes[fold.unseen], self.codes[fold.train])
        return judged if len(judged := compared[learnable[compared]]) else compared
