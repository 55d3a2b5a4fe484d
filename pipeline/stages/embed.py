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

import sys
from collections.abc import Sequence
from itertools import chain
from typing import Any

from pipeline.core import artifacts, off
from pipeline.core.layout import Layout
from pipeline.core.metrics import write_metrics
from pipeline.core.schemas import FEATURES, MODALITIES
from pipeline.corpora.refusals import unread_messages
from pipeline.encoders import engine, image, streams, text
from pipeline.encoders.clip_rows import embed_streams
from pipeline.encoders.clip_streams import ClipContents
from pipeline.encoders.cut_texts import count_cut
from pipeline.encoders.embedding import CHUNK, NONE, embed_posts
from pipeline.encoders.engine import Engine
from pipeline.encoders.image import ImageEncoder
from pipeline.encoders.sources import ModalitySource, TextContents, picture_files
from pipeline.encoders.text import TextEncoder
from pipeline.params import Params
from pipeline.sentiment.embedding import embed_corpus, extracted_alike
from pipeline.sentiment.samples import CorpusSamples


def run(params: Params, layout: Layout) -> None:
    """Raises InputError when an encoder cannot be loaded, too many files of a modality are unreadable, none of its
    columns is of use, or the engine cannot do the work."""
    report: dict[str, Any] = {}
    with engine.opened(params, layout.root / params.posts.media) as here:
        encoder = text.load(params.embed.text)
        words = here.source("text", TextContents(encoder, here.device))
        if off.is_off("posts", layout):
            _leave_empty(layout, "posts", MODALITIES)
        else:
            report |= _posts(encoder, words, here, params, layout)
        if off.is_off("sentiment", layout):
            for corpus in ("source", "target"):
                _leave_empty(layout, corpus, FEATURES)
        else:
            source, target = (
                CorpusSamples.read("source", params.source, layout),
                CorpusSamples.read("target", params.target, layout),
            )
            alike = extracted_alike(source, target, params.target.as_source)
            report["source"] = embed_corpus(source, FEATURES, words, params.embed, layout, dict.fromkeys(alike, target))
            requested = params.target.modalities or FEATURES
            report["target"] = embed_corpus(
                target, requested, words, params.embed, layout, dict.fromkeys(alike, source)
            )
            for rows in (source, target):
                if rows.corpus.words:
                    report[rows.name]["text"] |= count_cut(encoder, chain.from_iterable(rows.texts()))
    for line in unread_messages(report):
        print(f"embed: {line}", file=sys.stderr)
    write_metrics(layout, "embed", report)


def _posts(encoder: TextEncoder, words: ModalitySource, here: Engine, params: Params, layout: Layout) -> dict[str, Any]:
    """Writes the vectors of the posts; returns what became of each modality."""
    embed, folder = params.embed, layout.root / params.posts.media
    pixels = image.load(embed.image) if "pixels" in embed.image.streams else None
    pictures, clips = streams.of_pictures(embed.image, pixels, encoder), streams.load(embed, encoder)
    report = {"text": embed_posts("text", "text", words, params, layout)}
    texts = artifacts.read_posts_in_parts(layout.table("posts"), ["text"], CHUNK)
    report["text"] |= count_cut(encoder, (text for rows in texts for text in rows["text"].tolist()))
    if isinstance(pictures, ImageEncoder):
        files = here.source("image", picture_files(pictures, folder, here.device, embed))
        report["image"] = embed_posts("image", "image_path", files, params, layout)
    else:
        contents = ClipContents.of(pictures, folder, here.device, embed)
        source = here.clips("image", contents)
        report["image"] = embed_streams("image", "image_path", contents, source, params, layout)
    contents = ClipContents.of(clips, folder, here.device, embed)
    source = here.clips("video", contents)
    return report | {"video": embed_streams("video", "video_path", contents, source, params, layout)}


def _leave_empty(layout: Layout, corpus: str, modalities: Sequence[str]) -> None:
    for name in modalities:
        with artifacts.embeddings_writer(layout.embeddings(corpus, name), 1, {"name": NONE, "width": 1}):
            pass
