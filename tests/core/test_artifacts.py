import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipeline.core import artifacts, schemas
from pipeline.core.errors import InputError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    artifacts.write_json(path, {"old": 1})
    with pytest.raises(RuntimeError), artifacts.replacing(path) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"old": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


def test_a_failed_folder_leaves_the_old_folder(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with artifacts.replacing_folder(folder) as aside:
        (aside / "old").touch()
    with pytest.raises(RuntimeError), artifacts.replacing_folder(folder) as aside:
        (aside / "new").touch()
        raise RuntimeError
    assert [item.name for item in tmp_path.rglob("*")] == ["out", "old"]


def test_writing_never_touches_a_file_hard_linked_elsewhere(tmp_path: Path) -> None:
    path, cached = tmp_path / "a.json", tmp_path / "cache"
    artifacts.write_json(path, {"a": 1})
    cached.hardlink_to(path)
    artifacts.write_json(path, {"a": 2})
    assert json.loads(cached.read_text()) == {"a": 1}


def test_json_is_rounded_and_refuses_nan(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    artifacts.write_json(path, {"a": np.float32(0.1), "b": {"c": 1 / 3}, "n": np.int64(3)})
    assert json.loads(path.read_text()) == {"a": 0.1, "b": {"c": 0.333333}, "n": 3}
    with pytest.raises(ValueError, match="not JSON compliant"):
        artifacts.write_json(path, {"a": float("nan")})


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe"])
def test_broken_json_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.json"):
        artifacts.read_json(path)


def test_tables_of_another_shape_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "posts.parquet"
    with pytest.raises(InputError, match="not found"):
        artifacts.read_posts(path)
    path.write_bytes(b"no parquet")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        artifacts.read_posts(path)
    artifacts.write_parquet(path, pa.table({"sample_id": ["a"]}))
    with pytest.raises(InputError, match="expected"):
        artifacts.read_posts(path)


def embedding_file(path: Path, rows: int = 5) -> np.ndarray:
    vectors = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    with artifacts.embeddings_writer(path, 3, {"name": "tiny"}) as writer:
        for part in np.array_split(np.arange(rows), 2):
            names = [f"id{at}" for at in part]
            reasons = ["none" if at == 0 else None for at in part]
            writer.write(names, vectors[part], reasons, [None if at == 0 else f"c{at}" for at in part])
    return vectors


@pytest.mark.parametrize("limit", [0, 10**9])
def test_embeddings_come_back_as_written(tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "IN_MEMORY_BYTES", limit)
    vectors = embedding_file(tmp_path / "e.parquet")
    found = artifacts.read_embeddings(tmp_path / "e.parquet")
    np.testing.assert_array_equal(found.vectors, vectors)
    assert isinstance(found.vectors, np.memmap) == (limit == 0)
    assert found.sample_ids.tolist() == ["id0", "id1", "id2", "id3", "id4"]
    assert found.present.tolist() == [False, True, True, True, True]
    assert found.content.tolist() == [None, "c1", "c2", "c3", "c4"]
    assert found.encoder == {"name": "tiny"}


def test_embeddings_of_other_rows_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.parquet"
    vectors = embedding_file(path)
    ids = [f"id{at}" for at in range(5)]
    np.testing.assert_array_equal(artifacts.read_embeddings_of(pd.DataFrame({"sample_id": ids}), path).vectors, vectors)
    for others in (ids[:4], [*ids, "id5"], ids[::-1], [*ids[:4], "id6"]):
        with pytest.raises(InputError, match=r"text\.parquet: rows differ from data/split; run `dvc repro`"):
            artifacts.read_embeddings_of(pd.DataFrame({"sample_id": others}), path)


def test_predictions_come_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    rows = pd.DataFrame(
        {
            "sample_id": ["a", "b"],
            "split": "test",
            "fold": "final",
            "kind": ["fusion", "masked"],
            "subset": ["x_y", "x"],
        }
    )
    logits = np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)
    artifacts.write_predictions(path, artifacts.Predictions(rows, logits))
    found = artifacts.read_predictions(path, classes=2)
    np.testing.assert_array_equal(found.where(np.array([False, True])).logits, [[3.0, 4.0]])
    assert found.rows.to_dict("list") == rows.to_dict("list")
    with pytest.raises(InputError, match="expected"):
        artifacts.read_predictions(path, classes=3)


def test_digest_ignores_order_but_not_boundaries() -> None:
    assert artifacts.digest(["a", "b"]) == artifacts.digest(["b", "a"])
    assert artifacts.digest(["ab"]) != artifacts.digest(["a", "b"])
    # printf 'a\nb\n' | sha256sum
    assert artifacts.digest(["a", "b"]) == "911169ddaaf146aff539f58c26c489af3b892dff0fe283c1c264c65ae5aa59a2"


def test_schema_of_predictions_holds_the_class_count() -> None:
    assert schemas.predictions_table(5).field("logits").type.list_size == 5
