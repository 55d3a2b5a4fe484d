"""Trains the video specialist and cross-fits it; see ``pipeline/posts/specialist.py``.

Reads:  data/split/posts.parquet, data/embeddings/posts/video.parquet; the media, when the encoder learns too.
Writes: models/train_video/, metrics/train_video.json, metrics/details/train_video.json, plots/train_video/.
"""

from pipeline.core import off
from pipeline.core.layout import Layout
from pipeline.params import Params
from pipeline.posts.specialist import train


def run(params: Params, layout: Layout) -> None:
    if off.left_empty("train_video", "posts", layout):
        return
    train("video", params, layout)
