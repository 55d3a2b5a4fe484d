import torch
from torch import nn

from pipeline.nets.specialist import Specialist, TunedSpecialist


def test_standardised_vectors_have_mean_zero_and_unit_spread() -> None:
    vectors = torch.randn(200, 3) * torch.tensor([1.0, 5.0, 0.0]) + torch.tensor([0.0, 7.0, 2.0])
    net = Specialist(3, 2)
    net.standardise_like(vectors)
    standard = (vectors - net.mean) / net.scale
    torch.testing.assert_close(standard.mean(dim=0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(standard.std(dim=0, correction=0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-5, rtol=0)


def test_a_linear_specialist_is_a_linear_map_of_the_standardised_vector() -> None:
    net = Specialist(4, 3, dropout=0.5).eval()
    net.standardise_like(torch.randn(50, 4) * 3 + 1)
    vectors = torch.randn(5, 4)
    layer = net.layers[-1]
    assert isinstance(layer, nn.Linear)
    expected = ((vectors - net.mean) / net.scale) @ layer.weight.T + layer.bias
    torch.testing.assert_close(net(vectors), expected)


def test_a_hidden_layer_by_param() -> None:
    net = Specialist(4, 3, hidden=8)
    assert [tuple(item.weight.shape) for item in net.layers if isinstance(item, nn.Linear)] == [(8, 4), (3, 8)]


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    net = Specialist(100, 2, dropout=0.3)
    vectors = torch.randn(1, 100)
    assert not torch.equal(net(vectors), net(vectors))
    net.eval()
    assert torch.equal(net(vectors), net(vectors))


def test_batch_normalisation_keeps_its_statistics_while_tuning() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.norm(pixels).mean(dim=(2, 3))

    encoder = Encoder()
    net = TunedSpecialist(encoder, Specialist(3, 2)).train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    net({"pixels": torch.randn(4, 3, 5, 5) + 9}).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert encoder.norm.weight.grad is not None
