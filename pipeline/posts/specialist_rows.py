"""The posts that a specialist sees."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import BaseModel

from pipeline.core import artifacts
from pipeline.core.artifacts import Embeddings
from pipeline.core.layout import Layout
from pipeline.core.schemas import Modality, Stream
from pipeline.encoders import streams
from pipeline.params import Params
from pipeline.posts.folds import Grouping
from pipeline.posts.labels import codes_of, labels_of
from pipeline.training.device import pick
from pipeline.training.finished import Finished, finished

MEDIA_COLUMN: dict[Modality, str] = {"text": "text", "image": "image_path", "video": "video_path"}


@dataclass(frozen=True)
class SpecialistRows:
    """The posts that have the modality: N rows, their vectors [N, width] and their classes [N].

    NaN stands in the columns of a stream that a clip lacks.

    ``alone`` says that no post of the corpus has another modality; ``finished`` keeps what was trained on them.
    """

    modality: Modality
    posts: pd.DataFrame
    embeddings: Embeddings
    vectors: np.ndarray
    codes: torch.Tensor
    labels: tuple[str, ...]
    grouping: Grouping
    alone: bool
    finished: Finished

    @property
    def streams(self) -> dict[Stream, slice]:
        """The columns of each stream of a clip; none of other modalities."""
        return streams.slices(self.embeddings.encoder)

    def texts(self, at: np.ndarray) -> list[str]:
        return self.posts["text"].iloc[at].tolist()


def read_rows(modality: Modality, params: Params, layout: Layout) -> SpecialistRows:
    posts = artifacts.read_posts(layout.table("posts"))
    embeddings = artifacts.read_embeddings_of(posts, layout.embeddings("posts", modality))
    labels = labels_of(posts, params.posts.labels)
    present = embeddings.present
    codes = torch.from_numpy(codes_of(posts, labels)[present])
    others = [column for name, column in MEDIA_COLUMN.items() if name != modality]
    return SpecialistRows(
        modality,
        posts.loc[present].reset_index(drop=True),
        embeddings,
        embeddings.vectors[present],
        codes,
        labels,
        Grouping.of(posts.loc[present], codes.numpy(), params.seed),
        alone=not posts[others].notna().to_numpy().any(),
        finished=finished(
            f"train_{modality}",
            settings_of(params, params.of_specialist(modality)),
            [layout.table("posts"), layout.embeddings("posts", modality)],
            layout.cache,
        ),
    )


def settings_of(params: Params, block: BaseModel) -> dict[str, Any]:
    """What trainings of the posts depend on beside their inputs, of the stage with this block."""
    return {
        "seed": params.seed,
        "device": str(pick(params.device)),
        "labels": list(params.posts.labels),
        "block": block.model_dump(mode="json"),
    }


def too_few(corpus: SpecialistRows) -> str | None:
    """Why no specialist can be trained, or None."""
    if not len(corpus.posts):
        return f"no post has {corpus.modality}"
    rows, val = corpus.grouping.part("train"), corpus.grouping.part("val")
    train = corpus.posts.iloc[rows]
    if not len(rows) or not len(val):
        return f"too few posts have {corpus.modality}: {len(rows)} for training, {len(val)} for validation"
    for what, column in (("label", "label"), ("group", "group_id")):
        if train[column].nunique() < 2:
            return f"all {len(rows)} training posts that have {corpus.modality} are of one {what}; two are the fewest"
    return None
