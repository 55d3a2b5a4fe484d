import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline import artifacts
from pipeline.errors import InputError
from pipeline.layout import Layout
from pipeline.params import Params
from pipeline.stages import split

PARAMS = Params.model_validate({"posts": {"manifest": "posts.csv", "media": "."}})


def write(root: Path, rows: list[dict[str, Any]]) -> Layout:
    pd.DataFrame(rows).to_csv(root / "posts.csv", index=False)
    return Layout(root)


def posts(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"id": f"p{at:03d}", "label": "ab"[at % 2], "text": f"text number {at}", **more} for at in range(count)]


def read(layout: Layout) -> pd.DataFrame:
    return artifacts.read_posts(layout.table("posts")).set_index("sample_id")


def metrics(layout: Layout) -> dict[str, Any]:
    return json.loads(layout.metrics("split").read_text())["posts"]


def test_shares_and_order(tmp_path: Path) -> None:
    layout = write(tmp_path, posts(200)[::-1])
    split.run(PARAMS, layout)
    table = read(layout)
    assert list(table.index) == sorted(table.index)
    assert pd.crosstab(table["split"], table["label"]).to_dict("list") == {"a": [10, 80, 10], "b": [10, 80, 10]}
    assert metrics(layout)["train"] == {"rows": 160, "class": {"a": 80, "b": 80}, "modalities": {"text": 160}}


def test_authors_and_copies_are_one_group(tmp_path: Path) -> None:
    rows = posts(100)
    for at in range(10):
        rows[at]["group"] = "amy"
    rows[10]["text"] = "TEXT number 3!"  # by another author, word for word as one of amy's
    layout = write(tmp_path, rows)
    split.run(PARAMS, layout)
    table = read(layout)
    assert set(table["group_id"].iloc[:11]) == {"amy"}
    assert table["split"].iloc[:11].nunique() == 1
    assert metrics(layout)["copies"]["same_text"] == 1
    assert metrics(layout)["groups"] == {"given": 91, "after_merging": 90, "largest_share": 0.11}


def test_a_given_split_is_kept_and_what_crosses_it_is_refused(tmp_path: Path) -> None:
    rows = [
        {**row, "split": ("train", "train", "train", "val", "test")[at // 2 % 5]} for at, row in enumerate(posts(100))
    ]
    rows[0]["text"] = rows[8]["text"]  # train, a copy of test
    rows[6]["text"] = rows[18]["text"]  # val, a copy of test
    layout = write(tmp_path, rows)
    split.run(PARAMS, layout)
    table = read(layout)
    assert all(table.loc[row["id"], "split"] == row["split"] for row in rows if row["id"] in table.index)
    refused = pd.read_csv(layout.refused)
    assert refused.to_dict("records") == [
        {"row": 1, "id": "p000", "reason": "group also stands in a more protected split, as p008"},
        {"row": 7, "id": "p006", "reason": "group also stands in a more protected split, as p018"},
    ]
    assert metrics(layout)["refused"] == {"rows": 2, "group also stands in a more protected split": 2}


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_what_was_held_out_stays_held_out(tmp_path: Path, held_out: str) -> None:
    rows = [{**row, "split": "train" if at < 80 else held_out} for at, row in enumerate(posts(100))]
    layout = write(tmp_path, rows)
    split.run(PARAMS, layout)
    table = read(layout)
    assert set(table.index[table["split"] == "test"]) == {f"p{at:03d}" for at in range(80, 100)}
    assert (table["split"] == "val").sum() == 8
    assert "validation was taken out of the training rows" in metrics(layout)["split"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [{**row, "label": ""} if at < 10 else row for at, row in enumerate(rows)],
         "10 of 100 rows refused (10 x no label), more than split.max_refused_share 0.05; the first is row 1, id p000"),
        (lambda rows: [{**row, "split": "train"} for row in rows], "no row is left for test"),
        (lambda rows: [{**row, "group": "one"} for row in rows], "no row is left for"),
        (lambda rows: [{**row, "label": "a"} for row in rows], "all training rows have the label a"),
        (lambda rows: [{**row, "label": "c"} if at == 99 else row for at, row in enumerate(
            [{**row, "split": ("train", "val", "test")[(at > 60) + (at > 80)]} for at, row in enumerate(rows)])],
         "no training row has the label c"),
    ],
)  # fmt: skip
def test_what_cannot_be_split_stops_in_one_line_and_writes_nothing(tmp_path: Path, change: Any, message: str) -> None:
    layout = write(tmp_path, change(posts(100)))
    with pytest.raises(InputError) as caught:
        split.run(PARAMS, layout)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["posts.csv"]


def test_a_missing_media_folder_says_which_param(tmp_path: Path) -> None:
    layout = write(tmp_path, posts(10))
    with pytest.raises(InputError, match=r"not a folder; set posts\.media"):
        split.run(Params.model_validate({"posts": {"manifest": "posts.csv", "media": "gone"}}), layout)
