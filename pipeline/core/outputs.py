"""What a command may write to: never what it reads, never a folder or a device, and never twice the same file.

One guard for every option that names an output, asked before any work.
"""

import os
import stat
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

from pipeline.core.errors import InputError

SIDE_FILES = (".{}.parts", ".{}.lock")
"""What is kept beside an output while it is made; see ``serving.shards``."""


def check_output(out: Path, inputs: Iterable[Path] = ()) -> None:
    """Raises InputError unless a file can be written to ``out``; makes the folder that it is to lie in.

    Args:
        inputs: what the command reads: files, which ``out`` must not be by any spelling or link, and folders, which it
            must not lie in.
    """
    _refuse_kind(out)
    for input_path in inputs:
        _refuse_input(out, input_path)
    make_room(out)


def check_folder(out: Path, inputs: Iterable[Path]) -> None:
    """As ``check_output``, for a folder that is to be made, or made again by who knows what lies in it."""
    for input_path in inputs:
        _refuse_input(out, input_path)
    make_room(out)


def check_distinct(outs: Iterable[Path]) -> None:
    """Raises InputError where two outputs are one file."""
    for one, other in combinations(outs, 2):
        if _same(one, other):
            raise InputError(f"{one} and {other} are one file; give each output its own")


def make_room(out: Path) -> None:
    """Makes the folder of an output. Raises InputError where that cannot be, or cannot be written to."""
    folder = out.parent
    why = f"{folder} is no folder" if folder.exists() and not folder.is_dir() else None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = why or getattr(error, "strerror", None) or error
        raise InputError(f"{out}: its folder cannot be made: {reason}") from None
    if not os.access(folder, os.W_OK):
        raise InputError(f"{out}: its folder must not be written to; give another")


def _refuse_kind(out: Path) -> None:
    try:
        mode = out.stat().st_mode
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:  # links in a circle, a name that is too long
        if isinstance(error, NotADirectoryError):
            return  # of its folder, which ``make_room`` says better
        raise InputError(f"{out}: cannot be written to: {getattr(error, 'strerror', None) or error}") from None
    if stat.S_ISDIR(mode):
        raise InputError(f"{out}: is a folder; give the name of a file")
    if not stat.S_ISREG(mode):
        raise InputError(f"{out}: is a pipe, a socket or a device; give the name of a file")


def _refuse_input(out: Path, input_path: Path) -> None:
    if input_path.is_dir():
        if _lies_in(out, input_path):
            raise InputError(f"{out}: lies in {input_path}, which is read; give another place for the output")
        return
    if _same(out, input_path):
        raise InputError(f"{out}: is the input {input_path}; give another name for the output")
    for side in (out.with_name(name.format(out.name)) for name in SIDE_FILES):
        if _same(side, input_path) or _lies_in(input_path, side):
            raise InputError(f"{input_path}: lies where {out} is made, and would be removed; give another output")


def _same(one: Path, other: Path) -> bool:
    """Whether two names are of one file: by links, hard links, dots, or letters that the file system takes as equal."""
    try:
        return one.samefile(other)
    except (OSError, ValueError, RuntimeError):  # one of them is not there yet
        return _real(one) == _real(other)


def _lies_in(path: Path, folder: Path) -> bool:
    """Whether a path, by its own name or by where it leads, lies in a folder."""
    ends = (path.absolute().parent, _real(path).parent)
    return any(_same(place, folder) for end in ends for place in (end, *end.parents))


def _real(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError):
        return path.absolute()
