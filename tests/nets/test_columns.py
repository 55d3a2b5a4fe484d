import torch

from pipeline.nets.columns import InputColumns


def test_columns_are_chosen_and_their_gaps_filled() -> None:
    net = InputColumns(4, torch.tensor([3, 1]), torch.tensor([7.0, -1.0]))
    rows = torch.tensor([[0.0, 1.0, 2.0, 3.0], [0.0, float("nan"), 2.0, float("inf")]])
    assert net(rows).tolist() == [[3.0, 1.0], [7.0, -1.0]]


def test_they_travel_with_the_weights() -> None:
    saved = InputColumns(4, torch.tensor([3, 1]), torch.tensor([7.0, -1.0])).state_dict()
    net = InputColumns(4, torch.zeros(2))
    net.load_state_dict(saved)
    assert net(torch.tensor([[0.0, 1.0, 2.0, float("nan")]])).tolist() == [[7.0, 1.0]]
