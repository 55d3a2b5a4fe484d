"""Weights as safetensors with readable JSON beside them; and the state that resumes a killed training."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from pipeline.core import artifacts
from pipeline.core.descriptions import ModelDescription, write_description
from pipeline.core.errors import DamagedError
from pipeline.training.identity import computing_identity

WEIGHTS = "model.safetensors"
REMEDY = "run `dvc repro`"


def write_model(folder: Path, net: nn.Module | Mapping[str, Tensor] | None, description: ModelDescription) -> None:
    """Writes ``model.safetensors`` (a net's weights, or tensors by name, or none) and ``model.json`` into a folder."""
    if net is not None:
        named = net.state_dict() if isinstance(net, nn.Module) else net
        tensors = {name: value.detach().cpu().contiguous() for name, value in named.items()}
        write_tensors(folder / WEIGHTS, tensors, {"format": "pt"})
    write_description(folder, description)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes tensors by name. The library's own way to a file leaves its hidden neighbour where it is killed, and names
    no file where the disk is full.
    """
    with artifacts.replacing(path) as aside:
        aside.write_bytes(save(dict(tensors), metadata))


Net = TypeVar("Net", bound=nn.Module)


def load_net(folder: Path, make: Callable[[], Net]) -> Net:
    """The net that ``make`` builds, ready to predict, with the weights of a folder.

    Raises DamagedError as ``check_shapes`` and ``load_weights``.
    """
    check_shapes(folder, make)
    net = make()
    load_weights(folder, net)
    return net.eval()


def check_shapes(folder: Path, make: Callable[[], nn.Module], part: str = "", *, but: str = "") -> None:
    """Whether ``model.safetensors`` holds the tensors of the net that ``make`` builds from ``model.json``.

    It is built without memory: of a description that is not that of the weights, nothing of its size is ever made.

    Args:
        part: the net's tensors are those named below it.
        but: except for those named below this one.

    Raises DamagedError when they are others, or there is no such file.
    """
    path = folder / WEIGHTS
    with torch.device("meta"):
        described = {name: list(value.shape) for name, value in make().state_dict().items()}
    start = f"{part}." if part else ""
    with _reading_tensors(path) as file:
        stored_names = [name for name in file.keys() if not (but and name.startswith(f"{but}."))]  # noqa: SIM118 - no mapping
        names = [name for name in stored_names if name.startswith(start)]
        held = {name.removeprefix(start): list(file.get_slice(name).get_shape()) for name in names}
    for name in sorted(described.keys() | held.keys()):
        if described.get(name) != held.get(name):
            has, wants = held.get(name, "no such tensor"), described.get(name, "none")
            raise DamagedError(f"{path}: {name} is {has}, and by model.json {wants}", REMEDY)


def load_weights(folder: Path, net: nn.Module, part: str = "") -> None:
    """Fills a net that was rebuilt from ``model.json``.

    Args:
        part: only what is named below it: ``encoder`` fills the net with the tensors ``encoder.…``.

    Raises DamagedError when file and net do not match, or a weight is not finite.
    """
    path = folder / WEIGHTS
    start = f"{part}." if part else ""
    with _reading_tensors(path) as file:
        names = [name for name in file.keys() if name.startswith(start)]  # noqa: SIM118 - no mapping
        tensors = {name.removeprefix(start): file.get_tensor(name) for name in names}
    if faulty := not_finite(tensors):
        raise DamagedError(f"{path}: {faulty} holds numbers that are not finite", REMEDY)
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise DamagedError(f"{path}: cannot be loaded ({' '.join(str(error).split())})", REMEDY) from None


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The first tensor with NaN or infinity in it."""
    return next((name for name, value in tensors.items() if value.is_floating_point() and not _finite(value)), None)


def _finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value).all())


@contextmanager
def _reading_tensors(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise DamagedError(f"{path}: cannot be loaded ({' '.join(str(error).split())})", REMEDY) from None


@dataclass
class Progress:
    """How far a training has come: everything but tensors that a resumed run needs."""

    epoch: int
    batch: int
    loss_sum: float
    rows_seen: int
    best_epoch: int
    best_score: float
    best_loss: float
    history: list[dict[str, float]]


@dataclass(frozen=True)
class ResumeState:
    """A file outside DVC's outputs from which a killed training goes on; removed when the training is done.

    Args:
        path: named by a digest of everything that determines the training, so a state is never taken up by another.
    """

    path: Path

    def save(
        self, progress: Progress, net: nn.Module, optimizer: torch.optim.Optimizer, best: dict[str, Tensor]
    ) -> None:
        tensors = {f"net.{name}": value for name, value in net.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in best.items()}
        state = optimizer.state_dict()
        for index, slots in state["state"].items():
            tensors |= {f"optimizer.{index}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
        tensors["rng.cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["rng.cuda"] = torch.cuda.get_rng_state()
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        write_tensors(self.path, tensors, {"progress": json.dumps(asdict(progress))})

    def load(self, net: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Progress, dict[str, Tensor]] | None:
        """Restores net, optimizer and random state; None when there is nothing to resume, or it is damaged."""
        try:
            progress, parts = self._read()
        except FileNotFoundError:
            return None
        except (SafetensorError, ValueError, KeyError, TypeError):
            print(f"{self.path}: is damaged; that training begins anew", file=sys.stderr)
            self.clear()
            return None
        net.load_state_dict(parts["net"])
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in parts["optimizer"].items():
            index, _, slot = key.partition(".")
            slots.setdefault(int(index), {})[slot] = value
        optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
        torch.set_rng_state(parts["rng"]["cpu"])
        if "cuda" in parts["rng"] and torch.cuda.is_available():
            torch.cuda.set_rng_state(parts["rng"]["cuda"])
        return progress, parts["best"]

    def _read(self) -> tuple[Progress, dict[str, dict[str, Tensor]]]:
        with safe_open(self.path, framework="pt") as file:
            progress = Progress(**json.loads(file.metadata()["progress"]))
            parts: dict[str, dict[str, Tensor]] = {"net": {}, "best": {}, "optimizer": {}, "rng": {}}
            for key in file.keys():  # noqa: SIM118 - a safetensors file is no mapping
                part, _, name = key.partition(".")
                # A copy, since a tensor of an open file is its memory, and Windows keeps a file that is mapped.
                parts[part][name] = file.get_tensor(key).clone()
        return progress, parts

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)


def resume_state(cache: Path, identity: dict[str, Any]) -> ResumeState:
    """The state file for a training with this identity (params, data digest, fold, …: any JSON)."""
    identity = {**identity, **computing_identity()}
    return ResumeState(
        cache / "training" / f"{artifacts.digest([json.dumps(identity, sort_keys=True)])[:32]}.safetensors"
    )
