from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.core.errors import InputError
from pipeline.training.checkpoint import load_weights, read_description, write_model


def test_a_model_comes_back_as_written(tmp_path: Path) -> None:
    net, other = nn.Linear(3, 2), nn.Linear(3, 2)
    write_model(tmp_path, net, {"labels": ["a", "b"]})
    assert read_description(tmp_path) == {"format": 1, "labels": ["a", "b"]}
    load_weights(tmp_path, other)
    assert torch.equal(net.weight, other.weight)


def test_a_model_of_another_shape_or_a_broken_file_is_refused_in_one_line(tmp_path: Path) -> None:
    write_model(tmp_path, nn.Linear(3, 2), {})
    with pytest.raises(InputError, match="cannot be loaded"):
        load_weights(tmp_path, nn.Linear(4, 2))
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be loaded") as caught:
        load_weights(tmp_path, nn.Linear(3, 2))
    assert "\n" not in str(caught.value)


def test_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match="format 99, expected 1"):
        read_description(tmp_path)
