"""Train, validation and test parts that no group crosses: made here, or given and checked."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.core.errors import InputError
from pipeline.core.schemas import FINAL, UNLABELLED, fold_name
from pipeline.params import SplitParams

PROTECTION = {"test": 2, "val": 1, "train": 0}

ENOUGH_SHARE = 20
"""Where rows are so many that validation rows judge candidates alone, these must be one in so many of that number."""


Names = Sequence[str] | np.ndarray
"""Names of N rows, or whole numbers in the order of the names."""


def grouped_split(
    groups: Names, strata: pd.DataFrame, shares: dict[str, float], rng: np.random.Generator
) -> np.ndarray:
    """Assigns whole groups to parts so that every stratum is spread over the parts in the given shares.

    Greedy, large groups first: each group goes where it fills its strata least beyond their share. Weighing a
    stratum by the inverse of its size lets rare classes decide (the idea of scikit-learn's StratifiedGroupKFold, for
    parts of unequal size).

    Args:
        groups: of N rows.
        strata: N rows; each column is one way of dividing the rows (class, modality set); their crossing, each column
            by itself and the number of rows are all balanced.
        shares: part → share of the rows, summing to 1.
        rng: breaks ties between groups of one size.

    Returns:
        N part names.
    """
    kind, indicators = _indicators(strata)
    names, member, sizes = np.unique(_comparable(groups), return_inverse=True, return_counts=True)
    rows = np.argsort(member, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)])

    parts = list(shares)
    totals = np.bincount(kind, minlength=len(indicators)) @ indicators
    target = np.outer([shares[part] for part in parts], totals)
    filled = np.zeros_like(target)
    chosen = np.zeros(len(names), dtype=int)
    order = rng.permutation(len(names))
    for group in order[np.argsort(-sizes[order], kind="stable")].tolist():
        counts = indicators[kind[rows[starts[group] : starts[group + 1]]]].sum(axis=0)
        pressure = ((filled + counts) / target * (counts / totals)).sum(axis=1)
        chosen[group] = place = int(pressure.argmin())
        filled[place] += counts
    _leave_no_part_empty(chosen, sizes, len(parts))
    _leave_two_to_learn_from(chosen, sizes, list(shares.values()))
    return np.array(parts, dtype=object)[chosen[member]]


def _comparable(groups: Names) -> np.ndarray:
    return groups if isinstance(groups, np.ndarray) and groups.dtype.kind == "i" else np.asarray(groups, dtype=str)


def _indicators(strata: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Which kind each row is of, int [N]: a crossing of all columns; and what strata kinds are in, [kinds, strata].

    These are 1 or 0: the crossings themselves, each column's values, and one that every kind is in; each in
    alphabetical order.
    """
    values = []
    kind = np.zeros(len(strata), dtype=np.int64)
    for column in strata:
        codes, seen = pd.factorize(strata[column])
        names, place = np.unique(np.asarray(seen, dtype=str), return_inverse=True)
        kind = kind * len(names) + place[codes]
        values.append(names)
    known, kind = np.unique(kind, return_inverse=True)
    columns = []
    for names in reversed(values):
        known, codes = np.divmod(known, len(names))
        columns.insert(0, pd.Series(names[codes]))
    crossed = pd.Series(["|".join(cells) for cells in zip(*columns, strict=True)])
    divisions = [crossed, *columns, pd.Series("rows", index=crossed.index)]
    return kind, np.concatenate([pd.get_dummies(division).to_numpy(dtype=float) for division in divisions], axis=1)


def _leave_no_part_empty(chosen: np.ndarray, sizes: np.ndarray, parts: int) -> None:
    """Where every group is larger than a small part's share, that part gets the smallest group to be spared."""
    for part in set(range(parts)) - set(chosen.tolist()):
        spared = [group for group in np.argsort(sizes, kind="stable") if (chosen == chosen[group]).sum() > 1]
        if spared:
            chosen[spared[0]] = part


def _leave_two_to_learn_from(chosen: np.ndarray, sizes: np.ndarray, shares: Sequence[float]) -> None:
    """Where one group fills the part that most rows go to, it gets the smallest other one to be spared.

    Inner folds, which choose what is learned, need two groups.
    """
    most = int(np.argmax(shares))
    if shares[most] > 0.5 and (chosen == most).sum() == 1:
        others = [group for group in np.argsort(sizes, kind="stable") if chosen[group] != most]
        spared = [group for group in others if (chosen == chosen[group]).sum() > 1]
        if spared:
            chosen[spared[0]] = most


def crossing_rows(groups: Names, split: Sequence[str] | np.ndarray) -> np.ndarray:
    """bool [N]: rows that must go so that no group crosses parts; the test part keeps its rows, then validation."""
    rank = pd.Series(np.asarray(split, dtype=object)).map(PROTECTION)
    return (rank < rank.groupby(_comparable(groups)).transform("max")).to_numpy()


def grouped_folds(groups: Sequence[str], labels: Sequence[str], folds: int, rng: np.random.Generator) -> np.ndarray:
    """int [N]: the fold of each row, groups whole, classes spread; fewer folds when groups are few."""
    folds = min(folds, len(set(groups)))
    names = {str(fold): 1 / folds for fold in range(folds)}
    parts = grouped_split(groups, pd.DataFrame({"label": list(labels)}), names, rng)
    return parts.astype(int)


def completed(
    given: Sequence[str] | np.ndarray, groups: Names, strata: pd.DataFrame, val_share: float, rng: np.random.Generator
) -> tuple[np.ndarray, str]:
    """A given split with the part that it lacks, and how it was done.

    Where nothing is marked test, the rows marked val are what nobody may see, so they become the test part; and where
    nothing is marked val then, validation comes out of the training rows.
    """
    split, how = np.asarray(given, dtype=object), "given"
    if "test" not in set(split):
        split = np.where(split == "val", "test", split)
        how += "; no row was marked test, so the rows marked val are the test part"
    if "val" not in set(split):
        split = _with_val(groups, strata, split, val_share, rng)
        how += "; validation was taken out of the training rows"
    return split, how


def score_strata(scores: Sequence[float]) -> pd.DataFrame:
    """N rows with ``sign`` and ``tercile``, so that parts of a regression are alike in their scores."""
    values = np.asarray(scores, dtype=np.float64)
    terciles = np.searchsorted(np.quantile(values, [1 / 3, 2 / 3]), values) if len(values) else values
    return pd.DataFrame({"sign": np.sign(values).astype(int).astype(str), "tercile": terciles.astype(int).astype(str)})


def target_folds(
    table: pd.DataFrame, protocol: str, folds: int, repeats: int, val_share: float, seed: int
) -> pd.DataFrame:
    """Which labelled rows each fold's models learn from, choose on and are scored on.

    Under ``holdout`` the one fold `final`, as the table's split says. Under ``cross_validation`` the folds
    ``repeat-<r>.fold-<k>``: each row is in the test part of one fold a repeat, groups are whole and their mean scores
    spread, and a part of the remaining groups is for validation; and `final`, which learns from all and tests on none.

    Args:
        table: columns ``sample_id, group_id, given_group, split, score``.

    Returns:
        ``fold, sample_id, role``, sorted by the first two.

    Raises:
        InputError: there are fewer than two labelled groups for each fold.
    """
    rows = table.loc[table["split"] != UNLABELLED].reset_index(drop=True)
    if protocol == "holdout":
        return _roles(rows, FINAL, rows["split"].to_numpy())
    _check_enough_groups(rows, folds)
    groups = rows["group_id"].tolist()
    means = rows["score"].groupby(rows["group_id"]).transform("mean")
    strata = score_strata(means.to_numpy())[["tercile"]]
    tables = []
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat])
        fold_of = grouped_folds(groups, strata["tercile"].tolist(), folds, rng)
        for fold in range(folds):
            roles = np.where(fold_of == fold, "test", "train").astype(object)
            roles = _with_val(groups, strata, roles, val_share, rng)
            tables.append(_roles(rows, fold_name(repeat, fold), roles))
    everything = np.full(len(rows), "train", dtype=object)
    rng = np.random.default_rng([seed, repeats])
    tables.append(_roles(rows, FINAL, _with_val(groups, strata, everything, val_share, rng)))
    return pd.concat(tables).sort_values(["fold", "sample_id"], ignore_index=True)


def count_groups(rows: pd.DataFrame, given: str) -> str:
    """How many groups of rows have a score, and whether copies have joined some of those in the column ``given``."""
    count, before = rows["group_id"].nunique(), rows[given].nunique()
    joined = f", {before} before those with copies of each other were joined (where all say the same, leave out text)"
    return f"{count} group{'s have' if count != 1 else ' has'} a score" + joined * (count < before)


def _check_enough_groups(rows: pd.DataFrame, folds: int) -> None:
    count = rows["group_id"].nunique()
    if count < 2 * folds:
        raise InputError(
            f"target.corpus: {count_groups(rows, 'given_group')}, too few for target.folds {folds}; "
            + (f"set it to at most {count // 2}" if count >= 4 else "4 are the fewest that can be cross-validated")
        )


def _with_val(
    groups: Names, strata: pd.DataFrame, split: np.ndarray, val_share: float, rng: np.random.Generator
) -> np.ndarray:
    """The split with a share of its train rows, in whole groups, as val."""
    split, train = split.copy(), split == "train"
    some, shares = strata.loc[train].reset_index(drop=True), {"train": 1 - val_share, "val": val_share}
    split[train] = grouped_split(np.asarray(groups)[train], some, shares, rng)
    return split


def _roles(rows: pd.DataFrame, fold: str, roles: np.ndarray) -> pd.DataFrame:
    table = pd.DataFrame({"fold": fold, "sample_id": rows["sample_id"].to_numpy(), "role": roles})
    return table.sort_values("sample_id", ignore_index=True)


MADE = "made by shares, groups whole"


def split_shares(params: SplitParams) -> dict[str, float]:
    return {"train": 1 - params.val_share - params.test_share, "val": params.val_share, "test": params.test_share}
