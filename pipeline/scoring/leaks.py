"""Refuses to score rows that a model behind the score has seen."""

import pandas as pd

from pipeline.errors import InputError

NAMED = 5
"""How many offending ids a message names."""


def refuse_fitted_rows(scored: pd.DataFrame, fitted: pd.DataFrame) -> None:
    """Raises InputError, naming stages and first ids, when a scored row or another row of its group was fitted on.

    Args:
        scored: columns ``sample_id, group_id``.
        fitted: columns ``stage, fold, sample_id, group_id, role``, of every model in the lineage. Both roles count: a
            row that chose the best epoch or the temperature was seen as much as one that gave gradients.

    There is no way around it: a score on seen rows is not a score.
    """
    same_row = fitted["sample_id"].isin(scored["sample_id"])
    same_group = fitted["group_id"].isin(scored["group_id"])
    seen = fitted[same_row | same_group]
    if seen.empty:
        return
    stages = ", ".join(sorted(seen["stage"].unique()))
    rows = sorted(scored.loc[scored["sample_id"].isin(seen["sample_id"]), "sample_id"])
    groups = sorted(scored.loc[scored["group_id"].isin(seen["group_id"]), "group_id"].unique())
    found = [f"{len(ids)} {what} ({_first(ids)})" for what, ids in (("rows", rows), ("groups", groups)) if ids]
    raise InputError(
        f"test rows were fitted on by {stages}: {' and '.join(found)} that are to be scored; "
        "nothing is scored; run `dvc repro` so that the models match the split"
    )


def _first(ids: list[str]) -> str:
    return ", ".join(ids[:NAMED]) + (", …" if len(ids) > NAMED else "")
