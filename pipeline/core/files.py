"""Files opened and named by their content, and the one way in which a file is said to be of no use."""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, BytesIO
from pathlib import Path

from pipeline.core.errors import InputError

NOT_FOUND = "file not found"
"""Why a file at whose path there is nothing is of no use."""


class MediaError(Exception):
    """A file that cannot be used, as a short reason: ``truncated``, ``too large: 50000x50000 px, at most ...``."""

    @property
    def kind(self) -> str:
        """The reason without what is particular to this file."""
        return str(self).partition(":")[0]


def content_digest(path: Path) -> str:
    """sha256 of the file's bytes, in hex. Raises MediaError when it cannot be read."""
    with reading(path) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def digest_of_input(path: Path) -> str:
    """As ``content_digest``, of a file that is no sample. Raises InputError, which names it, when it cannot be read."""
    try:
        return content_digest(path)
    except MediaError as error:
        raise InputError(f"{path}: {error}") from None


@contextmanager
def reading(source: Path | bytes) -> Iterator[BufferedReader]:
    if isinstance(source, bytes):
        yield BufferedReader(BytesIO(source))
        return
    try:
        # A pipe or a device would block or never end, so the kind of file is looked at before it is opened.
        if not stat.S_ISREG(source.stat().st_mode):
            raise MediaError("not a file")
        handle = source.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        raise MediaError(NOT_FOUND) from None
    except (OSError, ValueError) as error:
        raise MediaError(f"cannot be opened: {getattr(error, 'strerror', None) or error}") from None
    with handle:
        yield handle


def check_readable(path: Path) -> None:
    """Raises InputError for what is neither a file nor a folder: a pipe would be waited for, a device never ends.

    What is not there, or must not be read, is left to the reader, which knows what it was to be.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be opened: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise InputError(f"{path}: is a pipe, a socket or a device; give a file")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: must not be read; change its permissions")


def inside(folder: Path, value: str, *, base: Path | None = None, name: str = "posts.media") -> Path:
    """The file that a path in a table or a list names, resolved: never one outside of ``folder``.

    Args:
        folder: what the file must lie in, once dots and links are followed.
        value: with ``/`` or with ``\\``, as tables made on Windows have it.
        base: what ``value`` is relative to, if not to ``folder``.
        name: what a refusal calls the folder.

    Raises:
        MediaError: it leads out of ``folder``, or no file can have this name.
    """
    try:
        root = folder.resolve()
        path = ((base or root) / value.replace("\\", "/")).resolve()
    except (OSError, ValueError, RuntimeError):  # a zero byte or far too long a name; links in a circle
        raise MediaError(NOT_FOUND) from None
    if not path.is_relative_to(root):
        raise MediaError(f"path leads out of {name}")
    return path
