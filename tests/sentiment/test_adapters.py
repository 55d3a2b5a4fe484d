"""What an adapter is trained with: the source model's score of the rows whose own is known."""

import torch

from pipeline.nets.adapter import Adapter
from pipeline.nets.transfer import ScoreNet
from pipeline.sentiment.adapters import AdapterWithSource


def test_only_rows_whose_score_is_known_are_scored_and_by_themselves() -> None:
    torch.manual_seed(0)
    source = ScoreNet({"audio": 5, "text": 4}, width=8, heads=2, hidden=8).requires_grad_(False).eval()
    source.begin_with({"audio": torch.randn(5), "text": torch.randn(4)}, 0.5)
    adapter = Adapter(3, (), 5)
    net = AdapterWithSource(adapter, source, "audio").train()
    vectors, scored = torch.randn(6, 3), torch.tensor([True, False, True, True, False, False])
    made = net(vectors, scored)
    torch.testing.assert_close(made[:, :5], adapter(vectors))
    for row in range(6):
        alone = source({"audio": made[row : row + 1, :5]}, {"audio": torch.ones(1, dtype=torch.bool)})
        torch.testing.assert_close(made[row, 5], alone[0, 0] if scored[row] else torch.zeros(()))
    (gradient,) = torch.autograd.grad(made[:, 5].sum(), list(adapter.parameters())[:1])
    assert gradient.abs().sum() > 0
    assert not source.training  # though the net trains
    assert net.state_dict().keys() == {f"adapter.{name}" for name in adapter.state_dict()}


def test_without_known_scores_or_a_source_there_is_none() -> None:
    source = ScoreNet({"audio": 5}, width=8, heads=2, hidden=8)
    vectors, nobody = torch.randn(4, 3), torch.zeros(4, dtype=torch.bool)
    for given, scored in ((source, nobody), (None, ~nobody)):
        assert not AdapterWithSource(Adapter(3, (), 5), given, "audio")(vectors, scored)[:, 5].any()
