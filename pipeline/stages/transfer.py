"""What the stages of the source → target track share: their corpora in memory, and folds in processes of their own."""

import multiprocessing
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from pipeline.core import artifacts, schemas
from pipeline.core.artifacts import Embeddings
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.core.progress import mute, progress
from pipeline.core.schemas import FEATURES, FINAL, Subset

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Columns:
    """The features of a corpus of N rows: modality → float32 [N, width], and bool [N] where it is there."""

    vectors: Mapping[str, Tensor]
    present: Mapping[str, Tensor]

    @property
    def modalities(self) -> Subset:
        return tuple(name for name in FEATURES if name in self.vectors)

    @property
    def widths(self) -> dict[str, int]:
        return {name: self.vectors[name].shape[1] for name in self.modalities}

    def at(self, rows: np.ndarray, subset: Subset | None = None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Vectors and presence of some rows; modalities outside ``subset`` are marked absent."""
        index = torch.from_numpy(rows)
        kept = self.modalities if subset is None else subset
        vectors = {name: self.vectors[name][index] for name in self.modalities}
        return vectors, {name: self.present[name][index] & (name in kept) for name in self.modalities}


def read_columns(layout: Layout, corpus: str, table: pd.DataFrame, modalities: Subset) -> Columns:
    """Raises InputError when the embeddings are not of the table's rows."""
    found = {name: layout.embeddings(corpus, name) for name in modalities}
    return columns_of({name: artifacts.read_embeddings(path) for name, path in found.items()}, table, corpus)


def columns_of(embeddings: Mapping[str, Embeddings], table: pd.DataFrame, corpus: str) -> Columns:
    for name, found in embeddings.items():
        if not np.array_equal(found.sample_ids, table["sample_id"].to_numpy()):
            raise InputError(f"data/embeddings/{corpus}/{name}.parquet: rows differ from data/split; run `dvc repro`")
    return Columns(
        {name: torch.from_numpy(np.asarray(found.vectors)) for name, found in embeddings.items()},
        {name: torch.from_numpy(found.present) for name, found in embeddings.items()},
    )


@dataclass(frozen=True)
class Target:
    """The target corpus, N rows.

    Attributes:
        table: its sample table.
        columns: the features of every modality that it has.
        scores: float32 [N], NaN where a row has none.
        folds: ``schemas.FOLDS_TABLE``.
        words: whether its text vectors come from words, so that the encoder could learn.
        told: whether they were made by the source's text model.
    """

    table: pd.DataFrame
    columns: Columns
    scores: Tensor
    folds: pd.DataFrame
    words: bool
    told: bool

    def rows(self, fold: str, role: str) -> np.ndarray:
        """int64: where the rows of a role stand in the table."""
        ids = self.folds.loc[(self.folds["fold"] == fold) & (self.folds["role"] == role), "sample_id"]
        return np.flatnonzero(self.table["sample_id"].isin(set(ids)))

    def using(self, subset: Subset) -> "Target":
        """The same with the other modalities marked absent."""
        return replace(self, columns=Columns(*self.columns.at(np.arange(len(self.table)), subset)))

    @property
    def unlabelled(self) -> np.ndarray:
        return np.flatnonzero(self.scores.isnan().numpy())

    def fitted(self, fold: str) -> pd.DataFrame:
        """The rows that a fold's models learn from and choose on, as ``schemas.FITTED_TABLE``."""
        parts = [
            self.table.iloc[self.rows(fold, role)][["sample_id", "group_id"]].assign(fold=fold, role=role)
            for role in ("train", "val")
        ]
        return pd.concat(parts)[["fold", "sample_id", "group_id", "role"]]

    def predicted(self, fold: str, name: str, scores: np.ndarray) -> pd.DataFrame:
        """``scores``, float [N], of the fold's labelled rows as ``schemas.SCORES_TABLE``."""
        parts = [
            self.table.iloc[at][["sample_id"]].assign(split=role, fold=fold, variant=name, score=scores[at])
            for role in ("train", "val", "test")
            if len(at := self.rows(fold, role))
        ]
        return pd.concat(parts).astype({"score": np.float64})


def read_target(layout: Layout, *, told: bool = True) -> Target:
    """The target; its text vectors are those of the source's text model where there is one, unless not ``told``."""
    table = artifacts.read_scored(layout.table("target"))
    found = {name: artifacts.read_embeddings(layout.embeddings("target", name)) for name in FEATURES}
    embeddings = {str(name): item for name, item in found.items() if item.present.any()}
    words = "text" in embeddings and embeddings["text"].encoder.get("name") != "features"
    by_source = layout.model("train_source") / "text" / "target.parquet"
    told = told and words and by_source.exists()
    if told:
        embeddings["text"] = artifacts.read_embeddings(by_source)
    return Target(
        table,
        columns_of(embeddings, table, "target"),
        torch.from_numpy(table["score"].to_numpy(np.float32)),
        artifacts.read_parquet(layout.folds, schemas.FOLDS_TABLE).to_pandas(),
        words,
        told,
    )


def lines_of(table: pd.DataFrame, level: str) -> list[list[str]]:
    """The texts of each row: one; where rows are groups, those of the rows that were averaged; none where absent."""
    if level == "group":
        return [text.split("\n") if text else [] for text in table["text"]]
    return [[text] if text else [] for text in table["text"]]


def shared(one: Subset, other: Subset) -> Subset:
    """The modalities that stand in both."""
    return tuple(name for name in one if name in other)


def fold_names(folds: pd.DataFrame) -> list[str]:
    """The cross-validation's folds in order, and ``final`` last."""
    names = sorted(set(folds["fold"]) - {FINAL}, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])
    return [*names, FINAL]


def in_processes(work: Callable[[Job], Result], jobs: Sequence[Job], processes: int, what: str) -> Iterator[Result]:
    """The results in the order of the jobs, each in a process with one thread; with one process or job, in this one.

    Results do not depend on how many processes there are, nor on how many cores.
    """
    with progress(what, len(jobs)) as advance:
        if processes == 1 or len(jobs) == 1:
            for job in jobs:
                with threadpool_limits(1, user_api="blas"):
                    result = work(job)
                yield result
                advance(1)
            return
        # A forked copy of a process in which torch has started threads can hang; and Windows cannot fork.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(processes, len(jobs)), context, initializer=_begin) as pool:
            for result in pool.map(work, jobs):
                yield result
                advance(1)


def _begin() -> None:
    torch.set_num_threads(1)
    threadpool_limits(1, user_api="blas")  # numpy's own threads: two processes with two each wait for one another
    mute()
