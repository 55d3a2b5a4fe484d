"""Renders the built-in example corpora, so that a fresh clone runs with no download.

Reads:  nothing.
Writes: data/sample/posts/ (manifest.csv, images/, videos/), data/sample/source.parquet, data/sample/target.parquet.
"""

from pipeline.core import artifacts
from pipeline.core.layout import Layout
from pipeline.params import Params
from pipeline.synthetic.pair import render_pair
from pipeline.synthetic.posts import render_posts


def run(params: Params, layout: Layout) -> None:
    with artifacts.replacing_folder(layout.sample_posts) as folder:
        render_posts(folder, posts=params.sample.posts, seed=params.seed, processes=params.processes)
    render_pair(
        layout.sample_corpus("source"),
        layout.sample_corpus("target"),
        source_rows=params.sample.source_rows,
        target_rows=params.sample.target_rows,
        unlabelled_rows=params.sample.unlabelled_rows,
        seed=params.seed,
    )
