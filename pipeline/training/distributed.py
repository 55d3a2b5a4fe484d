"""One training on all the processes that ``torchrun`` or ``accelerate launch`` started, by dividing every batch.

The first process runs the stage as if it were alone. The others wait for it; where an encoder is tuned they are sent
the training, and run it step by step with the first. Each computes the logits of its share of a batch. They are put
together, so that the loss is that of the whole batch, also where it is no mean over rows; each sends the gradient of
its logits back through its net, and the gradients of the weights are added up. So all nets are equal after every step,
and the first process alone looks at files and writes.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, distributed, nn

from pipeline.core.errors import InputError
from pipeline.core.progress import mute
from pipeline.training.device import pick

PATIENCE, IN_STEP = timedelta(days=30), timedelta(minutes=30)
"""How long others wait while the first process does what is not divided, and for one that joins or is in a step. One
that ends breaks the connection at once.
"""

LAUNCHER_ENV = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "PMI_", "OMPI_COMM_WORLD_", "MV2_", "MPI_")
"""Beginnings of the variables by which launchers describe the group to a process."""


MAX_ERROR_LENGTH = 120
"""Characters of an error message of torch that are shown."""


class DistributedTraining(Protocol):
    """A training that can be sent to another process."""

    def join(self, group: "ProcessGroup") -> None: ...


@dataclass(frozen=True)
class ProcessGroup:
    """This process among ``size``, the first of which has ``rank`` 0; ``control`` carries objects."""

    rank: int
    size: int
    control: Any

    def share(self, rows: int) -> slice:
        """Which of the rows of a batch are this process's; none where it has fewer rows than there are processes."""
        ends = np.cumsum([0, *(len(part) for part in np.array_split(np.arange(rows), self.size))])
        return slice(int(ends[self.rank]), int(ends[self.rank + 1]))

    def gather_logits(self, local: Tensor, share: slice, rows: int) -> Tensor:
        """The logits of a batch of so many rows, of which this process has made ``own``, without a graph."""
        logits = torch.zeros((rows, local.shape[1]), dtype=local.dtype, device=local.device)
        logits[share] = local.detach()[: share.stop - share.start]
        return self.all_reduce(logits)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Makes every gradient the sum of those of all processes."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = self.all_reduce(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        for gradient, summed in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Of the tensors of all processes, in place."""
        with _connection_errors():
            distributed.all_reduce(tensor)
        return tensor

    def broadcast(self, value: Any) -> Any:
        """The ``value`` of the first process; those of the others are ignored."""
        box = [value]
        with _connection_errors():
            distributed.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def start_in_others(self, training: DistributedTraining) -> None:
        """Starts a training in the other processes."""
        self.broadcast(training)


_group: ProcessGroup | None = None


def group() -> ProcessGroup | None:
    """The group that a training may be divided among; None where this process is alone."""
    return _group


def identity() -> dict[str, int]:
    """What a training that was cut off must have in common with the one that takes it up, if it is divided."""
    return {} if _group is None else {"processes": _group.size}


@contextmanager
def launched(device: str) -> Iterator[bool]:
    """Joins the processes of the launcher, of which each calls it; ``device`` is that of the params.

    Yields True in the process that is to do the stage. In the others it returns from the work with False when that
    process has left the context. Raises InputError when another process has ended.
    """
    global _group
    backend = _set_device(device)
    with _connection_errors():
        distributed.init_process_group(backend, timeout=IN_STEP)
        control = distributed.new_group(backend="gloo", timeout=PATIENCE)
    group = ProcessGroup(distributed.get_rank(), distributed.get_world_size(), control)
    for name in [name for name in os.environ if name.startswith(LAUNCHER_ENV)]:
        del os.environ[name]  # neither accelerate nor processes that are started here shall divide anything themselves
    try:
        if group.rank == 0:
            _group = group
            yield True
            group.broadcast(None)
        else:
            mute()
            while (training := group.broadcast(None)) is not None:
                training.join(group)
            yield False
        distributed.destroy_process_group()  # after an error it could wait for the others; they see this process end
    finally:
        _group = None


def _set_device(device: str) -> str:
    """Sets this process's GPU, where there are some; returns the backend for such devices."""
    device_type = pick(device).type
    if device_type == "mps":
        raise InputError("params.yaml: device: processes of a launcher cannot share `mps`; give cpu, or start one")
    if device_type == "cpu":
        return "gloo"
    local, cards = os.environ.get("LOCAL_RANK", ""), torch.cuda.device_count()
    if not local.isdecimal() or int(local) >= cards:
        raise InputError(f"process {local or 'without LOCAL_RANK'} of the launcher finds {cards} cards; start as many")
    torch.cuda.set_device(int(local))
    return "nccl" if distributed.is_nccl_available() else "gloo"


@contextmanager
def _connection_errors() -> Iterator[None]:
    """Turns errors of a broken connection into InputError."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        why = str(error).strip().splitlines()[0][:MAX_ERROR_LENGTH]
        raise InputError(f"another process of the launcher has ended, or cannot be reached ({why})") from None
