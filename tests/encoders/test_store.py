import multiprocessing
import os
import signal
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.content_store import forget
from pipeline.core.errors import InputError
from pipeline.core.files import MediaError
from pipeline.encoders.store import Store

IDENTITY = {"name": "tiny", "sha256": "0" * 64, "width": 3}


def vector(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_vectors_come_back_exactly_after_reopening(tmp_path: Path) -> None:
    with Store(tmp_path, IDENTITY) as store:
        store.put({"a": vector(0.1, -2, 3e-30), "b": vector(4, 5, 6)})
    with Store(tmp_path, IDENTITY) as store:
        found = store.get(["b", "missing", "a"])
    assert set(found) == {"a", "b"}
    np.testing.assert_array_equal(found["a"], vector(0.1, -2, 3e-30))
    assert found["a"].dtype == np.float32


def test_more_keys_than_one_query_takes(tmp_path: Path) -> None:
    with Store(tmp_path, IDENTITY) as store:
        store.put({f"key {at}": vector(at, 0, 0) for at in range(1203)})
        found = store.get([f"key {at}" for at in range(2000)])
    assert len(found) == 1203
    assert all(found[f"key {at}"][0] == at for at in range(1203))


def test_encoders_do_not_mix(tmp_path: Path) -> None:
    with Store(tmp_path, IDENTITY) as one, Store(tmp_path, IDENTITY | {"sha256": "1" * 64}) as other:
        one.put({"a": vector(1, 2, 3)})
        assert other.get(["a"]) == {}


def test_the_first_vector_of_a_key_stays(tmp_path: Path) -> None:
    with Store(tmp_path, IDENTITY) as store:
        store.put({"a": vector(1, 2, 3)})
        store.put({"a": vector(9, 9, 9)})
        np.testing.assert_array_equal(store.get(["a"])["a"], vector(1, 2, 3))


def test_why_there_is_no_vector_comes_back_and_can_be_forgotten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store(tmp_path, IDENTITY) as store:
        store.put({"a": vector(1, 2, 3)})
        store.put_absent({"b": MediaError("no face: in none of 8 frames"), "c": MediaError("no sound: silence")})
    with Store(tmp_path, IDENTITY) as store:
        found = store.absent(["a", "b", "c", "d"])
        assert {key: str(of) for key, of in found.items()} == {
            "b": "no face: in none of 8 frames",
            "c": "no sound: silence",
        }
        with store.connection:
            store.connection.execute("UPDATE absent SET reason = x'00' WHERE key = 'c'")
        assert list(store.absent(["b", "c"])) == ["b"]
        assert "1 entries were damaged" in capsys.readouterr().err
        path = store.path
    assert forget(path, ["a", "b", "d"], count_only=True) == 2
    assert forget(path, ["b"]) == 1
    assert b"in none of 8 frames" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())
    with Store(tmp_path, IDENTITY) as store:
        assert (list(store.get(["a", "b"])), store.absent(["b"])) == (["a"], {})


def write_many(folder: Path, start: int) -> None:
    with Store(folder, IDENTITY) as store:
        for at in range(start, start + 200, 10):
            store.put({str(key): vector(key, key, key) for key in range(at, at + 10)})


def test_two_processes_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork" if os.name == "posix" else "spawn")
    workers = [context.Process(target=write_many, args=(tmp_path, start)) for start in (0, 100)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert [worker.exitcode for worker in workers] == [0, 0]
    with Store(tmp_path, IDENTITY) as store:
        found = store.get([str(at) for at in range(300)])
    assert {int(key): value.tolist() for key, value in found.items()} == {at: [at] * 3 for at in range(300)}


def test_a_new_file_that_another_begins_at_this_moment_is_waited_for(tmp_path: Path) -> None:
    """SQLite itself does not wait where a file is to get a write-ahead log and another has begun to write."""
    with Store(tmp_path, IDENTITY) as store:
        path = store.path
    path.unlink()
    with closing(sqlite3.connect(path, check_same_thread=False, isolation_level=None)) as other:
        other.execute("CREATE TABLE identity (json TEXT NOT NULL)")
        other.execute("BEGIN IMMEDIATE")
        leaves = threading.Timer(0.3, other.rollback)
        leaves.start()
        with Store(tmp_path, IDENTITY) as store:
            store.put({"a": vector(1, 1, 1)})
            assert store.get(["a"])["a"].tolist() == [1, 1, 1]
        leaves.join()


def put_and_die(folder: Path) -> None:
    store = Store(folder, IDENTITY)
    store.put({"kept": vector(1, 2, 3)})
    store.connection.execute("BEGIN IMMEDIATE")
    store.connection.execute("INSERT INTO checked VALUES ('lost', x'00', 0)")
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is of POSIX")
def test_what_was_put_survives_a_kill(tmp_path: Path) -> None:
    worker = multiprocessing.get_context("fork").Process(target=put_and_die, args=(tmp_path,))
    worker.start()
    worker.join(30)
    assert worker.exitcode == -signal.SIGKILL
    with Store(tmp_path, IDENTITY) as store:
        assert list(store.get(["kept", "lost"])) == ["kept"]


def only_file(folder: Path) -> Path:
    with Store(folder, IDENTITY):
        pass
    (path,) = folder.glob("*.sqlite")
    return path


def test_a_foreign_file_is_one_line(tmp_path: Path) -> None:
    only_file(tmp_path).write_bytes(b"not a database at all " * 100)
    with pytest.raises(InputError, match=r"\.sqlite: cannot be used as the store.*delete this file") as error:
        Store(tmp_path, IDENTITY)
    assert "\n" not in str(error.value)


def test_a_file_of_another_encoder_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(only_file(tmp_path)) as connection:
        connection.execute("UPDATE identity SET json = '{}'")
    connection.close()
    with pytest.raises(InputError, match="holds vectors that were made otherwise"):
        Store(tmp_path, IDENTITY)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE checked SET vector = x'0000' WHERE key = 'a'",
        "UPDATE checked SET vector = x'000000000000000000000000' WHERE key = 'a'",
        "UPDATE checked SET vector = x'0000C07F0000C07F0000C07F' WHERE key = 'a'",
        "UPDATE checked SET vector = (SELECT vector FROM checked WHERE key = 'b'), "
        "crc = (SELECT crc FROM checked WHERE key = 'b') WHERE key = 'a'",
    ],
    ids=["length", "zeros", "nan", "of another content"],
)
def test_a_damaged_vector_is_made_again(tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    good = {"a": vector(1, 2, 3), "b": vector(4, 5, 6)}
    with Store(tmp_path, IDENTITY) as store:
        store.put(good)
        with store.connection:
            store.connection.execute(damage)
        assert set(store.get(["a", "b"])) == {"b"}
        assert "1 entries were damaged, and are made again" in capsys.readouterr().err
        store.put(good)
        np.testing.assert_array_equal(store.get(["a"])["a"], good["a"])


def test_a_vector_that_is_not_finite_is_not_kept(tmp_path: Path) -> None:
    with Store(tmp_path, IDENTITY) as store:
        with pytest.raises(InputError, match="not finite"):
            store.put({"a": vector(1, 2, 3), "b": vector(1, float("nan"), 3)})
        assert store.get(["a", "b"]) == {}


def test_vectors_of_a_store_without_checksums_are_made_again(tmp_path: Path) -> None:
    with sqlite3.connect(only_file(tmp_path)) as connection:
        connection.execute("CREATE TABLE vectors (key TEXT PRIMARY KEY, vector BLOB NOT NULL)")
        connection.execute("INSERT INTO vectors VALUES ('a', x'000000000000000000000000')")
    connection.close()
    with Store(tmp_path, IDENTITY) as store:
        assert store.get(["a"]) == {}


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="EMOCARE_CACHE"):
        Store(tmp_path / "file" / "embeddings", IDENTITY)
