"""Where the files of small nets lie that are no models of transformers: in packages, or in a folder, as of a bundle."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pipeline.core.content_store import identity_digest
from pipeline.core.errors import InputError
from pipeline.encoders import weights

Role = TypeVar("Role", bound=str)

FROM_PACKAGE = "packaged"


@dataclass(frozen=True)
class NetFile:
    """A net's file.

    Attributes:
        package: which of ``weights.PACKAGED_WEIGHTS`` it is.
        names: what it is called: first as a bundle has it, then as others do.
        without: how to do without it, for messages.
    """

    package: str
    names: tuple[str, ...]
    without: str = ""

    def lacking(self, where: str) -> str:
        """What to say where a folder or an archive has none."""
        package = weights.PACKAGED_WEIGHTS[self.package].package
        return f"{where}: holds no {' or '.join(self.names)}; the package {package} has one{self.without}"


@dataclass(frozen=True)
class Located(Generic[Role]):
    """Files of nets, by their roles, and what they are called together."""

    paths: dict[Role, Path]
    name: str
    revision: str


def in_packages(files: Mapping[Role, NetFile]) -> Located[Role]:
    """Raises InputError as ``weights.from_package``."""
    resolved = {role: weights.from_package(file.package) for role, file in files.items()}
    name, revision = (
        "+".join(str(package.identity[key]) for package in resolved.values()) for key in ("name", "revision")
    )
    return Located({role: package.path for role, package in resolved.items()}, name, revision)


def in_folder(folder: Path, files: Mapping[Role, NetFile], where: str) -> Located[Role]:
    """Raises InputError, which begins with ``where``, for a file that is not there: what is missing, and who has it."""
    paths: dict[Role, Path] = {}
    for role, file in files.items():
        path = next((folder / name for name in file.names if (folder / name).is_file()), None)
        if path is None:
            raise InputError(file.lacking(where))
        paths[role] = path
    return Located(paths, folder.resolve().name, "local")


def identity(name: str, revision: str, hashes: Mapping[Role, str]) -> dict[str, Any]:
    """What tells nets from all others, by the sha256 of each; it holds no path."""
    return {"name": name, "revision": revision, "sha256": identity_digest({**hashes})}
