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

from pipeline.core import artifacts
from pipeline.core.layout import Layout
from pipeline.core.metrics import write_metrics
from pipeline.core.schemas import FEATURES
from pipeline.encoders import image, text, video
from pipeline.encoders.embedding import TextContents, clip_files, embed_posts, picture_files
from pipeline.params import Params
from pipeline.sentiment.embedding import embed_corpus
from pipeline.sentiment.samples import Rows
from pipeline.training.device import pick


def run(params: Params, layout: Layout) -> None:
    """Raises InputError when an encoder cannot be loaded, too many files of a modality are unreadable, or none of its
    columns is of use."""
    device = pick(params.device)
    embed = params.embed
    posts = artifacts.read_posts(layout.table("posts"))
    folder = layout.root / params.posts.media

    words = TextContents(text.load(embed.text), device)
    report = {"text": embed_posts("text", posts, "text", words.encoder.identity, words, params, layout)}
    pictures = image.load(embed.image)
    source = picture_files(pictures, folder, device, embed)
    report["image"] = embed_posts("image", posts, "image_path", pictures.identity, source, params, layout)
    clips = video.load(embed.video)
    source = clip_files(clips, folder, device, embed)
    report["video"] = embed_posts("video", posts, "video_path", clips.identity, source, params, layout)
    report["source"] = embed_corpus(Rows.read("source", params.source, layout), FEATURES, words, embed, layout)
    wanted = params.target.modalities or FEATURES
    report["target"] = embed_corpus(Rows.read("target", params.target, layout), wanted, words, embed, layout)
    write_metrics(layout, "embed", report)
