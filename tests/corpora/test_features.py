import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.errors import InputError
from pipeline.core.schemas import Feature
from pipeline.corpora import named_columns, tables
from pipeline.corpora.feature_columns import faulty_columns, filled, medians
from pipeline.corpora.features import (
    FeatureCorpus,
    average_groups,
    corpus_of,
    only_scored,
    read_corpus,
    read_unscored,
)
from pipeline.corpora.raw_features import Extractor
from pipeline.corpora.sequences import pooled
from tests.corpora import test_sequences

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the corpora are not beside the project")

ROWS = [
    {"id": "a1", "group": "a", "score": 1.0, "text": [1.0, 2.0], "audio": [[1.0], [3.0]]},
    {"id": "a2", "group": "a", "score": None, "text": [3.0, None], "audio": None},
    {"id": "b1", "group": "b", "score": -0.5, "text": None, "audio": [[5.0]]},
]


def f32(values: Any) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def write(folder: Path, kind: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / f"corpus.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        cells = [
            {name: json.dumps(cell) if isinstance(cell, list) else cell for name, cell in row.items()} for row in rows
        ]
        pd.DataFrame(cells).to_csv(path, index=False)
    return path


def read(folder: Path, rows: list[dict[str, Any]], kind: str = "parquet", **more: Any) -> FeatureCorpus:
    return read_corpus(write(folder, kind, rows), "target.corpus", **more)


def plain(**more: Any) -> dict[str, Any]:
    return {"id": "x", "score": 0.5, "audio": [1.0, 2.0]} | more


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_tables_with_vectors_and_sequences(tmp_path: Path, kind: str) -> None:
    found = read(tmp_path, ROWS, kind)
    assert found.rows["id"].tolist() == ["a1", "a2", "b1"]
    assert found.rows["group"].tolist() == ["a", "a", "b"]
    np.testing.assert_array_equal(found.rows["score"], [1.0, np.nan, -0.5])
    assert found.rows["split"].tolist() == [None, None, None]
    assert not found.words
    assert found.modalities == ("text", "audio")
    np.testing.assert_array_equal(found.features["text"], f32([[1, 2], [3, np.nan], [0, 0]]))
    assert found.present["text"].tolist() == [True, True, False]
    # Mean, standard deviation, length.
    np.testing.assert_array_equal(found.features["audio"], f32([[2, 1, 2], [0, 0, 0], [5, 0, 1]]))
    assert len(found.refused) == 0


def test_batches_and_kinds_of_lists_do_not_change_the_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    cells = [None if at % 5 == 0 else row.tolist() for at, row in enumerate(values)]
    rows = {"id": [str(at) for at in range(20)], "score": [0.5] * 20, "text": ["word"] * 20}
    wanted = np.where((np.arange(20) % 5 == 0)[:, None], np.float32(0), values)
    kinds = [pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 3)]
    for rows_at_once in (3, 4096):
        monkeypatch.setattr(tables, "BATCH_ROWS", rows_at_once)
        for kind in kinds:
            table = pa.table({**rows, "vision": pa.array(cells, kind)})
            pq.write_table(table, tmp_path / "corpus.parquet")
            found = read_corpus(tmp_path / "corpus.parquet", "target.corpus")
            np.testing.assert_array_equal(found.features["visual"], wanted)
            assert found.present["visual"].tolist() == [at % 5 != 0 for at in range(20)]


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_words_are_kept_and_capitals_lowered(tmp_path: Path, kind: str) -> None:
    rows = [plain(id="1", text="NOW THE MOVIE"), plain(id="2", text=" It is OK "), plain(id="3", text="")]
    found = read(tmp_path, rows, kind)
    assert found.words
    assert found.modalities == ("text", "audio")
    assert found.rows["text"].tolist() == ["now the movie", "It is OK", None]
    assert set(found.features) == {"audio"}


def test_words_alone(tmp_path: Path) -> None:
    rows = [plain(id="1", text="fine", audio=None), plain(id="2", text=None, audio=[1.0])]
    found = read(tmp_path, rows, only_words=True)
    assert found.rows["id"].tolist() == ["1"]
    assert found.features == {}


def test_other_names_set_aside_rows_and_ignored_columns(tmp_path: Path) -> None:
    splits = ["training", "Dev", "excluded", "test", None]
    rows = [plain(id=str(at), split=part, extra=1) for at, part in enumerate(splits)]
    rows += [plain(id="5", split=None, score=None)]
    found = read(tmp_path, rows)
    assert found.rows["split"].tolist() == ["train", "val", "test", None]
    assert found.rows["id"].tolist() == ["0", "1", "3", "5"]
    assert found.rows["group"].tolist() == ["0", "1", "3", "5"]
    assert found.set_aside == {"excluded": 1, "no split": 1}
    assert len(found.refused) == 0
    assert found.ignored_columns == ("extra",)


@pytest.mark.parametrize(
    ("row", "kind", "reason"),
    [
        ({"id": None}, "parquet", "no id"),
        ({"id": "first"}, "parquet", "id already used in row 1"),
        ({"score": float("inf")}, "parquet", "score is no finite number of at most 1e+15, here 'inf'"),
        ({"score": -1e300}, "parquet", "score is no finite number of at most 1e+15, here '-1e+300'"),
        ({"score": 1.1e15}, "csv", "score is no finite number of at most 1e+15, here '1100000000000000.0'"),
        ({"score": "high"}, "csv", "score is no finite number of at most 1e+15, here 'high'"),
        ({"audio": [1.0, 2.0, 3.0]}, "parquet", "audio has 3 values, not 2"),
        ({"audio": [1.0, 2.0, 3.0]}, "csv", "audio has 3 values, not 2"),
        ({"audio": "[1, 2"}, "csv", "audio is no list of numbers of one width"),
        ({"audio": [[1.0], [2.0, 3.0]]}, "csv", "audio is no list of numbers of one width"),
        ({"audio": None}, "parquet", "no audio"),
        ({"audio": [float("nan"), float("inf")]}, "parquet", "no audio"),
    ],
)
def test_a_bad_row_is_refused_with_its_number_and_reason(tmp_path: Path, row: dict, kind: str, reason: str) -> None:
    rows = [plain(id="first"), plain(id="second") | row, plain(id="third")]
    found = read(tmp_path, rows, kind)
    assert found.refused.to_dict("records") == [{"row": 2, "id": rows[1]["id"], "reason": reason}]
    assert found.rows["row"].tolist() == [1, 3]
    assert len(found.features["audio"]) == len(found.present["audio"]) == 2


def refused(path: Path, told: str) -> None:
    """Refused as a corpus to learn from and, read in parts, as one to be scored."""
    with pytest.raises(InputError, match=told):
        read_corpus(path, "target.corpus")
    with pytest.raises(InputError, match=told):
        list(read_unscored(path, 1))


@pytest.mark.parametrize("twice", ["id", "score", "audio", "audio.a", "other"])
def test_a_column_that_stands_twice_is_refused(tmp_path: Path, twice: str) -> None:
    table = pa.table({"id": ["1"], "score": [1.0], "audio.a": [2.0], "audio.b": [3.0]})
    path = tmp_path / "corpus.parquet"
    for _ in range(2):
        cells = pa.array([[1.0]]) if twice == "audio" else pa.array([5.0])
        table = table if table.schema.names.count(twice) == 2 else table.append_column(twice, cells)
    pq.write_table(table, path)
    refused(path, rf"corpus\.parquet: not readable as parquet: the column '{twice}' stands there twice; rename one")


def test_a_cell_that_no_text_stands_for_names_its_row(tmp_path: Path) -> None:
    path = tmp_path / "corpus.parquet"
    dates = pa.array([0, 2**30], pa.int32()).view(pa.date32())
    pq.write_table(pa.table({"id": ["1", "2"], "score": dates, "text": ["a", "b"]}), path)
    refused(path, r"corpus\.parquet: score: row 2 holds a date32\[day\] out of range")


def test_a_sequence_of_uneven_steps_is_refused(tmp_path: Path) -> None:
    rows = [plain(id="1", audio=[[1.0, 2.0]]), plain(id="2", audio=[[1.0], [2.0, 3.0]])]
    assert read(tmp_path, rows).refused["reason"].tolist() == ["audio is no list of numbers of one width"]


def mmsa(**more: Any) -> bytes:
    part = {"id": ["a", "b"], "regression_labels": [1.0, 2.0], "audio": np.ones((2, 3, 2))}
    return pickle.dumps({"train": part | more})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.csv", b"", "is empty"),
        ("c.csv", b"id,score,audio\n", "holds no rows"),
        ("c.csv", b"id,audio\n1,[2]\n", "lacks the column score (has: id, audio)"),
        ("c.csv", b"id,score\n1,2\n", "has none of the columns text, audio, visual"),
        ("c.csv", b"id,score,text,audio.f0.mean\n1,2,well,3\n", "columns such as audio.f0.mean are read from Parquet"),
        (
            "c.csv",
            b"id;score;text\n1;2;well\n",
            "(has: 'id;score;text'; its cells are divided by ';': save it with commas)",
        ),
        ("c.csv", b"id, score,text\n1,2,well\n", "lacks the column score (has: id, ' score', text)"),
        ("c.csv", b"\xff\xfe\x00", "not readable as csv"),
        ("c.parquet", b"PAR1", "not readable as parquet"),
        ("c.xlsx", b"", "target.corpus takes a .parquet, .csv or .pkl file, or a folder"),
        ("c.pkl", b"\x80", "not a readable pickle"),
        ("c.pkl", pickle.dumps([1]), "not an MMSA pickle"),
        ("c.pkl", pickle.dumps({"train": {"id": ["a"]}}), "train lacks regression_labels"),
        ("c.pkl", mmsa(id=None), "c.pkl: train: id is no list with one value a row"),
        ("c.pkl", mmsa(id=7), "train: id is no list"),
        ("c.pkl", mmsa(id=[[], []]), "train: id: row 1 holds a list"),
        ("c.pkl", mmsa(id=[["a"], ["b", "c"]]), "train: id: row 2 holds a list"),
        ("c.pkl", mmsa(id=[{"a": 1}, "b"]), "train: id: row 1 holds a dict, where one text or number is needed"),
        ("c.pkl", mmsa(regression_labels=0.5), "train: regression_labels is no list"),
        ("c.pkl", mmsa(raw_text=["one"]), "train has 2 ids and 1 values for text"),
        ("c.pkl", mmsa(audio=None), "train: audio has the shape []"),
        ("c.pkl", mmsa(audio_lengths=[1.0, np.nan]), "train: audio_lengths is no list of 2 whole numbers"),
        ("c.pkl", mmsa(audio_lengths=[[1], [1, 2]]), "train: audio_lengths is no list of 2 whole numbers"),
        ("c.pkl", mmsa(audio_lengths=[1]), "train: audio_lengths is no list of 2 whole numbers"),
        ("c.pkl", mmsa(audio_lengths=[1, -1]), "train: audio_lengths is no list of 2 whole numbers"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_corpus(tmp_path / name, "target.corpus")
    assert message in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_column_of_texts_is_no_modality(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="column audio holds string; lists of numbers"):
        read(tmp_path, [plain(audio="loud")])


@pytest.mark.parametrize("column", ["id", "group", "score", "split"])
def test_a_list_where_a_text_or_number_is_needed_is_one_line(tmp_path: Path, column: str) -> None:
    with pytest.raises(InputError, match=rf"corpus\.parquet: {column}: row 2 holds a list"):
        read(tmp_path, [plain(**{column: None}), plain(**{column: ["x"]})])


@pytest.mark.parametrize("first", ["[]", "[nan, 1.0]", "[1. 2.]", "[[1, 2], [NaN, null]]"])
def test_a_text_column_of_numbers_in_brackets_holds_vectors_whatever_its_first_cell(tmp_path: Path, first: str) -> None:
    rows = [plain(id="a", text=first), plain(id="b", text="[1, 2, 3]"), plain(id="c", text="[4, 5, 6]")]
    found = read(tmp_path, rows, "csv")
    assert not found.words and found.rows["text"].isna().all()
    np.testing.assert_array_equal(found.features["text"][-2:], f32([[1, 2, 3], [4, 5, 6]]))


def test_a_text_in_brackets_is_words(tmp_path: Path) -> None:
    rows = [plain(id="a", text="[nan] said no"), plain(id="b", text="[laughs]"), plain(id="c", text="[1, 2]")]
    assert read(tmp_path, rows, "csv").rows["text"].tolist() == ["[nan] said no", "[laughs]", "[1, 2]"]


def test_a_missing_file_says_which_param(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not found; set source\.corpus"):
        read_corpus(tmp_path / "gone.parquet", "source.corpus")


def test_an_mmsa_pickle(tmp_path: Path) -> None:
    vision = np.zeros((2, 4, 1), dtype=np.float32)
    vision[0, :, 0] = [0, 3, 0, 0]  # a length says that its second and third steps are meant
    vision[1, :, 0] = [0, 0, 0, 0]
    audio = np.array([[[0.0], [2.0], [0.0], [4.0], [0.0]], [[1.0], [0.0], [0.0], [0.0], [0.0]]])
    train = {
        "id": ["v$_$1", "v$_$2"],
        "raw_text": np.array(["GOOD FILM", "bad"], dtype=object),
        "text": np.ones((2, 3), dtype=np.float32),
        "text_bert": np.zeros((2, 3, 5)),
        "audio": audio,
        "vision": vision,
        "vision_lengths": [3, 0],
        "regression_labels": np.array([[1.5], [-2.0]]),
    }
    test = train | {"id": ["w$_$1", "x"], "regression_labels": np.array([0.25, np.nan])}
    path = tmp_path / "mosi.pkl"
    path.write_bytes(pickle.dumps({"train": train, "test": test}))
    found = read_corpus(path, "target.corpus")
    assert found.rows["id"].tolist() == ["v$_$1", "v$_$2", "w$_$1", "x"]
    assert found.rows["group"].tolist() == ["v", "v", "w", "x"]
    assert found.rows["split"].tolist() == ["train", "train", "test", "test"]
    np.testing.assert_array_equal(found.rows["score"], [1.5, -2.0, 0.25, np.nan])
    assert found.rows["text"].tolist() == ["good film", "bad"] * 2
    assert not found.words
    np.testing.assert_array_equal(found.features["text"][0], f32([1, 1, 1]))
    # Steps of zeros at both ends are padding, the one between is not: 2, 0, 4.
    np.testing.assert_allclose(found.features["audio"][0], [2, (8 / 3) ** 0.5, 3], rtol=1e-6)
    np.testing.assert_array_equal(found.features["audio"][1], [1, 0, 1])
    np.testing.assert_allclose(found.features["visual"][0], [1, 2**0.5, 3], rtol=1e-6)
    assert found.present["visual"].tolist() == [True, False, True, False]
    assert found.ignored_columns == ("text_bert",)
    assert read_corpus(path, "source.texts", only_words=True).words


def test_an_mmsa_pickle_with_another_number_of_vectors(tmp_path: Path) -> None:
    part = {"id": ["a", "b"], "regression_labels": [1, 2], "audio": np.zeros((3, 2))}
    (tmp_path / "c.pkl").write_bytes(pickle.dumps({"train": part}))
    with pytest.raises(InputError, match=r"train: audio has the shape \[3, 2\]; \[2, steps, width\]"):
        read_corpus(tmp_path / "c.pkl", "target.corpus")


def test_a_folder_of_sequences(tmp_path: Path) -> None:
    found = read_corpus(test_sequences.corpus(tmp_path), "target.corpus")
    assert found.words
    assert found.rows["text"].tolist() == ["hello world", "again"]
    assert found.rows["score"].tolist() == [1.5, -2.0]
    assert found.refused["reason"].tolist() == ["no audio, text"]  # nothing overlaps the segment of the other video


def test_only_scored_rows(tmp_path: Path) -> None:
    found = only_scored(read(tmp_path, ROWS))
    assert found.rows["id"].tolist() == ["a1", "b1"]
    assert len(found.features["text"]) == 2
    assert found.refused.to_dict("records") == [{"row": 2, "id": "a2", "reason": "no score"}]


def test_groups_are_averaged(tmp_path: Path) -> None:
    rows = [
        plain(id="1", group="b", score=1.0, audio=[1.0, 5.0], text="one,\nand more", split="train"),
        plain(id="2", group="a", score=None, audio=None, text="alone", split="train"),
        plain(id="3", group="b", score=2.0, audio=[3.0, None], text=None, split="test"),
        plain(id="4", group="b", score=None, audio=None, text="three", split="train"),
    ]
    found = average_groups(read(tmp_path, rows))
    assert found.rows["id"].tolist() == found.rows["group"].tolist() == ["b", "a"]
    assert found.rows["row"].tolist() == [1, 2]
    np.testing.assert_array_equal(found.rows["score"], [1.5, np.nan])
    assert found.rows["text"].tolist() == ["one, and more\nthree", "alone"], "each text is one line"
    assert found.rows["split"].tolist() == ["test", "train"]
    np.testing.assert_array_equal(found.features["audio"], f32([[2, 5], [0, 0]]))
    assert found.present["audio"].tolist() == [True, False]


def columns(**named: np.ndarray) -> np.ndarray:
    return np.stack(list(named.values()), axis=1)


def test_faulty_columns_are_named() -> None:
    rng = np.random.default_rng(0)
    gaps = rng.normal(size=60)
    gaps[:4] = np.nan
    few = rng.normal(size=60)
    few[:3] = np.inf
    values = columns(
        good=rng.normal(size=60), constant=np.full(60, 3.3), gaps=gaps, few=few, noise=1e6 + rng.normal(size=60) * 1e-3
    )
    found = faulty_columns(values, [str(at // 6) for at in range(60)], np.ones(60, bool), 0.05)
    assert found == {1: "constant", 2: "not finite", 4: "constant"}


def test_columns_are_judged_by_the_fit_rows_alone() -> None:
    values = np.array([[1.0], [1.0], [2.0]])
    assert faulty_columns(values, ["a", "b", "c"], np.array([True, True, False]), 0.05) == {0: "constant"}
    assert faulty_columns(values, ["a", "b", "c"], np.array([True, True, True]), 0.05) == {}
    assert faulty_columns(values, ["a", "b", "c"], np.zeros(3, bool), 0.05) == {}


@pytest.mark.parametrize(("rows", "group", "found"), [(60, 6, True), (60, 3, False), (18, 6, False)])
def test_a_column_that_rises_within_groups_is_time_like(rows: int, group: int, found: bool) -> None:
    rng = np.random.default_rng(0)
    order = np.arange(rows)
    values = columns(time=order % group + rng.uniform(0, 0.9, rows), other=rng.normal(size=rows))
    groups = np.array([f"g{at // group}" for at in order])
    if group == 6:  # rows of a group need not stand together
        mixed = np.argsort(order % group, kind="stable")
        values, groups = values[mixed], groups[mixed]
    assert faulty_columns(values, groups.tolist(), np.ones(rows, bool), 0.05) == ({0: "time-like"} if found else {})


def test_means_of_frame_times_are_time_like_and_rounded_numbers_are_not() -> None:
    rng = np.random.default_rng(0)
    values = columns(
        frames_30=rng.integers(100, 9000, 80) / 60,
        frames_24=rng.integers(100, 9000, 80) / 48,
        hundredths=rng.integers(100, 30_000, 80) / 100,
        thousandths=rng.integers(1000, 300_000, 80) / 1000,
        counts=rng.integers(0, 500, 80),
        shares=rng.integers(0, 60, 80) / 60,
        real=rng.uniform(2, 100, 80),
    )
    found = faulty_columns(values.astype(np.float32), [str(at) for at in range(80)], np.ones(80, bool), 0.05)
    assert found == {0: "time-like", 1: "time-like"}


def test_gaps_are_filled_with_the_median_of_the_fit_rows() -> None:
    values = f32([[1, 1], [2, np.nan], [9, np.inf], [np.nan, 100], [np.nan, 5]])
    present = np.array([True, True, True, True, False])
    fit = np.array([True, True, True, False, True])
    fill = medians(values, present, fit)
    np.testing.assert_array_equal(fill, f32([2, 1]))
    found, count = filled(values, present, fill)
    assert (count, found.dtype) == (3, np.float32)
    np.testing.assert_array_equal(found[:4], f32([[1, 1], [2, 1], [9, 1], [2, 100]]))


@real
def test_the_columns_of_no_use_of_real_corpora_are_found() -> None:
    found = read_corpus(DATA / "mosei" / "corpus.parquet", "source.corpus")
    assert (len(found.rows), found.set_aside) == (721, {"excluded": 21})
    fit = np.ones(721, dtype=bool)
    groups = found.rows["group"].tolist()
    assert {name: faulty_columns(values, groups, fit, 0.05) for name, values in found.features.items()} == {
        "text": {},
        "audio": {7: "not finite"},
        "visual": {0: "constant", 1: "time-like"},
    }


@real
def test_a_real_corpus_of_utterances() -> None:
    found = read_corpus(DATA / "mosi" / "corpus.parquet", "target.corpus")
    assert found.words
    assert found.rows["split"].value_counts().to_dict() == {"train": 1231, "test": 271, "val": 216}
    assert found.rows["text"].str.islower().all()
    assert len(average_groups(found).rows) == 74
    assert faulty_columns(found.features["audio"], found.rows["group"].tolist(), np.ones(1718, bool), 0.05) == {}


# --- to be scored ----------------------------------------------------------------------------------------------------


def free(count: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"id": f"r{at}", "group": f"g{at // 2}", "audio": [float(at), 1.0], "text": [float(-at)]} for at in range(count)
    ]
    rows[3]["audio"] = rows[3]["text"] = None
    rows[5]["id"] = "r0"
    return rows


@pytest.mark.parametrize("kind", ["parquet", "csv"])
@pytest.mark.parametrize("rows", [1, 3, 4, 100])
def test_a_corpus_without_scores_comes_part_by_part_and_says_the_same(tmp_path: Path, kind: str, rows: int) -> None:
    parts = list(read_unscored(write(tmp_path, kind, free(11)), rows))
    assert len(parts) == -(-11 // min(rows, 11))
    numbers = [part.rows["row"].tolist() for part in parts]
    assert [number for part in numbers for number in part] == [1, 2, 3, 5, 6, 7, 8, 9, 10, 11]
    ids = [name for part in parts for name in part.rows["id"]]
    assert ids[:5] == ["r0", "r1", "r2", "r4", "r0"]  # an id may stand there twice: nothing is learned from it
    audio = np.concatenate([part.features["audio"] for part in parts if len(part.rows)])
    np.testing.assert_array_equal(audio[:, 0], [0, 1, 2, 4, 5, 6, 7, 8, 9, 10])
    refused = pd.concat([part.refused for part in parts])
    assert refused["row"].tolist() == [4] and refused["id"].tolist() == ["r3"]


def test_rows_without_words_at_the_head_of_a_table_are_no_fault_of_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "corpus.csv"
    path.write_text("id,text\n1,\n2,\n3,fine\n")
    parts = list(read_unscored(path, 2))
    assert [name for part in parts for name in part.rows["text"].dropna()] == ["fine"]


def test_a_pickle_to_be_scored_needs_no_scores(tmp_path: Path) -> None:
    path = tmp_path / "corpus.pkl"
    path.write_bytes(pickle.dumps({"test": {"id": ["a$_$1", "a$_$2"], "audio": np.ones((2, 3, 2))}}))
    (part,) = read_unscored(path, 10)
    assert part.rows["id"].tolist() == ["a$_$1", "a$_$2"] and part.rows["group"].tolist() == ["a", "a"]
    assert part.features["audio"].shape == (2, 5)
    with pytest.raises(InputError, match="test lacks regression_labels"):
        read_corpus(path, "target.corpus")


def test_a_corpus_without_anything_to_go_by_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "corpus.csv"
    path.write_text("id,score\n1,2.0\n")
    with pytest.raises(InputError, match="has none of the columns text, audio, visual"):
        list(read_unscored(path, 10))
    with pytest.raises(InputError, match=r"none\.csv: not found"):
        list(read_unscored(tmp_path / "none.csv", 10))


def test_rows_at_hand_become_a_corpus() -> None:
    sequence = [[1.0, 2.0], [3.0, 5.0]]
    made = corpus_of({"text": ["so sad", None, " "], "audio": [None, sequence, pooled(np.array(sequence))]})
    assert made.words
    assert made.rows["id"].tolist() == ["1", "2", "3"]
    assert made.rows["text"].tolist()[:2] == ["so sad", None]
    np.testing.assert_array_equal(made.features["audio"][1], made.features["audio"][2])
    assert made.present["audio"].tolist() == [False, True, True]
    alone = corpus_of({"text": [[1.0, 2.0]], "audio": [[3.0]]})
    assert not alone.words and alone.features["text"].tolist() == [[1.0, 2.0]]


# --- features as columns of their own --------------------------------------------------------------------------------

BY_HAND = Extractor("by hand", "1", "0" * 64, ("b.mean", "a.std"))


def named(path: Path, extractors: dict[Feature, Extractor], **more: Any) -> Path:
    columns = {
        "id": ["a", "b", "c"],
        "score": [1.0, -1.0, 0.5],
        "text": ["Hello", "World", "There"],
        "audio.b.mean": pa.array([1.0, None, 3.0], pa.float32()),
        "audio.a.std": pa.array([4.0, None, None], pa.float64()),
        "reason": [None, "audio: no sound", None],
    }
    table = pa.table(columns | more)
    pq.write_table(table.replace_schema_metadata(named_columns.metadata(extractors)), path)
    return path


def test_features_may_be_columns_with_names(tmp_path: Path) -> None:
    corpus = read_corpus(named(tmp_path / "a.parquet", {"audio": BY_HAND}), "target.corpus")
    assert corpus.modalities == ("text", "audio")
    np.testing.assert_array_equal(corpus.features["audio"], [[1, 4], [0, 0], [3, np.nan]])
    assert corpus.present["audio"].tolist() == [True, False, True]
    assert corpus.ignored_columns == ("reason",)
    assert corpus.extractors == {"audio": BY_HAND}
    (part,) = read_unscored(tmp_path / "a.parquet", 10)
    np.testing.assert_array_equal(part.features["audio"], corpus.features["audio"])
    first, second = (part.features["audio"] for part in read_unscored(tmp_path / "a.parquet", 2))
    np.testing.assert_array_equal(np.concatenate([first, second]), part.features["audio"])


def test_an_extractor_is_believed_of_its_own_columns_alone(tmp_path: Path) -> None:
    for wrong in (("a.std", "b.mean"), ("b.mean",)):  # another order, or one that was left out
        path = named(tmp_path / "a.parquet", {"audio": replace(BY_HAND, columns=wrong)})
        assert read_corpus(path, "target.corpus").extractors == {}
    lists = named(tmp_path / "b.parquet", {"audio": BY_HAND}, audio=[[1.0], [2.0], [3.0]])
    assert read_corpus(lists, "target.corpus").extractors == {}
    assert read_corpus(lists, "target.corpus").features["audio"].tolist() == [[1.0], [2.0], [3.0]]


def test_columns_that_hold_no_numbers_and_foreign_metadata_are_one_line(tmp_path: Path) -> None:
    path = named(tmp_path / "a.parquet", {}, **{"audio.c.mean": ["x", "y", "z"]})
    with pytest.raises(InputError, match=r"a\.parquet: column audio\.c\.mean holds string, where numbers are needed"):
        read_corpus(path, "target.corpus")
    table = pq.read_table(named(path, {})).replace_schema_metadata({"extractors": "[]"})
    pq.write_table(table, path)
    with pytest.raises(InputError, match=r"a\.parquet: its metadata `extractors` says .*; extract again"):
        read_corpus(path, "target.corpus")
