"""What the loop trains on: rows that can be put in batches and loaded; here, rows that are already tensors."""

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor


class TrainingRows(Protocol):
    """Rows of one part of a corpus.

    Attributes:
        labels: int64 [N] of classes, or float32 [N] of scores.
        workers: threads that load batches ahead of the training step; 0 when loading costs nothing.
    """

    labels: Tensor
    workers: int

    def batches(self, rng: np.random.Generator | None) -> list[np.ndarray]:
        """Row numbers of each batch: shuffled by ``rng``, or in the cheapest fixed order for prediction."""
        ...

    def load(self, rows: np.ndarray, rng: np.random.Generator | None) -> tuple[Any, ...]:
        """The net's positional arguments for these rows; ``rng`` augments, None does not. Called from threads."""
        ...


class TensorRows:
    """Rows held as tensors.

    Args:
        inputs: the net's positional arguments for all rows: tensors, or mappings of them, with N rows each.
        labels: int64 [N] of classes, or float32 [N] of scores.
        batch: rows in a batch.
    """

    workers = 0

    def __init__(self, inputs: tuple[Any, ...], labels: Tensor, batch: int) -> None:
        self.inputs = inputs
        self.labels = labels
        self.batch = batch

    def batches(self, rng: np.random.Generator | None) -> list[np.ndarray]:
        return split_rows(np.arange(len(self.labels)) if rng is None else rng.permutation(len(self.labels)), self.batch)

    def load(self, rows: np.ndarray, rng: np.random.Generator | None) -> tuple[Any, ...]:
        at = torch.from_numpy(rows)
        return tuple(
            item[at] if isinstance(item, Tensor) else {name: part[at] for name, part in item.items()}
            for item in self.inputs
        )


class Joined:
    """Rows whose inputs come from two places: batched as ``second`` asks, loaded from ``first`` and then ``second``."""

    def __init__(self, first: TrainingRows, second: TrainingRows) -> None:
        self.first = first
        self.second = second
        self.labels = second.labels
        self.workers = second.workers

    def batches(self, rng: np.random.Generator | None) -> list[np.ndarray]:
        return self.second.batches(rng)

    def load(self, rows: np.ndarray, rng: np.random.Generator | None) -> tuple[Any, ...]:
        return (*self.first.load(rows, rng), *self.second.load(rows, rng))


def split_rows(order: np.ndarray, batch: int) -> list[np.ndarray]:
    """Consecutive runs of ``batch`` rows; the last may be shorter."""
    return [order[at : at + batch] for at in range(0, len(order), batch)]
