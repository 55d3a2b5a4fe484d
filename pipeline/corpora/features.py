"""A corpus of ready-made features → clean rows with their vectors, and refused rows with their reasons.

Forms: a Parquet or CSV table, an MMSA pickle (.pkl), or a folder of CMU SDK files (.csd). A table has ``id`` and
``score``, may have ``group`` and ``split``, and has columns for any of ``text``, ``audio``, ``visual`` (or ``vision``):
lists of numbers, or lists of such lists (a sequence, pooled to means, standard deviations and length); in CSV they are
JSON. A column ``text`` of plain texts holds the words themselves, which `embed` encodes.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.sparse import csr_array

from pipeline.core.errors import InputError
from pipeline.core.schemas import FEATURES, SPLITS, Feature
from pipeline.corpora import pickles, sequences
from pipeline.corpora.manifest import SPLIT_ALIASES, trimmed_texts
from pipeline.corpora.sequences import pooled
from pipeline.corpora.splits import PROTECTION

SCALARS = ("id", "group", "score", "split")
OTHER_NAMES = {"vision": "visual"}
BATCH_ROWS = 4096
"""Rows of a Parquet column that are unpacked at once."""

MMSA_PARTS = {"train": "train", "valid": "val", "test": "test"}
MMSA_USED = ("id", "raw_text", "text", "audio", "vision", "regression_labels", "audio_lengths", "vision_lengths")
MMSA_GROUP_END = "$_$"

RISING_SHARE, RISING_STEPS, RISING_ROWS = 0.95, 20, 4
"""A column is time-like when it rises from row to row of a group so often, over so many steps in groups so large."""
FRAME_GRIDS = (60.0, 48.0)
"""The mean of the time stamps of frames, at 30 or 24 a second, is a multiple of half a frame: 1/60 or 1/48 s. At 25 it
is one of 1/50 s, which cannot be told from a number rounded to hundredths."""
GRID_TOLERANCE = 0.005
"""How far, as a share of the grid's step, a value may lie from it: one in a hundred values does so by chance."""
GRID_SHARE, GRID_ROWS = 0.7, 20


@dataclass(frozen=True)
class FeatureCorpus:
    """What a corpus of features holds once read: N rows in the order of the file.

    Attributes:
        rows: ``row, id, group, score, split, text``; score is float64, NaN where the row has none; absent splits and
            texts are None; ``row`` counts the rows of the file from 1.
        words: the modality text is the words in ``rows.text``, still to be encoded.
        features: modality → float32 [N, width]; zeros where absent, NaN where a value is no finite number.
        present: modality → bool [N].
        refused: ``row, id, reason`` of the rows that are faulty.
        set_aside: what the split column says → how many rows were left out since it is no train, val or test.
        ignored_columns: columns of the file that the pipeline does not use.
    """

    rows: pd.DataFrame
    words: bool
    features: dict[Feature, np.ndarray]
    present: dict[Feature, np.ndarray]
    refused: pd.DataFrame
    set_aside: dict[str, int]
    ignored_columns: tuple[str, ...]

    @property
    def modalities(self) -> tuple[Feature, ...]:
        """Those that at least one row has."""
        have = {name for name, present in self.present.items() if present.any()}
        if self.words and self.rows["text"].notna().any():
            have.add("text")
        return tuple(name for name in FEATURES if name in have)

    def where(self, mask: np.ndarray) -> "FeatureCorpus":
        """The rows for which ``mask``, bool [N], is true."""
        return replace(
            self,
            rows=self.rows.loc[mask].reset_index(drop=True),
            features={name: values[mask] for name, values in self.features.items()},
            present={name: present[mask] for name, present in self.present.items()},
        )


def read_corpus(path: Path, where: str, *, only_words: bool = False) -> FeatureCorpus:
    """Reads and checks a corpus; ``where`` is the key of params that names it, for messages.

    A pickle is held in memory whole; a Parquet table is unpacked batch by batch. Texts in capitals are lower-cased:
    transcripts such as CMU-MOSI's are, and encoders that know case take them for shouting.

    Args:
        only_words: take the words alone where there are any, and no features.

    Raises:
        InputError: the file cannot be read, lacks what it must have, holds no rows or no modality.
    """
    raw = _reader(path, where)(path, where)
    if only_words and raw.rows["text"].notna().any():
        raw = replace(raw, vectors={})
    if raw.rows.empty:
        raise InputError(f"{path}: holds no rows")
    if not raw.vectors and not raw.words:
        raise InputError(f"{path}: has none of the columns text, audio, visual, so there is nothing to learn from")
    return _checked(raw, path)


@dataclass(frozen=True)
class _Vectors:
    """A modality as the file gives it: float32 [N, width], and how many values each row has.

    ``lengths`` is 0 for an absent row and -1 for one that is no list of numbers; ``values`` is zeros for these, and for
    rows whose length is not the width.
    """

    values: np.ndarray
    lengths: np.ndarray


@dataclass(frozen=True)
class _Raw:
    """A file before its rows are checked; ``rows`` has the columns ``id, group, score, split, text`` as found."""

    rows: pd.DataFrame
    vectors: dict[Feature, _Vectors]
    ignored: tuple[str, ...]

    @property
    def words(self) -> bool:
        return "text" not in self.vectors and bool(self.rows["text"].notna().any())


def _reader(path: Path, where: str) -> Callable[[Path, str], _Raw]:
    readers = {".parquet": _read_parquet, ".csv": _read_csv, ".pkl": _read_pickle, ".pickle": _read_pickle}
    if path.is_dir():
        return _read_folder
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: {where} takes a .parquet, .csv or .pkl file, or a folder of .csd files")
    if not path.exists():
        raise InputError(f"{path}: not found; set {where} in params.yaml")
    return reader


# --- tables --------------------------------------------------------------------------------------------------------


def _read_parquet(path: Path, where: str) -> _Raw:
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            lists, ignored = _modalities(path, schema.names)
            words = "text" in schema.names and _is_text(schema.field("text").type)
            if words:
                lists.pop("text")
            scalars = [name for name in SCALARS if name in schema.names] + ["text"] * words
            rows = _scalars(path, file.read(columns=scalars).to_pandas())
            vectors: dict[Feature, _Vectors] = {
                name: _gathered(len(rows), _column(path, file, column))
                for name, column in lists.items()
                if not pa.types.is_null(schema.field(column).type)
            }
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: not readable as parquet: {' '.join(str(error).split())}") from None
    return _Raw(rows, vectors, ignored)


def _is_text(kind: pa.DataType) -> bool:
    value = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
    return pa.types.is_string(value) or pa.types.is_large_string(value)


def _modalities(path: Path, columns: Sequence[str]) -> tuple[dict[Feature, str], tuple[str, ...]]:
    """The column of each modality, and the columns that mean nothing here."""
    if "id" not in columns or "score" not in columns:
        missing = " and ".join(name for name in ("id", "score") if name not in columns)
        raise InputError(f"{path}: lacks the column {missing} (has: {', '.join(columns) or 'none'})")
    found: dict[Feature, str] = {name: name for name in FEATURES if name in columns}
    for other, name in OTHER_NAMES.items():
        if other in columns:
            found.setdefault(_feature(name), other)
    return found, tuple(name for name in columns if name not in (*SCALARS, *found.values()))


def _feature(name: str) -> Feature:
    return next(feature for feature in FEATURES if feature == name)


def _scalars(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    if not len(frame):
        raise InputError(f"{path}: holds no rows")
    rows = {
        name: trimmed_texts(frame[name], f"{path}: {name}") if name in frame else None
        for name in ("id", "group", "split", "text")
    }
    return pd.DataFrame(rows | {"score": frame["score"]}, index=range(len(frame)))


def _column(path: Path, file: pq.ParquetFile, name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    kind = file.schema_arrow.field(name).type
    depth = 0
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind, depth = kind.value_type, depth + 1
    number = pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)
    if depth not in (1, 2) or not number:
        found = file.schema_arrow.field(name).type
        raise InputError(f"{path}: column {name} holds {found}; lists of numbers, or of lists of numbers, are needed")
    for batch in file.iter_batches(BATCH_ROWS, columns=[name]):
        cells = batch.column(0)
        if depth == 1:
            yield _numbers(cells.flatten()), _lengths(cells)
        else:
            yield _strung(_pooled_cell(cell.values) if cell.is_valid else None for cell in cells)


def _lengths(lists: Any) -> np.ndarray:
    return pc.call_function("list_value_length", [lists]).fill_null(0).to_numpy(zero_copy_only=False)


def _numbers(array: pa.Array) -> np.ndarray:
    return array.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)


def _pooled_cell(steps: Any) -> np.ndarray | Sequence[str] | None:
    """The pooled vector of a list of lists; not numeric when the steps have different widths."""
    widths = _lengths(steps)
    if not len(widths):
        return None
    if not widths[0] or (widths != widths[0]).any():
        return NO_NUMBERS
    return pooled(_numbers(steps.flatten()).reshape(len(widths), -1))


NO_NUMBERS: tuple[str, ...] = ()
"""Stands for a cell that is no list of numbers, nor a list of such lists of one width."""


def _strung(cells: Iterable[np.ndarray | Sequence[str] | None]) -> tuple[np.ndarray, np.ndarray]:
    """Vectors one after another, and how many values each has: 0 for None, -1 for ``NO_NUMBERS``."""
    listed = list(cells)
    lengths = [0 if cell is None else len(cell) if isinstance(cell, np.ndarray) else -1 for cell in listed]
    parts = [np.asarray(cell, dtype=np.float32) for cell in listed if isinstance(cell, np.ndarray)]
    return np.concatenate([np.empty(0, np.float32), *parts]), np.array(lengths, dtype=np.int64)


def _gathered(rows: int, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> _Vectors:
    """Puts vectors that come batch by batch into one array; the width is the commonest of the first batch with any."""
    values = np.zeros((rows, 0), dtype=np.float32)
    lengths = np.zeros(rows, dtype=np.int64)
    at = 0
    for flat, some in batches:
        part = slice(at, at + len(some))
        lengths[part] = some
        if not values.shape[1] and (some > 0).any():
            values = np.zeros((rows, int(np.bincount(some[some > 0]).argmax())), dtype=np.float32)
        fits = (some == values.shape[1]) & (some > 0)
        kept = flat if fits.all() else flat[np.repeat(fits, np.maximum(some, 0))]
        if fits.any():
            values[part][fits] = kept.reshape(-1, values.shape[1])
        at += len(some)
    values[~np.isfinite(values)] = np.nan
    return _Vectors(values, lengths)


def _read_csv(path: Path, where: str) -> _Raw:
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except pd.errors.EmptyDataError:
        raise InputError(f"{path}: is empty") from None
    except (ValueError, OSError) as error:  # parser errors and UnicodeDecodeError are ValueErrors
        raise InputError(f"{path}: not readable as csv: {' '.join(str(error).split())}") from None
    lists, ignored = _modalities(path, [str(name) for name in frame.columns])
    rows = _scalars(path, frame)
    said = rows["text"].dropna().astype(str)
    if len(said) and said.str.fullmatch(LIKE_NUMBERS).mean() > 0.5:
        rows["text"] = None
    else:
        lists.pop("text", None)
    cells: dict[Feature, pd.Series] = {
        name: trimmed_texts(frame[column], f"{path}: {column}") for name, column in lists.items()
    }
    vectors: dict[Feature, _Vectors] = {
        name: _gathered(len(rows), [_strung(_cell(value) for value in column)])
        for name, column in cells.items()
        if column.notna().any()
    }
    return _Raw(rows, vectors, ignored)


LIKE_NUMBERS = r"\[[\[\]\d\s.,eE+-]*(?:(?:nan|null|[Ii]nf(?:inity)?)[\[\]\d\s.,eE+-]*)*\]"
"""A cell of numbers in brackets, readable or not; words are no such thing."""


def _cell(value: str | None) -> np.ndarray | Sequence[str] | None:
    """JSON text → the vector, or the pooled vector of a sequence."""
    if value is None:
        return None
    try:
        numbers = np.array(json.loads(value), dtype=np.float64)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return NO_NUMBERS
    if numbers.size == 0:
        return None
    if numbers.ndim not in (1, 2):
        return NO_NUMBERS
    with np.errstate(over="ignore"):  # too large for float32 is infinite, and so no finite number
        return pooled(numbers) if numbers.ndim == 2 else numbers.astype(np.float32)


# --- pickles and folders -------------------------------------------------------------------------------------------


def _read_pickle(path: Path, where: str) -> _Raw:
    """An MMSA pickle: ``train``, ``valid`` and ``test``, each a dict of arrays [N, steps, width] or [N, width]."""
    parts = pickles.read_plain(path, where)
    names = [name for name in MMSA_PARTS if isinstance(parts, dict) and isinstance(parts.get(name), dict)]
    if not names:
        raise InputError(f"{path}: not an MMSA pickle: a dict with train, valid and test is needed")
    rows = pd.concat([_mmsa_rows(path, name, parts[name]) for name in names], ignore_index=True)
    vectors: dict[Feature, _Vectors] = {}
    for modality, key in (("text", "text"), ("audio", "audio"), ("visual", "vision")):
        if any(key in parts[name] for name in names):
            cells = [cell for name in names for cell in _mmsa_cells(path, name, key, parts[name])]
            vectors[_feature(modality)] = _gathered(len(rows), [_strung(cells)])
    ignored = sorted({str(key) for name in names for key in parts[name]} - set(MMSA_USED))
    return _Raw(rows, vectors, tuple(ignored))


def _mmsa_rows(path: Path, name: str, part: dict[str, Any]) -> pd.DataFrame:
    for key in ("id", "regression_labels"):
        if key not in part:
            raise InputError(f"{path}: {name} lacks {key}; an MMSA pickle is needed")

    def texts(key: str) -> pd.Series:
        return trimmed_texts(pd.Series(_listed(path, name, key, part), dtype=object), f"{path}: {name}: {key}")

    ids = texts("id")
    columns = {
        "id": ids,
        "group": ids.map(lambda value: value.partition(MMSA_GROUP_END)[0], na_action="ignore"),
        "split": MMSA_PARTS[name],
        "text": texts("raw_text") if "raw_text" in part else None,
        "score": texts("regression_labels"),
    }
    for key, column in columns.items():
        if isinstance(column, pd.Series) and len(column) != len(ids):
            raise InputError(f"{path}: {name} has {len(ids)} ids and {len(column)} values for {key}")
    return pd.DataFrame(columns, index=range(len(ids))).astype({"group": object})


def _listed(path: Path, name: str, key: str, part: dict[str, Any]) -> list[Any]:
    """The values of a list or array, one a row; bytes are the text of Python 2."""
    values = part[key]
    try:
        flat = np.asarray(values, dtype=object).reshape(len(values), -1)[:, 0] if len(values) else []
    except (TypeError, ValueError, IndexError):
        raise InputError(f"{path}: {name}: {key} is no list with one value a row") from None
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in flat]


def _mmsa_cells(path: Path, name: str, key: str, part: dict[str, Any]) -> Iterator[np.ndarray | None]:
    """One vector a row; where no length is given, steps of zeros at either end are padding."""
    rows = len(part["id"])
    try:
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
        found = np.asarray(part[key], dtype=np.float64).reshape(-1)
    except (ValueError, TypeError):
        found = np.empty(0)
    if len(found) != rows or not (np.isfinite(found) & (found >= 0) & (found == np.round(found))).all():
        raise InputError(f"{path}: {name}: {key} is no list of {rows} whole numbers, one a row")
    return found.astype(np.int64)


def _unpadded(steps: np.ndarray) -> np.ndarray:
    said = np.flatnonzero((steps != 0).any(axis=1))
    return steps[said[0] : said[-1] + 1] if len(said) else steps[:0]


def _read_folder(path: Path, where: str) -> _Raw:
    found = sequences.read_folder(path, where)
    rows = pd.DataFrame(
        {"id": found.ids, "group": found.groups, "split": None, "text": found.words, "score": found.scores}
    )
    vectors: dict[Feature, _Vectors] = {
        name: _gathered(len(rows), [_strung(cells)]) for name, cells in found.cells.items()
    }
    return _Raw(rows, vectors, ())


# --- checks --------------------------------------------------------------------------------------------------------


def _checked(raw: _Raw, path: Path) -> FeatureCorpus:
    """Leaves out set-aside and faulty rows; gives every row a group."""
    rows = pd.DataFrame({"row": range(1, len(raw.rows) + 1), "id": raw.rows["id"], "group": raw.rows["group"]})
    rows["group"] = rows["group"].where(rows["group"].notna(), rows["id"])
    rows["score"], bad_score = _scores(raw.rows["score"], path)
    rows["split"] = raw.rows["split"].map(_part, na_action="ignore")
    rows["text"] = raw.rows["text"].map(_readable, na_action="ignore")
    rows[["id", "group", "split", "text"]] = _with_none(rows[["id", "group", "split", "text"]])

    present: dict[Feature, np.ndarray] = {
        name: (vectors.lengths == vectors.values.shape[1]) & np.isfinite(vectors.values).any(axis=1)
        for name, vectors in raw.vectors.items()
    }
    aside = _set_aside(rows)
    reasons = _reasons(rows, bad_score, raw, present).where(aside.isna(), None)
    refused = pd.DataFrame({"row": rows["row"], "id": rows["id"], "reason": reasons})[reasons.notna()]
    everything = FeatureCorpus(
        rows=rows,
        words=raw.words,
        features={name: vectors.values for name, vectors in raw.vectors.items()},
        present=present,
        refused=refused.reset_index(drop=True),
        set_aside={str(name): int(count) for name, count in aside.value_counts().sort_index().items()},
        ignored_columns=raw.ignored,
    )
    kept = (aside.isna() & reasons.isna()).to_numpy()
    return everything if kept.all() else everything.where(kept)


def _with_none(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype(object).where(frame.notna(), None)


def _part(value: str) -> str:
    return SPLIT_ALIASES.get(value.lower(), value.lower())


def _readable(text: str) -> str:
    return text if any(letter.islower() for letter in text) else text.lower()


def _scores(column: pd.Series, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """float64 [N], NaN for blank cells; and bool [N], where a cell is no finite number."""
    column = column if pd.api.types.is_numeric_dtype(column) else trimmed_texts(column, f"{path}: score")
    blank = column.isna()
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return numbers, ~np.isfinite(numbers) & ~blank.to_numpy()


def _set_aside(rows: pd.DataFrame) -> pd.Series:
    """What to count a row under that the split column leaves out, or None."""
    split = rows["split"]
    if split.isna().all():
        return pd.Series(None, rows.index, dtype=object)
    # A row without a score needs no split: it trains no model and is scored by none.
    named = split.where(split.notna() | rows["score"].isna(), "no split")
    return named.where(~named.isin(SPLITS) & named.notna(), None)


def _reasons(rows: pd.DataFrame, bad_score: np.ndarray, raw: _Raw, present: dict[Feature, np.ndarray]) -> pd.Series:
    """The first thing that is wrong with each row, or None."""
    first = rows["row"].groupby(rows["id"]).transform("first")
    something = np.logical_or.reduce([*present.values(), (rows["text"].notna() & raw.words).to_numpy()])
    checks: list[tuple[np.ndarray, Callable[[int], str]]] = [
        (rows["id"].isna().to_numpy(), lambda at: "no id"),
        (
            (rows["id"].notna() & (first != rows["row"])).to_numpy(),
            lambda at: f"id already used in row {int(first[at])}",
        ),
        (bad_score, lambda at: "score is no finite number"),
    ]
    for name, vectors in raw.vectors.items():
        checks.append((vectors.lengths < 0, lambda at, name=name: f"{name} is no list of numbers of one width"))
        other = (vectors.lengths > 0) & (vectors.lengths != vectors.values.shape[1])
        width = vectors.values.shape[1]
        checks.append(
            (
                other,
                lambda at, name=name, found=vectors.lengths, width=width: f"{name} has {found[at]} values, not {width}",
            )
        )
    checks.append(
        (~something, lambda at: f"no {', '.join(sorted({*raw.vectors} | ({'text'} if raw.words else set())))}")
    )
    reasons: list[str | None] = [None] * len(rows)
    for mask, reason in reversed(checks):
        for at in np.flatnonzero(mask).tolist():
            reasons[at] = reason(at)
    return pd.Series(reasons, rows.index, dtype=object)


def only_scored(corpus: FeatureCorpus) -> FeatureCorpus:
    """The rows that have a score; the others are refused."""
    scored = corpus.rows["score"].notna()
    refused = corpus.rows.loc[~scored, ["row", "id"]].assign(reason="no score")
    kept = corpus if scored.all() else corpus.where(scored.to_numpy())
    return replace(kept, refused=pd.concat([corpus.refused, refused]).sort_values("row", ignore_index=True))


# --- groups and columns --------------------------------------------------------------------------------------------


def average_groups(corpus: FeatureCorpus) -> FeatureCorpus:
    """One row a group, named as the group: the means of scores and vectors over the rows that have them.

    Texts are joined in their order; the split is the most protected of the rows' splits.
    """
    codes, names = pd.factorize(corpus.rows["group"])
    by_group = corpus.rows.groupby(codes)
    rank = corpus.rows["split"].map(PROTECTION).groupby(codes).max()
    parts = {level: part for part, level in PROTECTION.items()}
    rows = pd.DataFrame(
        {
            "row": by_group["row"].first(),
            "id": names,
            "group": names,
            "score": by_group["score"].mean(),
            "split": rank.map(parts),
            "text": by_group["text"].agg(lambda texts: "\n".join(texts.dropna()) or None),
        }
    )
    rows[["split", "text"]] = _with_none(rows[["split", "text"]])
    member = csr_array((np.ones(len(codes)), (codes, np.arange(len(codes)))), shape=(len(names), len(codes)))
    features = {name: _means(member, values, corpus.present[name]) for name, values in corpus.features.items()}
    present = {name: member @ mask > 0 for name, mask in corpus.present.items()}
    return replace(corpus, rows=rows, features=features, present=present)


def _means(member: csr_array, values: np.ndarray, present: np.ndarray) -> np.ndarray:
    """float32 [groups, width]: means of the finite values of present rows; NaN without any, zeros without a row."""
    finite = np.isfinite(values) & present[:, None]
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN that is wanted
        means = (member @ np.where(finite, values, 0.0)) / (member @ finite.astype(np.float32))
    means[~(member @ present > 0)] = 0.0
    return means.astype(np.float32)


def faulty_columns(
    values: np.ndarray, groups: Sequence[str], fit_rows: np.ndarray, max_nonfinite_share: float
) -> dict[int, str]:
    """Columns that must not be learned from, each with its reason.

    ``not finite``: a larger share than ``max_nonfinite_share`` is no finite number. ``constant``: it tells nothing.
    ``time-like``: it says where in the recording a row stands, not what it holds. Either it rises from row to row of a
    group, or, for rows that are means over frames, its values lie on the grid of the frames' times.

    Args:
        values: float [N, width], rows of a group in the order of the file.
        groups: N group names.
        fit_rows: bool [N]: the rows to judge by.
    """
    values, names = values[fit_rows], np.asarray(groups, dtype=object)[fit_rows]
    if not len(values):
        return {}
    finite = np.isfinite(values)
    lowest = np.where(finite, values, np.inf).min(axis=0)
    highest = np.where(finite, values, -np.inf).max(axis=0)
    with np.errstate(invalid="ignore"):  # a column without a finite value, which is faulty anyway
        constant = highest - lowest <= 1e-6 * np.maximum(np.abs(lowest), np.abs(highest))
    found = dict.fromkeys(np.flatnonzero(_rising(values, names) | _on_frame_grid(values)).tolist(), "time-like")
    found |= dict.fromkeys(np.flatnonzero(constant).tolist(), "constant")
    found |= dict.fromkeys(np.flatnonzero((~finite).mean(axis=0) > max_nonfinite_share).tolist(), "not finite")
    return dict(sorted(found.items()))


def _rising(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """bool [width]: the column rises from row to row within the larger groups, nearly always."""
    codes = pd.factorize(groups)[0]
    order = np.argsort(codes, kind="stable")
    large = np.bincount(codes)[codes[order]] >= RISING_ROWS
    order = order[large]
    step = codes[order[1:]] == codes[order[:-1]]
    if step.sum() < RISING_STEPS:
        return np.zeros(values.shape[1], dtype=bool)
    rises = values[order[1:][step]] > values[order[:-1][step]]
    return rises.mean(axis=0) >= RISING_SHARE


def _on_frame_grid(values: np.ndarray) -> np.ndarray:
    """bool [width]: nearly all different, seconds rather than shares, and multiples of half a frame.

    Numbers rounded to hundredths say nothing, since many of them lie on any grid.
    """
    found = np.zeros(values.shape[1], dtype=bool)
    for at in range(values.shape[1]):
        column = values[:, at].astype(np.float64)
        column = column[np.isfinite(column)]
        telling = column[_off(column, 100.0) > GRID_TOLERANCE]
        if len(telling) < max(GRID_ROWS, len(column) / 4) or telling.min() < 0 or np.median(telling) < 1:
            continue
        distinct = len(np.unique(telling)) >= len(telling) / 2
        shares = [float(np.mean(_off(telling, grid) <= GRID_TOLERANCE)) for grid in FRAME_GRIDS]
        found[at] = distinct and max(shares) >= GRID_SHARE
    return found


def _off(column: np.ndarray, grid: float) -> np.ndarray:
    """How far each value lies from a multiple of 1 / grid, as a share of that step."""
    return np.abs(column * grid - np.round(column * grid))


def filled(values: np.ndarray, present: np.ndarray, fit_rows: np.ndarray) -> tuple[np.ndarray, int]:
    """Puts a column's median over the present fit rows where a present row has no finite value; and how often it did.

    A column without a finite value in those rows is filled with zeros.
    """
    gaps = ~np.isfinite(values) & present[:, None]
    values = values.copy()
    for at in np.flatnonzero(gaps.any(axis=0)):
        known = values[fit_rows & present & ~gaps[:, at], at]
        values[gaps[:, at], at] = np.median(known) if len(known) else 0.0
    return values, int(gaps.sum())
