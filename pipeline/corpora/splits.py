"""Train, validation and test parts that no group crosses: made here, or given and checked."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

PROTECTION = {"test": 2, "val": 1, "train": 0}


def grouped_split(
    groups: Sequence[str], strata: pd.DataFrame, shares: dict[str, float], rng: np.random.Generator
) -> np.ndarray:
    """Assigns whole groups to parts so that every stratum is spread over the parts in the given shares.

    Greedy, large groups first: each group goes where it fills its strata least beyond their share. Weighing a
    stratum by the inverse of its size lets rare classes decide (the idea of scikit-learn's StratifiedGroupKFold, for
    parts of unequal size).

    Args:
        groups: N group names.
        strata: N rows; each column is one way of dividing the rows (class, modality set); their crossing, each column
            by itself and the number of rows are all balanced.
        shares: part → share of the rows, summing to 1.
        rng: breaks ties between groups of one size.

    Returns:
        N part names.
    """
    columns = [strata[name].astype(str) for name in strata.columns]
    crossed = strata.astype(str).agg("|".join, axis="columns")
    every = pd.Series("rows", index=strata.index)
    indicators = pd.get_dummies(
        pd.concat([crossed, *columns, every], axis="columns").set_axis(range(len(columns) + 2), axis=1)
    )
    names, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    counts = np.zeros((len(names), indicators.shape[1]))
    np.add.at(counts, member, indicators.to_numpy(dtype=float))

    parts = list(shares)
    totals = counts.sum(axis=0)
    target = np.outer([shares[part] for part in parts], totals)
    filled = np.zeros_like(target)
    chosen = np.zeros(len(names), dtype=int)
    order = rng.permutation(len(names))
    for group in order[np.argsort(-counts[order, -1], kind="stable")]:
        pressure = ((filled + counts[group]) / target * (counts[group] / totals)).sum(axis=1)
        chosen[group] = int(pressure.argmin())
        filled[chosen[group]] += counts[group]
    _leave_no_part_empty(chosen, counts[:, -1], len(parts))
    return np.array(parts, dtype=object)[chosen[member]]


def _leave_no_part_empty(chosen: np.ndarray, sizes: np.ndarray, parts: int) -> None:
    """Where every group is larger than a small part's share, that part gets the smallest group to be spared."""
    for part in set(range(parts)) - set(chosen.tolist()):
        spared = [group for group in np.argsort(sizes, kind="stable") if (chosen == chosen[group]).sum() > 1]
        if spared:
            chosen[spared[0]] = part


def crossing_rows(groups: Sequence[str], split: Sequence[str]) -> np.ndarray:
    """bool [N]: rows that must go so that no group crosses parts; the test part keeps its rows, then validation."""
    rank = pd.Series([PROTECTION[part] for part in split])
    return (rank < rank.groupby(np.asarray(groups, dtype=str)).transform("max")).to_numpy()


def grouped_folds(groups: Sequence[str], labels: Sequence[str], folds: int, rng: np.random.Generator) -> np.ndarray:
    """int [N]: the fold of each row, groups whole, classes spread; fewer folds when groups are few."""
    folds = min(folds, len(set(groups)))
    names = {str(fold): 1 / folds for fold in range(folds)}
    parts = grouped_split(groups, pd.DataFrame({"label": list(labels)}), names, rng)
    return parts.astype(int)
