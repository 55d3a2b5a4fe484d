"""HDF5 files of a stranger: what lies in the file itself, and no more of it than the file says.

HDF5 can name other files as the place of its data (external storage, external links, virtual datasets), so that whoever
reads a file reads these, too; and a compressed chunk may unpack to a thousand times what it should hold. Here only hard
links are followed, only data inside the file is read, and each chunk is unpacked beforehand with an eye on its size.
"""

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.errors import InputError
from pipeline.core.files import MediaError, reading

MOST_BYTES = 2**30
"""Of one dataset, unpacked: an hour and a half of COVAREP at 100 steps a second is a seventh of this."""

GZIP = 1
FILTERS = {GZIP: "gzip", 2: "shuffle", 3: "fletcher32"}
"""HDF5's filters that are unpacked here; HDF5 would load others as programs from its plugin folder."""

UNREADABLE = (KeyError, TypeError, ValueError, OSError, RuntimeError, MemoryError, OverflowError, zlib.error)
"""What h5py raises on damaged files."""

STRINGS_AT_ONCE = 1024


class HDF5Error(Exception):
    """What is wrong inside a file."""


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file. Raises InputError when h5py is not installed, or where the file is not readable."""
    try:
        import h5py
    except ModuleNotFoundError:
        raise InputError(f'{path}: .csd files need the package h5py; `pip install "emocare-pipeline[csd]"`') from None
    try:
        with reading(path):
            pass
        file = h5py.File(path, "r")
    except (MediaError, *UNREADABLE) as error:
        raise InputError(f"{path}: not a readable HDF5 file: {' '.join(str(error).split())}") from None
    with file:
        yield file


def member(group: Any, name: str) -> Any:
    """What a group holds by this name, or None. Raises HDF5Error where it is a link to elsewhere."""
    import h5py

    try:
        link = group.get(name, getlink=True)
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise HDF5Error(f"{name!r} is a link to elsewhere; copy what it names into the file")
        return group[name]
    except UNREADABLE as error:
        raise HDF5Error(f"{name!r} cannot be read: {' '.join(str(error).split())}") from None


def names(group: Any) -> list[str]:
    """What a group's members are called. Raises HDF5Error where its list of them is damaged."""
    try:
        members = [str(name) for name in group]
        for name in members:
            name.encode()
        return members
    except UNREADABLE as error:
        raise HDF5Error(f"cannot be read: {' '.join(str(error).split())}") from None


def group(parent: Any, name: str) -> Any:
    """The group of this name in ``parent``; None where either is no group."""
    import h5py

    child = member(parent, name) if isinstance(parent, h5py.Group) else None
    return child if isinstance(child, h5py.Group) else None


def array(dataset: Any) -> np.ndarray:
    """A dataset of numbers or texts. Raises HDF5Error where it is none, is too large, or does not lie in the file."""
    import h5py

    if not isinstance(dataset, h5py.Dataset):
        raise HDF5Error("is no array")
    try:
        _check(dataset)
        return _texts(dataset) if dataset.dtype.kind == "O" else np.asarray(dataset)
    except UNREADABLE as error:
        raise HDF5Error(f"cannot be read: {' '.join(str(error).split())}") from None


def _check(dataset: Any) -> None:
    if dataset.external or dataset.is_virtual:
        raise HDF5Error("keeps its values in another file; copy them into this one")
    size = dataset.dtype.itemsize
    for shape in (dataset.shape, dataset.chunks or ()):
        if math.prod(shape) * size > MOST_BYTES:
            raise HDF5Error(f"would take {math.prod(shape) * size / 2**30:.1f} GB; at most 1 GB is read at a time")
    filters = [dataset.id.get_create_plist().get_filter(at)[0] for at in range(_filters(dataset))]
    if len(set(filters)) < len(filters) or not set(filters) <= set(FILTERS):
        raise HDF5Error(f"is packed by other filters than {', '.join(FILTERS.values())}; repack it with gzip")
    if GZIP in filters:
        _check_chunks(dataset, filters.index(GZIP), math.prod(dataset.chunks) * size)


def _filters(dataset: Any) -> int:
    return dataset.id.get_create_plist().get_nfilters()


def _check_chunks(dataset: Any, gzip_at: int, most: int) -> None:
    """Raises HDF5Error where a chunk unpacks to more than it is said to hold; it is unpacked no further than that."""
    for number in range(dataset.id.get_num_chunks()):
        chunk = dataset.id.get_chunk_info(number)
        if chunk.size > MOST_BYTES:
            raise HDF5Error("has a chunk of more than 1 GB")
        mask, packed = dataset.id.read_direct_chunk(chunk.chunk_offset)
        if mask >> gzip_at & 1:
            continue
        # A checksum that was taken before the packing adds its four bytes.
        unpacked = zlib.decompressobj().decompress(packed, most + 5)
        if len(unpacked) > most + 4:
            raise HDF5Error("has a chunk that unpacks to more than it should hold")


def _texts(dataset: Any) -> np.ndarray:
    """Texts of any length, so many at a time as have room though all name the longest that the file can hold."""
    import h5py

    if h5py.check_string_dtype(dataset.dtype) is None:
        raise HDF5Error("holds neither numbers nor texts")
    if math.prod(dataset.shape[1:]) > 1:
        raise HDF5Error("holds several texts a row; one a row is read")
    parts, size = [], 0
    at_once = max(1, min(STRINGS_AT_ONCE, MOST_BYTES // dataset.file.id.get_filesize()))
    for at in range(0, len(dataset), at_once):
        part = dataset[at : at + at_once]
        size += sum(map(len, part.reshape(-1)))
        if size > MOST_BYTES:
            raise HDF5Error("would take more than 1 GB of texts")
        parts.append(part)
    return np.concatenate(parts) if parts else np.empty(dataset.shape, dtype=object)
