from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.core.descriptions import FittedRows, ModelDescription, read_description
from pipeline.core.errors import InputError
from pipeline.training.checkpoint import load_weights, write_model

DESCRIPTION = ModelDescription(
    stage="fuse", seed=3, best_epoch=2, fitted=FittedRows(rows=5, digest="d"), parents=("a",)
)


def test_a_model_comes_back_as_written(tmp_path: Path) -> None:
    net, other = nn.Linear(3, 2), nn.Linear(3, 2)
    write_model(tmp_path, net, DESCRIPTION)
    assert read_description(tmp_path, ModelDescription) == DESCRIPTION
    load_weights(tmp_path, other)
    assert torch.equal(net.weight, other.weight)


def test_a_part_of_a_model_is_filled_by_its_name(tmp_path: Path) -> None:
    whole, part = nn.ModuleDict({"a": nn.Linear(3, 2), "ab": nn.Linear(4, 1)}), nn.Linear(3, 2)
    write_model(tmp_path, whole, DESCRIPTION)
    load_weights(tmp_path, part, "a")
    assert torch.equal(part.weight, whole["a"].get_parameter("weight"))
    with pytest.raises(InputError, match="cannot be loaded"):
        load_weights(tmp_path, part, "b")


def test_a_model_of_another_shape_or_a_broken_file_is_refused_in_one_line(tmp_path: Path) -> None:
    write_model(tmp_path, nn.Linear(3, 2), DESCRIPTION)
    with pytest.raises(InputError, match="cannot be loaded"):
        load_weights(tmp_path, nn.Linear(4, 2))
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be loaded") as caught:
        load_weights(tmp_path, nn.Linear(3, 2))
    assert "\n" not in str(caught.value)
