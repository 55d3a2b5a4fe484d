from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.training.averaging import average_trainings, mean_weights
from pipeline.training.finished import Finished
from pipeline.training.loop import FitResult


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(2, 2)
        self.head = nn.Linear(2, 1)


def average(net: Net, seeds: range, folder: Path, trained: list[int]) -> FitResult:
    """A training adds its seed to every weight."""

    def train(made: Net, seed: int) -> FitResult:
        trained.append(seed)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter += seed
        return FitResult(1, float(seed), [{"epoch": 1.0}])

    kept = Finished(folder)
    return average_trainings(net, train, seeds, how="full", targets=[], rank=1, finished=kept, name="net")


def test_the_net_gets_the_mean_of_trainings_that_all_begin_with_it(tmp_path: Path) -> None:
    net, trained = Net(), []
    before = {name: value.clone() for name, value in net.state_dict().items()}
    result = average(net, range(3, 6), tmp_path, trained)
    assert all(torch.allclose(value, before[name] + 4) for name, value in net.state_dict().items())
    assert (result.best_score, trained) == (3.0, [3, 4, 5])


def test_a_training_that_was_finished_is_not_repeated(tmp_path: Path) -> None:
    first, again, trained = Net(), Net(), []
    again.load_state_dict(first.state_dict())
    average(first, range(2), tmp_path, trained)
    average(again, range(3), tmp_path, trained)
    assert trained == [0, 1, 2]
    assert again.head.bias.item() == pytest.approx(first.head.bias.item() + 0.5)


def test_whole_numbers_are_those_of_the_first_net() -> None:
    runs = [{"a": torch.tensor([value]), "step": torch.tensor(int(value))} for value in (1.0, 4.0)]
    assert mean_weights(runs) == {"a": torch.tensor([2.5]), "step": torch.tensor(1)}
