"""Which rows the models of a stage were fitted on: written beside the weights, and read by the guard against leaks."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.core import artifacts
from pipeline.core.descriptions import NAME, FittedRows
from pipeline.core.errors import InputError
from pipeline.core.schemas import FINAL, FITTED_TABLE

TABLE = "fitted.parquet"


def fitted_rows(samples: pd.DataFrame, fold: str, train: np.ndarray, val: np.ndarray) -> pd.DataFrame:
    """The rows of a fold's model as ``FITTED_TABLE``; ``train`` and ``val`` are positions in the sample table."""
    keys = samples[["sample_id", "group_id"]]
    parts = [keys.iloc[train].assign(role="train"), keys.iloc[val].assign(role="val")]
    return pd.concat(parts).assign(fold=fold)[FITTED_TABLE.names]


def write_fitted(folder: Path, rows: pd.DataFrame) -> FittedRows:
    """Writes which rows each fold's model was fitted on; returns what ``model.json`` says of them."""
    rows = rows.sort_values(["fold", "role", "sample_id"], ignore_index=True)
    artifacts.write_parquet(folder / TABLE, pa.Table.from_pandas(rows, schema=FITTED_TABLE, preserve_index=False))
    return FittedRows(rows=int((rows["fold"] == FINAL).sum()), digest=fitted_digest(rows))


def fitted_digest(rows: pd.DataFrame) -> str:
    return artifacts.digest(rows["fold"] + " " + rows["role"] + " " + rows["sample_id"])


def read_fitted(folder: Path, fitted: FittedRows) -> pd.DataFrame:
    """Raises InputError when the file is missing or is not the one whose digest stands in ``model.json``."""
    rows, digest_matches = compare_fitted(folder, fitted)
    if not digest_matches:
        raise InputError(f"{folder / TABLE}: does not match the digest in {folder / NAME}; run `dvc repro`")
    return rows


def compare_fitted(folder: Path, fitted: FittedRows) -> tuple[pd.DataFrame, bool]:
    """The rows, and whether ``model.json`` means these: for a diagnosis, which says so and goes on."""
    rows = artifacts.read_parquet(folder / TABLE, FITTED_TABLE).to_pandas()
    return rows, fitted_digest(rows) == fitted.digest
