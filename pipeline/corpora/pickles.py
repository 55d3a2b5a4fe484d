"""Reads pickles that hold plain data, dicts, lists, strings and numpy arrays, and nothing that could run.

A pickle is a program that may call anything it can name, and tell any object what its state is. Here it can name
stand-ins for what numpy's arrays and scalars are rebuilt with, which check what they are given, and nothing else, so
that a corpus from a stranger costs at worst memory and time: the whole file is held at once.
"""

import math
import os
import pickle
import re
import struct
from collections.abc import Callable, Collection, Iterator
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Never

import numpy as np

from pipeline.core.errors import InputError
from pipeline.core.files import NOT_FOUND, MediaError, reading

_PLAIN = re.compile(r"[|<>=]?[biufSU]\d+")
"""Types whose values are bytes that mean nothing but a number or a text; complex ones would lose a part."""


class _Closed:
    """What a pickle may hold on to, and whose state it may not set."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError(f"sets the state of {type(self).__name__}")


class _Named(_Closed):
    """A name that a pickle may call."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)


class _Dtype(_Closed):
    """A numpy dtype that never is in a pickle's hands: by its flags, bytes could be made to count as pointers."""

    __slots__ = ("checked",)

    def __init__(self, name: Any, *_: Any) -> None:
        if not isinstance(name, str) or not (name[:1] == "O" or _PLAIN.fullmatch(name)):
            raise pickle.UnpicklingError(f"an array of {name!r}; numbers, texts and objects are read")
        self.checked = np.dtype("O" if name[0] == "O" else name)
        if not self.checked.itemsize:
            raise pickle.UnpicklingError("an array of values without size")

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        if order not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError(f"byte order {order!r}")
        self.checked = self.checked.newbyteorder(order)

    def sized(self, shape: Any, size: int) -> tuple[int, ...]:
        """The shape, when it is one of so many bytes, or of so many objects."""
        if not isinstance(shape, tuple) or not all(type(side) is int and side >= 0 for side in shape):
            raise pickle.UnpicklingError(f"an array of shape {shape!r}")
        if math.prod(shape) * (1 if self.checked.hasobject else self.checked.itemsize) != size:
            raise pickle.UnpicklingError(f"an array of shape {shape} from {size} bytes or objects")
        return shape


class _Array(np.ndarray):
    """An array whose state is checked before numpy takes it, which trusts a list to be as long as the shape says."""

    def __setstate__(self, state: Any) -> None:
        version, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError("an array without a dtype")
        expected = list if dtype.checked.hasobject else (bytes, str)
        if not isinstance(data, expected):
            raise pickle.UnpicklingError(f"an array of {dtype.checked} from {type(data).__name__}")
        data = data.encode("latin1") if isinstance(data, str) else data
        checked: Any = (version, dtype.sized(shape, len(data)), dtype.checked, bool(fortran), data)
        super().__setstate__(checked)


def _reconstruct(*_: Any) -> np.ndarray:
    return _Array(0)


def _scalar(dtype: Any, data: Any = None) -> Any:
    return _from_buffer(data.encode("latin1") if isinstance(data, str) else data, dtype, (), "C")[()]


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> np.ndarray:
    if not isinstance(dtype, _Dtype) or dtype.checked.hasobject or not isinstance(data, bytes | bytearray):
        raise pickle.UnpicklingError("an array of objects, or of none, from bytes")
    array = np.ndarray(dtype.sized(shape, len(data)), dtype.checked, data, order="F" if order == "F" else "C")
    return array.view(_Array) if axes is None else array.transpose(axes).view(_Array)


def _never(*_: Any) -> Never:
    raise pickle.UnpicklingError("makes an array of memory that it has not filled")


def _encode(text: str, encoding: str) -> bytes:
    """Old pickles write bytes as text to be encoded; codecs in general do more than that."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes encoded as {encoding!r}")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], _Named] = {
    ("numpy", "ndarray"): _Named(_never),
    ("numpy", "dtype"): _Named(_Dtype),
    ("_codecs", "encode"): _Named(_encode),
}
for _core in ("numpy.core", "numpy._core"):  # moved by numpy 2
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _Named(_reconstruct)
    _ALLOWED[f"{_core}.multiarray", "scalar"] = _Named(_scalar)
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _Named(_from_buffer)


class _Bounded:
    """A file that takes no more memory than it has bytes, whatever number of them it is asked for."""

    def __init__(self, file: BufferedReader) -> None:
        self._left = os.fstat(file.fileno()).st_size
        self._file = file

    def read(self, size: int) -> bytes:
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data

    def readline(self) -> bytes:
        line = self._file.readline()
        self._left -= len(line)
        return line


def _load_bytearray8(unpickler: Any) -> None:
    """Python's own makes room for as many bytes as the file says, and then looks how many there are."""
    (size,) = struct.unpack("<Q", unpickler.read(8))
    data = unpickler.read(size)
    if len(data) < size:
        raise EOFError
    unpickler.append(bytearray(data))


class _PlainUnpickler(pickle._Unpickler):
    """Of Python's own two, the one in Python: that in C takes as much memory as a number in the file says."""

    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch, pickle.BYTEARRAY8[0]: _load_bytearray8}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _ForbiddenError(repr(f"{module}.{name}")[1:-1]) from None


class _ForbiddenError(Exception):
    """The pickle names something that no array needs."""


DEPTH = 64
"""Lists within lists; numpy has no more dimensions."""

SHARED = 16
"""How many values a byte of the file may stand for: a list that stands in several places is stored once."""

ALWAYS_ALLOWED = 2**20
"""Values that a file of any size may stand for."""


def _check_extent(value: Any, size: int) -> None:
    """Raises UnpicklingError where a small file stands for much more once every list is written out.

    A list of ten references to a list of ten references, and so on, has a byte or two for each reference; whoever
    flattens it needs memory for all that it stands for.
    """
    most = max(ALWAYS_ALLOWED, SHARED * size)
    extents: dict[int, int] = {}
    path: dict[int, Iterator[Any]] = {}
    stack: list[Any] = [value]
    while stack:
        item, key = stack[-1], id(stack[-1])
        if key not in path:
            path[key] = iter(_inside(item))
        pending = list(islice((child for child in path[key] if id(child) not in extents), 1))
        if not pending:
            extents[key] = _own(item) + sum(extents[id(child)] for child in _inside(item))
            del path[key]
            stack.pop()
        else:
            if id(pending[0]) in path:
                raise pickle.UnpicklingError("a list that holds itself")
            stack.append(pending[0])
        if len(stack) > DEPTH or extents.get(key, 0) > most:
            raise pickle.UnpicklingError(f"lists within lists that stand for more than {most} values, or {DEPTH} deep")


def _inside(item: Any) -> Collection[Any]:
    if isinstance(item, dict):
        return [*item.keys(), *item.values()]
    if isinstance(item, list | tuple | set | frozenset):
        return item
    return item.reshape(-1).tolist() if isinstance(item, np.ndarray) and item.dtype.hasobject else ()


def _own(item: Any) -> int:
    return max(1, item.size) if isinstance(item, np.ndarray) else len(item) if isinstance(item, str | bytes) else 1


_BROKEN = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    MemoryError,
    RecursionError,
    struct.error,
)
"""What a damaged pickle raises, depending on the byte that is wrong."""


def read_plain(path: Path, where: str) -> Any:
    """What a pickle of plain data holds; strings of Python 2 are read as latin-1, as numpy's arrays of then need.

    Raises InputError, with the key ``where`` of params, when the file is missing, damaged, or names more than arrays.
    """
    try:
        with reading(path) as file:
            value = _PlainUnpickler(_Bounded(file), encoding="latin1").load()
        _check_extent(value, path.stat().st_size)
        return value
    except MediaError as error:
        what = f"not found; set {where} in params.yaml" if str(error) == NOT_FOUND else str(error)
        raise InputError(f"{path}: {what}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except _ForbiddenError as error:
        raise InputError(
            f"{path}: names {error}, which plain data does not need and which could run code; not read further. "
            "Save it again as a dict of lists and numpy arrays, or as Parquet"
        ) from None
    except _BROKEN as error:
        raise InputError(f"{path}: not a readable pickle: {' '.join(str(error).split()) or 'damaged'}") from None
