"""Encodes texts, pictures and clips with frozen encoders, and cleans the features that corpora bring along.

Columns of such features are dropped, and their gaps filled with medians, by the features of all rows outside the test
part; no label is read. A cross-validated corpus has no test part, so there the features of all its rows choose and fill
the columns, also those of the rows that a fold is scored on.

Reads:  ``data/split/{posts,source,target}.parquet``, the media under params ``posts.media``, and the corpora that
        params ``source`` and ``target`` name.
Writes: ``data/embeddings/posts/{text,image,video}.parquet``,
        ``data/embeddings/{source,target}/{text,audio,visual}.parquet``, ``metrics/embed.json`` and
        ``metrics/details/embed.json``.
Keeps:  vectors by content and encoder in the user's cache folder, so that new posts cost only themselves.
"""

from collections.abc import Sequence
from typing import Any

from pipeline.core import artifacts, off
from pipeline.core.layout import Layout
from pipeline.core.metrics import write_metrics
from pipeline.core.schemas import FEATURES, MODALITIES
from pipeline.encoders import image, streams, text
from pipeline.encoders.clip_rows import embed_clips
from pipeline.encoders.embedding import NONE, TextContents, embed_posts, picture_files
from pipeline.params import Params
from pipeline.sentiment.embedding import embed_corpus
from pipeline.sentiment.samples import Rows
from pipeline.training.device import pick


def run(params: Params, layout: Layout) -> None:
    """Raises InputError when an encoder cannot be loaded, too many files of a modality are unreadable, or none of its
    columns is of use."""
    device, embed = pick(params.device), params.embed
    words = TextContents(text.load(embed.text), device)
    report: dict[str, Any] = {}
    if off.is_off("posts", layout):
        _leave_empty(layout, "posts", MODALITIES)
    else:
        report |= _posts(words, params, layout)
    if off.is_off("sentiment", layout):
        for corpus in ("source", "target"):
            _leave_empty(layout, corpus, FEATURES)
    else:
        source, target = Rows.read("source", params.source, layout), Rows.read("target", params.target, layout)
        report["source"] = embed_corpus(source, FEATURES, words, embed, layout, target)
        wanted = params.target.modalities or FEATURES
        report["target"] = embed_corpus(target, wanted, words, embed, layout, source)
    write_metrics(layout, "embed", report)


def _posts(words: TextContents, params: Params, layout: Layout) -> dict[str, Any]:
    """Writes the vectors of the posts; returns what became of each modality."""
    device, embed = words.device, params.embed
    posts = artifacts.read_posts(layout.table("posts"))
    folder = layout.root / params.posts.media
    pictures, clips = image.load(embed.image), streams.load(embed, words.encoder)
    picture_source = picture_files(pictures, folder, device, embed)
    return {
        "text": embed_posts("text", posts, "text", words.encoder.identity, words, device, params, layout),
        "image": embed_posts("image", posts, "image_path", pictures.identity, picture_source, device, params, layout),
        "video": embed_clips(posts, clips, device, params, layout),
    }


def _leave_empty(layout: Layout, corpus: str, modalities: Sequence[str]) -> None:
    for name in modalities:
        with artifacts.embeddings_writer(layout.embeddings(corpus, name), 1, {"name": NONE, "width": 1}):
            pass
