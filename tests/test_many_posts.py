"""The corpus that ``benchmarks.many_posts`` makes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import many_posts
from pipeline import params
from pipeline.core import artifacts
from pipeline.core.layout import Layout
from pipeline.corpora.tabular import read_texts
from pipeline.stages import split


def test_the_made_posts_are_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_posts, "AT_ONCE", 700)
    many_posts.make_project(tmp_path, 4000, 3)
    (whole,) = read_texts(tmp_path / "posts.parquet", ("id", "label", "group", "text"), None)
    cells = whole.cells
    assert len(cells) == cells["id"].nunique() == 4000
    assert set(cells["label"]) == set(many_posts.LABELS)
    assert 3 <= cells.groupby("group").size().mean() <= 6
    words = cells["text"].str.split().str.len()
    assert (words.min(), words.max()) == (3, 20)

    layout = Layout(tmp_path)
    split.run(params.load(layout.params), layout)
    posts = artifacts.read_posts(layout.table("posts"))
    assert sorted(posts["sample_id"]) == sorted(cells["id"])
    same = cells.loc[words >= 8, ["id", "text"]]
    groups = posts.set_index("sample_id")["group_id"]
    twins = same.assign(group=groups.reindex(same["id"]).to_numpy()).groupby("text")["group"]
    assert twins.nunique().max() == 1 and (twins.size() > 1).sum() > 20
    np.testing.assert_allclose(
        posts["split"].value_counts(normalize=True)[["train", "val", "test"]], [0.65, 0.1, 0.25], atol=0.01
    )
    assert pd.read_csv(layout.refused).empty
