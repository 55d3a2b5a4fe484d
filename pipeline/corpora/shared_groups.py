"""Groups that two corpora have in common, however each spells their names."""

from collections.abc import Collection, Iterable, Mapping

import pandas as pd

from pipeline.corpora.wording import name_key


def shared_groups(tables: Mapping[str, pd.DataFrame], grouped: Collection[str]) -> list[str]:
    """Given groups that rows of two corpora have in common, as the first spells them, sorted.

    A row without a group has its id for one. That two corpora count their rows alike says nothing of what the rows are,
    so a name has to be that of a group in one of them.

    Args:
        tables: name of a corpus → its rows, with ``given_group`` and ``sample_id``.
        grouped: the corpora whose rows are groups.
    """
    groups: set[str] = set()
    for corpus, table in tables.items():
        named = table["given_group"] != table["sample_id"]
        given = table["given_group"] if corpus in grouped else table.loc[named, "given_group"]
        groups |= set(map(name_key, given))
    return [
        name for name in shared_names(*(table["given_group"] for table in tables.values())) if name_key(name) in groups
    ]


def shared_names(scored: Iterable[str], fitted: Iterable[str]) -> list[str]:
    """Names of ``scored`` that ``fitted`` has too, however it spells them, sorted.

    A plain number is none, since every corpus counts its rows.
    """
    keys = {key for key in map(name_key, fitted) if not key.isdigit()}
    return sorted(name for name in set(scored) if name_key(name) in keys)
