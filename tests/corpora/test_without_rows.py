from pathlib import Path

import pandas as pd
import pytest

from pipeline.corpora.tabular import read_texts
from pipeline.corpora.without_rows import drop_rows

CSV = b'\xef\xbb\xbftext,id,label\r\n"a, ""b""\r\nc",1, x\r\n\r\nd, 2 ,y\r\n"e\nf",3,z'
JSONL = b'{"id": 1, "text": "a"}\n\n{"text":"b","id":" 2 "}\r\n{"id":"3"}'


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("m.csv", CSV, b'\xef\xbb\xbftext,id,label\r\n"a, ""b""\r\nc",1, x\r\n\r\n"e\nf",3,z'),
        ("m.jsonl", JSONL, b'{"id": 1, "text": "a"}\n\n{"id":"3"}'),
    ],
)
def test_all_but_the_row_stays_byte_by_byte(tmp_path: Path, name: str, data: bytes, expected: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    drop_rows(path, {"2"})
    assert path.read_bytes() == expected


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "m.parquet"])
def test_the_right_rows_go(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    frame = pd.DataFrame({"id": [10**18 + at for at in range(5)], "text": ["a", "b", "c\nd", "e", "f"]})
    if name.endswith("csv"):
        frame.to_csv(path, index=False)
    elif name.endswith("jsonl"):
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    drop_rows(path, {str(10**18 + 1), str(10**18 + 4)})
    (left,) = read_texts(path, ("id", "text"), None)
    assert left.cells.to_numpy().tolist() == [[str(10**18), "a"], [str(10**18 + 2), "c\nd"], [str(10**18 + 3), "e"]]


def test_rows_go_from_every_part_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "m.parquet"
    folder.mkdir()
    for number in range(3):
        ids = [f"{number}{at}" for at in range(3)]
        pd.DataFrame({"id": ids, "text": ids}).to_parquet(folder / f"part-{number}.parquet")
    drop_rows(folder, {"01", "22"})
    (left,) = read_texts(folder, ("id",), None)
    assert left.cells["id"].tolist() == ["00", "02", "10", "11", "12", "20", "21"]
