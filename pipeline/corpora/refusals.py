"""Rows that a corpus must do without: counted by reason, and too many of them stop the stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.core import schemas
from pipeline.core.errors import InputError
from pipeline.core.terminal import printable
from pipeline.corpora.splits import crossing_rows


@dataclass(frozen=True)
class Divided:
    """A corpus with its splits: the table to write, ``row, id, reason`` of the rows left out, and the metrics."""

    table: pd.DataFrame
    refused: pd.DataFrame
    report: dict[str, Any]

    @classmethod
    def left_out(cls, schema: pa.Schema) -> "Divided":
        """Of a track that is off: no rows, nothing refused, nothing to report."""
        return cls(pd.DataFrame(columns=schema.names), pd.DataFrame(columns=["row", "id", "reason"]), {})


def stop_if_too_many(refused: pd.DataFrame, total: int, share: float, path: Path) -> None:
    """Raises InputError where the refused rows are more than the share, or all."""
    if len(refused) > share * total or 0 < len(refused) == total:
        first = refused.iloc[0]
        reasons = ", ".join(f"{count} x {reason}" for reason, count in count_reasons(refused).items())
        limit = f", more than split.max_refused_share {share}" if len(refused) > share * total else ""
        raise InputError(
            f"{path}: {len(refused)} of {total} rows refused ({reasons}){limit}; "
            f"the first is row {first['row']}, id {first['id']}"
        )


SHOWN, LETTERS = 8, 40
"""At most so many columns are named, and so many letters of each."""


MANY_CUT = 0.01
"""Share of texts whose end is not read from which on it is said."""

CELL = 30
"""At most so many letters of a cell are shown."""


def dropped_rows_messages(report: Mapping[str, Any]) -> list[str]:
    """A line for each corpus of which rows are left out or columns are not read, of a report of `split`."""
    lines = []
    for name, counted in report.items():
        counts = dict(counted.get("refused", {})) if isinstance(counted, Mapping) else {}
        if rows := counts.pop("rows", 0):
            reasons = ", ".join(f"{count} x {reason}" for reason, count in counts.items())
            lines.append(f"{name}: {rows} rows are left out ({reasons}); data/split/refused.csv has them")
        columns = counted.get("ignored_columns", "").split(", ") if isinstance(counted, Mapping) else [""]
        if columns != [""]:
            named = [name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…" for name in columns[:SHOWN]]
            shown = ", ".join(named) + (f" and {len(columns) - SHOWN} more" if len(columns) > SHOWN else "")
            lines.append(f"{name}: of the table's columns are not read: {shown}")
    return lines


def unread_messages(report: Mapping[str, Any]) -> list[str]:
    """Of a report of `embed`, a line for each modality of the posts of which files cannot be read, and for each corpus
    of which many texts are longer than their encoder reads.
    """
    lines = [
        f"{name}: {counted['unreadable']} of {counted['present'] + counted['unreadable']} cannot be read; "
        "metrics/details/embed.json says why"
        for name, counted in report.items()
        if counted.get("unreadable")
    ]
    texts = {"text": report.get("text", {})}
    texts |= {f"{name}.text": report.get(name, {}).get("text", {}) for name in ("source", "target")}
    return lines + [
        f"{name}: {counted['cut']} of {counted['counted']} texts have more than {counted['max_tokens']} tokens, and "
        "the rest is not read; embed.text.max_tokens sets how many are"
        for name, counted in texts.items()
        if counted.get("cut", 0) > MANY_CUT * counted.get("counted", 0)
    ]


def cell_shown(cell: object) -> str:
    """What a faulty cell holds, for the end of a reason; nothing of an empty one."""
    return "" if cell is None else f", here '{printable(str(cell))[:CELL]}'"


def count_reasons(refused: pd.DataFrame) -> dict[str, int]:
    """Reasons and how often; those that name a row, an id or a cell are counted under what they have in common."""
    kinds = refused["reason"].str.replace(r",? (in row|as|here) .*", "", regex=True)
    return {str(reason): int(count) for reason, count in kinds.value_counts(sort=False).sort_index().items()}


def crossing_reasons(
    ids: Sequence[str] | pa.ChunkedArray, split: Sequence[str] | np.ndarray, sets: Mapping[str, np.ndarray]
) -> list[str | None]:
    """Why each of N rows must go so that no set crosses parts, naming the row that keeps it out; None if it stays.

    Args:
        ids, split: N names and parts.
        sets: what rows of a set have in common, such as "group" or "the same text" → the set of each row, [N], as
            names or whole numbers.
    """
    reasons: list[str | None] = [None] * len(ids)
    for what, names in sets.items():
        crossing = crossing_rows(names, split)
        staying = np.flatnonzero(~crossing)
        kept, first = np.unique(names[staying], return_index=True)
        gone = np.flatnonzero(crossing)
        twins = staying[first[np.searchsorted(kept, names[gone])]]
        for at, twin in zip(gone.tolist(), twins.tolist(), strict=True):
            if reasons[at] is None:
                reasons[at] = f"{what} also stands in a more protected split, as {ids[twin]}"
    return reasons


def check_parts(parts: set[str], path: Path) -> None:
    for part in schemas.SPLITS:
        if part not in parts:
            raise InputError(
                f"{path}: no row is left for {part}: too few groups (copies of each other are one), or the split "
                "column gives it none"
            )
