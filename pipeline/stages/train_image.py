"""Trains the image specialist and cross-fits it; see ``pipeline/posts/specialist.py``.

Reads:  data/split/posts.parquet, data/embeddings/posts/image.parquet; the media, when the encoder learns too.
Writes: models/train_image/, metrics/train_image.json, metrics/details/train_image.json, plots/train_image/.
"""

from pipeline.core import off
from pipeline.core.layout import Layout
from pipeline.params import Params
from pipeline.posts.specialist import train


def run(params: Params, layout: Layout) -> None:
    if off.left_empty("train_image", "posts", layout):
        return
    train("image", params, layout)
