"""Losses for imbalanced classes; each is a function of logits and labels."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

Objective = Callable[[Tensor, Tensor], Tensor]
"""(logits [B, classes], labels int64 [B]) → mean loss, a scalar."""


def class_weights(counts: Sequence[int], power: float = 1.0) -> Float[Tensor, " classes"]:
    """Weights inverse to class frequency: (N / (classes * count)) ** power.

    With power 1 a class-balanced mean, scikit-learn's ``balanced``; 0.5 is the milder square root.

    Raises ValueError when a class has no rows.
    """
    if min(counts) < 1:
        raise ValueError(f"every class needs a row, got counts {list(counts)}")
    amounts = torch.tensor(counts, dtype=torch.float64)
    return (amounts.sum() / (len(counts) * amounts)).pow(power).float()


def objective(imbalance: str, counts: Sequence[int], *, power: float, gamma: float) -> Objective:
    """The loss that a params block asks for.

    ``class_weight`` weights the cross-entropy; ``logit_adjust`` adds power * log(prior) to the logits in training, so
    that plain logits favour no class (Menon et al. 2021, "Long-tail learning via logit adjustment"); ``focal`` scales
    each row by (1 - p) ** gamma (Lin et al. 2017). A class without training rows counts as having one: a fold, or the
    rows that have a clip, may lack a rare class.
    """
    if imbalance == "class_weight":
        return WeightedCrossEntropy(class_weights([max(count, 1) for count in counts], power))
    if imbalance == "logit_adjust":
        total = sum(counts)
        priors = torch.tensor([max(count, 1) / total for count in counts])
        return AdjustedCrossEntropy(power * priors.log())
    if imbalance == "focal":
        return lambda logits, labels: focal(logits, labels, gamma)
    return functional.cross_entropy


class WeightedCrossEntropy:
    def __init__(self, weights: Tensor) -> None:
        self.weights = weights

    def __call__(self, logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]) -> Float[Tensor, ""]:
        # Divided by the number of rows, not by the sum of their weights: a batch without a rare class would otherwise
        # count its common rows for more.
        losses = functional.cross_entropy(logits, labels, self.weights.to(logits.device), reduction="none")
        return losses.mean()


class AdjustedCrossEntropy:
    def __init__(self, shift: Tensor) -> None:
        self.shift = shift

    def __call__(self, logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]) -> Float[Tensor, ""]:
        return functional.cross_entropy(logits + self.shift.to(logits.device), labels)


def focal(logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"], gamma: float) -> Float[Tensor, ""]:
    """Mean of (1 - p) ** gamma * -log p over the rows, p the probability of the true class."""
    log_p = functional.log_softmax(logits, dim=-1).gather(1, labels[:, None])[:, 0]
    return ((1 - log_p.exp()) ** gamma * -log_p).mean()
