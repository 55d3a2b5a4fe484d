import json
from pathlib import Path

import pandas as pd
import pytest

from pipeline.core.errors import InputError
from pipeline.corpora.manifest import Manifest, read_manifest

ROWS = [
    {"id": "7", "label": "Joy", "text": " hi ", "image": "images/a.jpg"},
    {"id": "8", "label": "Anger", "text": "no", "image": ""},
]


def write(folder: Path, kind: str, rows: list[dict]) -> Path:
    path = folder / f"manifest.{kind}"
    frame = pd.DataFrame(rows)
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        frame.to_parquet(path)
    return path


def whole(manifest: Manifest) -> pd.DataFrame:
    return pd.concat(manifest.rows.parts(), ignore_index=True)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_three_formats_give_the_same_rows(tmp_path: Path, kind: str) -> None:
    found = read_manifest(write(tmp_path, kind, ROWS), tmp_path)
    rows = whole(found)
    assert rows["id"].tolist() == ["7", "8"]
    assert rows["text"].tolist() == ["hi", "no"]
    assert rows["image"].tolist() == ["images/a.jpg", None]
    assert rows["video"].tolist() == [None, None]
    assert len(found.refused) == 0


def test_numbers_as_ids_and_labels_become_texts(tmp_path: Path) -> None:
    path = write(tmp_path, "parquet", [{"id": 7.0, "label": 1, "text": "a"}, {"id": 8.5, "label": 2, "text": None}])
    found = read_manifest(path, tmp_path)
    assert whole(found)[["id", "label"]].to_numpy().tolist() == [["7", "1"]]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"id": ""}, "no id"),
        ({"id": "first"}, "id already used in row 1"),
        ({"label": " "}, "no label"),
        ({"label": "Fear"}, "label not in posts.labels, here 'Fear'"),
        ({"text": ""}, "no text, image or video"),
        ({"image": "../secret.jpg"}, "path leads out of posts.media"),
        ({"image": "/etc/passwd"}, "path leads out of posts.media"),
        ({"video": "a\0b"}, "path is a circle of links, or no path at all"),
        ({"split": "tset"}, "split is none of train, val, test, here 'tset'"),
        ({"split": "a\x1b[2m" + 40 * "b"}, "split is none of train, val, test, here 'a\\x1b[2m" + 22 * "b" + "'"),
        ({"split": ""}, "split is none of train, val, test"),
    ],
)
def test_a_bad_row_is_refused_with_its_number_and_reason(tmp_path: Path, row: dict, reason: str) -> None:
    good = {"id": "first", "label": "Joy", "text": "a", "image": "", "video": "", "split": "train"}
    path = write(tmp_path, "jsonl", [good, {**good, "id": "second", **row}])
    found = read_manifest(path, tmp_path, ("Joy",))
    assert found.refused.to_dict("records") == [
        {"row": 2, "id": {**good, "id": "second", **row}["id"] or None, "reason": reason}
    ]
    assert found.numbers.tolist() == [1]


def test_a_link_that_leads_out_of_the_media_folder_is_refused(tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    (tmp_path / "secret.jpg").touch()
    (media / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    path = write(media, "jsonl", [{"id": "a", "label": "Joy", "image": "link.jpg"}])
    assert read_manifest(path, media).refused["reason"].tolist() == ["path leads out of posts.media"]


def test_paths_are_relative_to_the_manifest_and_kept_relative_to_the_media(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    path = write(tmp_path / "tables", "jsonl", [{"id": "a", "label": "Joy", "image": "..\\media\\x\\1.png"}])
    assert whole(read_manifest(path, tmp_path / "media"))["image"].tolist() == ["x/1.png"]


def test_other_names_for_parts_and_other_columns(tmp_path: Path) -> None:
    rows = [
        {"id": str(at), "label": "Joy", "text": "a", "split": part, "score": 1}
        for at, part in enumerate(["Dev", "training"])
    ]
    found = read_manifest(write(tmp_path, "csv", rows), tmp_path)
    assert whole(found)["split"].tolist() == ["val", "train"]
    assert found.ignored_columns == ("score",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.csv", b"", "is empty"),
        ("m.csv", b"id,label\n", "holds no posts"),
        ("m.csv", b"id,text\n1,a\n", "lacks the column label (has: id, text)"),
        ("m.csv", b"\xff\xfe\x00", "not readable as csv"),
        ("m.jsonl", b'{"id": 1', "not readable as jsonl"),
        ("m.parquet", b"PAR1", "not readable as parquet"),
        ("m.xlsx", b"", "a manifest ends in"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_manifest(tmp_path / name, tmp_path)
    assert message in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_which_param(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not found; set posts\.manifest"):
        read_manifest(tmp_path / "m.csv", tmp_path)
