"""Finished pieces are kept across a kill, and nothing else is taken for them."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.training import finished as module
from pipeline.training.finished import Finished, finished, rows_digest, tensors_digest

TABLE = pd.DataFrame(
    {
        "name": ["a", None, "ü"],
        "score": [0.1, np.nan, -1e-300],
        "groups": [1, 2, 3],
        "with": [True, False, True],
        "mixed": pd.Series([1, "x", 2.5], dtype=object),
    }
)
VALUE: dict[str, Any] = {
    "table": TABLE,
    "empty": pd.DataFrame(columns=["epoch"]),
    "array": np.array([[0.1, 2.0]]),
    "tensors": {"a": torch.ones(2, 1), "b": torch.tensor(3)},
    "history": [{"epoch": 1, "loss": 0.1 + 0.2}],
    "nothing": None,
    "text": "kind",
}


def test_what_is_kept_comes_back_exactly(tmp_path: Path) -> None:
    kept, calls = Finished(tmp_path / "stage"), []

    def make() -> dict[str, Any]:
        calls.append(1)
        return VALUE

    first, second = kept.get_or_make("fold", make), kept.get_or_make("fold", make)
    assert len(calls) == 1
    for value in (first, second):
        pd.testing.assert_frame_equal(value["table"], TABLE)
        assert value["empty"].columns.tolist() == ["epoch"] and value["empty"].empty
        np.testing.assert_array_equal(value["array"], VALUE["array"])
        assert torch.equal(value["tensors"]["a"], torch.ones(2, 1)) and value["tensors"]["b"].item() == 3
        assert {name: value[name] for name in ("history", "nothing", "text")} == {
            name: VALUE[name] for name in ("history", "nothing", "text")
        }
    kept.get_or_make("other fold", make)
    assert len(calls) == 2


@pytest.mark.parametrize("damage", [b"", b"x" * 100])
def test_a_damaged_piece_is_made_again(tmp_path: Path, damage: bytes) -> None:
    kept = Finished(tmp_path / "stage")
    kept.get_or_make("fold", lambda: {"a": 1})
    (path,) = kept.folder.iterdir()
    path.write_bytes(damage)
    assert kept.get_or_make("fold", lambda: {"a": 2}) == {"a": 2}


def test_a_stage_that_is_whole_leaves_nothing_of_its_own_and_nothing_old(tmp_path: Path) -> None:
    old, new, own = (Finished(tmp_path / name) for name in ("old", "new", "own"))
    for kept in (old, new, own):
        kept.get_or_make("fold", lambda: {"a": 1})
    os.utime(old.folder, (0, time.time() - 40 * 86400))
    own.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_another_run_that_ends_meanwhile_and_clears_costs_no_more_than_making_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs, made = Finished(tmp_path / "stage"), Finished(tmp_path / "stage"), []
    read = module._read

    def cleared_before(path: Path) -> dict[str, Any]:
        if len(made) == 1:
            theirs.clear()
        return read(path)

    monkeypatch.setattr(module, "_read", cleared_before)
    assert ours.get_or_make("fold", lambda: {"calls": made.append(1) or len(made)}) == {"calls": 2}
    (tmp_path / "vanished").symlink_to(tmp_path / "nowhere")  # listed, and not there when it is looked at
    ours.clear()
    assert not ours.folder.exists()


def test_whatever_determines_a_training_tells_its_pieces_apart(tmp_path: Path) -> None:
    table = tmp_path / "posts.parquet"
    table.write_bytes(b"one")

    def folder(stage: str = "fuse", **settings: Any) -> str:
        return finished(stage, settings, [table, tmp_path / "absent"], tmp_path).folder.name

    same = folder(seed=0)
    assert folder(seed=0) == same
    others = {folder("train_text", seed=0), folder(seed=1), folder(seed=0, dropout=0.5)}
    table.write_bytes(b"two")
    others.add(folder(seed=0))
    table.write_bytes(b"one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.training.identity.code_digest", lambda: "other code")
        others.add(folder(seed=0))
    assert len(others | {same}) == 6


def test_folds_of_one_name_are_told_apart_by_their_rows() -> None:
    rows = np.array([1, 2])
    assert rows_digest(rows, None) != rows_digest(rows, np.array([], dtype=int)) != rows_digest(rows[::-1], None)


def test_tensors_are_told_apart_by_name_shape_and_values() -> None:
    """Sums would take swapped tensors and exchanged columns for the same."""
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    known = tensors_digest({"a": rows, "b": torch.ones(2)})
    assert known == tensors_digest({"b": torch.ones(2), "a": rows.clone()})
    others = [
        {"a": torch.ones(2), "b": rows},
        {"a": rows[:, [1, 0]], "b": torch.ones(2)},
        {"a": rows.reshape(4), "b": torch.ones(2)},
        {"a": rows.double(), "b": torch.ones(2)},
    ]
    assert len({known, *map(tensors_digest, others)}) == 5
