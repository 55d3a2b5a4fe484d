"""Reads the manifest, finds copies, and gives every post a group and a split that no group crosses.

Reads:  the manifest and the media that params ``posts`` names.
Writes: data/split/posts.parquet, data/split/refused.csv, metrics/split.json, plots/split/.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline import artifacts, figures, schemas
from pipeline.corpora import duplicates, splits
from pipeline.corpora.manifest import Manifest, read_manifest
from pipeline.errors import InputError
from pipeline.layout import Layout
from pipeline.params import Params
from pipeline.params import Split as SplitParams
from pipeline.schemas import MODALITIES


def run(params: Params, layout: Layout) -> None:
    manifest_path = layout.root / params.posts.manifest
    folder = layout.root / params.posts.media
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder; set posts.media to the folder that holds the pictures and clips")
    manifest = read_manifest(manifest_path, folder, params.posts.labels)
    rows, refused = manifest.rows, manifest.refused
    _stop_if_too_many(refused, len(rows) + len(refused), params.split.max_refused_share, manifest_path)

    links = duplicates.find_links(
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
    _stop_if_too_many(refused, len(rows) + len(refused), params.split.max_refused_share, manifest_path)
    _check_classes(rows, params.posts.labels, manifest_path)

    rows = rows.rename(columns={"id": "sample_id", "image": "image_path", "video": "video_path"})
    rows = rows.sort_values("sample_id", ignore_index=True)
    counts = count_rows(rows)
    artifacts.write_parquet(
        layout.table("posts"),
        pa.Table.from_pandas(rows[schemas.POSTS_TABLE.names], schema=schemas.POSTS_TABLE, preserve_index=False),
    )
    artifacts.write_csv(layout.refused, refused)
    artifacts.write_json(layout.metrics("split"), _metrics(rows, manifest, refused, links, counts, how))
    with artifacts.replacing_folder(layout.plots("split")) as plots:
        artifacts.write_csv(plots / "counts.csv", counts)
        figures.split_bars(plots / "split.png", counts, "Posts in each split")


def _stop_if_too_many(refused: pd.DataFrame, total: int, share: float, path: Path) -> None:
    if len(refused) > share * total:
        first = refused.iloc[0]
        reasons = ", ".join(f"{count} x {reason}" for reason, count in _by_reason(refused).items())
        raise InputError(
            f"{path}: {len(refused)} of {total} rows refused ({reasons}), more than split.max_refused_share {share}; "
            f"the first is row {first['row']}, id {first['id']}"
        )


def _by_reason(refused: pd.DataFrame) -> dict[str, int]:
    """Reasons and how often; those that name a row or id are counted under what they have in common."""
    kinds = refused["reason"].str.replace(r",? (in row|as) .*", "", regex=True)
    return {str(reason): int(count) for reason, count in kinds.value_counts(sort=False).sort_index().items()}


def _assign(
    rows: pd.DataFrame, params: SplitParams, rng: np.random.Generator
) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Gives every row a split; returns the rows, those refused because their group crosses parts, and how it was done.

    Without given parts: train, val and test by the shares. With them: they are kept, a row whose group also stands in a
    more protected part is refused, and a missing part is made: validation comes out of the training rows, and where
    nothing is marked test, the rows marked val are what nobody may see, so they become the test part.
    """
    modality_set = rows[["text", "image", "video"]].notna().apply(lambda row: "+".join(row.index[row]), axis="columns")
    strata = pd.DataFrame({"label": rows["label"], "modalities": modality_set})
    if rows["split"].isna().all():
        shares = {"train": 1 - params.val_share - params.test_share, "val": params.val_share, "test": params.test_share}
        rows["split"] = splits.grouped_split(rows["group_id"].tolist(), strata, shares, rng)
        return rows, _refusals(rows.iloc[:0], {}), "made by shares, groups whole"

    crossing = splits.crossing_rows(rows["group_id"].tolist(), rows["split"].tolist())
    protected = rows.loc[~crossing].drop_duplicates("group_id")
    twin = dict(zip(protected["group_id"], protected["id"], strict=True))
    refused = _refusals(rows.loc[crossing], twin)
    rows, strata = rows.loc[~crossing].reset_index(drop=True), strata.loc[~crossing].reset_index(drop=True)
    how = "given"
    if "test" not in set(rows["split"]):
        rows["split"] = rows["split"].replace({"val": "test"})
        how += "; no row was marked test, so the rows marked val are the test part"
    if "val" not in set(rows["split"]):
        train = rows["split"] == "train"
        shares = {"train": 1 - params.val_share, "val": params.val_share}
        rows.loc[train, "split"] = splits.grouped_split(
            rows.loc[train, "group_id"].tolist(), strata.loc[train].reset_index(drop=True), shares, rng
        )
        how += "; validation was taken out of the training rows"
    return rows, refused, how


def _refusals(rows: pd.DataFrame, twin: dict[str, str]) -> pd.DataFrame:
    """Refused rows, given the id that each group keeps in a more protected part."""
    reasons = [f"group also stands in a more protected split, as {twin[group]}" for group in rows["group_id"]]
    return pd.DataFrame({"row": rows["row"], "id": rows["id"], "reason": pd.Series(reasons, rows.index, dtype=object)})


def _check_classes(rows: pd.DataFrame, labels: tuple[str, ...], path: Path) -> None:
    parts = set(rows["split"])
    for part in schemas.SPLITS:
        if part not in parts:
            raise InputError(f"{path}: no row is left for {part}; too few groups, or the split column gives it none")
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
    links: duplicates.Links,
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
        "posts": {
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
            "refused": {"rows": len(refused), **_by_reason(refused)},
            "ignored_columns": ", ".join(manifest.ignored_columns),
        }
    }
