"""HDF5 files that name other files, or unpack to more than they hold: one line, and nothing read."""

import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.core.errors import InputError
from pipeline.corpora import hdf5
from pipeline.corpora.sequences import read_folder

SHAPE = (4, 2)


def plain(file: h5py.File) -> h5py.Group:
    return file.create_group("COVAREP/data/vid")


def external_storage(file: h5py.File, secret: Path) -> None:
    plain(file).create_dataset("features", SHAPE, "f4", external=[(str(secret), 0, 32)])


def external_link(file: h5py.File, secret: Path) -> None:
    plain(file)["features"] = h5py.ExternalLink(str(secret), "/features")


def external_link_above(file: h5py.File, secret: Path) -> None:
    file["COVAREP"] = h5py.ExternalLink(str(secret), "/")


def virtual(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout(SHAPE, "f4")
    layout[:] = h5py.VirtualSource(str(secret), "features", SHAPE)
    plain(file).create_virtual_dataset("features", layout)


def soft_loop(file: h5py.File, secret: Path) -> None:
    plain(file)["features"] = h5py.SoftLink("/COVAREP/data/vid/features")


def huge(file: h5py.File, secret: Path) -> None:
    plain(file).create_dataset("features", (2**31, 1), "f4", chunks=(1024, 1), compression="gzip")


def huge_chunk(file: h5py.File, secret: Path) -> None:
    plain(file).create_dataset("features", (4, 1), "f4", chunks=(2**29, 1), maxshape=(None, 1))


def bomb(file: h5py.File, secret: Path) -> None:
    dataset = plain(file).create_dataset("features", SHAPE, "f4", chunks=SHAPE, compression="gzip")
    dataset.id.write_direct_chunk((0, 0), zlib.compress(bytes(10**8)))


def other_filter(file: h5py.File, secret: Path) -> None:
    plain(file).create_dataset("features", SHAPE, "f4", chunks=SHAPE, compression="lzf")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (external_storage, "keeps its values in another file"),
        (external_link, "'features' is a link to elsewhere"),
        (external_link_above, "'COVAREP' is a link to elsewhere"),
        (virtual, "keeps its values in another file"),
        (soft_loop, "'features' is a link to elsewhere"),
        (huge, "would take 8.0 GB; at most 1 GB is read at a time"),
        (huge_chunk, "would take 2.0 GB; at most 1 GB"),
        (bomb, "has a chunk that unpacks to more than it should hold"),
        (other_filter, "is packed by other filters than gzip, shuffle, fletcher32; repack it with gzip"),
    ],
)
def test_what_does_not_lie_in_the_file_is_not_read(
    tmp_path: Path, change: Callable[[h5py.File, Path], None], message: str
) -> None:
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["features"] = np.full(SHAPE, 7, "f4")
    folder = tmp_path / "corpus"
    folder.mkdir()
    with h5py.File(folder / "labels.csd", "w") as file:
        labels = file.create_group("labels/data/vid")
        labels["features"], labels["intervals"] = np.ones((1, 1)), np.array([[0.0, 9.0]])
    with h5py.File(folder / "covarep.csd", "w") as file:
        change(file, secret)
        if change is not external_link_above:
            file["COVAREP/data/vid/intervals"] = np.array([[0.0, 1.0]] * 4)
    with pytest.raises(InputError) as caught:
        read_folder(folder, "target.corpus")
    assert message in str(caught.value)
    assert str(folder / "covarep.csd") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("packing", [{}, {"shuffle": True}, {"fletcher32": True}, {"compression_opts": 9}])
def test_packed_arrays_are_read_as_they_are(tmp_path: Path, packing: dict) -> None:
    values = np.random.default_rng(0).normal(size=(50, 3)).astype("f4")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", data=values, chunks=(16, 3), compression="gzip", **packing)
        file.create_dataset("words", data=[["one"], ["two"]], dtype=h5py.string_dtype())
    with hdf5.opened(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(hdf5.array(hdf5.member(file, "a")), values)
        assert hdf5.array(hdf5.member(file, "words")).tolist() == [[b"one"], [b"two"]]
        assert hdf5.member(file, "b") is None


def test_texts_that_stand_for_more_than_a_gigabyte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "MOST_BYTES", 10_000)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("words", data=[["a" * 100]] * 200, dtype=h5py.string_dtype())
    with hdf5.opened(tmp_path / "a.h5") as file, pytest.raises(hdf5.HDF5Error, match="1 GB of texts"):
        hdf5.array(hdf5.member(file, "words"))


def test_texts_that_all_name_one_long_one_are_refused_before_they_fill_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text is stored as where it lies, so that a thousand entries may stand for one of any length."""
    monkeypatch.setattr(hdf5, "MOST_BYTES", 4_000_000)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        made = file.create_dataset("words", data=["a" * 400_000, *["b"] * 1023], dtype=h5py.string_dtype())
        file.flush()
        place = made.id.get_offset()
    stored = bytearray(path.read_bytes())
    stored[place : place + 16 * 1024] = stored[place : place + 16] * 1024
    path.write_bytes(stored)
    tracemalloc.start()
    with hdf5.opened(path) as file, pytest.raises(hdf5.HDF5Error, match="1 GB of texts"):
        hdf5.array(hdf5.member(file, "words"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 2_000_000 < peak < 12_000_000  # of 400 MB


def test_texts_side_by_side_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("words", data=[["a", "b"]] * 3, dtype=h5py.string_dtype())
    with hdf5.opened(tmp_path / "a.h5") as file, pytest.raises(hdf5.HDF5Error, match="several texts a row"):
        hdf5.array(hdf5.member(file, "words"))
