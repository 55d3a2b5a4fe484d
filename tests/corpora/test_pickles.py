import os
import pickle
import re
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.errors import InputError
from pipeline.corpora.mmsa import read_mmsa
from pipeline.corpora.pickles import read_plain
from tests.imports import ROOT


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


def op(value: Any) -> bytes:
    """The opcodes that put a value on a pickle's stack."""
    return pickle.dumps(value, 2)[2:-1]


DTYPE = b"cnumpy\ndtype\n"
OBJECTS = DTYPE + op(("O8", False, True)) + b"R"
FLOATS = DTYPE + op(("f8", False, True)) + b"R"
EMPTY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
POINTERS = bytes(range(1, 65))


@pytest.mark.parametrize(
    ("program", "message"),
    [
        # Bytes that would count as pointers to objects.
        (b"cnumpy\nndarray\n((K\x08t" + OBJECTS + op(POINTERS) + b"tR", "memory that it has not filled"),
        (EMPTY + b"(K\x01(K\x08t" + OBJECTS + b"\x89" + op(POINTERS) + b"tb", "array of object from bytes"),
        (
            # The flag that makes numpy read objects from a list only, taken away.
            EMPTY
            + b"(K\x01(K\x08t"
            + OBJECTS
            + op((3, "|", None, None, None, -1, -1, 0))
            + b"b\x89"
            + op(POINTERS)
            + b"tb",
            "array of object from bytes",
        ),
        (b"cnumpy.core.numeric\n_frombuffer\n(" + op(POINTERS) + OBJECTS + b"(K\x08tU\x01CtR", "of objects"),
        (b"cnumpy.core.multiarray\nscalar\n(" + OBJECTS + op(POINTERS[:8]) + b"tR", "of objects"),
        # A shape that is not that of the values.
        (EMPTY + b"(K\x01(M\xff\xfft" + OBJECTS + b"\x89]tb", "shape \\(65535,\\) from 0"),
        (EMPTY + b"(K\x01(M\xff\xfft" + FLOATS + b"\x89" + op(POINTERS) + b"tb", "shape \\(65535,\\) from 64"),
        (EMPTY + b"(K\x01(J\xff\xff\xff\xfft" + FLOATS + b"\x89U\x00tb", "shape \\(-1,\\)"),
        (b"cnumpy.core.numeric\n_frombuffer\n(" + op(POINTERS) + FLOATS + b"(K\x09tU\x01CtR", "shape \\(9,\\) from 64"),
        # Types that hold more than numbers and texts, and what is none.
        (DTYPE + op(("V8", False, True)) + b"R", "array of 'V8'"),
        (DTYPE + op(([("a", "O")], False, True)) + b"R", "array of \\["),
        (DTYPE + op(("S0", False, True)) + b"R", "without size"),
        (FLOATS + op((3, "x", None, None, None, -1, -1, 0)) + b"b", "byte order 'x'"),
        # The state of what it may call.
        (b"c_codecs\nencode\n" + op((None, {"_call": "x"})) + b"b", "sets the state"),
        # Ten thousand million places for what it remembers.
        (b"Kr\xff\xff\xff\xff" + FLOATS + op((3, "x")) + b"b", "byte order"),
    ],
)
def test_a_pickle_that_would_reach_into_memory_is_one_line(tmp_path: Path, program: bytes, message: str) -> None:
    """In a process of its own, which such a pickle would kill."""
    path = tmp_path / "corpus.pkl"
    path.write_bytes(b"\x80\x02" + program.replace(b"Kr", b"K\x01r") + b".")
    script = (
        "import psutil, sys; from pathlib import Path; from pipeline.corpora.pickles import read_plain\n"
        "from pipeline.core.errors import InputError\n"
        "try: print(repr(read_plain(Path(sys.argv[1]), 'target.corpus')))\n"
        "except InputError as error: print(error)\n"
        "memory = psutil.Process().memory_info(); print(getattr(memory, 'peak_wset', memory.rss))"
    )
    ran = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    said, peak = ran.stdout.splitlines()
    assert re.search(f"not a readable pickle: .*{message}", said)
    assert int(peak) < 2**30


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_whatever_byte_is_wrong_it_is_one_line_or_plain_data(tmp_path: Path, protocol: int) -> None:
    value = {
        "train": {"id": ["a"], "audio": np.ones((2, 3)), "text": np.array(["x", None], dtype=object), "n": 1 << 99}
    }
    content = pickle.dumps(value, protocol)
    rng = np.random.default_rng(protocol)
    refused = 0
    for _ in range(1500):
        found = bytearray(content)
        for place in rng.integers(0, len(found), rng.integers(1, 4)):
            found[place] = rng.integers(256)
        path = tmp_path / "corpus.pkl"
        path.write_bytes(found[: rng.integers(1, len(found))] if rng.random() < 0.2 else found)
        try:
            read_plain(path, "target.corpus")
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 500


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


def test_complex_numbers_are_not_read_without_their_other_part(tmp_path: Path) -> None:
    path = write(tmp_path, {"train": {"audio": np.ones((2, 3), np.complex64)}}, 4)
    with pytest.raises(
        InputError, match="not a readable pickle: an array of 'c8'; numbers, texts and objects are read"
    ):
        read_plain(path, "target.corpus")


def test_a_missing_file_says_which_param(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not found; set target\.corpus"):
        read_plain(tmp_path / "corpus.pkl", "target.corpus")


def nested(width: int, depth: int) -> list:
    value = ["a"] * width
    for _ in range(depth):
        value = [value] * width
    return value


def in_an_array(value: list) -> np.ndarray:
    array = np.empty(2, dtype=object)
    array[0] = value
    return array


def looped() -> list:
    value: list = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (nested(10, 9), "lists within lists that stand for more than"),
        (nested(1, 200), "or 64 deep"),
        (looped(), "a list that holds itself"),
        ([np.zeros(10**6)] * 1000, "lists within lists that stand for more than"),
        (["a" * 10**6] * 1000, "lists within lists that stand for more than"),
        ({"a": in_an_array(nested(10, 9))}, "lists within lists that stand for more than"),
    ],
)
def test_a_small_file_that_stands_for_much(tmp_path: Path, value: Any, message: str) -> None:
    (tmp_path / "corpus.pkl").write_bytes(pickle.dumps(value))
    with pytest.raises(InputError, match=f"not a readable pickle: .*{message}"):
        read_plain(tmp_path / "corpus.pkl", "target.corpus")


def test_what_stands_in_several_places_within_reason_is_read(tmp_path: Path) -> None:
    value = [[0.5] * 100] * 1000
    (tmp_path / "corpus.pkl").write_bytes(pickle.dumps(value))
    assert read_plain(tmp_path / "corpus.pkl", "target.corpus") == value


def test_half_a_character_in_an_id_names_the_row(tmp_path: Path) -> None:
    part = {"id": ["a", "b\ud83d"], "regression_labels": [0.0, 1.0], "audio": np.ones((2, 3))}
    (tmp_path / "corpus.pkl").write_bytes(pickle.dumps({"train": part}))
    with pytest.raises(InputError, match=r"train: id: row 2 is not UTF-8, or holds half a character"):
        read_mmsa(tmp_path / "corpus.pkl", "target.corpus")


@pytest.mark.skipif(sys.platform == "win32", reason="memory is not limited there")
@pytest.mark.parametrize("opcode", [pickle.BYTEARRAY8, pickle.BINBYTES8, pickle.BINUNICODE8, pickle.FRAME])
def test_a_number_in_the_file_takes_no_memory(tmp_path: Path, opcode: bytes) -> None:
    """Eight bytes that stand for 16 GB, read by a process that may have two."""
    path = tmp_path / "c.pkl"
    path.write_bytes(pickle.PROTO + b"\5" + opcode + (2**34).to_bytes(8, "little") + b"x.")
    script = """
import resource, sys
from pathlib import Path
from pipeline.core.errors import InputError
from pipeline.corpora.pickles import read_plain
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_plain(Path(sys.argv[1]), "target.corpus")
except InputError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, cwd=ROOT, check=True)
    said, grown = done.stdout.splitlines()
    assert "c.pkl: not a readable pickle" in said
    assert int(grown) < 64
