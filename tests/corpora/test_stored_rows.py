from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.corpora import stored_rows
from pipeline.corpora.stored_rows import Numbered, StoredRows, digests, firsts


@pytest.fixture(params=["in memory", "on disk"])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """So few rows at a time that some thousand are many."""
    for name, value in {"AT_ONCE": 7, "SORTED_TOGETHER": 50}.items():
        monkeypatch.setattr(stored_rows, name, value)
    if request.param == "on disk":
        monkeypatch.setattr(stored_rows, "IN_MEMORY_BYTES", 16)


def some_rows(count: int) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    names = [None if at % 5 == 0 else f"é {at}" for at in draw.permutation(count).tolist()]
    return pd.DataFrame({"id": [f"p{at:04d}" for at in range(count)], "text": names}, dtype=object)


@pytest.mark.usefixtures("small")
def test_rows_come_back_as_they_were() -> None:
    frame = some_rows(300)
    stored = StoredRows(["id", "text", "group"])
    for start in range(0, 300, 90):
        stored.add(frame.iloc[start : start + 90])
    assert len(stored) == 300
    expected = frame.assign(group=None)
    assert pd.concat(stored.parts(), ignore_index=True).equals(expected.astype(object))
    assert stored.column("text").to_pylist() == frame["text"].tolist()
    assert [text for part in stored.texts("id") for text in part] == frame["id"].tolist()

    kept = np.random.default_rng(1).random(300) < 0.3
    assert stored.where(kept).column("id").to_pylist() == frame.loc[kept, "id"].tolist()
    # two readings at a time do not disturb each other
    assert [one["id"].tolist() for one, _ in zip(stored.parts(), stored.parts(), strict=True)] == [
        part["id"].tolist() for part in stored.parts()
    ]


@pytest.mark.usefixtures("small")
def test_rows_in_another_order() -> None:
    frame = some_rows(333)
    rank = np.random.default_rng(2).permutation(333)
    parts = list(StoredRows.of(frame).in_order(rank))
    assert len(parts) == 7
    rows = np.concatenate([at for at, _ in parts])
    assert rows.tolist() == np.argsort(rank).tolist()
    assert [name for _, table in parts for name in table["text"].to_pylist()] == frame["text"].iloc[rows].tolist()


def test_no_rows() -> None:
    nothing = StoredRows(["id"])
    assert (len(nothing), list(nothing.parts()), nothing.column("id").to_pylist()) == (0, [], [])
    ((rows, table),) = nothing.in_order(np.zeros(0, dtype=int))
    assert (len(rows), len(table)) == (0, 0)


@pytest.mark.usefixtures("small")
def test_numbers_of_rows_stay_with_them() -> None:
    draw = np.random.default_rng(3)
    given = {row: draw.integers(-(2**63), 2**63, draw.integers(0, 9)).tolist() for row in range(200)}
    numbered = Numbered()
    for row, numbers in given.items():
        numbered.add(np.array(numbers, dtype=np.int64), np.full(len(numbers), row))
    parts = list(numbered.parts())
    found = [pair for numbers, rows in parts for pair in zip(numbers.tolist(), rows.tolist(), strict=True)]
    assert sorted(found) == sorted((number, row) for row, numbers in given.items() for number in numbers)
    of_part = [set(numbers.tolist()) for numbers, _ in parts]
    assert sum(map(len, of_part)) == len(set.union(*of_part))  # each number is in one part
    assert all(np.all(np.diff(rows) >= 0) for _, rows in parts)


def test_rows_with_one_number_in_common() -> None:
    numbered = Numbered()
    numbered.add(np.array([5, -7, 5, 2**62, 8]), np.array([0, 0, 1, 1, 2]))
    numbered.add(np.array([-7, 5, 21]), np.array([3, 4, 4]))
    assert sorted(rows.tolist() for rows in numbered.together()) == [[0, 1, 4], [0, 3]]


def test_the_first_row_with_a_text() -> None:
    texts = ["b", None, "a", "b", "", None, "a", "b", "ab"]
    assert firsts(digests(texts)).tolist() == [0, -1, 2, 0, 4, -1, 2, 0, 8]
    many = [f"{at % 777}" for at in range(stored_rows.AT_ONCE + 5)]
    assert firsts(digests(many)).tolist() == [at % 777 for at in range(len(many))]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no file here is always full")
def test_no_room_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_rows, "_file", lambda folder, room: Path("/dev/full").open("w+b"))  # noqa: SIM115
    with pytest.raises(OSError, match="No space left") as error:
        StoredRows(["id"], tmp_path).add({"id": ["a"]})
    assert error.value.filename == str(tmp_path)
    with pytest.raises(OSError, match="No space left") as error:
        Numbered(tmp_path).add(np.array([1]), np.array([0]))
    assert error.value.filename == str(tmp_path)
