"""What is read part by part, against the same read as a whole."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipeline.core import artifacts, schemas
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.core.schemas import Modality
from pipeline.posts import baseline_rows
from pipeline.posts.baseline_rows import BaselineRows

POSTS, WIDTHS = 60, {"text": 4, "video": 3}
MODALITIES: list[Modality] = ["text", "video"]


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Posts of which some have no text, some no clip, and some clips no sound, read seven at a time."""
    monkeypatch.setattr(baseline_rows, "AT_ONCE", 7)
    layout, rng = Layout(tmp_path), np.random.default_rng(0)
    posts = pd.DataFrame({"sample_id": [f"p{at:02d}" for at in range(POSTS)], "group_id": "g", "label": "joy"})
    posts["split"] = rng.choice(["train", "val", "test"], POSTS)
    posts["text"] = [None if at % 5 == 0 else f"text {at}" for at in range(POSTS)]
    posts["image_path"] = posts["video_path"] = None
    table = pa.Table.from_pandas(posts, schema=schemas.POSTS_TABLE, preserve_index=False)
    artifacts.write_parquet(layout.table("posts"), table)
    for name, width in WIDTHS.items():
        vectors = rng.normal(size=(POSTS, width)).astype(np.float32)
        present = rng.random(POSTS) < 0.7
        if name == "video":
            vectors[::4, 2] = np.nan
        vectors[~present] = 0
        reasons = [None if here else "none" for here in present]
        encoder = {"streams": {"sound": 1}} if name == "video" else {}
        with artifacts.embeddings_writer(layout.embeddings("posts", name), width, encoder) as writer:
            writer.write(posts["sample_id"].tolist(), vectors, reasons, reasons)
    return layout


def rows_of(layout: Layout) -> BaselineRows:
    return baseline_rows.baseline_rows(artifacts.read_posts(layout.table("posts")), MODALITIES, 0, layout)


def test_vectors_stand_side_by_side_with_the_training_mean_where_there_are_none(layout: Layout):
    rows = rows_of(layout)
    split = rows.posts["split"].to_numpy()
    learned = rows.training_vectors()
    test = np.concatenate(list(rows.test_vectors(learned.usual)))
    wanted = []
    for name in MODALITIES:
        source = artifacts.read_embeddings(layout.embeddings("posts", name))
        vectors = np.where(source.present[:, None], source.vectors, np.nan)
        vectors = np.where(np.isnan(vectors), np.nanmean(vectors[split == "train"], axis=0), vectors)
        wanted += [vectors, source.present[:, None]]
        assert (learned.present[name] == source.present[split == "test"]).all()
    whole = np.concatenate(wanted, axis=1)
    assert learned.rows.dtype == test.dtype == np.float32
    assert np.allclose(learned.rows, whole[np.concatenate([rows.train, rows.val])], atol=1e-6)
    assert np.allclose(test, whole[split == "test"], atol=1e-6)


def test_texts_are_those_of_the_rows_in_their_order(layout: Layout):
    rows = rows_of(layout)
    texts = rows.posts["text"].fillna("").to_numpy()
    assert rows.training_texts() == [*texts[rows.train], *texts[rows.val]]
    test = [text for part in rows.test_texts() for text in part]
    assert test == texts[rows.posts["split"] == "test"].tolist()


@pytest.mark.parametrize("limit", ["ROWS", "CELLS"])
def test_of_many_posts_a_sample_is_learned_from(layout: Layout, monkeypatch: pytest.MonkeyPatch, limit: str):
    whole = rows_of(layout)
    monkeypatch.setattr(baseline_rows, limit, 20 * (9 if limit == "CELLS" else 1))
    rows = rows_of(layout)
    count = len(rows.train) + len(rows.val)
    assert 18 <= count <= 20 and rows.training_vectors().rows.shape == (count, 9)
    assert set(rows.train) < set(whole.train) and set(rows.val) < set(whole.val)
    assert len(rows.train) / count == pytest.approx(len(whole.train) / (len(whole.train) + len(whole.val)), abs=0.1)
    assert len(rows.training_texts()) == count


def test_a_part_without_test_posts_is_passed_over(layout: Layout):
    rows = rows_of(layout)
    rows.posts["split"] = np.where(np.arange(POSTS) < 40, "train", "test")
    assert [len(part) for part in rows.test_texts()] == [2, 7, 7, 4]
    assert sum(len(part) for part in rows.test_vectors(rows.training_vectors().usual)) == 20


def test_of_few_validation_posts_one_is_left(layout: Layout, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(baseline_rows, "ROWS", 2)
    rows = rows_of(layout)
    assert len(rows.train) == 1 and len(rows.val) == 1


def test_a_damaged_file_is_named_and_no_other(layout: Layout):
    rows, path = rows_of(layout), layout.embeddings("posts", "text")
    content = bytearray(path.read_bytes())
    content[40:200] = bytes(160)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"text\.parquet: not a readable Parquet file"):
        rows.training_vectors()


def test_vectors_of_other_posts_are_refused(layout: Layout):
    posts = artifacts.read_posts(layout.table("posts"))
    with pytest.raises(InputError, match=r"text\.parquet: rows differ from data/split"):
        baseline_rows.baseline_rows(posts[:-1], MODALITIES, 0, layout)
    posts.loc[50, "sample_id"] = "p50x"
    with pytest.raises(InputError, match=r"text\.parquet: rows differ from data/split"):
        baseline_rows.baseline_rows(posts, MODALITIES, 0, layout).training_vectors()
