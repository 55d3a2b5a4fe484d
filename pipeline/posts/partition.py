"""Gives every post a group and a split that no group crosses."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core import schemas
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.core.schemas import MODALITIES
from pipeline.corpora import splits
from pipeline.corpora.duplicates import merge_groups
from pipeline.corpora.manifest import Manifest, read_manifest
from pipeline.corpora.refusals import Divided, check_parts, count_reasons, crossing_reasons, stop_if_too_many
from pipeline.corpora.splits import MADE, split_shares
from pipeline.params import Params, SplitParams
from pipeline.posts.duplicates import Links, find_links, grown_groups, linked_groups


def divide_posts(params: Params, layout: Layout) -> Divided:
    manifest_path = layout.root / params.posts.manifest
    folder = layout.root / params.posts.media
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder; set posts.media to the folder that holds the pictures and clips")
    manifest = read_manifest(manifest_path, folder, params.posts.labels)
    rows, refused = manifest.rows, manifest.refused
    stop_if_too_many(refused, len(rows) + len(refused), params.split.max_refused_share, manifest_path)

    links = find_links(rows, folder, params, layout.cache)
    assigned = _assign(rows, links, params.split, np.random.default_rng(params.seed))
    rows, how = assigned.rows, assigned.how
    for warning in assigned.warnings:
        print(f"split: {warning}", file=sys.stderr)
    refused = pd.concat([refused, assigned.refused]).sort_values("row", ignore_index=True)
    stop_if_too_many(refused, len(rows) + len(refused), params.split.max_refused_share, manifest_path)
    _check_classes(rows, params.posts.labels, manifest_path)

    rows = rows.rename(columns={"id": "sample_id", "image": "image_path", "video": "video_path"})
    rows = rows.sort_values("sample_id", ignore_index=True)
    report = _metrics(rows, manifest, refused, links, count_rows(rows), how)
    if assigned.warnings:
        report["warnings"] = "; ".join(assigned.warnings)
    return Divided(rows[schemas.POSTS_TABLE.names], refused, report)


@dataclass(frozen=True)
class _Assigned:
    """Rows with ``group_id`` and ``split``; ``row, id, reason`` of those that cross parts; how the split was made."""

    rows: pd.DataFrame
    refused: pd.DataFrame
    how: str
    warnings: list[str]


def _assign(rows: pd.DataFrame, links: Links, params: SplitParams, rng: np.random.Generator) -> _Assigned:
    """Gives every row a group and a split.

    Without given parts: train, val and test by the shares, copies and given groups whole. With them: they are kept, a
    row goes if its given group or a copy of it also stands in a more protected part, and a missing part is made. The
    rest of a dialogue stays when a line of it goes: groups are joined by the copies that are left, which cross nothing.
    """
    sets = links.sets(len(rows))
    made = bool(rows["split"].isna().all())
    refused = rows.iloc[:0].assign(reason="")
    if not made:
        given = {"group": merge_groups(rows["group"].tolist(), rows["id"].tolist(), [])}
        reasons = crossing_reasons(rows["id"].tolist(), rows["split"].tolist(), given | sets)
        kept = np.array([reason is None for reason in reasons])
        refused = rows.assign(reason=pd.Series(reasons, rows.index, dtype=object)).loc[~kept]
        rows = rows.loc[kept].reset_index(drop=True)
        sets = {what: names[kept] for what, names in sets.items()}
    rows = rows.assign(group_id=linked_groups(rows, sets))
    groups, strata = rows["group_id"].tolist(), _strata(rows)
    if made:
        split, how = splits.grouped_split(groups, strata, split_shares(params), rng), MADE
    else:
        split, how = splits.completed(rows["split"].tolist(), groups, strata, params.val_share, rng)
    warnings = list(grown_groups(rows, sets, params.max_group_share))
    return _Assigned(rows.assign(split=split), refused[["row", "id", "reason"]], how, warnings)


def _strata(rows: pd.DataFrame) -> pd.DataFrame:
    present = rows[["text", "image", "video"]].notna()
    return pd.DataFrame({"label": rows["label"], "modalities": _modality_sets(present)})


def _modality_sets(present: pd.DataFrame) -> pd.Series:
    """What is there in each row, such as ``text+image``."""
    bits = range(present.shape[1])
    names = [str(name) for name in present]
    sets = ["+".join(names[bit] for bit in bits if code >> bit & 1) for code in range(2 ** len(names))]
    codes = present.to_numpy() @ (1 << np.arange(len(names)))
    return pd.Series([sets[code] for code in codes], index=present.index)


def _check_classes(rows: pd.DataFrame, labels: tuple[str, ...], path: Path) -> None:
    check_parts(set(rows["split"]), path)
    trained = set(rows.loc[rows["split"] == "train", "label"])
    missing = sorted((set(labels) or set(rows["label"])) - trained)
    if missing:
        raise InputError(f"{path}: no training row has the label {', '.join(missing)}; add rows or leave the label out")
    if len(trained) < 2:
        raise InputError(f"{path}: all training rows have the label {trained.pop()}; there is nothing to tell apart")


def count_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows a split by class and by set of modalities: ``split, kind (class | modalities), name, rows``."""
    present = pd.DataFrame({name: rows[column].notna() for name, column in zip(MODALITIES, COLUMNS, strict=True)})
    sets = _modality_sets(present)
    parts = []
    for kind, names in (("class", rows["label"]), ("modalities", sets)):
        table = pd.crosstab(rows["split"], names).reindex(
            [part for part in schemas.SPLITS if part in set(rows["split"])]
        )
        long = table.melt(ignore_index=False, var_name="name", value_name="rows").reset_index()
        parts.append(long.assign(kind=kind)[["split", "kind", "name", "rows"]])
    return pd.concat(parts, ignore_index=True)


COLUMNS = ("text", "image_path", "video_path")


def _metrics(
    rows: pd.DataFrame,
    manifest: Manifest,
    refused: pd.DataFrame,
    links: Links,
    counts: pd.DataFrame,
    how: str,
) -> dict[str, Any]:
    sizes = rows["group_id"].value_counts()
    given = int(manifest.rows["group"].nunique() + manifest.rows["group"].isna().sum())
    by_part: dict[str, dict[str, int]] = {"class": {}, "modalities": {}}
    nested: dict[str, Any] = {
        part: {"rows": int((rows["split"] == part).sum()), **{kind: {} for kind in by_part}} for part in schemas.SPLITS
    }
    for part, kind, name, number in counts.itertuples(index=False):
        nested[part][kind][name] = int(number)
    return {
        "rows": len(rows),
        "split": how,
        **nested,
        "groups": {"given": given, "after_merging": len(sizes), "largest_share": float(sizes.iloc[0] / len(rows))},
        "copies": {
            "same_text": len(links.text),
            "same_picture": len(links.picture),
            "near_picture_pairs": len(links.near_picture),
            "same_clip": len(links.clip),
            "near_clip_pairs": len(links.near_clip),
        },
        "refused": {"rows": len(refused), **count_reasons(refused)},
        "ignored_columns": ", ".join(manifest.ignored_columns),
    }
