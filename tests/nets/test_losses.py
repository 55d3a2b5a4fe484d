import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from pipeline.nets.losses import class_weights, focal, objective

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
    found = objective(imbalance, COUNTS, power=power, gamma=2.0)(LOGITS, LABELS)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_focal_with_gamma_zero_is_cross_entropy() -> None:
    assert focal(LOGITS, LABELS, 0.0).item() == pytest.approx(functional.cross_entropy(LOGITS, LABELS).item())


def test_logit_adjustment_favours_no_class_where_nothing_is_known() -> None:
    """With uninformative inputs the best adjusted logits are equal, whatever the priors."""
    labels = torch.tensor([0] * 90 + [1] * 10)
    loss = objective("logit_adjust", [90, 10], power=1.0, gamma=0.0)
    at = torch.zeros(2, requires_grad=True)
    loss(at.expand(100, 2), labels).backward()
    torch.testing.assert_close(at.grad, torch.zeros(2), atol=1e-6, rtol=0)
