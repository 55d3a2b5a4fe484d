import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
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


def test_whoever_reads_a_folder_while_it_is_replaced_has_the_old_one_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, seen = tmp_path / "out", []
    monkeypatch.setattr(shutil, "rmtree", looking_at(folder, seen))
    for name in ("old", "new"):
        with artifacts.replacing_folder(folder) as aside:
            for part in ("a", "b"):
                (aside / part).write_text(name)
    assert seen == [{"old"}, {"new"}]
    monkeypatch.undo()
    link = tmp_path / "link"
    link.symlink_to(folder)
    with pytest.raises(InputError, match="link: is a link"), artifacts.replacing_folder(link):
        pass
    assert {path.read_text() for path in folder.iterdir()} == {"new"}


def test_a_folder_whose_successor_cannot_take_its_place_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, replace = tmp_path / "out", Path.replace
    folder.mkdir()
    (folder / "kept").touch()

    def refused(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise PermissionError("in use")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(PermissionError, match="in use"), artifacts.replacing_folder(folder):
        pass
    assert [item.name for item in tmp_path.rglob("*")] == ["out", "kept"]


def test_a_folder_moved_away_by_a_process_that_was_killed_then_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "kept").touch()
    subprocess.run([sys.executable, "-c", KILLED_BETWEEN, str(folder)], check=False)
    assert not folder.exists()
    with pytest.raises(RuntimeError), artifacts.replacing_folder(folder):
        raise RuntimeError
    assert [item.name for item in tmp_path.rglob("*")] == ["out", "kept"]


def looking_at(folder: Path, seen: list[set[str]]) -> Callable[..., None]:
    """``shutil.rmtree``, which notes what the folder holds when something is removed."""
    remove = shutil.rmtree

    def rmtree(path: Path, ignore_errors: bool = False) -> None:
        seen.append({part.read_text() for part in folder.iterdir()})
        remove(path, ignore_errors=ignore_errors)

    return rmtree


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
    """Absent is the first row, whose vector is zeros."""
    vectors = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    vectors[0] = 0
    with artifacts.embeddings_writer(path, 3, {"name": "tiny"}) as writer:
        for part in np.array_split(np.arange(rows), 2):
            names = [f"id{at}" for at in part]
            reasons = ["none" if at == 0 else None for at in part]
            writer.write(names, vectors[part], reasons, [None if at == 0 else f"c{at}" for at in part])
    return vectors


@pytest.mark.parametrize("limit", [0, 10**9])
def test_embeddings_come_back_as_written(tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "IN_MEMORY_BYTES", limit)
    monkeypatch.setattr(artifacts, "AT_ONCE_BYTES", 24)  # two rows
    vectors = embedding_file(tmp_path / "e.parquet")
    actual = artifacts.read_embeddings(tmp_path / "e.parquet")
    np.testing.assert_array_equal(actual.vectors, vectors)
    assert isinstance(actual.vectors, np.memmap) == (limit == 0)
    assert actual.sample_ids.tolist() == ["id0", "id1", "id2", "id3", "id4"]
    assert actual.present.tolist() == [False, True, True, True, True]
    assert actual.content.tolist() == [None, "c1", "c2", "c3", "c4"]
    assert actual.encoder == {"name": "tiny"}


@pytest.mark.parametrize("column", [pa.list_(pa.float32(), 0), pa.list_(pa.float32()), pa.float32(), None])
def test_embeddings_without_vectors_are_refused(tmp_path: Path, column: pa.DataType | None) -> None:
    schema = schemas.embeddings_table(0)
    at = schema.get_field_index("vector")
    schema = schema.remove(at) if column is None else schema.set(at, pa.field("vector", column, nullable=False))
    artifacts.write_parquet(tmp_path / "text.parquet", schema.empty_table())
    with pytest.raises(InputError, match=r"text\.parquet: has no fixed-size `vector` column"):
        artifacts.read_embeddings(tmp_path / "text.parquet")


@pytest.mark.parametrize("rows", [4, 6])
def test_embeddings_with_other_rows_than_the_file_says_are_refused(tmp_path: Path, rows: int) -> None:
    embedding_file(tmp_path / "e.parquet")  # five
    with artifacts.reading_embeddings(tmp_path / "e.parquet") as reader:
        says = replace(reader, shape=(rows, 3))
        with pytest.raises(InputError, match="not as many rows as it says"):
            list(says.parts(2))


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
    actual = artifacts.read_predictions(path, classes=2)
    np.testing.assert_array_equal(actual.where(np.array([False, True])).logits, [[3.0, 4.0]])
    assert actual.rows.to_dict("list") == rows.to_dict("list")
    with pytest.raises(InputError, match="expected"):
        artifacts.read_predictions(path, classes=3)


NO_UTF8 = pa.Array.from_buffers(
    pa.string(), 1, [None, pa.py_buffer(np.array([0, 2], dtype=np.int32)), pa.py_buffer(b"\xff\xfe")]
)


def test_texts_that_are_no_utf8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"sample_id": NO_UTF8}), path)
    with pytest.raises(InputError, match="not a readable Parquet file"):
        artifacts.read_parquet(path)
    with artifacts.embeddings_writer(path, 1, {}) as writer:
        there, one = pa.array([True]), pa.FixedSizeListArray.from_arrays(pa.array([1.0], pa.float32()), 1)
        columns = [NO_UTF8, one, there, pa.nulls(1, pa.string()), NO_UTF8]
        writer.writer.write_table(pa.Table.from_arrays(columns, schema=writer.schema))
    with pytest.raises(InputError, match="not a readable Parquet file"):
        artifacts.read_embeddings(path)


def test_digest_ignores_order_but_not_boundaries() -> None:
    assert artifacts.digest(["a", "b"]) == artifacts.digest(["b", "a"])
    assert artifacts.digest(["ab"]) != artifacts.digest(["a", "b"])
    # printf 'a\nb\n' | sha256sum
    assert artifacts.digest(["a", "b"]) == "911169ddaaf146aff539f58c26c489af3b892dff0fe283c1c264c65ae5aa59a2"


def test_schema_of_predictions_holds_the_class_count() -> None:
    assert schemas.predictions_table(5).field("logits").type.list_size == 5


KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.core import artifacts
with artifacts.{how}(Path(sys.argv[1])) as aside:
    (aside / "half" if aside.is_dir() else aside).write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


KILLED_BETWEEN = """
import os, signal, sys
from pathlib import Path
from pipeline.core import artifacts
move = Path.replace
Path.replace = lambda path, target: os.kill(os.getpid(), signal.SIGKILL) if path.name == "new" else move(path, target)
with artifacts.replacing_folder(Path(sys.argv[1])):
    pass
"""


@pytest.mark.parametrize("how", ["replacing", "replacing_folder"])
def test_what_a_killed_process_leaves_goes_with_the_next_write_and_not_before(tmp_path: Path, how: str) -> None:
    out = tmp_path / "a*[b]"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", KILLED.format(how=how), str(out)], check=False)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".a*[b].") and left.name.endswith(".tmp")
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    alive, other = tmp_path / f".a*[b].{sleeper.pid}.tmp", tmp_path / ".notes.tmp"
    alive.write_text("being written")
    other.write_text("somebody's")
    try:
        with getattr(artifacts, how)(out) as aside:
            (aside / "whole" if how == "replacing_folder" else aside).write_text("whole")
    finally:
        sleeper.kill()
        sleeper.wait()
    assert sorted(tmp_path.iterdir()) == sorted([alive, other, out])


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of file sizes there")
@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.parquet", "embeddings.parquet"])
def test_a_file_that_cannot_be_written_whole_is_named(tmp_path: Path, name: str) -> None:
    script = """
import resource, sys
from pathlib import Path
import numpy as np, pandas as pd, pyarrow as pa
from pipeline.core import artifacts
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
path, numbers = Path(sys.argv[1]), np.random.default_rng(0).normal(size=(9000, 1)).astype("f4")
try:
    if path.suffix == ".json":
        artifacts.write_json(path, {"a": numbers[:, 0].tolist()})
    elif path.suffix == ".csv":
        artifacts.write_csv(path, pd.DataFrame(numbers))
    elif path.stem == "a":
        artifacts.write_parquet(path, pa.table({"a": numbers[:, 0]}))
    else:
        with artifacts.embeddings_writer(path, 1, {}) as writer:
            writer.write([str(at) for at in range(9000)], numbers, [None] * 9000, [None] * 9000)
except OSError as error:
    print(error.filename, error.strerror)
"""
    ran = subprocess.run([sys.executable, "-c", script, str(tmp_path / name)], capture_output=True, text=True)
    assert (ran.stderr, ran.stdout) == ("", f"{tmp_path / name} {os.strerror(27)}\n")
    assert list(tmp_path.iterdir()) == []


def test_vectors_and_logits_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.parquet"
    with artifacts.embeddings_writer(path, 2, {}) as writer:
        writer.write(["a"], np.array([[1.0, np.nan]], dtype=np.float32), [None], [None])
    with pytest.raises(InputError, match=r"text\.parquet: holds values that are not finite"):
        artifacts.read_embeddings(path)
    keys = pd.DataFrame({name: ["x"] for name in ("sample_id", "split", "fold", "kind", "subset")})
    artifacts.write_predictions(path, artifacts.Predictions(keys, np.array([[np.inf, 0.0]], dtype=np.float32)))
    with pytest.raises(InputError, match="logits that are not finite"):
        artifacts.read_predictions(path, 2)
