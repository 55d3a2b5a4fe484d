"""Properties of readers, splits and stores, on whatever hypothesis thinks of."""

import csv
import io
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.core.errors import InputError
from pipeline.corpora.splits import crossing_rows, grouped_folds, grouped_split
from pipeline.corpora.tabular import read_texts
from pipeline.encoders.store import Store
from pipeline.training.finished import Finished

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))  # pyright: ignore[reportArgumentType]

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
CELLS = st.lists(st.tuples(st.one_of(st.none(), st.integers(), TEXTS), st.one_of(st.none(), TEXTS)), min_size=1)
GROUPS = st.lists(st.integers(0, 12).map(str), min_size=8, max_size=60)


def expected(value: object) -> str | None:
    return None if value is None else str(value).strip() or None


def read(path: Path, rows: int | None) -> list[tuple[str | None, str | None]]:
    frames = [part.cells for part in read_texts(path, ("id", "text"), rows)]
    table = pd.concat(frames, ignore_index=True)
    return list(zip(table["id"], table["text"], strict=True))


@QUICK
@given(CELLS, st.sampled_from([None, 1, 3]), st.sampled_from(["csv", "jsonl", "parquet"]))
def test_every_reader_gives_every_cell_as_it_was_written(
    cells: list[tuple[int | str | None, str | None]], rows: int | None, kind: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"m.{kind}")
        if kind == "csv":
            buffer = io.StringIO()
            writer = csv.writer(buffer, quoting=csv.QUOTE_ALL)
            writer.writerows([("id", "text"), *(("" if a is None else a, "" if b is None else b) for a, b in cells)])
            path.write_bytes(buffer.getvalue().encode())
        elif kind == "jsonl":
            path.write_text("".join(json.dumps({"id": a, "text": b}) + "\n" for a, b in cells), encoding="utf-8")
        else:
            ids = [None if a is None else str(a) for a, _ in cells]
            texts = [b for _, b in cells]
            pq.write_table(pa.table({"id": pa.array(ids, pa.string()), "text": pa.array(texts, pa.string())}), path)
        assert read(path, rows) == [(expected(a), expected(b)) for a, b in cells]


@QUICK
@given(st.binary(max_size=200), st.sampled_from(["csv", "jsonl", "parquet"]))
def test_whatever_bytes_a_table_is_made_of_it_is_read_or_refused_in_a_line(content: bytes, kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"m.{kind}")
        path.write_bytes(content)
        try:
            list(read_texts(path, ("id", "text"), 2))
        except InputError as error:
            assert "\n" not in str(error)


@QUICK
@given(GROUPS, st.integers(0, 2**31), st.data())
def test_no_group_is_in_two_parts_and_none_is_lost(groups: list[str], seed: int, data: st.DataObject) -> None:
    labels = data.draw(st.lists(st.sampled_from("ab"), min_size=len(groups), max_size=len(groups)))
    shares = {"train": 0.6, "val": 0.2, "test": 0.2}
    strata = pd.DataFrame({"label": labels})
    parts = grouped_split(groups, strata, shares, np.random.default_rng(seed))
    assert pd.Series(parts).groupby(groups).nunique().max() == 1
    assert parts.tolist() == grouped_split(groups, strata, shares, np.random.default_rng(seed)).tolist()
    if len(set(groups)) >= 3:
        assert set(parts) == set(shares)
    folds = grouped_folds(groups, labels, 3, np.random.default_rng(seed))
    assert pd.Series(folds).groupby(groups).nunique().max() == 1


@QUICK
@given(GROUPS, st.data())
def test_what_is_left_of_a_given_split_crosses_no_part(groups: list[str], data: st.DataObject) -> None:
    names = st.sampled_from(["train", "val", "test"])
    split = np.array(data.draw(st.lists(names, min_size=len(groups), max_size=len(groups))))
    kept = ~crossing_rows(groups, split.tolist())
    assert pd.Series(split[kept]).groupby(np.array(groups)[kept]).nunique().max() == 1
    assert kept[split == "test"].all()


@QUICK
@given(
    st.dictionaries(TEXTS, st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3))
)
def test_a_store_gives_back_what_was_put(vectors: dict[str, list[float]]) -> None:
    put = {key: np.array(vector, dtype=np.float32) for key, vector in vectors.items()}
    with tempfile.TemporaryDirectory() as folder:
        with Store(Path(folder), {"name": "tiny", "width": 3}) as store:
            store.put(put)
        with Store(Path(folder), {"name": "tiny", "width": 3}) as store:
            back = store.get([*put, "never"])
    assert {key: vector.tobytes() for key, vector in back.items()} == {
        key: vector.tobytes() for key, vector in put.items() if key != "never" or key in put
    }


PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXTS),
    lambda inside: st.one_of(st.lists(inside, max_size=4), st.dictionaries(TEXTS, inside, max_size=4)),
    max_leaves=12,
)


@QUICK
@given(st.dictionaries(TEXTS, PLAIN, max_size=5))
def test_finished_pieces_come_back_exactly(value: dict) -> None:
    with tempfile.TemporaryDirectory() as folder:
        kept = Finished(Path(folder, "stage"))
        assert kept.get_or_make("piece", lambda: value) == value
        assert kept.get_or_make("piece", dict) == value
