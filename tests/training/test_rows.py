from typing import Any

import numpy as np
import torch

from pipeline.training.rows import Joined, TensorRows, split_rows


def numbered(rows: int, batch: int, scale: int = 1) -> TensorRows:
    at = scale * torch.arange(rows)
    return TensorRows((at, {"a": at + 100, "b": at + 200}), at, batch)


def test_the_last_run_may_be_shorter() -> None:
    assert [part.tolist() for part in split_rows(np.array([4, 2, 0, 1, 3]), 2)] == [[4, 2], [0, 1], [3]]


def test_tensors_and_mappings_are_loaded_by_row() -> None:
    plain, mapped = numbered(6, 4).load(np.array([5, 2]), None)
    assert plain.tolist() == [5, 2]
    assert {name: part.tolist() for name, part in mapped.items()} == {"a": [105, 102], "b": [205, 202]}


def test_a_generator_shuffles_and_nothing_does_not() -> None:
    rows = numbered(7, 3)
    assert [part.tolist() for part in rows.batches(None)] == [[0, 1, 2], [3, 4, 5], [6]]
    shuffled = np.concatenate(rows.batches(np.random.default_rng(0)))
    assert sorted(shuffled) == list(range(7)) and shuffled.tolist() != list(range(7))


class Reversed(TensorRows):
    """As rows of tokens, which are batched by their length."""

    workers = 2

    def batches(self, rng: np.random.Generator | None) -> list[np.ndarray]:
        return [part[::-1].copy() for part in super().batches(rng)]

    def load(self, rows: np.ndarray, rng: np.random.Generator | None) -> tuple[Any, ...]:
        assert rng is not None
        return (*super().load(rows, rng), rng.integers(100))


def test_joined_rows_are_batched_by_the_second_and_loaded_from_both() -> None:
    second = Reversed((torch.arange(5) + 1000,), torch.arange(5) * 2, 2)
    rows = Joined(numbered(5, 4), second)
    assert [part.tolist() for part in rows.batches(None)] == [[1, 0], [3, 2], [4]]
    assert (rows.workers, rows.labels) == (2, second.labels)
    plain, mapped, own, drawn = rows.load(np.array([3, 2]), np.random.default_rng(7))
    assert (plain.tolist(), mapped["b"].tolist(), own.tolist()) == ([3, 2], [203, 202], [1003, 1002])
    assert drawn == np.random.default_rng(7).integers(100)
