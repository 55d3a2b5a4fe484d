import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from pipeline.nets.adapter import Adapter, LinearProbe, standardisation
from pipeline.sentiment.descriptions import AdapterArguments


def correlated(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    made = torch.rand(rows, width, generator=generator) @ torch.randn(width, width, generator=generator)
    return 10 * made * torch.arange(1, width + 1) - 3


def test_constant_columns_and_tables_without_rows_are_not_scaled() -> None:
    mean, scale = standardisation(torch.tensor([[1.0, 7.0, 0.0], [5.0, 7.0, -4.0]]))
    assert (mean.tolist(), scale.tolist()) == ([3.0, 7.0, -2.0], [2.0, 1.0, 2.0])
    mean, scale = standardisation(torch.empty(0, 2))
    assert (mean.tolist(), scale.tolist()) == ([0.0, 0.0], [1.0, 1.0])


def test_a_linear_adapter_by_hand() -> None:
    """From the target's standard columns, wild outliers cut, to columns on the source's scale."""
    target, source = correlated(30, 4), correlated(50, 3, seed=1)
    source[:, 1] = 8.0
    net = Adapter(4, (), 3).eval()
    net.standardise_like(target, source)
    x = target.numpy()[:2].copy()
    x[0, 2] += 1000 * target.numpy()[:, 2].std()
    standard = np.clip((x - target.numpy().mean(axis=0)) / target.numpy().std(axis=0), -5, 5)
    assert standard[0, 2] == 5.0
    layer = net.layers[-1]
    assert isinstance(layer, nn.Linear)
    made = standard @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
    spread = np.where(np.arange(3) == 1, 1.0, source.numpy().std(axis=0))
    np.testing.assert_allclose(
        net(torch.from_numpy(x)).detach(), made * spread + source.numpy().mean(axis=0), rtol=1e-4
    )


def test_the_components_are_whitened_and_lead() -> None:
    target = correlated(200, 6)
    net = Adapter(6, (), 2, components=3)
    net.standardise_like(target, correlated(50, 2, seed=1))
    standard = (target - target.mean(dim=0)) / target.std(dim=0, correction=0)
    seen = standard @ net.basis
    torch.testing.assert_close(seen.T @ seen / len(seen), torch.eye(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen.mean(dim=0), torch.zeros(3), atol=1e-4, rtol=0)
    known = PCA(3, whiten=True, svd_solver="full").fit_transform(standard.numpy())
    agree = np.corrcoef(seen.numpy().T, known.T)[:3, 3:]
    np.testing.assert_allclose(np.abs(agree), np.eye(3), atol=1e-3)
    layer = net.eval().layers[-1]
    torch.testing.assert_close(net(target), layer(seen) * net.out_scale + net.out_mean)


def test_components_that_the_rows_do_not_have_are_left_out() -> None:
    flat = correlated(40, 2) @ torch.tensor([[1.0, 0.0, 1.0, 2.0], [0.0, 1.0, 1.0, -1.0]])
    net = Adapter(4, (), 2, components=9)
    net.standardise_like(flat, correlated(50, 2, seed=1))
    assert net.basis.shape == (4, 4)
    seen = (flat - net.mean) / net.scale @ net.basis
    torch.testing.assert_close(seen.T @ seen / 40, torch.diag(torch.tensor([1.0, 1.0, 0.0, 0.0])), atol=1e-4, rtol=0)


def test_hidden_layers_have_the_widths_asked_for() -> None:
    net = Adapter(6, (8, 5), 2, components=3)
    assert [tuple(item.weight.shape) for item in net.layers if isinstance(item, nn.Linear)] == [(8, 3), (5, 8), (2, 5)]


def test_a_reading_says_nothing_until_it_is_set() -> None:
    rows = correlated(30, 2)
    net = LinearProbe(2, dropout=0.5).eval()
    net.standardise_like(rows)
    assert torch.equal(net(rows), torch.zeros(30, 1))
    with torch.no_grad():
        net.linear.weight.copy_(torch.tensor([[2.0, -1.0]]))
        net.linear.bias.fill_(0.5)
    rows = torch.cat([rows, rows[:1] + 1e6])
    standard = (rows - rows[:30].mean(dim=0)) / rows[:30].std(dim=0, correction=0)
    expected = standard.clamp(-5, 5) @ torch.tensor([[2.0], [-1.0]]) + 0.5
    torch.testing.assert_close(net(rows), expected, atol=1e-4, rtol=1e-4)
    assert net(rows)[-1].item() == 5.5


def test_an_identity_gives_what_it_is_given_and_has_nothing_to_learn() -> None:
    adapter = Adapter(3, (), 3, identity=True)
    rows = torch.tensor([[1.0, -2.0, 300.0], [4.0, 5.0, 6.0]])
    adapter.standardise_like(rows, 2 * rows)
    assert torch.equal(adapter(rows), rows)
    assert list(adapter.parameters()) == []
    AdapterArguments(width=3, hidden=(), out=3, components=0, dropout=0.0, identity=True)
    with pytest.raises(ValueError, match="cannot make 4 columns of 3"):
        AdapterArguments(width=3, hidden=(), out=4, components=0, dropout=0.0, identity=True)
