"""Tables of posts: one row out for one in, in order, whatever the rows hold and however often the run was killed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.core.errors import InputError
from pipeline.serving import post_table
from pipeline.serving.post_table import predict_manifest
from pipeline.serving.posts import Post, Prediction
from pipeline.serving.predictor import Predictor
from tests.serving.conftest import Trained


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post_table, "CHUNK", 4)


@pytest.fixture
def table(trained: Trained) -> pd.DataFrame:
    """Thirteen posts, the last ones odd: same id, no content, damaged, leading out, a name no file can have."""
    rows = trained.test.rename(columns={"sample_id": "id", "image_path": "image", "video_path": "video"}).head(8)
    odd: list[dict[str, Any]] = [
        {"id": rows["id"][0], "text": 'i am, "so"\nhappy'},
        {"id": "nothing", "text": "  "},
        {"id": "damaged", "text": "sad", "image": "broken38"},
        {"id": "outside", "image": "../1.png"},
        {"id": "no name", "video": "a\0b"},
    ]
    both = pd.concat([rows[["id", "text", "image", "video"]], pd.DataFrame(odd)], ignore_index=True)
    return both.astype(object).where(both.notna(), None)


def write(table: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    elif path.suffix == ".jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_parquet(path, row_group_size=3)
    return path


def predicted(predictor: Predictor, posts: Path, out: Path, root: Path, **more: Any) -> pd.DataFrame:
    predict_manifest(predictor, posts, out, root, more.get("coverage"), explain=more.get("explain", False))
    assert [path.name for path in out.parent.iterdir() if path.name.startswith(".")] == []
    return pd.read_parquet(out) if out.suffix == ".parquet" else pd.read_csv(out)


def test_one_row_out_for_one_row_in(
    trained: Trained, predictor: Predictor, table: pd.DataFrame, tmp_path: Path
) -> None:
    root = trained.layout.root
    out = predicted(predictor, write(table, tmp_path / "posts.parquet"), tmp_path / "out.parquet", root, coverage=0.8)
    assert out["id"].tolist() == table["id"].tolist()
    posts = []
    for row in table.head(11).to_dict("records"):
        image, video = (root / row[name] if row[name] else None for name in ("image", "video"))
        posts.append(Post((row["text"] or "").strip() or None, image, video))
    for (_, row), prediction in zip(out.iterrows(), predictor.predict(posts, 0.8), strict=False):
        found = [row[f"prob_{label}"] for label in predictor.labels]
        if prediction.refusal is None:
            assert row["label"] == prediction.label
            np.testing.assert_allclose(found, list(prediction.probabilities.values()), atol=1e-5)
            assert list(row["set"]) == prediction.labels_in_set
        else:
            assert pd.isna(row["label"]) and row["set"] is None and np.isnan(found).all()
        assert (None if pd.isna(row["reason"]) else row["reason"]) == prediction.reasons
        for name, part in prediction.parts.items():
            assert row[f"{name}_state"] == part.state
            assert row[f"{name}_share"] == pytest.approx(part.share, abs=1e-3)
    assert out["reason"].tolist()[-4:] == [
        "nothing given",
        "image: not a picture: no JPEG, PNG, GIF, WebP, BMP or TIFF",
        "image: path leads out of the media folder",
        "video: file not found",
    ]


def test_every_format_says_the_same(
    trained: Trained, predictor: Predictor, table: pd.DataFrame, tmp_path: Path
) -> None:
    table = table.head(12)  # CSV cannot hold the name with a zero byte
    made = [
        predicted(predictor, write(table, tmp_path / f"posts{suffix}"), tmp_path / "out.parquet", trained.layout.root)
        for suffix in (".csv", ".jsonl", ".parquet")
    ]
    pd.testing.assert_frame_equal(made[1], made[0])
    pd.testing.assert_frame_equal(made[2], made[0])
    csv = predicted(
        predictor, tmp_path / "posts.csv", tmp_path / "out.csv", trained.layout.root, coverage=0.8, explain=True
    )
    np.testing.assert_allclose(csv["prob_sad"], made[0]["prob_sad"])
    labelled = csv[csv["label"].notna()]
    assert labelled["id"].tolist() == made[0].loc[made[0]["label"].notna(), "id"].tolist()
    assert len(labelled) == 10
    assert all(row["label"] in json.loads(row["set"]) for _, row in labelled.iterrows())
    assert [json.loads(told)["label"] for told in labelled["explanation"]] == labelled["label"].tolist()


class Counting(Predictor):
    """Counts posts, and is killed before it predicts more than ``most``."""

    def __init__(self, like: Predictor, most: int) -> None:
        super().__init__(like.model, "cpu")
        self.done, self.most = 0, most

    def predict(self, posts: Sequence[Post], coverage: float | None = None) -> list[Prediction]:
        if self.done + len(posts) > self.most:
            raise KeyboardInterrupt
        self.done += len(posts)
        return super().predict(posts, coverage)


def test_a_killed_run_goes_on_where_it_was(
    trained: Trained, predictor: Predictor, table: pd.DataFrame, tmp_path: Path
) -> None:
    posts, out, root = write(table, tmp_path / "posts.csv"), tmp_path / "out.csv", trained.layout.root
    whole = tmp_path / "whole"
    whole.mkdir()
    predicted(predictor, posts, whole / "out.csv", root)
    with pytest.raises(KeyboardInterrupt):
        predict_manifest(Counting(predictor, 9), posts, out, root, None, explain=False)
    assert not out.exists()
    second = Counting(predictor, 100)
    predicted(second, posts, out, root)
    assert second.done == len(table) - 8
    assert out.read_bytes() == (whole / "out.csv").read_bytes()


def test_what_another_run_left_is_not_taken_up(
    trained: Trained, predictor: Predictor, table: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    posts, out, root = write(table, tmp_path / "posts.csv"), tmp_path / "out.csv", trained.layout.root
    with pytest.raises(KeyboardInterrupt):
        predict_manifest(Counting(predictor, 9), posts, out, root, None, explain=False)
    second = Counting(predictor, 100)
    predicted(second, posts, out, root, coverage=0.8)
    assert second.done == len(table)
    assert "from the start" in capsys.readouterr().err


def test_rows_whose_media_have_changed_since_the_run_was_killed_are_predicted_again(
    trained: Trained, predictor: Predictor, tmp_path: Path
) -> None:
    media, posts, out = tmp_path / "media", tmp_path / "posts.csv", tmp_path / "out.parquet"
    media.mkdir()
    picture = (trained.layout.root / "1.png").read_bytes()
    for at in (4, 8):
        (media / f"{at}.png").write_bytes(picture)
    posts.write_text("image\n" + "".join(f"{at}.png\n" for at in range(12)))
    with pytest.raises(KeyboardInterrupt):
        predict_manifest(Counting(predictor, 9), posts, out, media, None, explain=False)
    (media / "0.png").write_bytes(picture)
    (media / "4.png").write_bytes(b"no picture")
    second = Counting(predictor, 100)
    made = predicted(second, posts, out, media)
    assert second.done == 12
    assert made.index[made["label"].notna()].tolist() == [0, 8]


def test_two_runs_do_not_write_the_same_output(
    trained: Trained, predictor: Predictor, table: pd.DataFrame, tmp_path: Path
) -> None:
    posts, out, root = write(table, tmp_path / "posts.csv"), tmp_path / "out.csv", trained.layout.root

    class Meanwhile(Predictor):
        def predict(self, posts: Sequence[Post], coverage: float | None = None) -> list[Prediction]:
            with pytest.raises(InputError, match=r"out\.csv: process \d+ is at work on it"):
                predict_manifest(predictor, tmp_path / "posts.csv", out, root, None, explain=False)
            return super().predict(posts, coverage)

    assert len(predicted(Meanwhile(predictor.model, "cpu"), posts, out, root)) == len(table)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "posts.csv"]
    assert len(predicted(predictor, posts, out, root)) == len(table)


def test_rows_without_ids_are_numbered(trained: Trained, predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "posts.csv").write_text("text\n" + "sad\n" * 6)
    out = predicted(predictor, tmp_path / "posts.csv", tmp_path / "out.parquet", trained.layout.root)
    assert out["id"].tolist() == list("123456")


def test_a_table_of_no_posts_gives_a_table_of_none(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "posts.csv").write_text("id,text\n")
    assert len(predicted(predictor, tmp_path / "posts.csv", tmp_path / "out.csv", tmp_path)) == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("posts.txt", "", r"ends in \.csv, \.jsonl or \.parquet"),
        ("posts.csv", "", "is empty"),
        ("posts.csv", "id,label\n1,Joy\n", "has none of the columns text, image, video"),
        (
            "posts.csv",
            "id,text, image\n1,a,b.png\n",
            r"unknown column ' image'; is 'image' meant\? Rename it, or leave",
        ),
        ("posts.csv", "ID,text\n1,a\n", "unknown column 'ID'; is 'id' meant"),
        (
            "posts.jsonl",
            '{"text": "a"}\n' * 5 + '{"text": "a", "Video": "b"}\n',
            "unknown column 'Video'; is 'video' me",
        ),
        ("posts.csv", 'id,text\n1,"open', "not readable as csv"),
        ("posts.jsonl", '{"text": "a"}\n{"text": ["a"]}\n', "text: row 2 holds a list"),
        ("posts.jsonl", '{"text": "a"}\n{"text": \n', "not readable as jsonl"),
        ("posts.parquet", "no", "not readable as parquet"),
    ],
)
def test_tables_that_cannot_be_read(
    predictor: Predictor, tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as error:
        predict_manifest(predictor, tmp_path / name, tmp_path / "out.csv", tmp_path, None, explain=False)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == [name]
