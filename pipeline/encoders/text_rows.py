"""Texts as tokens, for training a text encoder."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from pipeline.encoders.text import TextEncoder
from pipeline.training.rows import split_rows

BUCKET = 50
"""Batches whose rows are sorted by length together: long enough to halve the padding, short enough to stay shuffled."""


class TokenRows:
    """Texts as tokens; batches hold texts of like length.

    Args:
        texts: N texts.
        labels: int64 [N].
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
