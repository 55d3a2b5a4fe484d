"""What the models of the source → target track read: their corpora in memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pipeline.core import artifacts, schemas
from pipeline.core.artifacts import Embeddings
from pipeline.core.errors import InputError
from pipeline.core.fitted import fitted_rows
from pipeline.core.layout import Layout
from pipeline.core.schemas import FEATURES, FINAL, UNLABELLED, Feature, FeatureSubset
from pipeline.nets.columns import InputColumns
from pipeline.params import Params
from pipeline.scoring.units import score_unit
from pipeline.sentiment.corpus_tables import FoldRows, fold_rows, is_features, read_features, read_folds, rows_of
from pipeline.sentiment.variants import Variant
from pipeline.training.finished import Finished


@dataclass(frozen=True)
class FeatureColumns:
    """The features of a corpus of N rows: modality → float32 [N, width], and bool [N] where it is there."""

    vectors: Mapping[str, Tensor]
    present: Mapping[str, Tensor]

    @property
    def modalities(self) -> FeatureSubset:
        return tuple(name for name in FEATURES if name in self.vectors)

    @property
    def widths(self) -> dict[str, int]:
        return {name: self.vectors[name].shape[1] for name in self.modalities}

    def at(self, rows: np.ndarray, subset: FeatureSubset | None = None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Vectors and presence of some rows; modalities outside ``subset`` are marked absent."""
        index = torch.from_numpy(rows)
        kept = self.modalities if subset is None else subset
        vectors = {name: self.vectors[name][index] for name in self.modalities}
        return vectors, {name: self.present[name][index] & (name in kept) for name in self.modalities}


def read_columns(layout: Layout, corpus: str, table: pd.DataFrame, modalities: FeatureSubset) -> FeatureColumns:
    """Raises InputError when the embeddings are not of the table's rows."""
    return columns_of(
        {name: artifacts.read_embeddings_of(table, layout.embeddings(corpus, name)) for name in modalities}
    )


def columns_of(embeddings: Mapping[Feature, Embeddings]) -> FeatureColumns:
    return FeatureColumns(
        {name: torch.from_numpy(np.asarray(item.vectors)) for name, item in embeddings.items()},
        {name: torch.from_numpy(item.present) for name, item in embeddings.items()},
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
        by_source_text: whether they were made by the source's text model.
        inputs: modality → which of the corpus's columns its features are; without words.
        as_source: the modalities whose columns are those of the source, since both corpora were extracted alike.
        pairs: modality → float32 [N, source columns]: the rows in the source's columns, where ``columns`` has others:
            of texts that are words in both corpora, the vectors of the encoder as it is.
        unit: what ``scores`` are measured in; what is ``predicted`` from these is written as scores of the corpus.
    """

    table: pd.DataFrame
    columns: FeatureColumns
    scores: Tensor
    folds: pd.DataFrame
    words: bool
    by_source_text: bool
    inputs: Mapping[str, InputColumns]
    as_source: frozenset[str] = frozenset()
    pairs: Mapping[str, Tensor] = field(default_factory=dict)
    unit: float = 1.0

    def in_units(self, unit: float) -> "Target":
        """The same with scores in this unit."""
        return replace(self, scores=self.scores / unit, unit=self.unit * unit)

    def learning_unit(self, fold: str) -> float:
        """The unit for what learns from a fold's training and validation rows."""
        return score_unit(self.scores[torch.from_numpy(self.rows(fold, "train", "val"))].numpy())

    def rows(self, fold: str, *roles: str) -> np.ndarray:
        """int64: where the rows of these roles stand in the table."""
        return rows_of(self._fold_rows, fold, *roles)

    @cached_property
    def _fold_rows(self) -> FoldRows:
        return fold_rows(self.table, self.folds)

    def using(self, subset: FeatureSubset) -> "Target":
        """The same with the other modalities marked absent."""
        return replace(self, columns=FeatureColumns(*self.columns.at(np.arange(len(self.table)), subset)))

    def with_words(self, at: np.ndarray) -> np.ndarray:
        """Those of the rows ``at``, int positions, that have text."""
        present = self.columns.present.get("text")
        return at[:0] if present is None else at[present[torch.from_numpy(at)].numpy()]

    @property
    def unlabelled(self) -> np.ndarray:
        return np.flatnonzero(self.scores.isnan().numpy())

    def fitted(self, fold: str) -> pd.DataFrame:
        """The rows that a fold's models learn from and choose on, as ``schemas.FITTED_TABLE``."""
        return fitted_rows(self.table, fold, self.rows(fold, "train"), self.rows(fold, "val"))

    def predicted(self, fold: str, variant: Variant, scores: np.ndarray) -> pd.DataFrame:
        """``scores``, float [N] in units, of the fold's labelled rows as ``schemas.SCORES_TABLE``; `final` has all."""
        rows = {role: self.rows(fold, role) for role in ("train", "val", "test")}
        if fold == FINAL:
            rows[UNLABELLED] = self.unlabelled
        at = np.concatenate(list(rows.values()))
        split = np.repeat(list(rows), [len(part) for part in rows.values()])
        known = {"split": split, "fold": fold, **variant._asdict(), "score": scores[at].astype(np.float64) * self.unit}
        return self.table[["sample_id"]].iloc[at].assign(**known)


def read_target(layout: Layout, *, by_source_text: bool = True) -> Target:
    """The target; ``by_source_text`` takes the text vectors of the source's text model, where there is one."""
    table = artifacts.read_scored(layout.table("target"))
    embeddings = read_features(layout, "target", table)
    words = "text" in embeddings and not is_features(embeddings["text"])
    by_source = layout.model("train_source") / "text" / "target.parquet"
    by_source_text = by_source_text and words and by_source.exists()
    pairs: dict[str, Tensor] = {}
    if by_source_text:
        if embeddings["text"].encoder.get("as_source"):
            pairs["text"] = torch.from_numpy(np.asarray(embeddings["text"].vectors))
        embeddings["text"] = artifacts.read_embeddings_of(table, by_source)
    return Target(
        table,
        columns_of(embeddings),
        torch.from_numpy(table["score"].to_numpy(np.float32)),
        read_folds(layout),
        words,
        by_source_text,
        {name: input_columns(item) for name, item in embeddings.items() if is_features(item)},
        frozenset(name for name, item in embeddings.items() if item.encoder.get("as_source")),
        pairs,
    )


def input_columns(embeddings: Embeddings) -> InputColumns:
    """Which of a corpus's columns the vectors are, and what their gaps were filled with."""
    encoder = embeddings.encoder
    return InputColumns(
        encoder["of"], torch.tensor(encoder["columns"]), torch.tensor(encoder["fill"], dtype=torch.float32)
    )


def lines_of(table: pd.DataFrame, level: str) -> list[list[str]]:
    """The texts of each row: one; where rows are groups, those of the rows that were averaged; none where absent."""
    if level == "group":
        return [text.split("\n") if text else [] for text in table["text"]]
    return [[text] if text else [] for text in table["text"]]


def shared(one: FeatureSubset, other: FeatureSubset) -> FeatureSubset:
    """The modalities that stand in both."""
    return tuple(name for name in one if name in other)


def inputs(layout: Layout, *stages: str) -> list[Path]:
    """What a stage after ``stages`` reads: tables, features and their models."""
    tables = [layout.table(name) for name in ("source", "source_texts", "target")]
    features = [layout.embeddings(corpus, name) for corpus in ("source", "target") for name in FEATURES]
    return [*tables, layout.folds, *features, *(layout.model(stage) for stage in stages)]


def fold_names(folds: pd.DataFrame) -> list[str]:
    """The cross-validation's folds in order, and ``final`` last."""
    return [*sorted(set(folds["fold"]) - {FINAL}, key=schemas.repeat_and_fold), FINAL]


def of_fold(params: Params, fold: str) -> Params:
    """The params for a fold: another repeat of the cross-validation has another seed."""
    return params.model_copy(update={"seed": params.seed + schemas.repeat_of(fold)})


@dataclass(frozen=True)
class FinetuneJob:
    """One model to fit: a fold's, or a point of the learning curve.

    Attributes:
        kept: the stage's finished pieces, trainings of a text encoder among them.
        groups: None, or to how many labelled groups a point of the learning curve is limited.
        with_source: False for the curve without the source.
    """

    params: Params
    layout: Layout
    fold: str
    kept: Finished
    groups: int | None = None
    with_source: bool = True

    def name(self) -> str:
        return f"{self.fold} {self.groups} {self.with_source}"


def limit_groups(target: Target, fold: str, groups: int, params: Params) -> Target:
    """The target with so many labelled groups to learn from and choose on; more groups hold all of fewer."""
    group_of = target.table["group_id"].to_numpy()
    rng = np.random.default_rng(params.seed)
    names = {role: np.unique(group_of[target.rows(fold, role)].astype(str)) for role in ("train", "val")}
    train = min(groups - max(1, round(groups * params.target.val_share)), len(names["train"]))
    val = min(groups - train, len(names["val"]))  # what training groups lack, and the other way round
    shuffled = {role: rng.permutation(names[role]).tolist() for role in ("train", "val")}
    kept = {*shuffled["train"][: groups - val], *shuffled["val"][:val]}
    group_id_of = target.table.set_index("sample_id")["group_id"]
    folds = target.folds[(target.folds["fold"] == fold)]
    return replace(target, folds=folds[(folds["role"] == "test") | folds["sample_id"].map(group_id_of).isin(kept)])


def shared_modalities(source: pd.DataFrame, layout: Layout) -> FeatureSubset:
    """Modalities that the target and training rows of the source have. Raises InputError when there is none."""
    train = source.loc[source["split"] == "train", "sample_id"]
    source_has, target_has = [], []
    for name in FEATURES:
        embeddings = artifacts.read_embeddings(layout.embeddings("source", name))
        source_has += [name] if embeddings.present[np.isin(embeddings.sample_ids, train)].any() else []
        target_has += [name] if artifacts.read_embeddings(layout.embeddings("target", name)).present.any() else []
    both = shared(tuple(source_has), tuple(target_has))
    if not both:
        raise InputError(
            f"training rows of the source have {', '.join(source_has) or 'nothing'}, the target has "
            f"{', '.join(target_has) or 'nothing'}: "
            "no modality to carry over; see source.corpus, target.corpus and target.modalities in params.yaml"
        )
    return both
