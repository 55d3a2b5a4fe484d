"""The one reader of the track's tables: features of a corpus, folds of the target, and which rows these have."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pipeline.core import artifacts, schemas
from pipeline.core.artifacts import Embeddings
from pipeline.core.layout import Layout
from pipeline.core.schemas import FEATURES, Feature

FoldRows = Mapping[tuple[str, str], np.ndarray]
"""Fold and role → where its rows stand in the target's table, int64."""


def read_features(layout: Layout, corpus: str, table: pd.DataFrame) -> dict[Feature, Embeddings]:
    """Every modality that a row of the corpus has. Raises InputError when its rows are not those of the table."""
    read: dict[Feature, Embeddings] = {}
    for name in FEATURES:
        embeddings = artifacts.read_embeddings_of(table, layout.embeddings(corpus, name))
        if embeddings.present.any():
            read[name] = embeddings
    return read


def is_features(embeddings: Embeddings) -> bool:
    """Whether vectors are columns of a corpus, not encoded words."""
    return embeddings.encoder.get("name") == "features"


def read_folds(layout: Layout) -> pd.DataFrame:
    """``schemas.FOLDS_TABLE`` of the target. Raises InputError when the file is missing or has other columns."""
    return artifacts.read_parquet(layout.folds, schemas.FOLDS_TABLE).to_pandas()


def fold_rows(table: pd.DataFrame, folds: pd.DataFrame) -> FoldRows:
    """Where the rows of each fold and role stand in the table; rows that it lacks are left out."""
    at = pd.Index(table["sample_id"]).get_indexer(pd.Index(folds["sample_id"]))
    parts = folds[["fold", "role"]].assign(at=at)[at >= 0].groupby(["fold", "role"])["at"]
    return {(str(fold), str(role)): part.to_numpy(dtype=np.int64) for (fold, role), part in parts}


def rows_of(places: FoldRows, fold: str, *roles: str) -> np.ndarray:
    """int64: where the fold's rows of these roles stand in the table, ascending."""
    nothing = np.zeros(0, dtype=np.int64)
    return np.unique(np.concatenate([places.get((fold, role), nothing) for role in roles]))
