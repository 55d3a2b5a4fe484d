"""Gives every row of source and target a group and a split that no group crosses."""

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core import schemas
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.core.schemas import Feature
from pipeline.core.terminal import printable
from pipeline.corpora import duplicates, splits
from pipeline.corpora.features import FeatureCorpus, average_groups, only_scored, read_corpus
from pipeline.corpora.refusals import Divided, check_parts, count_reasons, crossing_reasons, stop_if_too_many
from pipeline.corpora.shared_groups import shared_groups
from pipeline.corpora.splits import MADE, count_groups, split_shares
from pipeline.corpora.wording import name_key
from pipeline.params import Params, SplitParams

LEAST_SPREAD = 1e-3
"""The least standard deviation of scores of which metrics, kept to six decimals, show three digits."""


def divide_scored(params: Params, layout: Layout) -> tuple[Divided, Divided, Divided]:
    """The source, the source's own words, and the target."""
    source_path, texts_path = layout.root / params.source.corpus, layout.root / params.source.texts
    target_path = layout.root / params.target.corpus
    source = only_scored(read_corpus(source_path, "source.corpus"))
    texts = only_scored(read_corpus(texts_path, "source.texts", only_words=True))
    target = read_corpus(target_path, "target.corpus")
    limit = params.split.max_refused_share
    # Rows first: where all of them are faulty there is no modality either, and that would be no help.
    for path, corpus in ((source_path, source), (texts_path, texts), (target_path, target)):
        _check_rows(corpus, path, limit)
        _say_set_aside(corpus, path)
    if source.words and not texts.words:
        message = f"{source_path.name} holds words and {texts_path.name} none, so no text encoder is tuned on them; "
        print(f"split: {printable(message)} source.texts={printable(params.source.corpus)} tunes it", file=sys.stderr)
    used = _chosen(params.target.modalities, target, target_path)
    _check_common(source, source_path, used, target_path)
    target = _with_any_of(target, used)
    _check_rows(target, target_path, limit)

    protocol = params.target.protocol
    if protocol == "auto":
        protocol = "holdout" if _has_split(target.rows) else "cross_validation"
    from_source = _divide(source, source_path, params, level=params.source.level, stream=1)
    # Words of a row that tests the source model must not tune the encoder that makes its vectors.
    parts = zip(from_source.table["given_group"].map(name_key), from_source.table["split"], strict=True)
    known = dict(parts) if source.words else {}
    words = _divide(texts, texts_path, params, stream=2, known=known) if texts.words else _no_words(texts)
    divided = _divide(target, target_path, params, level=params.target.level, stream=3, protocol=protocol)
    divided.report["protocol"] = protocol
    grouped = {
        name for name, level in (("target", params.target.level), ("source", params.source.level)) if level != "row"
    }
    for path, name, other in ((source_path, "source", from_source), (texts_path, "source_texts", words)):
        _check_apart(divided.table, target_path, other.table, path, name, grouped, protocol)
    return from_source, words, divided


def _say_set_aside(corpus: FeatureCorpus, path: Path) -> None:
    if not corpus.set_aside:
        return
    aside = ", ".join(f"{count} x {name[:40]!r}" for name, count in corpus.set_aside.items())
    no_test = "" if "test" in set(corpus.rows["split"]) else "; none is marked test"
    message = f"{path.name}: rows are left out, since the split column says {aside}, not train, val or test{no_test}"
    print(f"split: {printable(message)}", file=sys.stderr)


def _check_apart(
    target: pd.DataFrame,
    target_path: Path,
    source: pd.DataFrame,
    source_path: Path,
    name: str,
    grouped: Collection[str],
    protocol: str,
) -> None:
    """Raises InputError where a group that is to be scored is one that the source model learns from."""
    scored = target[target["score"].notna() & ((target["split"] == "test") | (protocol == "cross_validation"))]
    seen = source[source["split"].isin(["train", "val"])]
    if shared := shared_groups({"target": scored, name: seen}, grouped):
        few = ", ".join(shared[:5]) + ", …" * (len(shared) > 5)
        raise InputError(
            f"{target_path}: {len(shared)} groups of its rows to be scored have the names of groups of {source_path} "
            f"({few}), which the source model learns from; rename those that are others, or take the rows out of one "
            "file"
        )


def _check_rows(corpus: FeatureCorpus, path: Path, max_refused_share: float) -> None:
    """Raises InputError where too many rows are refused, or none is left."""
    stop_if_too_many(corpus.refused, len(corpus.rows) + len(corpus.refused), max_refused_share, path)
    if corpus.rows.empty:
        aside = ", ".join(f"{count} x {name[:40]!r}" for name, count in corpus.set_aside.items())
        raise InputError(f"{path}: no row is left: the split column says {aside}, where train, val or test is needed")


def _chosen(requested: Sequence[Feature], target: FeatureCorpus, path: Path) -> tuple[Feature, ...]:
    """The target's modalities that are used. Raises InputError for one that it lacks."""
    missing = [name for name in requested if name not in target.modalities]
    if missing:
        has = ", ".join(target.modalities) or "none"
        raise InputError(f"{path}: target.modalities asks for {', '.join(missing)}, and the corpus has {has}")
    return tuple(requested) or target.modalities


def _check_common(source: FeatureCorpus, source_path: Path, used: Sequence[Feature], target_path: Path) -> None:
    if not set(source.modalities) & set(used):
        raise InputError(
            f"{target_path}: its modalities {', '.join(used) or 'none'} and those of {source_path}, "
            f"{', '.join(source.modalities) or 'none'}, have none in common, so nothing can be carried over"
        )


def _with_any_of(corpus: FeatureCorpus, modalities: Sequence[Feature]) -> FeatureCorpus:
    """Refuses rows that have none of the modalities."""
    some = np.zeros(len(corpus.rows), dtype=bool)
    for name in modalities:
        some |= corpus.present[name] if name in corpus.present else corpus.rows["text"].notna().to_numpy()
    if some.all():
        return corpus
    refused = corpus.rows.loc[~some, ["row", "id"]].assign(reason=f"no {', '.join(modalities)}")
    return replace(
        corpus.where(some), refused=pd.concat([corpus.refused, refused]).sort_values("row", ignore_index=True)
    )


def _has_split(rows: pd.DataFrame) -> bool:
    """Whether rows with a score are divided into some to learn from and some that are held out."""
    splits = set(rows.loc[rows["score"].notna(), "split"])
    return "train" in splits and bool(splits & {"val", "test"})


def _no_words(texts: FeatureCorpus) -> Divided:
    nothing = pd.DataFrame(columns=schemas.SCORED_TABLE.names)
    return Divided(nothing, texts.refused.iloc[:0], {"rows": 0, "split": "none: the table has no words in `text`"})


def _divide(
    corpus: FeatureCorpus,
    path: Path,
    params: Params,
    *,
    level: str = "row",
    stream: int,
    protocol: str = "holdout",
    known: Mapping[str, str] | None = None,
) -> Divided:
    """Gives every row, or every group of rows as one, a split and a group that holds its copies.

    Args:
        level: ``group`` averages the rows of a group into one.
        stream: tells the random choices of one corpus from those of another.
        protocol: ``cross_validation`` leaves the parts to the folds.
        known: key of a group's name → the part it has elsewhere and must have here, unless the corpus gives a split.
    """
    corpus, edges = _with_copies(corpus, level)
    rows = _with_groups(corpus.rows, edges)
    labelled = rows["score"].notna().to_numpy()
    scored, rng = rows.loc[labelled].reset_index(drop=True), np.random.default_rng([params.seed, stream])
    if scored.empty:
        raise InputError(f"{path}: no row has a score")
    crossing = scored.iloc[:0].assign(reason="")
    if protocol == "cross_validation":
        divided, how = scored.assign(part="train", group_id=scored["whole"]), "by folds, groups whole"
    elif _has_split(scored):
        divided, crossing, how = _keep_given(scored, params.split, rng)
    else:
        divided, how = _by_shares(scored, params.split, known or {}, rng), MADE
    faults = pd.concat([corpus.refused, crossing[["row", "id", "reason"]]])
    stop_if_too_many(faults, len(rows) + len(corpus.refused), params.split.max_refused_share, path)
    _check_scores(divided, protocol, path, made=how == MADE)

    free, bound = _unlabelled(rows.loc[~labelled], divided, protocol)
    table = _scored_table(pd.concat([divided, free]))
    refused = pd.concat([faults, bound]).sort_values("row", ignore_index=True)
    return Divided(table, refused, _report(table, corpus, refused, len(edges), how))


def _with_groups(rows: pd.DataFrame, edges: duplicates.Edges) -> pd.DataFrame:
    """The rows with ``copies``, which names each set of copies, and ``whole``, which names groups joined by copies."""
    ids, given = rows["id"].tolist(), rows["group"].tolist()
    copies = duplicates.merge_groups([None] * len(ids), ids, edges)
    return rows.assign(copies=copies, whole=duplicates.merge_groups(given, ids, edges))


def _scored_table(rows: pd.DataFrame) -> pd.DataFrame:
    names = {"id": "sample_id", "group": "given_group", "split": "given_split", "part": "split"}
    table = rows.rename(columns=names).sort_values("sample_id", ignore_index=True)
    return table[schemas.SCORED_TABLE.names]


def _with_copies(corpus: FeatureCorpus, level: str) -> tuple[FeatureCorpus, duplicates.Edges]:
    """The corpus at its level, and which of its rows are copies; groups are where rows of theirs are."""
    if level == "row":
        return corpus, duplicates.near_rows(corpus.rows["text"].tolist(), corpus.features, corpus.present)
    alike = duplicates.near_rows([None] * len(corpus.rows), corpus.features, corpus.present)
    averaged = average_groups(corpus)
    group_of = pd.Index(averaged.rows["group"]).get_indexer(pd.Index(corpus.rows["group"]))
    edges = duplicates.between(alike, group_of.tolist()) + duplicates.near_lines(averaged.rows["text"].tolist())
    return averaged, sorted(set(edges))


def _by_shares(
    rows: pd.DataFrame, params: SplitParams, known: Mapping[str, str], rng: np.random.Generator
) -> pd.DataFrame:
    """Gives rows a ``part`` by the shares, and a ``group_id`` that copies share."""
    rank = rows["group"].map(name_key).map(known).map(splits.PROTECTION).groupby(rows["whole"]).transform("max")
    parts = rank.map({level: part for part, level in splits.PROTECTION.items()}).astype(object)
    free = parts.isna()
    if free.any():
        groups, strata = rows.loc[free, "whole"].tolist(), splits.score_strata(rows.loc[free, "score"].tolist())
        parts[free] = splits.grouped_split(groups, strata, split_shares(params), rng)
    return rows.assign(part=parts, group_id=rows["whole"])


def _keep_given(
    rows: pd.DataFrame, params: SplitParams, rng: np.random.Generator
) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Keeps the given parts; returns the rows, those refused with a ``reason``, and how a missing part was made.

    A row goes when its group, or a copy of it, also stands in a more protected part.
    """
    ids = rows["id"].tolist()
    sets = {"group": duplicates.merge_groups(rows["group"].tolist(), ids, []), "a copy": rows["copies"].to_numpy()}
    reasons = crossing_reasons(ids, rows["split"].tolist(), sets)
    kept = np.array([reason is None for reason in reasons])
    left = rows.loc[kept].reset_index(drop=True)
    given, ids = left["group"].tolist(), left["id"].tolist()
    first: dict[str, int] = {}
    edges = [(first.setdefault(name, at), at) for at, name in enumerate(left["copies"])]
    left["group_id"] = duplicates.merge_groups(given, ids, edges)
    strata = splits.score_strata(left["score"].tolist())
    left["part"], how = splits.completed(
        left["split"].tolist(), left["group_id"].tolist(), strata, params.val_share, rng
    )
    return left, rows.assign(reason=pd.Series(reasons, rows.index, dtype=object)).loc[~kept], how


def _check_scores(rows: pd.DataFrame, protocol: str, path: Path, *, made: bool) -> None:
    if made and rows["group_id"].nunique() < len(schemas.SPLITS):
        raise InputError(f"{path}: {count_groups(rows, 'group')}, and train, val and test need one each")
    if protocol == "holdout":
        check_parts(set(rows["part"]), path)
    learned = rows.loc[rows["part"] == "train", "score"]
    if learned.nunique() < 2:
        raise InputError(f"{path}: all training rows have the score {learned.iloc[0]}; there is nothing to learn")
    if (spread := learned.std(ddof=0)) < LEAST_SPREAD:
        factor = 10.0 ** -np.floor(np.log10(spread))
        raise InputError(
            f"{path}: the scores of the training rows differ by {spread:.1g} (standard deviation), and figures are "
            f"kept to six decimals; multiply all scores, of both corpora alike, by {factor:,.0f}"
        )


def _unlabelled(rows: pd.DataFrame, scored: pd.DataFrame, protocol: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows without a score: those that adapters may meet, and those left out since their group is scored.

    A model that met the features of a test video in training would not be tested on an unseen one.
    """
    held_out = scored if protocol == "cross_validation" else scored.loc[scored["part"] == "test"]
    bound = rows["whole"].isin(held_out["whole"])
    names = dict(zip(scored["group"].map(name_key), scored["group_id"], strict=True))
    free = rows.loc[~bound]
    free = free.assign(part=schemas.UNLABELLED, group_id=free["group"].map(name_key).map(names).fillna(free["whole"]))
    where = "has rows with one" if protocol == "cross_validation" else "is in the test part"
    return free, rows.loc[bound, ["row", "id"]].assign(reason=f"no score, and its group {where}")


def _report(table: pd.DataFrame, corpus: FeatureCorpus, refused: pd.DataFrame, copies: int, how: str) -> dict[str, Any]:
    parts = {name: table.loc[table["split"] == name] for name in (*schemas.SPLITS, schemas.UNLABELLED)}
    scores = table["score"].dropna()
    return {
        "rows": len(table),
        "groups": int(table["group_id"].nunique()),
        "split": how,
        **{name: {"rows": len(rows), "groups": int(rows["group_id"].nunique())} for name, rows in parts.items()},
        "score": {"mean": scores.mean(), "std": scores.std(ddof=0), "min": scores.min(), "max": scores.max()},
        "modalities": ", ".join(corpus.modalities),
        "copies": copies,
        "refused": {"rows": len(refused), **count_reasons(refused)},
        "set_aside": {"rows": sum(corpus.set_aside.values()), **corpus.set_aside},
        "ignored_columns": ", ".join(corpus.ignored_columns),
    }
