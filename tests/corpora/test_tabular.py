"""A user's tables as texts: nothing altered, nothing shifted, and the row named where something is wrong."""

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.errors import InputError
from pipeline.corpora.tabular import read_texts

LONG = "1000000000000012345"
"""Between two numbers that floating point has."""


def cells(path: Path, rows: int | None = None) -> dict[str, list[str | None]]:
    parts = list(read_texts(path, ("id", "text"), rows))
    frame = pd.concat([part.cells for part in parts], ignore_index=True)
    return {str(name): frame[name].tolist() for name in frame}


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("rows", [None, 1, 2, 10])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_an_id_keeps_its_digits_beside_one_that_is_missing(tmp_path: Path, kind: str, rows: int | None) -> None:
    path = tmp_path / f"m.{kind}"
    if kind == "csv":
        path.write_text(f"id,text\n{LONG},a\n,b\n7,c\n")
    elif kind == "jsonl":
        path.write_text(f'{{"id": {LONG}, "text": "a"}}\n{{"id": null, "text": "b"}}\n{{"id": 7.0, "text": "c"}}\n')
    else:
        ids = pa.array([int(LONG), None, 7], pa.int64())
        pq.write_table(pa.table({"id": ids, "text": ["a", "b", "c"]}), path)
    assert cells(path, rows) == {"id": [LONG, None, "7"], "text": ["a", "b", "c"]}


def test_numbers_that_were_rounded_when_they_were_stored_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [3.0, 1000000000000012345.0], "text": ["a", "b"]}), tmp_path / "m.parquet")
    with pytest.raises(InputError, match=r"m\.parquet: id: row 2 holds .*last digits are lost; store it as text"):
        cells(tmp_path / "m.parquet")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.csv", "id,text\n1,hello,\n", "row 1 (line 2) has 3 cells, the header has 2; put texts that hold commas in"),
        ("m.csv", 'id,text\n1,"two\nlines"\n2\n', "row 2 (line 4) has 1 cells, the header has 2"),
        ("m.csv", "id,text,\n1,a\n", "row 1 (line 2) has 2 cells, the header has 3"),
        ("m.csv", "id,id\n1,2\n", "the column 'id' stands there twice; rename one"),
        ("m.csv", 'id,text\n1,a\n2,"open\n', "line 3: a quote is never closed"),
        ("m.csv", b"id,text\n1,a\n2,\xe9t\xe9\n", "m.csv: text: row 2 is not UTF-8"),
        ("m.csv", "id,text\n1,a\n".encode("utf-16"), "the header is not UTF-8; save the file as UTF-8"),
        (
            "m.csv",
            b"PK\x03\x04\x14\0",
            "not readable as csv: it is an Excel workbook or another zip file; save the table",
        ),
        ("m.csv", b"\x1f\x8b\x08\0", "not readable as csv: it is compressed with gzip; unpack it"),
        ("m.jsonl", b"PAR1\x15\0", "not readable as jsonl: it is a Parquet file; let its name end in .parquet"),
        ("m.jsonl", '{"id": 1}\n5\n', "line 2 is no object"),
        ("m.jsonl", '{"id": 1}\n\n{"id": }\n', "line 3: Expecting value at column 8"),
        ("m.jsonl", b'{"id": 1}\n{"id": "\xe9"}\n', "line 2 is not UTF-8"),
        ("m.jsonl", '{"id": 1, "id": 2}\n', "line 1: the key 'id' stands twice in an object"),
        ("m.jsonl", '{"id": ' + "[" * 5000 + "]" * 5000 + "}\n", "line 1: nested more than 100 deep"),
        ("m.jsonl", '{"id": 1}\n{"text": "\\ud83d hi"}\n', "text: row 2 is not UTF-8, or holds half a character"),
        ("m.jsonl", '{"id": 1}\n{"id": {"a": 1}}\n', "id: row 2 holds a dict"),
    ],
)
def test_a_table_that_says_something_else_than_it_seems_to(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        cells(written(tmp_path, name, content), 1)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "content"), [("m.csv", "id,text\n1,a\n"), ("m.jsonl", '{"id": 1, "text": "a"}\n')])
def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path, name: str, content: str) -> None:
    assert cells(written(tmp_path, name, b"\xef\xbb\xbf" + content.encode())) == {"id": ["1"], "text": ["a"]}


def test_quotes_commas_line_ends_and_blank_lines(tmp_path: Path) -> None:
    path = written(tmp_path, "m.csv", '\r\nid,text\r\n1,"a, ""b""\nc"\r\n\r\n2, d \r\n')
    assert cells(path) == {"id": ["1", "2"], "text": ['a, "b"\nc', "d"]}


def test_constants_that_are_no_json_are_missing(tmp_path: Path) -> None:
    path = written(tmp_path, "m.jsonl", '{"id": NaN, "text": "a"}\n{"id": true}\n')
    assert cells(path) == {"id": [None, "True"], "text": ["a", None]}


def test_notes_of_pandas_that_contradict_the_types_are_not_read(tmp_path: Path) -> None:
    note: dict[str, Any] = {
        "index_columns": [{"kind": "range", "name": None, "start": 0, "stop": 99, "step": 1}, "nowhere"],
        "columns": [{"name": "id", "field_name": "id", "pandas_type": "int64", "numpy_type": "datetime64[ns, Mars]"}],
        "column_indexes": [{"name": 3}],
    }
    table = pa.table({"id": ["1"], "text": ["a"]}).replace_schema_metadata({"pandas": json.dumps(note)})
    pq.write_table(table, tmp_path / "m.parquet")
    assert cells(tmp_path / "m.parquet") == {"id": ["1"], "text": ["a"]}


WHOLE = pa.array([0, 2**62], pa.int64())


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (pa.array([b"ok", b"\xff\xfe"], pa.binary()).view(pa.string()), "row 2 is not UTF-8"),
        (WHOLE.view(pa.timestamp("us")), "row 2 holds a timestamp[us] out of range"),
        (WHOLE.view(pa.time64("us")), "row 2 holds a time64[us] out of range"),
        (WHOLE.view(pa.duration("s")), "row 2 holds a duration[s] out of range"),
        (pa.array([0, 2**30], pa.int32()).view(pa.date32()), "row 2 holds a date32[day] out of range"),
        (
            pa.array([None, 1], pa.timestamp("us", "Mars/Olympus")),
            "row 2 holds a timestamp[us, tz=Mars/Olympus] out of range, or of an unknown time zone; store it as text",
        ),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
@pytest.mark.parametrize("rows", [None, 1])
def test_cells_that_no_text_stands_for(tmp_path: Path, column: pa.Array, told: str, rows: int | None) -> None:
    pq.write_table(pa.table({"id": ["1", "2"], "text": column}), tmp_path / "m.parquet")
    with pytest.raises(InputError) as caught:
        cells(tmp_path / "m.parquet", rows)
    assert f"m.parquet: text: {told}" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "m.parquet"])
def test_a_pipe_or_a_loop_of_links_is_no_table(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="not a file"):
        cells(tmp_path / name)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to(tmp_path / name)
    with pytest.raises(InputError, match="cannot be opened: Too many levels"):
        cells(tmp_path / name)


def test_a_folder_of_parquet_files_is_one_table(tmp_path: Path) -> None:
    folder = tmp_path / "posts.parquet"
    for name, rows in {
        "label=Joy/part-1.parquet": {"id": ["3"], "text": ["c"]},
        "label=Joy/part-0.parquet": {"id": ["1", "2"]},
        "label=a%2Fb/part-0.parquet": {"id": ["4"], "text": [None]},
        "_old.parquet": {"id": ["5"]},
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_parquet(folder / name)
    wanted = [["1", None, "Joy"], ["2", None, "Joy"], ["3", "c", "Joy"], ["4", None, "a/b"]]
    (whole,) = read_texts(folder, ("id", "text", "label"), None)
    assert whole.cells[["id", "text", "label"]].to_numpy().tolist() == wanted
    *_, last = parts = list(read_texts(folder, ("id", "text", "label"), 1))
    assert [part.cells.get("text", pd.Series([None])).tolist() for part in parts] == [[None], [None], ["c"], [None]]
    assert set(last.columns) == {"id", "text", "label"}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (b"label=\xff\xfe", r"the name of its folder label=.* is not UTF-8; rename the folder"),
        (b"label=%FF%FE", r"the name of its folder label=%FF%FE is not UTF-8; rename the folder"),
        (b"label=Joy/label=Sad", r"two of its folders say label=; rename one"),
    ],
)
def test_a_folder_whose_name_says_no_one_text(tmp_path: Path, name: bytes, told: str) -> None:
    folder = tmp_path / "posts.parquet" / os.fsdecode(name)
    folder.mkdir(parents=True)
    (folder / "part-0.parquet").write_bytes(pd.DataFrame({"id": ["1"]}).to_parquet())
    with pytest.raises(InputError, match=rf"part-0\.parquet: {told}") as caught:
        list(read_texts(tmp_path / "posts.parquet", ("id", "label"), None))
    str(caught.value).encode()  # which a terminal shows


def test_a_folder_without_parts_and_a_bad_part(tmp_path: Path) -> None:
    folder = tmp_path / "posts.parquet"
    folder.mkdir()
    with pytest.raises(InputError, match=r"posts\.parquet: is a folder without Parquet files"):
        list(read_texts(folder, ("id",), None))
    (folder / "part-0.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"part-0\.parquet: not readable as parquet"):
        list(read_texts(folder, ("id",), 3))
