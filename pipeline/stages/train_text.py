"""Trains the text specialist and cross-fits it; see ``pipeline/posts/specialist.py``.

Reads:  data/split/posts.parquet, data/embeddings/posts/text.parquet.
Writes: models/train_text/, metrics/train_text.json, metrics/details/train_text.json, plots/train_text/.
"""

from pipeline.core import off
from pipeline.core.layout import Layout
from pipeline.params import Params
from pipeline.posts.specialist import train


def run(params: Params, layout: Layout) -> None:
    if off.left_empty("train_text", "posts", layout):
        return
    train("text", params, layout)
