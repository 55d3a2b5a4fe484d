import pytest
import torch

from pipeline.nets.fusion import Fusion
from pipeline.nets.fusion.attention import Attention
from pipeline.nets.modalities import drop_modalities

WIDTHS = {"text": 4, "image": 6, "video": 5}
STRATEGIES = ["attention", "gated", "concat"]


def inputs(rows: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    vectors = {name: torch.randn(rows, width) for name, width in WIDTHS.items()}
    expert_log_probs = {name: torch.randn(rows, 3) for name in WIDTHS}
    return vectors, expert_log_probs, {name: torch.ones(rows, dtype=torch.bool) for name in WIDTHS}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_an_absent_modality_holds_does_not_matter(strategy: str) -> None:
    net = Fusion(WIDTHS, 3, strategy=strategy, width=8, heads=2, hidden=8).eval()
    vectors, expert_log_probs, present = inputs(5)
    present["image"] = torch.zeros(5, dtype=torch.bool)
    before = net(vectors, expert_log_probs, present)
    vectors["image"], expert_log_probs["image"] = vectors["image"] + 100, expert_log_probs["image"] - 7
    torch.testing.assert_close(net(vectors, expert_log_probs, present), before)
    vectors["text"] = vectors["text"] + 1
    assert not torch.allclose(net(vectors, expert_log_probs, present), before)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("given", [("text",), ("image", "video")])
def test_a_modality_that_is_not_given_is_absent_from_all_rows(strategy: str, given: tuple[str, ...]) -> None:
    net = Fusion(WIDTHS, 3, strategy=strategy, width=8, heads=2, hidden=8).eval()
    for parameter in net.parameters():  # bilinear terms are zero to begin with
        torch.nn.init.normal_(parameter, std=0.1)
    vectors, expert_log_probs, present = inputs(5)
    marked = {name: here & (name in given) for name, here in present.items()}
    fewer = ({name: of[name] for name in given} for of in (vectors, expert_log_probs, present))
    torch.testing.assert_close(net(*fewer), net(vectors, expert_log_probs, marked))


def test_what_attention_makes_of_the_summary_is_what_the_whole_layer_makes_of_it() -> None:
    torch.manual_seed(0)
    net, tokens = Attention(3, 8, 2, 0.3).eval(), torch.randn(5, 3, 8)
    read = torch.cat([net.summary.expand(5, 1, -1), tokens + net.identity], dim=1)
    torch.testing.assert_close(net(tokens), net.attend(read)[:, 0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_rows_do_not_see_each_other(strategy: str) -> None:
    net = Fusion(WIDTHS, 3, strategy=strategy, width=8, heads=2, hidden=8).eval()
    vectors, expert_log_probs, present = inputs(6)
    present["video"][::2] = False
    whole = net(vectors, expert_log_probs, present)
    for row in range(6):
        one = net(
            *(
                {name: part[row : row + 1] for name, part in item.items()}
                for item in (vectors, expert_log_probs, present)
            )
        )
        torch.testing.assert_close(one[0], whole[row], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_row_without_any_modality_still_has_logits(strategy: str) -> None:
    net = Fusion(WIDTHS, 3, strategy=strategy, width=8, heads=2, hidden=8)
    vectors, expert_log_probs, present = inputs(2)
    none = {name: torch.zeros(2, dtype=torch.bool) for name in present}
    assert torch.isfinite(net.train()(vectors, expert_log_probs, none)).all()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_parameter_learns_when_modalities_come_and_go(strategy: str) -> None:
    torch.manual_seed(0)
    net = Fusion(WIDTHS, 3, strategy=strategy, width=8, heads=2, hidden=8, modality_dropout=0.5).train()
    net(*inputs(64)).square().sum().backward()
    assert [name for name, value in net.named_parameters() if value.grad is None or not value.grad.any()] == []


def test_without_what_it_learned_it_is_a_weighted_sum_of_log_probabilities() -> None:
    net = Fusion(WIDTHS, 3, width=8, heads=2, hidden=8).eval()
    last = net.classify[-1]
    assert isinstance(last, torch.nn.Linear)
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    vectors, expert_log_probs, present = inputs(4)
    present["text"][0] = False
    expected = sum(expert_log_probs[name] * present[name][:, None] for name in WIDTHS)
    torch.testing.assert_close(net(vectors, expert_log_probs, present), expected)


def test_bilinear_terms_are_linear_maps_of_one_vector_weighed_by_the_other_modalitys_probabilities() -> None:
    torch.manual_seed(0)
    net = Fusion({"a": 4, "b": 5}, 3, width=8, heads=2, hidden=8).eval()
    before = net(*pair())
    assert net.bilinear is not None
    torch.nn.init.normal_(net.bilinear.weights["a_given_b"])
    (vectors, expert_log_probs, present) = pair()
    expected = before.clone()
    for row in range(6):
        belief = torch.softmax(expert_log_probs["b"][row], dim=0)
        for believed in range(3):
            term = vectors["a"][row] @ net.bilinear.weights["a_given_b"][believed]
            expected[row] += belief[believed] * term * present["a"][row] * present["b"][row]
    torch.testing.assert_close(net(vectors, expert_log_probs, present), expected)


def pair() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    torch.manual_seed(3)
    vectors = {"a": torch.randn(6, 4), "b": torch.randn(6, 5)}
    expert_log_probs = {name: torch.randn(6, 3) for name in vectors}
    return vectors, expert_log_probs, {"a": torch.tensor([True] * 5 + [False]), "b": torch.tensor([False] + [True] * 5)}


def test_attention_lets_one_modality_change_what_another_means() -> None:
    """Exclusive or of two signs: no sum of separate evidence can tell these classes apart."""
    torch.manual_seed(0)
    signs = torch.randint(0, 2, (256, 2)) * 2.0 - 1
    labels = (signs[:, 0] * signs[:, 1] > 0).long()
    vectors = {"a": signs[:, :1] + 0.1 * torch.randn(256, 1), "b": signs[:, 1:] + 0.1 * torch.randn(256, 1)}
    expert_log_probs = {name: torch.zeros(256, 2) for name in vectors}
    present = {name: torch.ones(256, dtype=torch.bool) for name in vectors}
    net = Fusion({"a": 1, "b": 1}, 2, width=16, heads=2, hidden=16, dropout=0.0, modality_dropout=0.0).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3)
    for _ in range(150):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(vectors, expert_log_probs, present), labels).backward()
        optimizer.step()
    assert (net.eval()(vectors, expert_log_probs, present).argmax(dim=1) == labels).float().mean() > 0.98


def test_standardisation_looks_at_present_rows_only() -> None:
    net = Fusion({"text": 2}, 3, width=8, heads=2, hidden=8)
    vectors = torch.tensor([[1.0, 5.0], [3.0, 5.0], [0.0, 0.0]])
    net.standardise_like({"text": vectors}, {"text": torch.tensor([True, True, False])})
    assert net.get_buffer("mean_text").tolist() == [2.0, 5.0]
    assert net.get_buffer("scale_text").tolist() == [1.0, 1.0]


def test_modality_dropout_hides_at_its_rate_and_spares_one() -> None:
    torch.manual_seed(0)
    present = {name: torch.rand(20_000) < 0.7 for name in WIDTHS}
    kept = drop_modalities(present, 0.3)
    before, after = (torch.stack([item[name] for name in WIDTHS]) for item in (present, kept))
    assert not (after & ~before).any()
    assert torch.equal(before.any(dim=0), after.any(dim=0))
    all_three = before.all(dim=0)
    # P(hidden) = .3 less the case of all three hidden (.027), in which one of the three is spared.
    rate = 1 - after[:, all_three].float().mean(dim=1)
    torch.testing.assert_close(rate, torch.full((3,), 0.3 - 0.027 / 3), atol=0.015, rtol=0)


def test_an_unknown_strategy_is_refused() -> None:
    with pytest.raises(ValueError, match="sum: no strategy"):
        Fusion(WIDTHS, 3, strategy="sum", width=8, heads=2, hidden=8)
