"""Gives every post a group and a split that no group crosses."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core import schemas
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.core.schemas import MODALITIES
from pipeline.corpora import duplicates, splits
from pipeline.corpora.manifest import Manifest, read_manifest
from pipeline.corpora.refusals import Divided, check_parts, count_reasons, crossing_refusals, stop_if_too_many
from pipeline.corpora.splits import MADE, split_shares
from pipeline.params import Params, SplitParams
from pipeline.posts.duplicates import Links, find_links


def divide_posts(params: Params, layout: Layout) -> Divided:
    manifest_path = layout.root / params.posts.manifest
    folder = layout.root / params.posts.media
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder; set posts.media to the folder that holds the pictures and clips")
    manifest = read_manifest(manifest_path, folder, params.posts.labels)
    rows, refused = manifest.rows, manifest.refused
    stop_if_too_many(refused, len(rows) + len(refused), params.split.max_refused_share, manifest_path)

    links = find_links(
        rows,
        folder,
        distance=params.split.phash_distance,
        max_pixels=params.embed.max_pixels,
        workers=params.embed.workers,
    )
    edges = links.text + links.picture + links.near_picture + links.clip
    rows["group_id"] = duplicates.merge_groups(rows["group"].tolist(), rows["id"].tolist(), edges)

    rng = np.random.default_rng(params.seed)
    rows, crossing, how = _assign(rows, params.split, rng)
    refused = pd.concat([refused, crossing]).sort_values("row", ignore_index=True)
    stop_if_too_many(refused, len(rows) + len(refused), params.split.max_refused_share, manifest_path)
    _check_classes(rows, params.posts.labels, manifest_path)

    rows = rows.rename(columns={"id": "sample_id", "image": "image_path", "video": "video_path"})
    rows = rows.sort_values("sample_id", ignore_index=True)
    report = _metrics(rows, manifest, refused, links, count_rows(rows), how)
    return Divided(rows[schemas.POSTS_TABLE.names], refused, report)


def _assign(
    rows: pd.DataFrame, params: SplitParams, rng: np.random.Generator
) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Gives every row a split; returns the rows, those refused because their group crosses parts, and how it was done.

    Without given parts: train, val and test by the shares. With them: they are kept, a row whose group also stands in a
    more protected part is refused, and a missing part is made.
    """
    modality_set = rows[["text", "image", "video"]].notna().apply(lambda row: "+".join(row.index[row]), axis="columns")
    strata = pd.DataFrame({"label": rows["label"], "modalities": modality_set})
    if rows["split"].isna().all():
        rows["split"] = splits.grouped_split(rows["group_id"].tolist(), strata, split_shares(params), rng)
        return rows, crossing_refusals(rows.iloc[:0], {}), MADE

    crossing = splits.crossing_rows(rows["group_id"].tolist(), rows["split"].tolist())
    protected = rows.loc[~crossing].drop_duplicates("group_id")
    twin = dict(zip(protected["group_id"], protected["id"], strict=True))
    refused = crossing_refusals(rows.loc[crossing], twin)
    rows, strata = rows.loc[~crossing].reset_index(drop=True), strata.loc[~crossing].reset_index(drop=True)
    rows["split"], how = splits.completed(
        rows["split"].tolist(), rows["group_id"].tolist(), strata, params.val_share, rng
    )
    return rows, refused, how


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
    sets = present.apply(lambda row: "+".join(row.index[row]), axis="columns")
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
        },
        "refused": {"rows": len(refused), **count_reasons(refused)},
        "ignored_columns": ", ".join(manifest.ignored_columns),
    }
