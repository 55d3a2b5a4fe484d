"""Gives every post a group and a split that no group crosses."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.core import schemas
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.core.schemas import MODALITIES
from pipeline.core.terminal import printable
from pipeline.corpora import splits
from pipeline.corpora.duplicates import Groups, group_numbers, in_alphabet
from pipeline.corpora.manifest import Manifest, read_manifest
from pipeline.corpora.refusals import check_parts, count_reasons, crossing_reasons, stop_if_too_many
from pipeline.corpora.splits import MADE, split_shares
from pipeline.corpora.stored_rows import StoredRows
from pipeline.corpora.wording import name_key
from pipeline.params import Params, SplitParams
from pipeline.posts.copies import Links, find_links, grown_groups, linked_groups

SHOWN = 60
"""Letters of a label in a warning."""


@dataclass(frozen=True)
class DividedPosts:
    """Posts with their groups and splits.

    Attributes:
        tables: the parts of ``schemas.POSTS_TABLE``, one after another.
        counts: as of ``count_rows``.
        refused: ``row, id, reason`` of the posts left out.
        report: the metrics.
    """

    tables: Iterator[pa.Table]
    counts: pd.DataFrame
    refused: pd.DataFrame
    report: dict[str, Any]


@dataclass(frozen=True)
class _Known:
    """What is kept in memory of N posts, whose texts and paths are not.

    Attributes:
        numbers: int64 [N], which posts of the manifest these are.
        ids, given: texts; ``given`` is the group that the manifest gives, or null.
        user: int64 [N], equal where the given group is, however it is spelt; -1 without one.
        kinds: ``label, modalities, split`` as categories; ``split`` may be missing.
    """

    numbers: np.ndarray
    ids: pa.ChunkedArray
    given: pa.ChunkedArray
    user: np.ndarray
    kinds: pd.DataFrame

    def where(self, kept: np.ndarray) -> "_Known":
        if kept.all():
            return self
        ids, given = (column.filter(pa.array(kept)) for column in (self.ids, self.given))
        kinds = self.kinds.loc[kept].reset_index(drop=True)
        return _Known(self.numbers[kept], ids, given, self.user[kept], kinds)


def divide_posts(params: Params, layout: Layout) -> DividedPosts:
    """Reads the manifest and divides its posts: in memory are their ids, groups and some numbers, and some texts at a
    time.
    """
    manifest_path = layout.root / params.posts.manifest
    folder = layout.root / params.posts.media
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder; set posts.media to the folder that holds the pictures and clips")
    manifest = read_manifest(manifest_path, folder, params.posts.labels, layout.cache)
    rows, refused = manifest.rows, manifest.refused
    total = len(rows) + len(refused)
    stop_if_too_many(refused, total, params.split.max_refused_share, manifest_path)

    links = find_links(rows, folder, params, layout.cache)
    known = _known(manifest)
    assigned = _assign(known, links, params.split, np.random.default_rng(params.seed))
    warnings = [*assigned.warnings, *_spelt_apart(assigned.known.kinds["label"].unique())]
    if known.given.null_count == len(known.given):
        warnings.append("no post has a group: posts of one author may stand in several parts")
    for warning in warnings:
        print(f"split: {printable(warning)}", file=sys.stderr)
    refused = pd.concat([refused, assigned.refused]).sort_values("row", ignore_index=True)
    stop_if_too_many(refused, total, params.split.max_refused_share, manifest_path)
    _check_classes(assigned.known.kinds, params.posts.labels, manifest_path)

    counts = count_rows(assigned.known.kinds)
    report = _metrics(known, assigned, refused, links, counts, manifest.ignored_columns)
    if warnings:
        report["warnings"] = warnings
    return DividedPosts(_tables(rows.where(assigned.kept), assigned), counts, refused, report)


def _known(manifest: Manifest) -> _Known:
    rows = manifest.rows
    sets = (_modality_sets(part[list(MODALITIES)].notna()) for part in rows.parts())
    columns = {"label": rows.texts("label"), "modalities": sets, "split": rows.texts("split")}
    kinds = pd.DataFrame({name: _categories(parts) for name, parts in columns.items()})
    return _Known(manifest.numbers, rows.column("id"), rows.column("group"), group_numbers(rows), kinds)


def _categories(parts: Iterable[Sequence[str | None]]) -> pd.Categorical:
    """Few different names of many rows; None is missing."""
    seen: dict[str, int] = {}
    codes = np.concatenate(
        [
            np.array([-1 if name is None else seen.setdefault(name, len(seen)) for name in part], dtype=np.int32)
            for part in parts
        ]
    )
    names = sorted(seen)
    places = np.array([*map(names.index, seen), -1], dtype=np.int32)
    return pd.Categorical.from_codes(places[codes], pd.Index(names, dtype=object))


@dataclass(frozen=True)
class _Assigned:
    """What is kept of the posts and why not of others; the groups and, in ``known.kinds``, the splits of those kept."""

    known: _Known
    groups: Groups
    kept: np.ndarray
    refused: pd.DataFrame
    how: str
    warnings: list[str]


def _assign(known: _Known, links: Links, params: SplitParams, rng: np.random.Generator) -> _Assigned:
    """Gives every row a group and a split.

    Without given parts: train, val and test by the shares, copies and given groups whole. With them: they are kept, a
    row goes if its given group or a copy of it also stands in a more protected part, and a missing part is made. The
    rest of a dialogue stays when a line of it goes: groups are joined by the copies that are left, which cross nothing.
    """
    sets = links.sets(len(known.ids))
    made = bool(known.kinds["split"].isna().all())
    kept, reasons = np.ones(len(known.ids), dtype=bool), []
    if not made:
        alone = known.user < 0
        user = np.where(alone, len(alone) + np.arange(len(alone)), known.user)
        given = np.asarray(known.kinds["split"], dtype=object)
        why = crossing_reasons(known.ids, given, {"group": user, **sets})
        kept = np.array([reason is None for reason in why])
        reasons = [reason for reason in why if reason is not None]
    gone = known.where(~kept) if len(reasons) else None
    left = known.where(kept)
    sets = {what: names[kept] for what, names in sets.items()}
    groups = linked_groups(left.given, left.ids, left.user, sets)
    strata = left.kinds[["label", "modalities"]]
    if made:
        split, how = splits.grouped_split(groups.codes, strata, split_shares(params), rng), MADE
    else:
        given = np.asarray(left.kinds["split"], dtype=object)
        split, how = splits.completed(given, groups.codes, strata, params.val_share, rng)
    spelt = in_alphabet(left.given)[0]
    spelt = np.where(spelt < 0, len(spelt) + np.arange(len(spelt)), spelt)
    warnings = list(grown_groups(groups, spelt, left.ids, sets, params.max_group_share))
    refused = pd.DataFrame(
        {
            "row": [] if gone is None else gone.numbers,
            "id": [] if gone is None else gone.ids.to_pylist(),
            "reason": reasons,
        }
    )
    kinds = left.kinds.assign(split=pd.Categorical(split))
    left = _Known(left.numbers, left.ids, left.given, left.user, kinds)
    return _Assigned(left, groups, kept, refused, how, warnings)


def _tables(rows: StoredRows, assigned: _Assigned) -> Iterator[pa.Table]:
    """``schemas.POSTS_TABLE``, sorted by ``sample_id``, some rows at a time."""
    rank = in_alphabet(assigned.known.ids)[0]
    split = assigned.known.kinds["split"].cat
    parts = pa.array(split.categories, pa.string())
    for at, table in rows.in_order(rank):
        columns = {
            "sample_id": table["id"],
            "group_id": assigned.groups.names.take(pa.array(assigned.groups.codes[at])),
            "split": parts.take(pa.array(split.codes.to_numpy()[at])),
            "label": table["label"],
            "text": table["text"],
            "image_path": table["image"],
            "video_path": table["video"],
        }
        yield pa.table(columns).select(schemas.POSTS_TABLE.names).cast(schemas.POSTS_TABLE)


def _modality_sets(present: pd.DataFrame) -> list[str]:
    """What is there in each row, such as ``text+image``."""
    bits = range(present.shape[1])
    names = [str(name) for name in present]
    sets = ["+".join(names[bit] for bit in bits if code >> bit & 1) for code in range(2 ** len(names))]
    return [sets[code] for code in (present.to_numpy() @ (1 << np.arange(len(names)))).tolist()]


def _check_classes(kinds: pd.DataFrame, labels: tuple[str, ...], path: Path) -> None:
    check_parts(set(kinds["split"].unique()), path)
    trained = set(kinds.loc[kinds["split"] == "train", "label"].unique())
    missing = sorted((set(labels) or set(kinds["label"].unique())) - trained)
    if missing:
        raise InputError(f"{path}: no training row has the label {', '.join(missing)}; add rows or leave the label out")
    if len(trained) < 2:
        raise InputError(f"{path}: all training rows have the label {trained.pop()}; there is nothing to tell apart")


def _spelt_apart(labels: Iterable[str]) -> Iterator[str]:
    """A warning for labels that `split` would take for one name, were they authors: likely one class, spelt twice."""
    alike: dict[str, list[str]] = {}
    for label in sorted(labels):
        alike.setdefault(name_key(label), []).append(label)
    for spellings in alike.values():
        if len(spellings) > 1:
            named = ", ".join(repr(label if len(label) <= SHOWN else f"{label[: SHOWN - 1]}…") for label in spellings)
            yield f"the labels {named} are classes of their own; spell them alike if they are one"


def count_rows(kinds: pd.DataFrame) -> pd.DataFrame:
    """Rows a split by class and by set of modalities: ``split, kind (class | modalities), name, rows``.

    Args:
        kinds: ``split, label, modalities`` of each row.
    """
    present = [part for part in schemas.SPLITS if part in set(kinds["split"].unique())]
    parts = []
    for kind, names in (("class", kinds["label"]), ("modalities", kinds["modalities"])):
        table = pd.crosstab(kinds["split"], names).reindex(present)
        table = table.rename(index=str, columns=str)
        long = table.melt(ignore_index=False, var_name="name", value_name="rows").reset_index()
        parts.append(long.assign(kind=kind)[["split", "kind", "name", "rows"]])
    return pd.concat(parts, ignore_index=True)


def _metrics(
    known: _Known,
    assigned: _Assigned,
    refused: pd.DataFrame,
    links: Links,
    counts: pd.DataFrame,
    ignored_columns: tuple[str, ...],
) -> dict[str, Any]:
    sizes, rows = np.bincount(assigned.groups.codes), len(assigned.known.ids)
    given = len(known.given.unique().drop_null()) + known.given.null_count
    by_part: dict[str, dict[str, int]] = {"class": {}, "modalities": {}}
    nested: dict[str, Any] = {
        part: {"rows": int((assigned.known.kinds["split"] == part).sum()), **{kind: {} for kind in by_part}}
        for part in schemas.SPLITS
    }
    for part, kind, name, number in counts.itertuples(index=False):
        nested[part][kind][name] = int(number)
    return {
        "rows": rows,
        "split": assigned.how,
        **nested,
        "groups": {"given": given, "after_merging": len(sizes), "largest_share": float(sizes.max() / rows)},
        "copies": {
            "same_text": len(links.text),
            "same_picture": len(links.picture),
            "near_picture_pairs": len(links.near_picture),
            "same_clip": len(links.clip),
            "near_clip_pairs": len(links.near_clip),
        },
        "refused": {"rows": len(refused), **count_reasons(refused)},
        "ignored_columns": ", ".join(ignored_columns),
    }
