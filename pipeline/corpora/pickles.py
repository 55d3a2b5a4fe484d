"""Reads pickles that hold plain data, dicts, lists, strings and numpy arrays, and nothing that could run.

A pickle is a program that may call anything it can name. Here it can name what numpy's arrays and scalars are rebuilt
with, and nothing else, so that a corpus from a stranger costs at worst memory: the whole file is held at once.
"""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import InputError


def _encode(text: str, encoding: str) -> bytes:
    """Old pickles write bytes as text to be encoded; codecs in general do more than that."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes encoded as {encoding!r}")
    return text.encode("latin1")


# Asked of numpy itself, since it has moved them: numpy.core became numpy._core.
_REBUILD: Any = np.zeros(1).__reduce__()[0]
_SCALAR: Any = np.float64(0).__reduce__()[0]
_FROM_BUFFER: Any = np.zeros(1).__reduce_ex__(5)[0]
_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _REBUILD
    _ALLOWED[f"{_core}.multiarray", "scalar"] = _SCALAR
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _FROM_BUFFER


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _ForbiddenError(f"{module}.{name}") from None


class _ForbiddenError(Exception):
    """The pickle names something that no array needs."""


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
)
"""What a damaged pickle raises, depending on the byte that is wrong."""


def read_plain(path: Path, where: str) -> Any:
    """What a pickle of plain data holds; strings of Python 2 are read as latin-1, as numpy's arrays of then need.

    Raises InputError, with the key ``where`` of params, when the file is missing, damaged, or names more than arrays.
    """
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="latin1").load()
    except FileNotFoundError:
        raise InputError(f"{path}: not found; set {where} in params.yaml") from None
    except _ForbiddenError as error:
        raise InputError(
            f"{path}: names {error}, which plain data does not need and which could run code; not read further. "
            "Save it again as a dict of lists and numpy arrays, or as Parquet"
        ) from None
    except _BROKEN as error:
        raise InputError(f"{path}: not a readable pickle: {' '.join(str(error).split()) or 'damaged'}") from None
