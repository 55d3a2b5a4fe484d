"""Finished pieces of a stage, kept until the whole stage is: a killed run trains none of them again.

They lie outside DVC's outputs, which it deletes before a stage runs, in a folder named by a digest of all that
determines them: the stage's inputs, params, the code and the versions of what computes. Every result passes through
its file, whether it was there or not, so that a run that was cut off writes the same bytes as one that was not.
"""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipeline.core import artifacts
from pipeline.core.files import digest_of_input
from pipeline.training.checkpoint import write_tensors
from pipeline.training.identity import computing_identity

Job = TypeVar("Job")

FORGOTTEN_S = 30 * 86400.0
"""What a run left behind that nobody took up for so long is removed by the next that ends well."""


@dataclass(frozen=True)
class Finished:
    """The finished pieces of one stage, each a file in ``folder``."""

    folder: Path

    def get_or_make(self, name: str, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """What ``make`` gives, made only if no earlier run did.

        The values may be dicts with keys that are texts, lists, texts, numbers, None, numeric arrays, tensors and
        tables, whose index is not kept; tuples come back as lists.
        """
        path = self.folder / f"{artifacts.digest([name])[:32]}.safetensors"
        if not path.is_file():
            tensors: dict[str, Tensor] = {}
            write_tensors(path, tensors, {"value": json.dumps(_packed(dict(make()), tensors))})
        try:
            return _read(path)
        except FileNotFoundError:  # another run of this stage, in another workspace, ended meanwhile and cleared
            return self.get_or_make(name, make)
        except (SafetensorError, ValueError, KeyError):  # damaged; what is made again is the same
            path.unlink(missing_ok=True)
            return self.get_or_make(name, make)

    def clear(self) -> None:
        """Removes the pieces of a stage that is whole, and those that nobody has taken up for long."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for other in self.folder.parent.glob("*"):
            with suppress(FileNotFoundError):  # another run clears, too
                if time.time() - other.stat().st_mtime > FORGOTTEN_S:
                    shutil.rmtree(other, ignore_errors=True)


@dataclass(frozen=True)
class CachedWork(Generic[Job]):
    """Work that is done once for each job, whose ``name`` tells it from the others; for ``parallel.in_processes``."""

    finished: Finished
    name: Callable[[Job], str]
    work: Callable[[Job], Mapping[str, Any]]

    def __call__(self, job: Job) -> dict[str, Any]:
        return self.finished.get_or_make(self.name(job), partial(self.work, job))


def finished(stage: str, settings: Mapping[str, Any], inputs: Sequence[Path], cache_folder: Path) -> Finished:
    """Where the finished pieces of a stage lie.

    Args:
        settings: the params that its results depend on, as JSON.
        inputs: files that the stage reads, and folders of such files; one that is not there is an input, too.
    """
    files = sorted(file for path in inputs for file in (path.rglob("*") if path.is_dir() else [path]))
    identity = {
        "stage": stage,
        "settings": settings,
        "inputs": [[file.name, digest_of_input(file)] for file in files if file.is_file()],
        **computing_identity(),
    }
    key = artifacts.digest([json.dumps(identity, sort_keys=True)])[:32]
    return Finished(cache_folder / "finished" / f"{stage}-{key}")


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Of tensors by their names, on whichever device they lie."""
    hasher = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        values = tensor.detach().cpu().contiguous().numpy()
        hasher.update(f"{name} {values.dtype} {values.shape}\n".encode() + values.tobytes())
    return hasher.hexdigest()


def rows_digest(*rows: np.ndarray | None) -> str:
    """Of row numbers, to tell folds apart that share a name."""
    return artifacts.digest(f"{at} {None if part is None else part.tolist()}" for at, part in enumerate(rows))[:32]


def _packed(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The value as JSON; arrays go into ``tensors`` and leave their name."""
    if isinstance(value, pd.DataFrame):
        columns = [[str(name), str(value[name].dtype), _column(value[name], tensors)] for name in value]
        return {"kind": "table", "rows": len(value), "columns": columns}
    if isinstance(value, np.ndarray | Tensor):
        name = str(len(tensors))
        array = isinstance(value, np.ndarray)
        tensors[name] = torch.from_numpy(value.copy()) if array else value.detach().cpu().contiguous().clone()
        return {"kind": "array" if array else "tensor", "name": name}
    if isinstance(value, dict):
        return {"kind": "dict", "items": [[key, _packed(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_packed(item, tensors) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _column(column: pd.Series, tensors: dict[str, Tensor]) -> Any:
    if column.dtype.kind in "fiub" and isinstance(column.dtype, np.dtype):
        return _packed(column.to_numpy(), tensors)
    return [_packed(None if item is None or _is_nan(item) else item, tensors) for item in column]


def _is_nan(item: Any) -> bool:
    return isinstance(item, float | np.floating) and math.isnan(item)


def _read(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        # Copies, since the tensors of an open file are its memory, and Windows keeps a file that is mapped.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - no mapping
        return _unpacked(json.loads(file.metadata()["value"]), tensors)


def _unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpacked(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if value["kind"] == "dict":
        return {key: _unpacked(item, tensors) for key, item in value["items"]}
    if value["kind"] == "table":
        columns = {
            name: pd.Series(_unpacked(cells, tensors), dtype=dtype)  # pyright: ignore[reportArgumentType]
            for name, dtype, cells in value["columns"]
        }
        return pd.DataFrame(columns, index=range(value["rows"]))
    tensor = tensors[value["name"]]
    return tensor.numpy() if value["kind"] == "array" else tensor
