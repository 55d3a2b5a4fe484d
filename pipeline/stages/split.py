"""Reads the corpora, finds copies, and gives every row a group and a split that no group crosses.

Reads:  the manifest and the media that params ``posts`` names, and the tables of ``source`` and ``target``.
Writes: data/split/{posts,source,source_texts,target}.parquet, data/split/target_folds.parquet, data/split/refused.csv,
        metrics/split.json, metrics/details/split.json, plots/split/.
"""

import sys
from collections.abc import Mapping
from typing import Any

import pandas as pd
import pyarrow as pa

from pipeline.core import artifacts, schemas
from pipeline.core.layout import Layout
from pipeline.core.metrics import write_metrics
from pipeline.core.terminal import printable
from pipeline.corpora import splits
from pipeline.corpora.refusals import Divided, dropped_rows_messages
from pipeline.figures.split import draw_split
from pipeline.params import Params
from pipeline.posts.partition import DividedPosts, divide_posts
from pipeline.sentiment.partition import divide_scored


def run(params: Params, layout: Layout) -> None:
    """Raises InputError when a corpus cannot be read, too many rows are faulty, or a part would be empty."""
    posts = divide_posts(params, layout) if "posts" in params.tracks else None
    none = Divided.left_out(schemas.SCORED_TABLE)
    scored = divide_scored(params, layout) if "sentiment" in params.tracks else (none, none, none)
    folds = _folds(scored[-1], params)
    artifacts.write_parquet_parts(layout.table("posts"), schemas.POSTS_TABLE, posts.tables if posts else [])
    corpora: dict[str, Divided] = dict(zip(("source", "source_texts", "target"), scored, strict=True))
    for name, corpus in corpora.items():
        table = pa.Table.from_pandas(corpus.table, schema=schemas.SCORED_TABLE, preserve_index=False)
        artifacts.write_parquet(layout.table(name), table)
    artifacts.write_parquet(layout.folds, pa.Table.from_pandas(folds, schema=schemas.FOLDS_TABLE, preserve_index=False))
    _report(posts, corpora, folds, params, layout)


def _folds(target: Divided, params: Params) -> pd.DataFrame:
    if target.table.empty:
        return pd.DataFrame(columns=schemas.FOLDS_TABLE.names)
    block = params.target
    protocol = target.report["protocol"]
    return splits.target_folds(target.table, protocol, block.folds, block.repeats, block.val_share, params.seed)


def _report(
    posts: DividedPosts | None, corpora: Mapping[str, Divided], folds: pd.DataFrame, params: Params, layout: Layout
) -> None:
    parts = {**({} if posts is None else {"posts": posts}), **corpora}
    refused = pd.concat([part.refused.assign(corpus=name) for name, part in parts.items()], ignore_index=True)
    # A part without refused rows has numbers of no type, which would make floats of the numbers of the others.
    artifacts.write_csv(layout.refused, refused[["corpus", "row", "id", "reason"]].astype({"row": "int64"}))
    report: dict[str, Any] = {name: part.report for name, part in parts.items() if part.report}
    if "target" in report:
        report["target"]["folds"] = int(folds["fold"].nunique())
    report["built_in"] = ", ".join(_built_in(params, layout)) or "none"
    for line in dropped_rows_messages(report):
        print(f"split: {printable(line)}", file=sys.stderr)
    write_metrics(layout, "split", report)
    with artifacts.replacing_folder(layout.plots("split")) as plots:
        if posts is not None:
            artifacts.write_csv(plots / "counts.csv", posts.counts)
            draw_split(plots / "split.png", posts.counts, "Posts in each split")


def _built_in(params: Params, layout: Layout) -> list[str]:
    """The corpora that are built in: figures of them say nothing of real data, and tables say so."""
    of_posts = {"posts": params.posts.manifest} if "posts" in params.tracks else {}
    pair = {"source": params.source.corpus, "target": params.target.corpus} if "sentiment" in params.tracks else {}
    samples = layout.sample_posts.parent.resolve()
    return [
        name for name, path in {**of_posts, **pair}.items() if (layout.root / path).resolve().is_relative_to(samples)
    ]
