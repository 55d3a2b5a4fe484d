"""A small corpus of posts in words, shades and clips that tiny encoders can read, and models trained on it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.core import artifacts
from pipeline.core.files import MediaError
from pipeline.core.layout import Layout
from pipeline.encoders import image, streams, text
from pipeline.media.clips import read_clip
from pipeline.media.pictures import read_picture
from pipeline.params import Params
from pipeline.serving import bundle
from pipeline.serving.posts import Post
from pipeline.serving.predictor import Predictor
from pipeline.stages import fuse, train_image, train_text, train_video
from tests import tiny
from tests.posts.test_specialist import gifs, posts_table, sentences
from tests.processes import Started, start

HEAD = {"candidates": ["head"], "folds": 2, "head": {"epochs": 4}}
TUNED = {"tuned": {"batch": 8, "folds": 2, "epochs": 1, "least_steps": 0, "encoder_learning_rate": 3e-3}}
BLOCKS: dict[str, dict[str, Any]] = {
    "head": {"train_text": HEAD, "train_image": HEAD, "train_video": HEAD},
    "tuned": {
        "train_text": {"candidates": ["lora"], **TUNED},
        "train_image": {"candidates": ["full"], **TUNED},
        "train_video": {"candidates": ["full"], **TUNED},
    },
    "words": {
        "train_text": {"candidates": ["joint_logreg"], "folds": 2},
        "train_image": {"candidates": ["logreg"], "folds": 2},
        "train_video": {"candidates": ["majority"], "folds": 2},
        "fuse": {"candidates": ["stacked_logreg"], "folds": 2},
    },
    "simple": {
        "train_text": {"candidates": ["tfidf_logreg"], "folds": 2},
        "train_image": {"candidates": ["logreg"], "folds": 2},
        "train_video": {"candidates": ["logreg"], "folds": 2},
        "fuse": {"candidates": ["best_specialist"], "folds": 2},
    },
}


@dataclass(frozen=True)
class Trained:
    params: Params
    layout: Layout

    @property
    def test(self) -> pd.DataFrame:
        posts = artifacts.read_posts(self.layout.table("posts"))
        return posts[posts["split"] == "test"].reset_index(drop=True)

    def posts(self) -> list[Post]:
        """The test rows, as a user would give them."""
        return [
            Post(row["text"], *(self.layout.root / row[name] if row[name] else None for name in MEDIA))
            for row in self.test.to_dict("records")
        ]

    def predictor(self) -> Predictor:
        return Predictor.of_project(self.params, self.layout)


MEDIA = ("image_path", "video_path")


def corpus(root: Path, modalities: set[str]) -> list[dict[str, Any]]:
    """Posts of which some lack a modality, some have all, some have none, and two have a damaged file."""
    rows = []
    for at, (said, shown) in enumerate(zip(sentences(80), gifs(root, 80), strict=True)):
        image, video = (at % 3 > 0) * f"{at}.png" or None, (at % 4 > 1) * shown["video_path"] or None
        rows.append({**said, "text": said["text"] if at % 5 else None, "image_path": image, "video_path": video})
    for at, name in ((38, "image_path"), (39, "video_path")):
        (root / f"broken{at}").write_bytes(b"not what it should be")
        rows[at][name] = f"broken{at}"
    columns = {"text": "text", "image": "image_path", "video": "video_path"}
    return [{**row, **{column: None for name, column in columns.items() if name not in modalities}} for row in rows]


def train(root: Path, kind: str, modalities: set[str] | None = None) -> Trained:
    modalities = modalities or {"text", "image", "video"}
    layout = Layout(root)
    root.mkdir(exist_ok=True)
    posts_table(layout, corpus(root, modalities))
    pictures = {"encoder": str(tiny.clip(root / "clip"))}
    settings: dict[str, Any] = {
        "posts": {"media": "."},
        "embed": {
            "text": {"encoder": str(tiny.distilbert(root / "bert"))},
            "image": pictures,
            "video": {**pictures, "frames": 3},
        },
        "fuse": {"candidates": ["trained"], "folds": 2, "epochs": 4, "width": 16, "hidden": 16},
        **BLOCKS[kind],
    }
    params = Params.model_validate(settings)
    embed_posts(params, layout)
    for stage in (train_text, train_image, train_video, fuse):
        stage.run(params, layout)
    artifacts.write_json(layout.details("split"), {"posts": SPLIT})
    artifacts.write_json(layout.details("evaluate"), {"posts": SCORED})
    return Trained(params, layout)


def embed_posts(params: Params, layout: Layout) -> None:
    """What the stage `embed` does for posts, one post at a time."""
    table, block, cpu = artifacts.read_posts(layout.table("posts")), params.embed, torch.device("cpu")
    texts, pictures, clips = text.load(block.text), image.load(block.image), streams.load(block)

    def picture(path: str) -> np.ndarray:
        limits = {"max_pixels": block.max_pixels, "at_least": pictures.at_least}
        return pictures.encode(pictures.preprocess(read_picture(layout.root / path, **limits))[None], cpu)[0]

    def clip(path: str) -> np.ndarray:
        found = read_clip(layout.root / path, max_pixels=block.max_pixels, **clips.read_request())
        return clips.encode([clips.prepare(found)], cpu)[0]

    ways = {
        "text": ("text", texts, lambda value: texts.encode([value], cpu)[0]),
        "image": ("image_path", pictures, picture),
        "video": ("video_path", clips, clip),
    }
    for name, (column, encoder, encode) in ways.items():
        with artifacts.embeddings_writer(layout.embeddings("posts", name), encoder.width, encoder.identity) as writer:
            for number, value in zip(table["sample_id"], table[column], strict=True):
                vector, reason = np.zeros(encoder.width, dtype=np.float32), None if value else "none"
                try:
                    vector = encode(value) if value else vector
                except MediaError as error:
                    reason = str(error)
                writer.write([number], vector[None], [reason], [None if reason else f"content of {value}"])


def scored(value: float) -> dict[str, float]:
    return {"macro_f1": value, "macro_f1_ci_low": value - 0.1, "macro_f1_ci_high": value + 0.1, "accuracy": value}


PART = {"rows": 16, "class": {"happy": 8, "sad": 8}, "modalities": {"text": 16}}
SPLIT = {"split": "given", "train": PART, "val": PART, "test": PART, "groups": {"after_merging": 48}}
SCORED = {
    "n": 16,
    "fusion": {**scored(0.7), "ece": 0.05, "f1": {"happy": 0.6, "sad": 0.8}, "support": {"happy": 8, "sad": 8}},
    **{name: {"n": 16, **scored(0.5)} for name in ("text", "image", "video")},
    "baselines": {"majority": scored(0.3)},
    "fusion_minus_best_baseline": {"value": 0.4, "ci_low": 0.1, "ci_high": 0.6, "baseline": "majority"},
    "warnings": ["only 16 test rows: the intervals are wide"],
}


@pytest.fixture(scope="session", params=["head"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOCARE_CACHE", str(tmp_path_factory.mktemp("cache")))
        return train(tmp_path_factory.mktemp("project"), request.param)


@pytest.fixture(scope="session")
def predictor(trained: Trained) -> Predictor:
    return trained.predictor()


@contextmanager
def serving(bundle: Path, *options: str, before: Callable[[], None] | None = None) -> Iterator[tuple[Started, str]]:
    """`serve` as a process of its own on a free port, and its address; it is told to end when this ends."""
    process = start("serve", bundle, "--port", "0", *options, before=before)
    with process.stdout, process.stderr:
        try:
            first = process.stderr.readline()
            assert first.startswith("http://"), first + process.stderr.read()
            yield process, first.split()[0]
        finally:
            process.terminate()
            process.wait()


@pytest.fixture(scope="session")
def exported(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "bundle"
    bundle.export(trained.params, trained.layout, folder)
    return folder


@pytest.fixture(scope="session")
def address(exported: Path) -> Iterator[str]:
    with serving(exported) as (_, address):
        yield address
