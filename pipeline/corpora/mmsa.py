"""An MMSA pickle, as the MMSA benchmark ships its corpora → its raw rows and vectors."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core.errors import InputError
from pipeline.core.schemas import Feature
from pipeline.corpora import pickles
from pipeline.corpora.raw_features import RawFeatures, RawVectors, concatenate_cells, feature_name, stack_vectors
from pipeline.corpora.sequences import pooled
from pipeline.corpora.tabular import texts as as_texts

MMSA_PARTS = {"train": "train", "valid": "val", "test": "test"}
MMSA_USED = ("id", "raw_text", "text", "audio", "vision", "regression_labels", "audio_lengths", "vision_lengths")
MMSA_GROUP_END = "$_$"


def read_mmsa(path: Path, where: str, *, scored: bool = True) -> RawFeatures:
    """An MMSA pickle: ``train``, ``valid`` and ``test``, each a dict of arrays [N, steps, width] or [N, width].

    One that is not ``scored`` may lack ``regression_labels``.
    """
    parts = pickles.read_plain(path, where)
    names = [name for name in MMSA_PARTS if isinstance(parts, dict) and isinstance(parts.get(name), dict)]
    if not names:
        raise InputError(f"{path}: not an MMSA pickle: a dict with train, valid and test is needed")
    rows = pd.concat([_mmsa_rows(path, name, parts[name], scored) for name in names], ignore_index=True)
    vectors: dict[Feature, RawVectors] = {}
    for modality, key in (("text", "text"), ("audio", "audio"), ("visual", "vision")):
        if any(key in parts[name] for name in names):
            cells = [cell for name in names for cell in _mmsa_cells(path, name, key, parts[name])]
            vectors[feature_name(modality)] = stack_vectors(len(rows), [concatenate_cells(cells)])
    ignored = sorted({str(key) for name in names for key in parts[name]} - set(MMSA_USED))
    return RawFeatures(rows, vectors, tuple(ignored))


def _mmsa_rows(path: Path, name: str, part: dict[str, Any], scored: bool) -> pd.DataFrame:
    for key in ("id", "regression_labels") if scored else ("id",):
        if key not in part:
            raise InputError(f"{path}: {name} lacks {key}; an MMSA pickle is needed")

    def texts(key: str) -> pd.Series:
        return pd.Series(as_texts(_listed(path, name, key, part), f"{path}: {name}: {key}"), dtype=object)

    ids = texts("id")
    columns = {
        "id": ids,
        "group": ids.map(lambda value: value.partition(MMSA_GROUP_END)[0], na_action="ignore"),
        "split": MMSA_PARTS[name],
        "text": texts("raw_text") if "raw_text" in part else None,
        "score": texts("regression_labels") if "regression_labels" in part else None,
    }
    for key, column in columns.items():
        if isinstance(column, pd.Series) and len(column) != len(ids):
            raise InputError(f"{path}: {name} has {len(ids)} ids and {len(column)} values for {key}")
    return pd.DataFrame(columns, index=range(len(ids))).astype({"group": object})


def _listed(path: Path, name: str, key: str, part: dict[str, Any]) -> list[Any]:
    """The values of a list or array, one a row; bytes are the text of Python 2."""
    values = part[key]
    if isinstance(values, np.ndarray) and values.ndim and values.size:
        values = values.reshape(len(values), -1)[:, 0].tolist()
    if not isinstance(values, list | tuple):
        raise InputError(f"{path}: {name}: {key} is no list with one value a row")
    flat = [value[0] if isinstance(value, list | tuple) and len(value) == 1 else value for value in values]
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in flat]


def _mmsa_cells(path: Path, name: str, key: str, part: dict[str, Any]) -> Iterator[np.ndarray | None]:
    """One vector a row; where no length is given, steps of zeros at either end are padding."""
    rows = len(part["id"])
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # what is no finite number is counted later on
            values = np.asarray(part[key], dtype=np.float32) if key in part else np.zeros((rows, 0), np.float32)
    except (ValueError, TypeError):
        raise InputError(f"{path}: {name}: {key} is no array of numbers of one shape") from None
    if values.ndim not in (2, 3) or len(values) != rows:
        raise InputError(
            f"{path}: {name}: {key} has the shape {list(values.shape)}; [{rows}, steps, width] or [{rows}, width] is "
            "needed"
        )
    if values.ndim == 2:
        yield from (row if len(row) else None for row in values)
        return
    ends = _mmsa_lengths(path, name, f"{key}_lengths", part, rows)
    for at, steps in enumerate(values):
        inside = _unpadded(steps) if ends is None else steps[: ends[at]]
        yield pooled(inside) if len(inside) else None


def _mmsa_lengths(path: Path, name: str, key: str, part: dict[str, Any], rows: int) -> np.ndarray | None:
    """int64 [rows], or None where the part does not say."""
    if part.get(key) is None:
        return None
    try:
        lengths = np.asarray(part[key], dtype=np.float64).reshape(-1)
    except (ValueError, TypeError):
        lengths = np.empty(0)
    if len(lengths) != rows or not (np.isfinite(lengths) & (lengths >= 0) & (lengths == np.round(lengths))).all():
        raise InputError(f"{path}: {name}: {key} is no list of {rows} whole numbers, one a row")
    return lengths.astype(np.int64)


def _unpadded(steps: np.ndarray) -> np.ndarray:
    filled = np.flatnonzero((steps != 0).any(axis=1))
    return steps[filled[0] : filled[-1] + 1] if len(filled) else steps[:0]
