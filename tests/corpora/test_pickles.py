import os
import pickle
import subprocess
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.corpora.pickles import read_plain
from pipeline.errors import InputError


class Runs:
    """Calls a function with arguments when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def write(folder: Path, value: Any, protocol: int = 4) -> Path:
    path = folder / "corpus.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_comes_back_from_every_protocol(tmp_path: Path, protocol: int) -> None:
    value = {
        "train": {
            "id": ["a$_$1", "ü"],
            "raw_text": np.array(["one", "two words"], dtype=object),
            "audio": np.arange(6, dtype=np.float32).reshape(2, 3),
            "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            "names": np.array(["x", "yz"]),
            "bytes": b"\xff\x00",
            "scalar": np.float64(0.5),
            "none": (None, True, 3, -1.5, {"set": [1]}),
        }
    }
    found = read_plain(write(tmp_path, value, protocol), "target.corpus")
    np.testing.assert_equal(found, value)
    assert found["train"]["audio"].dtype == np.float32


def test_a_pickle_of_python_2_with_an_array_of_old_numpy(tmp_path: Path) -> None:
    # pickle.dumps({'audio': numpy.array([1.0, -2.0])}, 2) in Python 2.7, where bytes are strings.
    path = tmp_path / "old.pkl"
    values = np.array([1.0, -2.0], dtype="<f8").tobytes()
    path.write_bytes(
        b"\x80\x02}U\x05audiocnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U" + bytes([len(values)]) + values + b"tbs."
    )
    assert read_plain(path, "target.corpus")["audio"].tolist() == [1.0, -2.0]


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (lambda mark: Runs(os.system, f"echo > {mark}"), f"{os.system.__module__}.system"),
        (lambda mark: Runs(subprocess.Popen, ["touch", str(mark)]), "subprocess.Popen"),
        (lambda mark: Runs(eval, f"open({str(mark)!r}, 'w')"), "builtins.eval"),
        (lambda mark: Runs(getattr, "x", "upper"), "builtins.getattr"),
        (
            lambda mark: [1, {"deep": np.array([Runs(os.mkdir, str(mark))], dtype=object)}],
            f"{os.mkdir.__module__}.mkdir",
        ),
        (lambda mark: Runs(np.fromfile, str(mark)), "numpy.fromfile"),
        (lambda mark: OrderedDict(a=1), "collections.OrderedDict"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_nothing_that_a_pickle_names_is_run(tmp_path: Path, value: Any, name: str, protocol: int) -> None:
    mark = tmp_path / "it ran"
    path = write(tmp_path, value(mark), protocol)
    with pytest.raises(InputError, match="could run code") as caught:
        read_plain(path, "target.corpus")
    # Protocols 0 to 2 say `__builtin__` for what is `builtins` now.
    assert name.rpartition(".")[2] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_dotted_names_do_not_reach_into_what_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "corpus.pkl"
    path.write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.")
    with pytest.raises(InputError, match=r"names numpy\.ndarray\.tofile"):
        read_plain(path, "target.corpus")


def test_only_latin1_is_encoded(tmp_path: Path) -> None:
    path = tmp_path / "corpus.pkl"
    path.write_bytes(b"c_codecs\nencode\n(Vabc\nVrot13\ntR.")
    with pytest.raises(InputError, match="not a readable pickle: bytes encoded as 'rot13'"):
        read_plain(path, "target.corpus")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"\x80\x04\x95\xff", b"\x80\xff", b"(lp0\n", b"cnumpy\ndtype\n(tR."])
def test_a_damaged_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "corpus.pkl"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a readable pickle") as caught:
        read_plain(path, "target.corpus")
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_which_param(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not found; set target\.corpus"):
        read_plain(tmp_path / "corpus.pkl", "target.corpus")
