"""Batches of an epoch, in parts where memory is small, and shared out where several processes train together."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.core.prefetch import prefetch_map
from pipeline.training.checkpoint import Progress
from pipeline.training.distributed import ProcessGroup
from pipeline.training.rows import TrainingRows


@dataclass(frozen=True)
class Batch:
    """A batch, as far as this process computes it.

    Attributes:
        number: from 0 on.
        parts: the net's arguments for the rows of ``share``, in parts that follow one another.
        labels: of all rows of the batch.
        share: which of these rows this process has; all of them where it is alone. Where it has none, the one part is
            another's row, for which no gradient is sent back: so all processes give the same weights a gradient.
        dropout: its seed, where processes draw for themselves.
    """

    number: int
    parts: list[tuple[Any, ...]]
    labels: Tensor
    share: slice
    dropout: int | None


def batches(
    train: TrainingRows, seed: int, accumulate: int, state: Progress, group: ProcessGroup | None
) -> Iterator[Batch]:
    """The epoch's remaining batches; order and augmentation depend on seed, epoch and process only.

    Args:
        accumulate: parts that a batch, or a process's share of it, is split into.
        state: how far the training is.
        group: the processes that divide each batch.
    """
    order = train.batches(np.random.default_rng([seed, state.epoch]))

    def load(number: int) -> Batch:
        rows = order[number]
        key, share, dropout = [seed, state.epoch, number], slice(0, len(rows)), None
        if group:
            key, share = [*key, group.rank], group.share(len(rows))
            dropout = int(np.random.SeedSequence(key).generate_state(1)[0])
        rng = np.random.default_rng(key)
        local_rows = rows[share] if share.stop > share.start else rows[:1]
        parts = [train.load(piece, rng) for piece in np.array_split(local_rows, accumulate) if len(piece)]
        return Batch(number, parts, train.labels[torch.from_numpy(rows)], share, dropout)

    remaining = range(state.batch, len(order))
    if train.workers:
        yield from prefetch_map(load, remaining, workers=train.workers, depth=2 * train.workers)
    else:
        yield from map(load, remaining)
