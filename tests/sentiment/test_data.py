import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pipeline.core import artifacts
from pipeline.core.parallel import in_processes
from pipeline.core.schemas import FITTED_TABLE, SCORES_TABLE
from pipeline.sentiment.data import FeatureColumns, Target, fold_names, lines_of, read_target
from pipeline.sentiment.variants import Variant
from tests import tracks

COLUMNS = FeatureColumns(
    {"visual": torch.arange(8.0).reshape(4, 2), "text": torch.arange(12.0).reshape(4, 3)},
    {"visual": torch.tensor([True, False, True, True]), "text": torch.tensor([True, True, False, True])},
)
ADAPTED = Variant("adapted", "text_visual")
TABLE = pd.DataFrame(
    {"sample_id": ["a", "b", "c", "d"], "group_id": ["g", "g", "h", "i"], "score": [0.5, -1.0, 2.0, np.nan]}
)
FOLDS = pd.DataFrame(
    [
        ("one", "a", "train"),
        ("one", "b", "val"),
        ("one", "c", "test"),
        ("final", "b", "train"),
        ("final", "c", "train"),
    ],
    columns=["fold", "sample_id", "role"],
)
TARGET = Target(
    TABLE,
    COLUMNS,
    torch.tensor(TABLE["score"].to_numpy(np.float32)),
    FOLDS.iloc[::-1],
    words=False,
    by_source_text=False,
    inputs={},
)


def test_columns_by_rows_and_subset() -> None:
    assert COLUMNS.modalities == ("text", "visual")
    assert COLUMNS.widths == {"text": 3, "visual": 2}
    vectors, present = COLUMNS.at(np.array([3, 1]))
    assert vectors["visual"].tolist() == [[6.0, 7.0], [2.0, 3.0]]
    assert {name: there.tolist() for name, there in present.items()} == {"text": [True, True], "visual": [True, False]}
    vectors, present = COLUMNS.at(np.array([2, 0]), ("text",))
    assert {name: there.tolist() for name, there in present.items()} == {
        "text": [False, True],
        "visual": [False, False],
    }
    assert vectors["text"].tolist() == [[6.0, 7.0, 8.0], [0.0, 1.0, 2.0]]


def test_rows_of_a_role_stand_in_the_order_of_the_table() -> None:
    assert TARGET.rows("one", "train").tolist() == [0]
    assert TARGET.rows("final", "train").tolist() == [1, 2]
    assert TARGET.rows("final", "test").tolist() == []
    assert TARGET.unlabelled.tolist() == [3]


def test_fitted_rows_are_those_to_learn_from_and_to_choose_on() -> None:
    found = TARGET.fitted("one")
    assert found.columns.tolist() == FITTED_TABLE.names
    assert list(found.itertuples(index=False, name=None)) == [("one", "a", "g", "train"), ("one", "b", "g", "val")]


def test_predictions_take_the_role_of_the_fold() -> None:
    found = TARGET.predicted("one", ADAPTED, np.array([0.1, 0.2, 0.3, 0.4]))
    assert set(found.columns) == set(SCORES_TABLE.names)
    assert list(found[SCORES_TABLE.names].itertuples(index=False, name=None)) == [
        ("a", "train", "one", *ADAPTED, 0.1),
        ("b", "val", "one", *ADAPTED, 0.2),
        ("c", "test", "one", *ADAPTED, 0.3),
    ]
    found = TARGET.predicted("final", ADAPTED, np.arange(4.0))
    assert found[["sample_id", "split", "score"]].values.tolist() == [
        ["b", "train", 1.0],
        ["c", "train", 2.0],
        ["d", "unlabelled", 3.0],
    ]


def test_the_text_vectors_are_those_of_the_sources_text_model_where_there_is_one(tmp_path: Path) -> None:
    track = tracks.make(tmp_path, words=True).write()
    assert (read_target(track.layout).words, read_target(track.layout).by_source_text) == (True, False)
    ids = track.target["sample_id"].tolist()
    vectors = np.random.default_rng(0).normal(size=(len(ids), 3)).astype(np.float32)
    path = track.layout.model("train_source") / "text" / "target.parquet"
    with artifacts.embeddings_writer(path, 3, {}) as writer:
        writer.write(ids, vectors, [None] * len(ids), [None] * len(ids))
    found = read_target(track.layout)
    assert found.by_source_text and found.columns.modalities == ("text", "audio", "visual")
    np.testing.assert_array_equal(found.columns.vectors["text"], vectors)
    found = read_target(track.layout, by_source_text=False)
    assert not found.by_source_text
    np.testing.assert_array_equal(found.columns.present["text"], track.present["target"]["text"])
    there = track.present["target"]["text"]
    np.testing.assert_array_equal(found.columns.vectors["text"][there], track.vectors["target"]["text"][there])


def test_texts_that_are_words_in_both_corpora_are_known_in_the_sources_columns(tmp_path: Path) -> None:
    track = tracks.make(tmp_path, words=True).write()
    ids, vectors = track.target["sample_id"].tolist(), track.vectors["target"]["text"]
    reasons = [None if there else "none" for there in track.present["target"]["text"]]
    by_source = track.layout.model("train_source") / "text" / "target.parquet"
    plain = {"name": "tiny", "as_source": True}
    for path, encoder, made in ((track.layout.embeddings("target", "text"), plain, vectors), (by_source, {}, -vectors)):
        with artifacts.embeddings_writer(path, vectors.shape[1], encoder) as writer:
            writer.write(ids, made, reasons, [None] * len(ids))
    there = track.present["target"]["text"]
    found = read_target(track.layout)
    assert (set(found.pairs), found.as_source) == ({"text"}, frozenset())
    np.testing.assert_array_equal(found.pairs["text"][there], vectors[there])
    np.testing.assert_array_equal(found.columns.vectors["text"][there], -vectors[there])
    found = read_target(track.layout, by_source_text=False)
    assert (set(found.pairs), found.as_source) == (set(), {"text"})


def test_a_target_of_features_has_no_words(tmp_path: Path) -> None:
    found = read_target(tracks.make(tmp_path).write().layout)
    assert (found.words, found.by_source_text) == (False, False)


def test_the_lines_of_a_group_and_of_a_row() -> None:
    table = pd.DataFrame({"text": ["one\ntwo", None, "three"]}, dtype=object)
    assert lines_of(table, "group") == [["one", "two"], [], ["three"]]
    assert lines_of(table, "row") == [["one\ntwo"], [], ["three"]]


def test_folds_are_in_the_order_of_their_numbers() -> None:
    names = ["repeat-1.fold-0", "repeat-0.fold-10", "final", "repeat-0.fold-2", "final", "repeat-0.fold-10"]
    assert fold_names(pd.DataFrame({"fold": names})) == [
        "repeat-0.fold-2",
        "repeat-0.fold-10",
        "repeat-1.fold-0",
        "final",
    ]


def drawn(seed: int) -> tuple[bytes, int]:
    """What a job computes with numpy and torch, and where it ran."""
    here = np.random.default_rng(seed).normal(size=(300, 300))
    return (here @ here).tobytes() + (torch.from_numpy(here) @ torch.from_numpy(here)).numpy().tobytes(), os.getpid()


def test_results_do_not_depend_on_the_number_of_processes() -> None:
    one = list(in_processes(drawn, range(5), 1, "test"))
    two = list(in_processes(drawn, range(5), 2, "test"))
    assert [made for made, _ in one] == [made for made, _ in two]
    assert {place for _, place in one} == {os.getpid()}
    assert os.getpid() not in {place for _, place in two} and len({place for _, place in two}) <= 2
