"""What the source → target track has left behind, read once for `evaluate` and `diagnose`.

Reads:  data/split/{source,source_texts,target,target_folds}.parquet, data/embeddings/{source,target}/*.parquet,
        models/{train_source,train_adapters,finetune_e2e}/.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core import artifacts
from pipeline.core.artifacts import Embeddings
from pipeline.core.descriptions import ModelDescription, read_description
from pipeline.core.errors import InputError
from pipeline.core.fitted import compare_fitted
from pipeline.core.layout import Layout
from pipeline.core.schemas import FEATURES, FINAL, UNLABELLED, Feature, FeatureSubset
from pipeline.params import Params
from pipeline.scoring.ridge import FeatureBlock
from pipeline.sentiment.corpus_tables import FoldRows, fold_rows, is_features, read_features, read_folds, rows_of
from pipeline.sentiment.descriptions import (
    AdaptersDescription,
    FinetunedDescription,
    SourceDescription,
    TextModelDescription,
)

ADAPTERS, FINETUNED = "train_adapters", "finetune_e2e"
SOURCE, SOURCE_TEXT = "train_source", "train_source/text"
KINDS: dict[str, type[ModelDescription]] = {
    SOURCE: SourceDescription,
    SOURCE_TEXT: TextModelDescription,
    ADAPTERS: AdaptersDescription,
    FINETUNED: FinetunedDescription,
}
"""How each stage describes its models."""

CORPUS_OF = {SOURCE: "source", SOURCE_TEXT: "source_texts", ADAPTERS: "target", FINETUNED: "target"}


@dataclass(frozen=True)
class StageOutput:
    """A stage's ``model.json``, the rows it was fitted on, its predictions, and whether the rows' digest agrees."""

    description: Any
    fitted: pd.DataFrame
    predictions: pd.DataFrame
    digest_matches: bool


@dataclass(frozen=True)
class Track:
    """The track's tables.

    Attributes:
        tables: ``source``, ``source_texts`` and ``target`` → its sample table.
        blocks: ``source`` and ``target`` → modality → its features, in the order of the table; those that are there.
        columns: ``source`` and ``target`` → modality → which of the corpus's own columns its features are; without a
            modality that was encoded from words.
        grouped: the corpora whose rows are groups.
        folds: ``schemas.FOLDS_TABLE``.
        stages: every stage in the lineage of the fine-tuned model that has a model.
    """

    tables: Mapping[str, pd.DataFrame]
    blocks: Mapping[str, Mapping[Feature, FeatureBlock]]
    columns: Mapping[str, Mapping[Feature, Sequence[int]]]
    grouped: frozenset[str]
    folds: pd.DataFrame
    stages: Mapping[str, StageOutput]

    @property
    def target(self) -> pd.DataFrame:
        return self.tables["target"]

    @property
    def modalities(self) -> FeatureSubset:
        """Those that the transferred models use."""
        return tuple(name for name in FEATURES if name in self.stages[FINETUNED].description.modalities)

    @property
    def protocol(self) -> str:
        return "holdout" if set(self.scored["fold"]) == {FINAL} else "cross_validation"

    @cached_property
    def scored(self) -> pd.DataFrame:
        """Which target rows each fold scores: columns ``fold, sample_id, group_id``."""
        rows = self.folds.loc[self.folds["role"] == "test", ["fold", "sample_id"]]
        return rows.merge(self.target[["sample_id", "group_id"]], on="sample_id")

    @property
    def taken(self) -> dict[str, int]:
        """Candidate of fine-tuning → how many of the scored folds took it, the most frequent first."""
        choices = self.stages[FINETUNED].description.choices
        return dict(Counter(choices[fold]["taken"] for fold in dict.fromkeys(self.scored["fold"])).most_common())

    def rows(self, fold: str, *roles: str) -> np.ndarray:
        """Where the fold's rows of these roles stand in the target's table, int64."""
        return rows_of(self._fold_rows, fold, *roles)

    @cached_property
    def _fold_rows(self) -> FoldRows:
        return fold_rows(self.target, self.folds)


def read_track(params: Params, layout: Layout) -> Track:
    """Raises InputError when a file is missing, or tables, features and models are not of the same rows."""
    tables = {name: artifacts.read_scored(layout.table(name)) for name in ("source", "source_texts", "target")}
    folds = read_folds(layout)
    stages = {name: _stage(layout, name) for name in CORPUS_OF}
    if stages[SOURCE_TEXT].description.absent:
        del stages[SOURCE_TEXT]
    features = {name: read_features(layout, name, tables[name]) for name in ("source", "target")}
    blocks = {name: _blocks(corpus) for name, corpus in features.items()}
    columns = {name: _columns(corpus) for name, corpus in features.items()}
    levels = {"source": params.source.level, "target": params.target.level}
    grouped = frozenset(name for name, level in levels.items() if level == "group")
    track = Track(tables, blocks, columns, grouped, folds, stages)
    unknown = set(folds["sample_id"]) - set(track.target["sample_id"])
    if unknown:
        raise InputError(f"{layout.folds}: row {min(unknown)!r} is not in the target's table; run `dvc repro`")
    if track.scored.empty:
        raise InputError(f"{layout.folds}: no fold has test rows, so there is nothing to evaluate")
    missing = [name for name in track.modalities if name not in track.blocks["target"]]
    if missing:
        raise InputError(f"{layout.embeddings('target', missing[0])}: has no row with features; run `dvc repro`")
    return track


def _stage(layout: Layout, name: str) -> StageOutput:
    description = read_description(layout.model(name), KINDS[name])
    fitted, digest_matches = compare_fitted(layout.model(name), description.fitted)
    predictions = artifacts.read_scores(layout.predictions(name))
    labelled = predictions[predictions["split"] != UNLABELLED].reset_index(drop=True)
    return StageOutput(description, fitted, labelled, digest_matches)


def _blocks(features: Mapping[Feature, Embeddings]) -> dict[Feature, FeatureBlock]:
    return {name: FeatureBlock(item.vectors, item.present) for name, item in features.items()}


def _columns(features: Mapping[Feature, Embeddings]) -> dict[Feature, Sequence[int]]:
    return {name: item.encoder["columns"] for name, item in features.items() if is_features(item)}
