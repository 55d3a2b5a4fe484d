"""Tables and their media from ``s3://``, ``gs://`` or ``https://`` into a folder, where everything else reads them.

A copy and no stream: stages read a file several times, DVC tracks what they read, and one guard looks at every path. A
fetch that was cut off goes on: what is there in the version that the store has is not fetched again.
"""

import posixpath
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pipeline.core import artifacts
from pipeline.core.errors import InputError
from pipeline.core.files import MediaError, inside
from pipeline.core.locks import exclusive
from pipeline.core.prefetch import prefetch_map
from pipeline.core.progress import progress
from pipeline.corpora.manifest import MEDIA
from pipeline.corpora.tabular import read_texts

Result = TypeVar("Result")

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "https": "aiohttp", "http": "aiohttp"}
"""Scheme → the package through which fsspec reads it, and with it the usual search for credentials."""

TABLES = (".csv", ".jsonl", ".ndjson", ".parquet")
"""Endings of tables that may name media; a corpus in any other form is one file."""

NOTE = ".fetched.json"
"""Which version of each file lies in the folder."""

VERSIONS = ("ETag", "etag", "md5Hash", "generation", "LastModified", "Last-Modified", "mtime", "Content-MD5")
"""What stores say of an object that changes with it."""

NOT_FOUND, BUSY = (404, 410), (408, 425, 429)
"""Statuses of HTTP: there is no such file; ask again later."""

EXAMPLES = 3

KEEP_EVERY = 500
"""Files after which the note is written, so that a killed run need not fetch more than these again."""


@dataclass(frozen=True)
class FetchLimits:
    """Bounds of one ``fetch``.

    Attributes:
        file_bytes: of one file.
        total_bytes: of all files fetched together.
        attempts: how often a file is tried, with pauses of 1, 2, 4 … times ``pause_s``.
        workers: files fetched at a time.
    """

    file_bytes: int
    total_bytes: int
    attempts: int = 4
    pause_s: float = 1.0
    workers: int = 8


@dataclass
class Fetched:
    """What became of the files: bytes of those that came, how many were there already, and why others lack."""

    sizes: list[int] = field(default_factory=list)
    kept: int = 0
    lacking: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        message = f"{len(self.sizes)} files fetched ({sum(self.sizes) / 1e6:.1f} MB), {self.kept} were there"
        reasons = ", ".join(f"{count} {kind}" for kind, count in sorted(self.lacking.items()))
        return message + (f"; lacking: {reasons}; the first: {', '.join(self.examples)}" if reasons else "")


def fetch(address: str, folder: Path, limits: FetchLimits) -> Fetched:
    """Copies a table, and the media that its ``image`` and ``video`` name, or a corpus, into ``folder``.

    Media that the store does not have, that are too large, or whose paths lead out are left out and counted: `split`
    and `embed` judge rows without them. The folder is new, empty or one that an earlier call made, for the table says
    what is written there.

    Raises InputError, which names the object: no such scheme, its package is absent, the table cannot be had, what is
    there exceeds ``limits``, a file cannot be had after all attempts. What came until then stays for the next call.
    """
    store, root, name = _opened(address)
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder / ".fetch.lock", str(folder), "wait for that, or give another folder"):
        job = _Job(store, root, folder, limits, _versions(folder))
        try:
            job.keep_versions()
            table = job.one(name)
            if isinstance(table, MediaError):
                raise InputError(f"{address}: {table}; see the address, and who may read it")
            job.add(name, table)
            if PurePosixPath(name).suffix.lower() in TABLES:
                job.all(_media(folder / name))
        finally:
            job.keep_versions()
    return job.done


def _opened(address: str) -> tuple[Any, str, str]:
    """The store, the folder in it and the file's name."""
    scheme = urlsplit(address).scheme
    if scheme not in PACKAGES:
        raise InputError(f"{address}: begins with none of {', '.join(f'{name}://' for name in PACKAGES)}")
    try:
        import fsspec

        __import__(PACKAGES[scheme])
        store, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        what = error.name or PACKAGES[scheme]
        raise InputError(f'{address}: needs the package {what}; pip install "emocare-pipeline[remote]"') from None
    root, _, name = path.rpartition("/")
    if not root or not name:
        raise InputError(f"{address}: names no file; give the whole address of a table or a corpus")
    return store, root, name


def _versions(folder: Path) -> dict[str, str]:
    note = folder / NOTE
    if note.is_file():
        return {name: str(version) for name, version in artifacts.read_json(note).get("versions", {}).items()}
    if any(not path.name.startswith(".fetch") for path in folder.iterdir()):
        raise InputError(f"{folder}: holds files that were not fetched, which might be written over; give a new folder")
    return {}


def _media(table: Path) -> list[str]:
    """The paths that a table names, each once, however it is spelt: two threads that write one file would clash."""
    named: dict[str, str] = {}
    for part in read_texts(table, MEDIA, 4096):
        for column in part.cells:
            for name in part.cells[column].dropna():
                named.setdefault(posixpath.normpath(name), name)
    return list(named.values())


@dataclass
class _Job:
    """One call of ``fetch``."""

    store: Any
    root: str
    folder: Path
    limits: FetchLimits
    versions: dict[str, str]
    done: Fetched = field(default_factory=Fetched)

    def keep_versions(self) -> None:
        artifacts.write_json(self.folder / NOTE, {"versions": self.versions})

    def all(self, names: Iterable[str]) -> None:
        names = list(names)
        with progress("fetching", len(names)) as advance:
            results = prefetch_map(self.one, names, workers=self.limits.workers, depth=4 * self.limits.workers)
            for at, (name, result) in enumerate(zip(names, results, strict=True), start=1):
                self.add(name, result)
                advance(1)
                if at % KEEP_EVERY == 0:
                    self.keep_versions()

    def add(self, name: str, result: "tuple[int, str | None] | MediaError") -> None:
        """Counts a file. Raises InputError when all together are too large."""
        if isinstance(result, MediaError):
            self.done.lacking[result.kind] += 1
            if len(self.done.examples) < EXAMPLES:
                self.done.examples.append(f"{name} ({result})")
            return
        size, version = result
        if version is not None:
            self.versions[name] = version
        if size < 0:
            self.done.kept += 1
        else:
            self.done.sizes.append(size)
        if sum(self.done.sizes) > self.limits.total_bytes:
            most = self.limits.total_bytes / 1e9
            raise InputError(f"{self.folder}: more than {most:g} GB were fetched; raise --max-total-gb, or fetch less")

    def one(self, name: str) -> "tuple[int, str | None] | MediaError":
        """Bytes of a file (-1: it was there) and its version; or why it lacks. Threads call it."""
        try:
            place = inside(self.folder, name)
        except MediaError as error:
            return error
        if place.name.startswith(".fetch"):
            return MediaError("a name that is ours")
        path = f"{self.root}/{place.relative_to(self.folder.resolve()).as_posix()}"
        try:
            return self._tried(path, lambda: self._fetched(path, name, place))
        except MediaError as error:
            return error

    def _fetched(self, path: str, name: str, place: Path) -> tuple[int, str | None]:
        known = self.store.info(path)
        size, version = known.get("size"), _version(known)
        if version is not None and version == self.versions.get(name) and place.is_file():
            return -1, version
        _refuse_large(size or 0, self.limits.file_bytes)
        with artifacts.replacing(place) as aside:
            self.store.get_file(path, str(aside), callback=_bounded(self.limits.file_bytes))
            came = aside.stat().st_size
            if size is not None and came != size:
                raise OSError(f"{came} of {size} bytes came")
        return came, version

    def _tried(self, path: str, work: Callable[[], Result]) -> Result:
        for attempt in range(self.limits.attempts):
            try:
                return work()
            except FileNotFoundError as error:
                self._failed(path, attempt, _passing(error))
            except PermissionError as error:
                if error.filename is not None:  # a folder here, and no object there
                    raise
                raise InputError(f"{path}: must not be read ({_brief(error)}); see the credentials") from None
            except MediaError:
                raise
            except OSError as error:
                if error.errno in artifacts.NO_ROOM:  # which will not pass
                    raise
                self._failed(path, attempt, error)
            except Exception as error:  # each store has errors of its own; all of them may pass, and none is hidden
                if type(error).__name__ == "NoCredentialsError":
                    raise InputError(
                        f"{path}: no credentials were found, in the environment or where they are kept"
                    ) from None
                self._failed(path, attempt, error)
        raise AssertionError("at least one attempt")

    def _failed(self, path: str, attempt: int, error: Exception) -> None:
        """Waits before the next attempt. Raises InputError after the last."""
        if attempt == self.limits.attempts - 1:
            raise InputError(f"{path}: cannot be had after {attempt + 1} attempts: {_brief(error)}") from None
        time.sleep(self.limits.pause_s * 2**attempt)


def _passing(error: FileNotFoundError) -> Exception:
    """What fsspec calls not found over HTTP, whatever it was. Raises MediaError where it is that, or will not pass."""
    cause = error.__cause__
    status = getattr(cause, "status", None)
    if not isinstance(cause, Exception) or status in NOT_FOUND:
        raise MediaError("not found") from None
    if status is not None and 400 <= status < 500 and status not in BUSY:
        raise MediaError(f"refused with status {status}") from None
    return cause


def _version(known: Mapping[str, Any]) -> str | None:
    return next((f"{known[name]}" for name in VERSIONS if known.get(name) is not None), None)


def _refuse_large(size: int, most: int) -> None:
    if size > most:
        raise MediaError(f"too large: {size / 1e6:.1f} MB, at most {most / 1e6:g} are allowed (--max-mb)")


def _bounded(most: int) -> Any:
    """What fsspec tells how much has come; ends it where that is too much, for a store may not say beforehand."""
    from fsspec.callbacks import Callback

    class Bounded(Callback):
        def call(self, *_: Any, **__: Any) -> None:
            _refuse_large(self.value, most)

    return Bounded()


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
