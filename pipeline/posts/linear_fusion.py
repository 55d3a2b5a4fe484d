"""The fusions that are multinomial logistic regressions: what each reads, and how it is solved."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pipeline.core.schemas import FusionCandidate
from pipeline.nets.fusion import LinearFusion
from pipeline.posts.descriptions import LinearFusionNet
from pipeline.posts.folds import NamedFold
from pipeline.posts.fusion_rows import FusionRows, ModalitySubset
from pipeline.scoring import logistic

READS: dict[FusionCandidate, tuple[bool, bool]] = {
    "stacked_logreg": (False, True),
    "vectors_logreg": (True, False),
    "joint_logreg": (True, True),
}
"""Whether a linear candidate reads vectors, and whether experts."""

STRENGTHS: dict[FusionCandidate, tuple[float, ...]] = {
    "stacked_logreg": (0.003, 0.03, 0.3, 3.0),
    "vectors_logreg": (0.0003, 0.001, 0.003, 0.01, 0.1),
    "joint_logreg": (0.03, 0.1, 0.3, 1.0, 3.0),
}
"""Inverse regularisation strengths that are tried, strongest first."""


@dataclass(frozen=True)
class LinearStart:
    """A linear net on the scale of its training rows, and these rows as they are regressed on."""

    described: LinearFusionNet
    state: dict[str, torch.Tensor]
    design: logistic.Design


def linear_start(name: FusionCandidate, corpus: FusionRows, subset: ModalitySubset, fold: NamedFold) -> LinearStart:
    """Beside experts, vectors are scaled down so that all of them together weigh about as much as one column."""
    vectors, experts = READS[name]
    described = LinearFusionNet(
        widths=corpus.widths(subset), classes=len(corpus.labels), vectors=vectors, experts=experts
    )
    net = LinearFusion(**_arguments(described))
    inputs = corpus.inputs(fold.train, subset)
    net.standardise_like(inputs[0], inputs[2], shrink=sum(net.widths.values()) ** 0.5 if experts else 1.0)
    with torch.no_grad():
        return LinearStart(described, net.state_dict(), logistic.design(net.features(*inputs).numpy()))


def fit_linear(start: LinearStart, codes: np.ndarray, strength: float) -> tuple[LinearFusion, LinearFusionNet]:
    """The likeliest net with this inverse strength of regularisation; ``codes`` of the rows it starts from."""
    net = LinearFusion(**_arguments(start.described))
    net.load_state_dict(start.state)
    weights, bias = logistic.fit(start.design, codes, start.described.classes, strength)
    with torch.no_grad():
        net.classify.weight.copy_(torch.from_numpy(weights))
        net.classify.bias.copy_(torch.from_numpy(bias))
    return net, start.described


def _arguments(described: LinearFusionNet) -> dict[str, Any]:
    return {name: value for name, value in described.arguments().items() if name != "kind"}
