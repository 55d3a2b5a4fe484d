"""Reads the corpora, finds copies, and gives every row a group and a split that no group crosses.

Reads:  the manifest and the media that params ``posts`` names, and the tables of ``source`` and ``target``.
Writes: data/split/{posts,source,source_texts,target}.parquet, data/split/target_folds.parquet, data/split/refused.csv,
        metrics/split.json, metrics/details/split.json, plots/split/.
"""

import pandas as pd
import pyarrow as pa

from pipeline.core import artifacts, schemas
from pipeline.core.layout import Layout
from pipeline.core.metrics import write_metrics
from pipeline.corpora import splits
from pipeline.figures.split import draw_split
from pipeline.params import Params
from pipeline.posts.partition import count_rows, divide_posts
from pipeline.sentiment.partition import divide_scored


def run(params: Params, layout: Layout) -> None:
    """Raises InputError when a corpus cannot be read, too many rows are faulty, or a part would be empty."""
    posts = divide_posts(params, layout)
    source, texts, target = divide_scored(params, layout)
    folds = splits.target_folds(
        target.table,
        target.report["protocol"],
        params.target.folds,
        params.target.repeats,
        params.target.val_share,
        params.seed,
    )
    artifacts.write_parquet(
        layout.table("posts"), pa.Table.from_pandas(posts.table, schema=schemas.POSTS_TABLE, preserve_index=False)
    )
    for name, corpus in (("source", source), ("source_texts", texts), ("target", target)):
        table = pa.Table.from_pandas(corpus.table, schema=schemas.SCORED_TABLE, preserve_index=False)
        artifacts.write_parquet(layout.table(name), table)
    artifacts.write_parquet(layout.folds, pa.Table.from_pandas(folds, schema=schemas.FOLDS_TABLE, preserve_index=False))
    parts = {"posts": posts, "source": source, "source_texts": texts, "target": target}
    refused = pd.concat([part.refused.assign(corpus=name) for name, part in parts.items()], ignore_index=True)
    artifacts.write_csv(layout.refused, refused[["corpus", "row", "id", "reason"]])
    report = {name: part.report for name, part in parts.items()}
    report["target"]["folds"] = int(folds["fold"].nunique())
    write_metrics(layout, "split", report)
    counts = count_rows(posts.table)
    with artifacts.replacing_folder(layout.plots("split")) as plots:
        artifacts.write_csv(plots / "counts.csv", counts)
        draw_split(plots / "split.png", counts, "Posts in each split")
