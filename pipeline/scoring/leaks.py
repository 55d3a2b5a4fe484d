"""Refuses to score rows that a model behind the score has seen, or whose group or copy it has seen."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from pipeline.core.errors import InputError

NAMED = 5
"""How many offending ids a message names."""


def refuse_fitted_rows(scored: pd.DataFrame, fitted: Iterable[pd.DataFrame]) -> None:
    """Raises InputError, naming stages and first ids, when a scored row or another row of its group was fitted on.

    Args:
        scored: columns ``sample_id, group_id``.
        fitted: of every model in the lineage, columns ``stage, fold, sample_id, group_id, role``. Both roles count: a
            row that chose the best epoch or calibrated was seen as much as one that gave gradients.

    There is no way around it: a score on seen rows is not a score.
    """
    seen = pd.concat([_same_row_or_group(rows, scored) for rows in fitted])
    if seen.empty:
        return
    stages = ", ".join(sorted(seen["stage"].unique()))
    rows = sorted(scored.loc[scored["sample_id"].isin(seen["sample_id"]), "sample_id"])
    groups = sorted(scored.loc[scored["group_id"].isin(seen["group_id"]), "group_id"].unique())
    named = [f"{len(ids)} {what} ({_first(ids)})" for what, ids in (("rows", rows), ("groups", groups)) if ids]
    raise InputError(
        f"test rows were fitted on by {stages}: {' and '.join(named)} that are to be scored; "
        "nothing is scored; run `dvc repro` so that the models match the split"
    )


def _same_row_or_group(rows: pd.DataFrame, scored: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["sample_id"].isin(scored["sample_id"]) | rows["group_id"].isin(scored["group_id"])]


def _first(ids: list[str]) -> str:
    return ", ".join(ids[:NAMED]) + (", …" if len(ids) > NAMED else "")


# --- folds -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Leak:
    """``what`` is wrong, as the start of a sentence, and the ids of the scored rows or groups that it concerns."""

    what: str
    ids: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.what} ({_first(list(self.ids))})" if self.ids else self.what


def refuse(leaks: Sequence[Leak]) -> None:
    """Raises InputError, one line that names every leak, unless there is none."""
    if leaks:
        named = "; ".join(str(leak) for leak in leaks)
        raise InputError(f"{named}; nothing is scored; take the rows out of one side, or run `dvc repro`")


def fitted_in_fold(scored: pd.DataFrame, fitted: pd.DataFrame) -> list[Leak]:
    """Rows that a fold scores and a model of the same fold was fitted on, or another row of their group.

    Args:
        scored: columns ``fold, sample_id, group_id``: which rows each fold scores.
        fitted: columns ``stage, fold, sample_id, group_id, role``, of every model in the lineage.
    """
    leaks = []
    for stage, of_stage in fitted.groupby("stage", sort=False):
        for key, what in (("sample_id", "test rows"), ("group_id", "groups of test rows")):
            seen = scored.merge(of_stage[["fold", key]].drop_duplicates(), on=["fold", key])
            if len(seen):
                ids = tuple(sorted(seen[key].unique()))
                leaks.append(Leak(f"{len(ids)} {what} were fitted on by {stage} in the same fold", ids))
    return leaks


def wrong_roles(predicted: pd.DataFrame, folds: pd.DataFrame, stage: str) -> list[Leak]:
    """Predictions whose role, ``split``, is not the one that the table of folds gives the row in that fold.

    ``predicted`` has the columns ``fold, sample_id, split``, ``folds`` those of ``schemas.FOLDS_TABLE``.
    """
    unique = predicted[["fold", "sample_id", "split"]].drop_duplicates()
    known = unique.merge(folds, on=["fold", "sample_id"], how="left")
    wrong = known[known["role"] != known["split"]]
    if wrong.empty:
        return []
    first = wrong.iloc[0]
    role = first["role"] if isinstance(first["role"], str) else "none"
    example = f"as {first['split']} in {first['fold']}, where its role is {role}"
    return [Leak(f"{stage} predicted rows {example}", tuple(sorted(wrong["sample_id"].unique())))]


def copies_in_fold(copies: Mapping[str, str], scored: pd.DataFrame, fitted: pd.DataFrame, what: str) -> list[Leak]:
    """Scored rows with a near-duplicate, or a near-duplicate of one, among the rows fitted in the same fold.

    ``copies`` is the name of the set of near-duplicates of each sample id that has some; ``scored`` and ``fitted`` are
    those of ``fitted_in_fold``.
    """
    at, known = (
        rows[["fold", "sample_id"]].assign(copies=rows["sample_id"].map(copies)).dropna() for rows in (scored, fitted)
    )
    seen = at.merge(known.drop_duplicates(["fold", "copies"]), on=["fold", "copies"])
    pairs = set(zip(seen["sample_id_x"], seen["sample_id_y"], strict=True))
    ids = sorted(f"{scored_id} = {copy}" for scored_id, copy in pairs if scored_id != copy)
    if not ids:
        return []
    return [Leak(f"{len(ids)} test rows are near-duplicates of rows of {what} fitted on in the same fold", tuple(ids))]
