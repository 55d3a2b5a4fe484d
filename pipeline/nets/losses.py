"""Losses for imbalanced classes and for scores; each is a function of a net's outputs and the labels."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

Objective = Callable[[Tensor, Tensor], Tensor]
"""(outputs [B, K], labels [B] or [B, K]) → mean loss, a scalar."""


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
        return partial(focal, gamma=gamma)
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
    missing = (-torch.expm1(log_p)).clamp_min(1e-6)  # at 0 a gamma below 1 has no gradient
    return (missing**gamma * -log_p).mean()


def mixed(mse: float, mae: float, correlation: float) -> Objective:
    """The weighted sum of MSE, MAE and 1 - Pearson's r of the batch, for scores [B, 1] and labels float32 [B]."""
    return partial(_mixed, mse=mse, mae=mae, correlation=correlation)


def _mixed(
    scores: Float[Tensor, "batch 1"], labels: Float[Tensor, " batch"], mse: float, mae: float, correlation: float
) -> Float[Tensor, ""]:
    error = scores[:, 0] - labels
    return mse * error.square().mean() + mae * error.abs().mean() + correlation * (1 - _pearson(scores, labels))


def ccc_loss(scores: Float[Tensor, "batch 1"], labels: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
    """1 - the concordance correlation of the batch (Lin 1989): it also punishes a wrong mean and a wrong spread."""
    x, y = scores[:, 0] - scores.mean(), labels - labels.mean()
    between = (scores.mean() - labels.mean()).square()
    return 1 - 2 * (x * y).mean() / (x.square().mean() + y.square().mean() + between + TINY)


TINY = 1e-6
"""Keeps a batch of equal scores, or of one row, from a division by zero."""


def _pearson(scores: Float[Tensor, "batch 1"], labels: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
    x, y = scores[:, 0] - scores.mean(), labels - labels.mean()
    return (x * y).sum() / (x.square().sum() * y.square().sum() + TINY).sqrt()


def matching_loss(width: int, out_scale: Tensor, distance: str, label_weight: float) -> Objective:
    """What an adapter is trained by: the distance to the source row to meet, and whether the source model agrees.

    Outputs and labels are [B, width + 1]: the adapted row, and in the last column the source model's score of it and
    the row's own, NaN where it is not known. ``l2`` is the mean squared difference in units of ``out_scale``, the
    source's spread; ``cosine`` is 1 - the cosine of the rows in these units.
    """

    def loss(outputs: Float[Tensor, "batch columns"], labels: Float[Tensor, "batch columns"]) -> Float[Tensor, ""]:
        scale = out_scale.to(outputs.device)
        mapped, target = outputs[:, :width] / scale, labels[:, :width] / scale
        if distance == "cosine":
            apart = 1 - functional.cosine_similarity(mapped, target, dim=1).mean()
        else:
            apart = (mapped - target).square().mean()
        return apart + label_weight * _disorder(outputs[:, width], labels[:, width])

    return loss


def coral_loss(source: Float[Tensor, "rows width"], out_scale: Tensor, label_weight: float) -> Objective:
    """As ``matching_loss``, without rows to meet: mean and covariance of a batch against those of the source.

    Sun and Saenko 2016, "Deep CORAL", in units of the source's spread; the means are compared too.
    """
    width = source.shape[1]
    mean, covariance = _moments(source / out_scale)

    def loss(outputs: Float[Tensor, "batch columns"], labels: Float[Tensor, "batch columns"]) -> Float[Tensor, ""]:
        device = outputs.device
        made_mean, made_covariance = _moments(outputs[:, :width] / out_scale.to(device))
        apart = (made_mean - mean.to(device)).square().mean()
        apart = apart + (made_covariance - covariance.to(device)).square().sum() / (4 * width)
        return apart + label_weight * _disorder(outputs[:, width], labels[:, width])

    return loss


def _moments(rows: Float[Tensor, "rows width"]) -> tuple[Float[Tensor, " width"], Float[Tensor, "width width"]]:
    centred = rows - rows.mean(dim=0)
    return rows.mean(dim=0), centred.T @ centred / max(len(rows) - 1, 1)


def _disorder(scores: Float[Tensor, " batch"], labels: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
    """1 - Pearson's r over the rows whose score is known; 0 with fewer than three.

    A squared error would scale a weak modality beyond its range in the source, until it alone gives the whole score.
    """
    known = labels.isfinite()
    if known.sum() < 3:
        return scores.new_zeros(())
    return 1 - _pearson(scores[known][:, None], labels[known])


class L2SP:
    """L2-SP (Li et al. 2018): the squared distance of the learning weights to where they stood at construction."""

    def __init__(self, net: nn.Module, weight: float) -> None:
        self.weight = weight
        self.parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
        self.start = [parameter.detach().clone() for parameter in self.parameters]

    def __call__(self) -> Tensor:
        pairs = zip(self.parameters, self.start, strict=True)
        return self.weight * torch.stack([(now - start.to(now.device)).square().sum() for now, start in pairs]).sum()
