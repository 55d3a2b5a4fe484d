"""A corpus of ready-made features → clean rows with their vectors, and refused rows with their reasons.

Forms: a Parquet or CSV table, an MMSA pickle (.pkl), or a folder of CMU SDK files (.csd). A table has ``id`` and
``score``, may have ``group`` and ``split``, and has columns for any of ``text``, ``audio``, ``visual`` (or ``vision``):
lists of numbers, or lists of such lists (a sequence, pooled to means, standard deviations and length); in CSV they are
JSON. In Parquet the numbers of a modality may also be columns of their own, ``audio.mfcc_03.mean``, as `extract` writes
them. A column ``text`` of plain texts holds the words themselves, which `embed` encodes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from pipeline.core.errors import InputError
from pipeline.core.files import check_readable
from pipeline.core.schemas import FEATURES, SPLITS, Feature
from pipeline.corpora.csd import read_csd_folder
from pipeline.corpora.manifest import split_name
from pipeline.corpora.mmsa import read_mmsa
from pipeline.corpora.raw_features import (
    MAX_VALUE,
    SCALARS,
    Extractor,
    RawFeatures,
    RawVectors,
    concatenate_cells,
    stack_vectors,
)
from pipeline.corpora.refusals import cell_shown
from pipeline.corpora.splits import PROTECTION
from pipeline.corpora.tables import csv_parts, parquet_parts, read_csv_table, read_parquet_table, vector_of
from pipeline.corpora.tabular import texts


@dataclass(frozen=True)
class FeatureCorpus:
    """What a corpus of features holds once read: N rows in the order of the file.

    Attributes:
        rows: ``row, id, group, score, split, text, grouped``; score is float64, NaN where the row has none; absent
            splits and texts are None; ``row`` counts the rows of the file from 1; ``grouped`` says whether the file
            names the group, which is the row's own otherwise.
        words: the modality text is the words in ``rows.text``, still to be encoded.
        features: modality → float32 [N, width]; zeros where absent, NaN where a value is no finite number.
        present: modality → bool [N].
        refused: ``row, id, reason`` of the rows that are faulty; of a corpus to be scored also ``group``.
        set_aside: what the split column says → how many rows were left out since it is no train, val or test.
        ignored_columns: columns of the file that the pipeline does not use.
        extractors: modality → what made its features, of those of which the file says so.
    """

    rows: pd.DataFrame
    words: bool
    features: dict[Feature, np.ndarray]
    present: dict[Feature, np.ndarray]
    refused: pd.DataFrame
    set_aside: dict[str, int]
    ignored_columns: tuple[str, ...]
    extractors: Mapping[Feature, Extractor] = field(default_factory=dict)

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


def read_unscored(path: Path, rows: int) -> Iterator[FeatureCorpus]:
    """A corpus to be scored, so many rows at a time; it needs neither scores nor a split nor ids, which may repeat.

    A Parquet or CSV table is read part by part; a pickle or a folder of .csd files is held in memory whole. ``row``
    counts on over the parts. Raises InputError as ``read_corpus``.
    """
    if not path.exists():
        raise InputError(f"{path}: not found")
    pieces = TABLE_PARTS.get(path.suffix.lower()) if path.is_file() else None
    parts = iter([_whole(path)]) if pieces is None else pieces(path, rows)
    done, anything = 0, False
    for raw in parts:
        anything = anything or bool(raw.vectors) or raw.words or bool(raw.rows["text"].notna().any())
        corpus = _checked(raw, path, to_learn=False)
        for frame in (corpus.rows, corpus.refused):
            frame["row"] += done
        done += len(raw.rows)
        yield corpus
    if done and not anything:
        raise InputError(f"{path}: has none of the columns text, audio, visual with a value in it")


def _whole(path: Path) -> RawFeatures:
    reader = _reader(path, "--corpus")
    return read_mmsa(path, "--corpus", scored=False) if reader is read_mmsa else reader(path, "--corpus")


def corpus_of(columns: Mapping[Feature, Sequence[Any]]) -> FeatureCorpus:
    """A corpus of rows that are at hand, with the numbers 1 to N for ids; not to learn from.

    Args:
        columns: modality → N values: a vector, a sequence of vectors, or None; of ``text`` also words.

    Raises InputError without any modality.
    """
    if not columns:
        raise InputError("a sample has none of text, audio and visual")
    count = len(next(iter(columns.values())))
    rows = pd.DataFrame({name: [None] * count for name in (*SCALARS, "text")}, dtype=object)
    rows["id"] = [str(number) for number in range(1, count + 1)]
    are_texts = [isinstance(value, str) for value in columns.get("text", [None] * count)]
    if any(are_texts):
        # A text of blanks is none, as in a table.
        rows["text"] = [
            (value.strip() or None) if isinstance(value, str) else None for value in columns.get("text", ())
        ]
    by_name: dict[Feature, Sequence[Any]] = {
        name: values for name, values in columns.items() if name != "text" or not any(are_texts)
    }
    vectors: dict[Feature, RawVectors] = {
        name: stack_vectors(count, [concatenate_cells(None if value is None else vector_of(value) for value in values)])
        for name, values in by_name.items()
    }
    return _checked(RawFeatures(rows, vectors, ()), Path(), to_learn=False)


TABLE_PARTS = {".parquet": parquet_parts, ".csv": csv_parts}


def _reader(path: Path, where: str) -> Callable[[Path, str], RawFeatures]:
    readers = {".parquet": read_parquet_table, ".csv": read_csv_table, ".pkl": read_mmsa, ".pickle": read_mmsa}
    if path.is_dir():
        return read_csd_folder
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: {where} takes a .parquet, .csv or .pkl file, or a folder of .csd files")
    if not path.exists():
        raise InputError(f"{path}: not found; set {where} in params.yaml")
    check_readable(path)
    return reader


# --- checks --------------------------------------------------------------------------------------------------------


def _checked(raw: RawFeatures, path: Path, *, to_learn: bool = True) -> FeatureCorpus:
    """Leaves out set-aside and faulty rows; gives every row a group. Rows not to learn from need no score, split or id:
    one without id and group is a group of its own, by its number.
    """
    rows = pd.DataFrame({"row": range(1, len(raw.rows) + 1), "id": raw.rows["id"], "group": raw.rows["group"]})
    rows["grouped"] = rows["group"].notna()
    rows["group"] = rows["group"].where(rows["group"].notna(), rows["id"])
    rows["score"], bad_score = np.nan, np.zeros(len(rows), dtype=bool)
    if not to_learn:
        rows["group"] = rows["group"].where(rows["group"].notna(), rows["row"].astype(str))
    else:
        rows["score"], bad_score = _scores(raw.rows["score"], path)
    rows["split"] = raw.rows["split"].map(split_name, na_action="ignore")
    rows["text"] = raw.rows["text"].map(_readable, na_action="ignore")
    rows[["id", "group", "split", "text"]] = _with_none(rows[["id", "group", "split", "text"]])

    present: dict[Feature, np.ndarray] = {
        name: (vectors.lengths == vectors.values.shape[1]) & np.isfinite(vectors.values).any(axis=1)
        for name, vectors in raw.vectors.items()
    }
    aside = _set_aside(rows) if to_learn else pd.Series(None, rows.index, dtype=object)
    reasons = _reasons(rows, bad_score, raw, present, named=to_learn).where(aside.isna(), None)
    kept_of_refused = ["row", "id"] if to_learn else ["row", "id", "group"]
    refused = rows[kept_of_refused].assign(reason=reasons)[reasons.notna()]
    everything = FeatureCorpus(
        rows=rows,
        words=raw.words,
        features={name: vectors.values for name, vectors in raw.vectors.items()},
        present=present,
        refused=refused.reset_index(drop=True),
        set_aside={str(name): int(count) for name, count in aside.value_counts().sort_index().items()},
        ignored_columns=raw.ignored,
        extractors=raw.extractors,
    )
    kept = (aside.isna() & reasons.isna()).to_numpy()
    return everything if kept.all() else everything.where(kept)


def _with_none(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype(object).where(frame.notna(), None)


def _readable(text: str) -> str:
    return text if any(letter.islower() for letter in text) else text.lower()


def _scores(column: pd.Series, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """float64 [N], NaN for blank cells; and bool [N], where a cell is no number up to ``MAX_VALUE``, either sign."""
    if not pd.api.types.is_numeric_dtype(column):
        column = pd.Series(texts(column.tolist(), f"{path}: score"), dtype=object)
    blank = column.isna()
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return numbers, ~(np.abs(numbers) <= MAX_VALUE) & ~blank.to_numpy()


def _set_aside(rows: pd.DataFrame) -> pd.Series:
    """What to count a row under that the split column leaves out, or None."""
    split = rows["split"]
    if split.isna().all():
        return pd.Series(None, rows.index, dtype=object)
    # A row without a score needs no split: it trains no model and is scored by none.
    named = split.where(split.notna() | rows["score"].isna(), "no split")
    return named.where(~named.isin(SPLITS) & named.notna(), None)


def _reasons(
    rows: pd.DataFrame,
    bad_score: np.ndarray,
    raw: RawFeatures,
    present: dict[Feature, np.ndarray],
    *,
    named: bool,
) -> pd.Series:
    """The first thing that is wrong with each row, or None; with ``named`` also an id that lacks or repeats."""
    first = rows["row"].groupby(rows["id"]).transform("first")
    something = np.logical_or.reduce([*present.values(), (rows["text"].notna() & raw.words).to_numpy()])
    checks: list[tuple[np.ndarray, Callable[[int], str]]] = [
        ((rows["id"].isna() & named).to_numpy(), lambda at: "no id"),
        (
            (rows["id"].notna() & (first != rows["row"]) & named).to_numpy(),
            lambda at: f"id already used in row {int(first[at])}",
        ),
        (
            bad_score,
            lambda at: f"score is no finite number of at most {MAX_VALUE:.0e}{cell_shown(raw.rows['score'].iloc[at])}",
        ),
    ]
    for name, vectors in raw.vectors.items():
        checks.append((vectors.lengths < 0, lambda at, name=name: f"{name} is no list of numbers of one width"))
        other = (vectors.lengths > 0) & (vectors.lengths != vectors.values.shape[1])
        width = vectors.values.shape[1]
        checks.append(
            (
                other,
                lambda at, name=name, has=vectors.lengths, width=width: f"{name} has {has[at]} values, not {width}",
            )
        )
    known = {*raw.vectors} | ({"text"} if raw.words else set()) or set(FEATURES)
    checks.append((~something, lambda at: f"no {', '.join(sorted(known))}"))
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

    Texts become lines in their order, each one line; the split is the most protected of the rows' splits.
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
            "text": by_group["text"].agg(_as_lines),
        }
    )
    rows[["split", "text"]] = _with_none(rows[["split", "text"]])
    member = csr_array((np.ones(len(codes)), (codes, np.arange(len(codes)))), shape=(len(names), len(codes)))
    features = {name: _means(member, values, corpus.present[name]) for name, values in corpus.features.items()}
    present = {name: member @ mask > 0 for name, mask in corpus.present.items()}
    return replace(corpus, rows=rows, features=features, present=present)


def _as_lines(texts: pd.Series) -> str | None:
    return "\n".join(" ".join(text.split("\n")) for text in texts.dropna()) or None


def _means(member: csr_array, values: np.ndarray, present: np.ndarray) -> np.ndarray:
    """float32 [groups, width]: means of the finite values of present rows; NaN without any, zeros without a row."""
    finite = np.isfinite(values) & present[:, None]
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN that is wanted
        means = (member @ np.where(finite, values, 0.0)) / (member @ finite.astype(np.float32))
    means[~(member @ present > 0)] = 0.0
    return means.astype(np.float32)
