"""Texts as tokens, one a row or several, for training a text encoder."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.encoders.text import TextEncoder
from pipeline.training.rows import split_rows

BUCKET = 50
"""Batches whose rows are sorted by length together: long enough to halve the padding, short enough to stay shuffled."""


class TokenRows:
    """Texts as tokens; batches hold texts of like length.

    Args:
        texts: N texts.
        labels: int64 [N] of classes, or float32 [N] of scores.
        batch: rows in a batch.
    """

    workers = 0

    def __init__(self, encoder: TextEncoder, texts: Sequence[str], labels: Tensor, batch: int) -> None:
        self.encoder = encoder
        self.tokens = encoder.tokenize(texts)
        self.lengths = np.array([len(tokens) for tokens in self.tokens])
        self.labels = labels
        self.batch = batch

    def batches(self, rng: np.random.Generator | None) -> list[np.ndarray]:
        if rng is None:
            return split_rows(np.argsort(-self.lengths, kind="stable"), self.batch)
        batches = []
        for bucket in split_rows(rng.permutation(len(self.lengths)), BUCKET * self.batch):
            batches += split_rows(bucket[np.argsort(-self.lengths[bucket], kind="stable")], self.batch)
        return [batches[at] for at in rng.permutation(len(batches))]

    def load(self, rows: np.ndarray, rng: np.random.Generator | None) -> tuple[Any, ...]:
        return (self.encoder.collate([self.tokens[row] for row in rows]),)


class BagRows:
    """Rows of several texts each, whose vector is the mean of those of its texts; see ``TransferNet``.

    Args:
        texts: of each of N rows; a row without any has an empty one.
        labels: int64 or float32 [N].
        batch: rows in a batch.
        most: so many texts of a row are read at a step of training, drawn anew each time; the mean of some of them
            expects that of all, at a part of the memory and the time.
    """

    workers = 0

    def __init__(
        self, encoder: TextEncoder, texts: Sequence[Sequence[str]], labels: Tensor, batch: int, most: int
    ) -> None:
        self.encoder = encoder
        self.tokens = [encoder.tokenize(list(row) or [""]) for row in texts]
        self.labels = labels
        self.batch = batch
        self.most = most

    def batches(self, rng: np.random.Generator | None) -> list[np.ndarray]:
        rows = np.arange(len(self.tokens))
        return split_rows(rows, 1) if rng is None else split_rows(rng.permutation(rows), self.batch)

    def load(self, rows: np.ndarray, rng: np.random.Generator | None) -> tuple[Any, ...]:
        """Tokens of all texts of these rows, and ``line_of``: the row of each text, int64 [texts]."""
        bags = [self.tokens[row] for row in rows]
        if rng is not None:
            bags = [
                [bag[at] for at in rng.choice(len(bag), self.most, replace=False)] if len(bag) > self.most else bag
                for bag in bags
            ]
        line_of = torch.from_numpy(np.repeat(np.arange(len(bags)), list(map(len, bags))))
        return ({**self.encoder.collate([line for bag in bags for line in bag]), "line_of": line_of},)
