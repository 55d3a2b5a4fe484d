"""What an adapter is trained with: the source model's score of the rows whose own is known, and rows known in both."""

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.nets.adapter import Adapter
from pipeline.nets.transfer import ScoreNet
from pipeline.params import AdapterParams, Params
from pipeline.sentiment.adapters import AdapterWithSource, train_adapter
from pipeline.sentiment.data import FeatureColumns, Target
from pipeline.sentiment.source_model import SourceSpace


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


def target_of(vectors: torch.Tensor, pairs: dict[str, torch.Tensor]) -> Target:
    """Rows with texts and scores, four in five to learn from."""
    ids = [f"row-{at}" for at in range(len(vectors))]
    folds = pd.DataFrame({"fold": "final", "sample_id": ids, "role": ["train", "train", "train", "train", "val"] * 40})
    columns = FeatureColumns({"text": vectors}, {"text": torch.ones(len(ids), dtype=torch.bool)})
    return Target(pd.DataFrame({"sample_id": ids}), columns, torch.zeros(len(ids)), folds, True, True, {}, pairs=pairs)


@pytest.mark.parametrize("labelled", [False, True])
def test_rows_known_in_the_sources_columns_meet_themselves(labelled: bool) -> None:
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(200, 3)).astype(np.float32) * np.array([3, 2, 1], dtype=np.float32)
    turned = torch.from_numpy(-plain @ np.linalg.qr(rng.normal(size=(3, 3)))[0].astype(np.float32))
    rows = torch.from_numpy(rng.normal(size=(300, 3)).astype(np.float32) * np.array([3, 2, 1], dtype=np.float32))
    net = ScoreNet({"text": 3}, width=8, heads=2, hidden=8).requires_grad_(False).eval()
    source = SourceSpace(net, ("text",), {"text": rows}, {"text": torch.zeros(300)})
    params = Params(adapter=AdapterParams(components=0, epochs=200, dropout=0.0, label_weight=0.1))
    known = torch.zeros(200) if labelled else torch.full((200,), torch.nan)

    def carried(pairs: dict[str, torch.Tensor]) -> list[float]:
        """The correlation of each of the source's columns as the adapter makes it with what it is."""
        made = train_adapter("text", target_of(turned, pairs), source, "final", params, known)[0].eval()
        return [float(np.corrcoef(made(turned).detach()[:, at], plain[:, at])[0, 1]) for at in range(3)]

    assert min(carried({"text": torch.from_numpy(plain)})) > 0.98
    assert min(carried({})) < 0.9  # what no pairs tell stays open


def test_known_scores_settle_the_orientation_that_a_match_leaves_open() -> None:
    rng = np.random.default_rng(0)
    plain, rows = (torch.from_numpy(rng.normal(size=(count, 3)).astype(np.float32)) for count in (200, 300))
    turned = -plain @ torch.from_numpy(np.linalg.qr(rng.normal(size=(3, 3)))[0].astype(np.float32))
    net = ScoreNet({"text": 3}, width=8, heads=2, hidden=8)
    net.begin_with({"text": torch.tensor([1.0, 0.0, 0.0])}, 0.0)
    source = SourceSpace(net.requires_grad_(False).eval(), ("text",), {"text": rows}, {"text": rows[:, 0]})
    params = Params(adapter=AdapterParams(components=0, epochs=100, dropout=0.0))

    def scored(known: torch.Tensor) -> float:
        """How well the source model scores the rows, whose true score is the first column of ``plain``."""
        made = train_adapter("text", target_of(turned, {}), source, "final", params, known)[0].eval()(turned).detach()
        there = {"text": torch.ones(len(made), dtype=torch.bool)}
        return float(np.corrcoef(net({"text": made}, there)[:, 0], plain[:, 0])[0, 1])

    noisy = plain[:, 0] + torch.from_numpy(rng.normal(size=200).astype(np.float32))
    assert scored(noisy) > 0.9
    assert scored(-noisy) < -0.9
