import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional

from pipeline.nets.losses import L2SP, ccc_loss, class_weights, coral_loss, focal, matching_loss, mixed, objective
from pipeline.scoring import sentiment

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5], [0.3, 0.2, 0.1], [1.0, 1.0, 1.0]])
LABELS = torch.tensor([0, 2, 1, 0])


def test_class_weights_of_the_mission() -> None:
    weights = class_weights([1580, 1456, 1328, 367, 268])
    np.testing.assert_allclose(weights, [0.6328, 0.6867, 0.7529, 2.7243, 3.7306], atol=5e-5)


def test_class_weights_are_those_of_scikit_learn() -> None:
    labels = np.repeat([0, 1, 2], [7, 2, 11])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(class_weights([7, 2, 11]), expected, rtol=1e-6)
    np.testing.assert_allclose(class_weights([7, 2, 11], 0.5), np.sqrt(expected), rtol=1e-6)


def test_a_class_without_rows_has_no_weight() -> None:
    with pytest.raises(ValueError, match="every class needs a row"):
        class_weights([3, 0])


def by_hand(weights: list[float], shift: list[float], gamma: float) -> float:
    """Row by row, in numpy."""
    total = 0.0
    for row, label in zip(LOGITS.numpy().astype(float) + np.array(shift), LABELS.tolist(), strict=True):
        p = np.exp(row)[label] / np.exp(row).sum()
        total += weights[label] * (1 - p) ** gamma * -np.log(p)
    return total / len(LABELS)


COUNTS = [4, 6, 1]
BALANCED = [11 / (3 * count) for count in COUNTS]
LOG_PRIORS = np.log(np.array(COUNTS) / 11).tolist()


@pytest.mark.parametrize(
    ("imbalance", "power", "expected"),
    [
        ("none", 1.0, by_hand([1, 1, 1], [0, 0, 0], 0)),
        ("class_weight", 1.0, by_hand(BALANCED, [0, 0, 0], 0)),
        ("class_weight", 0.5, by_hand(np.sqrt(BALANCED).tolist(), [0, 0, 0], 0)),
        ("class_weight", 0.0, by_hand([1, 1, 1], [0, 0, 0], 0)),
        ("logit_adjust", 1.0, by_hand([1, 1, 1], LOG_PRIORS, 0)),
        ("focal", 1.0, by_hand([1, 1, 1], [0, 0, 0], 2)),
    ],
)
def test_objectives_against_a_slow_version(imbalance: str, power: float, expected: float) -> None:
    loss = objective(imbalance, COUNTS, power=power, gamma=2.0)(LOGITS, LABELS)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_focal_with_gamma_zero_is_cross_entropy() -> None:
    assert focal(LOGITS, LABELS, 0.0).item() == pytest.approx(functional.cross_entropy(LOGITS, LABELS).item())


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_has_a_gradient_where_a_row_is_as_good_as_certain(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0], [0.0, 1.0]], requires_grad=True)
    focal(logits, torch.tensor([0, 0]), gamma).backward()
    assert logits.grad is not None and logits.grad.isfinite().all() and logits.grad[1].abs().sum() > 0.1


def test_logit_adjustment_favours_no_class_where_nothing_is_known() -> None:
    """With uninformative inputs the best adjusted logits are equal, whatever the priors."""
    labels = torch.tensor([0] * 90 + [1] * 10)
    loss = objective("logit_adjust", [90, 10], power=1.0, gamma=0.0)
    at = torch.zeros(2, requires_grad=True)
    loss(at.expand(100, 2), labels).backward()
    torch.testing.assert_close(at.grad, torch.zeros(2), atol=1e-6, rtol=0)


# --- scores --------------------------------------------------------------------------------------------------------

SCORES = torch.tensor([[0.5], [-1.0], [2.0], [0.2]])
ACTUAL = torch.tensor([1.0, -2.0, 1.5, 0.0])


def r(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(first, second)[0, 1])


def test_mixed_is_the_weighted_sum_of_its_parts() -> None:
    predicted, actual = SCORES.numpy()[:, 0].astype(float), ACTUAL.numpy().astype(float)
    mse, mae = np.mean((predicted - actual) ** 2), np.mean(np.abs(predicted - actual))
    expected = 2 * mse + 3 * mae + 5 * (1 - r(predicted, actual))
    assert mixed(2.0, 3.0, 5.0)(SCORES, ACTUAL).item() == pytest.approx(expected, rel=1e-5)


def test_ccc_loss_is_what_the_metric_leaves() -> None:
    for scores in (SCORES, 3 * SCORES, SCORES + 1, -SCORES):
        known = sentiment.ccc(ACTUAL.numpy(), scores.numpy()[:, 0])
        assert known is not None
        assert ccc_loss(scores, ACTUAL).item() == pytest.approx(1 - known, rel=1e-5)
    assert ccc_loss(ACTUAL[:, None], ACTUAL).item() == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("loss", [mixed(1.0, 1.0, 1.0), ccc_loss])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_batch_of_equal_scores_has_a_finite_gradient(loss, rows: int) -> None:
    scores = torch.full((rows, 1), 0.3, requires_grad=True)
    loss(scores, torch.full((rows,), 0.1)).backward()
    assert scores.grad is not None and torch.isfinite(scores.grad).all()


# --- adapters ------------------------------------------------------------------------------------------------------

SCALE = torch.tensor([1.0, 2.0, 4.0])
MADE = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
WANTED = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))


def apart(distance: str) -> float:
    made, wanted = (rows[:, :3].numpy().astype(float) / SCALE.numpy() for rows in (MADE, WANTED))
    if distance == "l2":
        return float(((made - wanted) ** 2).mean())
    lengths = np.linalg.norm(made, axis=1) * np.linalg.norm(wanted, axis=1)
    return float(1 - ((made * wanted).sum(axis=1) / lengths).mean())


@pytest.mark.parametrize("distance", ["l2", "cosine"])
@pytest.mark.parametrize("label_weight", [0.0, 0.7])
def test_a_meeting_is_measured_in_the_spread_of_the_source(distance: str, label_weight: float) -> None:
    disorder = 1 - r(MADE[:, 3].numpy(), WANTED[:, 3].numpy())
    loss = matching_loss(3, SCALE, distance, label_weight)(MADE, WANTED).item()
    assert loss == pytest.approx(apart(distance) + label_weight * disorder, rel=1e-4)


def test_rows_without_a_score_are_left_out_of_the_order() -> None:
    labels = WANTED.clone()
    labels[[0, 3], 3] = torch.nan
    outputs = MADE.clone().requires_grad_()
    loss = matching_loss(3, SCALE, "l2", 0.7)(outputs, labels)
    known = [1, 2, 4]
    expected = apart("l2") + 0.7 * (1 - r(MADE[known, 3].numpy(), WANTED[known, 3].numpy()))
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    loss.backward()
    assert outputs.grad is not None and torch.isfinite(outputs.grad).all()
    assert (outputs.grad[:, 3] != 0).nonzero()[:, 0].tolist() == known
    labels[4, 3] = torch.nan  # two points always lie on a line
    assert matching_loss(3, SCALE, "l2", 0.7)(MADE, labels).item() == pytest.approx(apart("l2"), rel=1e-5)


def test_coral_compares_means_and_covariances() -> None:
    source = torch.randn(60, 3, generator=torch.Generator().manual_seed(2)) * SCALE + 3
    loss = coral_loss(source, SCALE, 0.0)

    def of(rows: torch.Tensor) -> float:
        made = torch.cat([rows, torch.zeros(len(rows), 1)], dim=1)
        return loss(made, torch.full_like(made, torch.nan)).item()

    assert of(source) == pytest.approx(0.0, abs=1e-6)
    assert of(source.flip(0)) == pytest.approx(0.0, abs=1e-6)  # it knows no rows
    assert of(source + SCALE * 2) == pytest.approx(4.0, rel=1e-4)
    wider = (source - source.mean(dim=0)) * 2 + source.mean(dim=0)
    covariance = np.cov((source / SCALE).numpy().T)
    assert of(wider) == pytest.approx(((3 * covariance) ** 2).sum() / (4 * 3), rel=1e-4)


def test_coral_asks_for_the_order_too() -> None:
    labelled, silent = (coral_loss(MADE[:, :3], SCALE, weight)(MADE, WANTED).item() for weight in (0.7, 0.0))
    assert labelled - silent == pytest.approx(0.7 * (1 - r(MADE[:, 3].numpy(), WANTED[:, 3].numpy())), rel=1e-4)


def test_the_pull_is_towards_where_the_learning_weights_stood() -> None:
    net = nn.Linear(2, 3)
    net.bias.requires_grad_(False)
    pull = L2SP(net, 0.5)
    assert pull().item() == 0.0
    with torch.no_grad():
        net.weight.add_(2.0)
        net.bias.add_(7.0)
    assert pull().item() == pytest.approx(0.5 * 6 * 2.0**2)
    pull().backward()
    torch.testing.assert_close(net.weight.grad, torch.full((3, 2), 0.5 * 2 * 2.0))
