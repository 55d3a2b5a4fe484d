from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from pipeline.nets import transfer
from pipeline.nets.adapter import Adapter
from pipeline.nets.transfer import ScoreNet, TransferNet

SOURCE = {"text": 4, "audio": 3}
TARGET = {"text": 5, "audio": 2, "visual": 6}
"""The target's widths; the source has nothing visual."""

Inputs = tuple[dict[str, Tensor], dict[str, Tensor]]


def inputs(widths: Mapping[str, int], rows: int = 8) -> Inputs:
    generator = torch.Generator().manual_seed(1)
    vectors = {name: 3 * torch.randn(rows, width, generator=generator) + 1 for name, width in widths.items()}
    return vectors, {name: torch.rand(rows, generator=generator) < 0.6 for name in widths}


def randomised(net: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return net.eval()


def score_net() -> ScoreNet:
    torch.manual_seed(0)
    net = ScoreNet(SOURCE, width=8, heads=2, hidden=8)
    net.standardise_like(*inputs(SOURCE, 40))
    randomised(net)
    return net


def transfer_net(*, by_text: bool = True, encoder: nn.Module | None = None) -> TransferNet:
    source = score_net()
    adapters = {name: Adapter(TARGET[name], (), width) for name, width in SOURCE.items()}
    text_head = nn.Linear(TARGET["text"], 1) if by_text else None
    net = TransferNet(adapters, source, TARGET, text_head=text_head, encoder=encoder)
    net.standardise_like(*inputs(TARGET, 40))
    randomised(net)
    return net


def changed(given: Inputs, name: str, *, where: Tensor) -> Inputs:
    vectors, present = given
    return {**vectors, name: torch.where(where[:, None], vectors[name] + 5, vectors[name])}, present


def test_what_an_absent_modality_holds_does_not_matter_to_the_source_model() -> None:
    net, rows = score_net(), inputs(SOURCE)
    before, there = net(*rows), rows[1]["audio"]
    assert 0 < there.sum() < len(there)
    torch.testing.assert_close(net(*changed(rows, "audio", where=~there)), before)
    assert ((net(*changed(rows, "audio", where=there)) - before)[:, 0].abs() > 1e-3).equal(there)


def test_the_source_model_standardises_by_the_rows_that_have_a_modality() -> None:
    net = ScoreNet({"text": 1}, width=8, heads=2, hidden=8)
    net.standardise_like({"text": torch.tensor([[1.0], [5.0], [0.0]])}, {"text": torch.tensor([True, True, False])})
    assert [net.state_dict()[f"probes.text.{name}"].item() for name in ("mean", "scale")] == [3.0, 2.0]


def test_the_score_is_the_mix_of_both_source_models_and_the_probes() -> None:
    net, (vectors, present) = transfer_net(), inputs(TARGET)
    assert net.source is not None and net.text_head is not None
    adapted = {name: net.adapters[name](vectors[name]) for name in SOURCE}
    by_features = net.source(adapted, {name: present[name] for name in SOURCE})[:, 0]
    by_text = vectors["text"] @ net.text_head.weight[0] * present["text"] + net.text_head.bias  # absent: as the mean
    expected = net.mix.weight[0, 0] * by_features + net.mix.weight[0, 1] * by_text + net.mix.bias
    for name in TARGET:
        probe = net.probe(name)
        known = inputs(TARGET, 40)
        rows = known[0][name][known[1][name]]
        standard = ((vectors[name] - rows.mean(dim=0)) / rows.std(dim=0, correction=0)).clamp(-5, 5)
        expected = expected + (standard @ probe.linear.weight[0] + probe.linear.bias) * present[name]
    torch.testing.assert_close(net(vectors, present)[:, 0], expected, atol=1e-4, rtol=1e-4)


def test_what_an_absent_modality_holds_does_not_matter_to_the_whole() -> None:
    net, rows = transfer_net(), inputs(TARGET)
    before = net(*rows)
    for name in TARGET:
        there = rows[1][name]
        torch.testing.assert_close(net(*changed(rows, name, where=~there)), before)
        assert ((net(*changed(rows, name, where=there)) - before)[:, 0].abs() > 1e-3).equal(there)


def test_an_absent_text_counts_as_the_bias_of_the_text_head() -> None:
    net, (vectors, present) = transfer_net(), inputs(TARGET)
    assert net.text_head is not None
    nowhere = {**present, "text": torch.zeros(8, dtype=torch.bool)}
    by_text = net.parts(vectors, nowhere)[1]
    torch.testing.assert_close(by_text, net.text_head.bias.expand(8, 1))


def test_a_modality_that_the_source_lacks_has_a_reading_only() -> None:
    net, rows = transfer_net(), inputs(TARGET)
    moved = changed(rows, "visual", where=torch.ones(8, dtype=torch.bool))
    for before, after in zip(net.parts(*rows), net.parts(*moved), strict=True):
        assert torch.equal(before, after)


def test_without_source_and_teller_only_the_readings_speak() -> None:
    net, rows = TransferNet({}, None, TARGET).eval(), inputs(TARGET)
    by_features, by_text = net.parts(*rows)
    assert torch.equal(by_features, torch.zeros(8, 1)) and torch.equal(by_text, torch.zeros(8, 1))
    torch.testing.assert_close(net(*rows), net.mix.bias.expand(8, 1))


def test_rescaling_gives_the_scaled_and_shifted_score() -> None:
    net, rows = transfer_net(), inputs(TARGET)
    before = net(*rows)
    net.rescale(2.5, -0.7)
    torch.testing.assert_close(net(*rows), 2.5 * before - 0.7)


class Counter(nn.Module):
    """Stands in for a text encoder: token numbers → vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, TARGET["text"])

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        if attention_mask is None:
            return self.table(input_ids).mean(dim=1)
        return (self.table(input_ids) * attention_mask[:, :, None]).sum(dim=1) / attention_mask.sum(dim=1)[:, None]


def test_tokens_take_the_place_of_the_text_vectors() -> None:
    encoder = Counter()
    net, (vectors, present) = transfer_net(encoder=encoder), inputs(TARGET)
    tokens = {"input_ids": torch.randint(9, (8, 3), generator=torch.Generator().manual_seed(2))}
    by_hand = {**vectors, "text": encoder.table.weight[tokens["input_ids"]].mean(dim=1)}
    torch.testing.assert_close(net(vectors, present, tokens), net(by_hand, present))
    assert not torch.allclose(net(vectors, present, tokens), net(vectors, present))
    net(vectors, present, tokens).sum().backward()
    assert encoder.table.weight.grad is not None and encoder.table.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("lines", [64, 2])
@pytest.mark.parametrize("learns", [True, False])
def test_a_row_of_several_texts_has_the_mean_of_their_vectors(
    monkeypatch: pytest.MonkeyPatch, lines: int, learns: bool
) -> None:
    monkeypatch.setattr(transfer, "LINES", lines)
    encoder = Counter()
    net, (vectors, present) = transfer_net(encoder=encoder), inputs(TARGET)
    net.training = learns  # without its parts, which would draw dropout
    said = torch.randint(9, (11, 5), generator=torch.Generator().manual_seed(2))
    lengths = torch.tensor([2, 5, 1, 3, 3, 4, 1, 2, 5, 1, 1])
    line_of = torch.tensor([0, 0, 0, 1, 2, 2, 3, 4, 5, 6, 6])  # the last row has none
    of_lines = torch.stack(
        [encoder.table.weight[of[:long]].mean(dim=0) for of, long in zip(said, lengths, strict=True)]
    )
    means = [of_lines[line_of == row].mean(dim=0) for row in range(7)] + [torch.zeros(TARGET["text"])]
    by_hand = net({**vectors, "text": torch.stack(means)}, present)
    mask = (torch.arange(5) < lengths[:, None]).long()
    found = net(vectors, present, {"input_ids": said, "attention_mask": mask, "line_of": line_of})
    torch.testing.assert_close(found, by_hand)
