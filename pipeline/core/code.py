"""What the code of this package is, for what must not be mixed with results of other code."""

import hashlib
from functools import cache
from pathlib import Path

import pipeline


@cache
def code_digest() -> str:
    """sha256 of every module of the package, by its place."""
    root, hasher = Path(str(pipeline.__file__)).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        hasher.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return hasher.hexdigest()
