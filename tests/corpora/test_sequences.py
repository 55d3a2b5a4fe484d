import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pipeline.core.errors import InputError
from pipeline.corpora.sequences import pooled, read_folder

Entries = dict[str, tuple[Any, Any]]


def f32(values: Any) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def write(path: Path, root: str, entries: Entries) -> None:
    """Entries are key → features, intervals."""
    with h5py.File(path, "w") as file:
        for key, (features, intervals) in entries.items():
            group = file.create_group(f"{root}/data/{key}")
            if isinstance(features, list) and features and isinstance(features[0][0], bytes):
                features = np.array(features, dtype="S16")
            group["features"], group["intervals"] = features, intervals


LABELS: Entries = {
    "vidA": ([[1.5], [-2.0]], [[0.0, 1.0], [1.0, 3.0]]),
    "vidB": ([[0.5, 9.0]], [[0.0, 2.0]]),
}
COVAREP: Entries = {
    # Steps of half a second; the last lies outside both segments, the order in the file is not that of time.
    "vidA": ([[3.0, 30.0], [1.0, 10.0], [7.0, 70.0]], [[1.0, 1.5], [0.0, 0.5], [8.0, 9.0]]),
}
WORDS: Entries = {
    "vidA": ([[b"hello"], [b"sp"], [b"world"], [b"again"]], [[0, 0.4], [0.4, 0.5], [0.5, 1.0], [1.2, 1.4]]),
}


def corpus(folder: Path) -> Path:
    write(folder / "CMU_MOSI_Opinion_Labels.csd", "Opinion Segment Labels", LABELS)
    write(folder / "CMU_MOSI_COVAREP.csd", "COVAREP", COVAREP)
    write(folder / "CMU_MOSI_TimestampedWords.csd", "words", WORDS)
    (folder / "notes.txt").touch()
    return folder


def test_pooled_is_means_deviations_and_length() -> None:
    steps = np.array([[1.0, np.nan, np.nan], [3.0, 4.0, np.inf]])
    np.testing.assert_array_equal(pooled(steps), f32([2, 4, np.nan, 1, 0, np.nan, 2]))


def test_segments_of_the_labels_become_rows(tmp_path: Path) -> None:
    found = read_folder(corpus(tmp_path), "target.corpus")
    assert found.ids == ["vidA[0]", "vidA[1]", "vidB[0]"]
    assert found.groups == ["vidA", "vidA", "vidB"]
    assert found.scores == [1.5, -2.0, 0.5]
    assert found.words == ["hello world", "again", None]
    assert set(found.cells) == {"audio"}
    first, second, third = found.cells["audio"]
    np.testing.assert_array_equal(first, f32([1, 10, 0, 0, 1]))
    np.testing.assert_array_equal(second, f32([3, 30, 0, 0, 1]))
    assert third is None


def test_a_step_that_reaches_into_two_segments_counts_in_both(tmp_path: Path) -> None:
    write(tmp_path / "labels.csd", "x", {"a": ([[1.0], [2.0]], [[0.0, 1.0], [1.0, 2.0]])})
    write(tmp_path / "openface.csd", "x", {"a": ([[4.0], [8.0]], [[0.5, 1.5], [1.0, 1.0]])})
    found = read_folder(tmp_path, "target.corpus").cells["visual"]
    assert [None if cell is None else cell.tolist() for cell in found] == [[4.0, 0.0, 1.0], [6.0, 2.0, 2.0]]


def test_keys_of_aligned_corpora_belong_to_their_video(tmp_path: Path) -> None:
    write(tmp_path / "labels.csd", "x", {"a[0]": ([[1.0]], [[0, 1]]), "a[1]": ([[2.0]], [[1, 2]])})
    write(tmp_path / "glove.csd", "x", {"a[1]": ([[5.0]], [[1, 2]])})
    found = read_folder(tmp_path, "target.corpus")
    assert found.groups == ["a", "a"]
    assert [cell is None for cell in found.cells["text"]] == [True, False]


def test_the_name_of_the_top_group_says_what_a_file_holds(tmp_path: Path) -> None:
    write(tmp_path / "1.csd", "Opinion Labels", LABELS)
    write(tmp_path / "2.csd", "FACET 4.2", COVAREP)
    assert set(read_folder(tmp_path, "target.corpus").cells) == {"visual"}


def test_a_key_without_steps_has_nothing(tmp_path: Path) -> None:
    nothing = (np.empty((0, 2)), np.empty((0, 2)))
    corpus(tmp_path)
    write(tmp_path / "CMU_MOSI_COVAREP.csd", "x", COVAREP | {"vidB": nothing})
    write(tmp_path / "CMU_MOSI_TimestampedWords.csd", "x", WORDS | {"vidB": (np.empty((0, 1), "S4"), np.empty(0))})
    write(tmp_path / "CMU_MOSI_Opinion_Labels.csd", "x", LABELS | {"vidC": nothing})
    found = read_folder(tmp_path, "target.corpus")
    assert found.ids == ["vidA[0]", "vidA[1]", "vidB[0]"]
    assert found.words == ["hello world", "again", None]
    assert found.cells["audio"][2] is None


def phones(folder: Path) -> None:
    write(folder / "phones.csd", "phones", COVAREP)


def two_of_audio(folder: Path) -> None:
    write(folder / "openSMILE.csd", "x", COVAREP)


def no_labels(folder: Path) -> None:
    (folder / "CMU_MOSI_Opinion_Labels.csd").unlink()


def no_hdf5(folder: Path) -> None:
    (folder / "CMU_MOSI_COVAREP.csd").write_bytes(b"no file of this kind")


def no_data(folder: Path) -> None:
    with h5py.File(folder / "CMU_MOSI_COVAREP.csd", "w") as file:
        file["COVAREP/other"] = 1


def uneven(folder: Path) -> None:
    write(folder / "CMU_MOSI_COVAREP.csd", "x", {"vidA": ([[1.0], [2.0]], [[0, 1]])})


def words_as_audio(folder: Path) -> None:
    write(folder / "CMU_MOSI_COVAREP.csd", "x", WORDS)


def no_labels_in_a_segment(folder: Path) -> None:
    write(folder / "CMU_MOSI_Opinion_Labels.csd", "x", {"vidA": (np.empty((1, 0)), [[0.0, 1.0]])})


def a_number_for_features(folder: Path) -> None:
    write(folder / "CMU_MOSI_COVAREP.csd", "x", {"vidA": (3.0, [[0.0, 1.0]])})


def no_column_of_words(folder: Path) -> None:
    write(folder / "CMU_MOSI_TimestampedWords.csd", "words", {"vidA": (np.empty((1, 0), "S4"), [[0.0, 1.0]])})


def data_that_is_an_array(folder: Path) -> None:
    with h5py.File(folder / "CMU_MOSI_COVAREP.csd", "w") as file:
        file["COVAREP/data"] = np.ones(3)


def a_link_to_nowhere(folder: Path) -> None:
    with h5py.File(folder / "CMU_MOSI_COVAREP.csd", "w") as file:
        file["COVAREP"] = h5py.SoftLink("/elsewhere")


def empty(folder: Path) -> None:
    for file in folder.glob("*.csd"):
        file.unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (phones, "rename it to contain one of label, opinion, word"),
        (two_of_audio, "CMU_MOSI_COVAREP.csd and openSMILE.csd are both audio"),
        (no_labels, "none of the .csd files is named as labels"),
        (no_hdf5, "not a readable HDF5 file"),
        (no_data, "not a computational sequence"),
        (uneven, "data/vidA: 2 steps of features with intervals of shape [1, 2]"),
        (words_as_audio, "not numbers"),
        (no_labels_in_a_segment, "Labels.csd: data/vidA: features of shape [1, 0]"),
        (a_number_for_features, "COVAREP.csd: data/vidA: features of shape []"),
        (no_column_of_words, "Words.csd: data/vidA: features of shape [1, 0]"),
        (data_that_is_an_array, "not a computational sequence"),
        (a_link_to_nowhere, "not a readable HDF5 file"),
        (empty, "holds no .csd file; set target.corpus"),
    ],
)
def test_a_bad_folder_is_one_line(tmp_path: Path, change: Any, message: str) -> None:
    change(corpus(tmp_path))
    with pytest.raises(InputError) as caught:
        read_folder(tmp_path, "target.corpus")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_h5py_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus(tmp_path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match=r'pip install "emocare-pipeline\[csd\]"'):
        read_folder(tmp_path, "target.corpus")
