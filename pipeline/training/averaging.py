"""The mean of the weights of several trainings that differ only by their seed.

It errs less than one of them, and costs no more to ask (Wortsman et al., "Model soups", ICML 2022).
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pipeline.training.finished import Finished
from pipeline.training.loop import FitResult
from pipeline.training.tuning import learner, merged

Net = TypeVar("Net", bound=nn.Module)


def average_trainings(
    net: Net,
    train: Callable[[Net, int], FitResult],
    seeds: Sequence[int],
    *,
    how: str,
    targets: list[str],
    rank: int,
    finished: Finished,
    name: str,
) -> FitResult:
    """Tunes copies of ``net``, one a seed, and leaves the mean of their weights in it.

    Args:
        net: has an ``encoder``, which learns as ``tuning.learner`` has it by ``how``, ``targets`` and ``rank``.
        train: trains a copy, whose encoder is ready to learn, with a seed.
        finished: keeps each training under ``name`` and its seed, so that a killed run of the same is taken up.

    Returns:
        What came of the first of them.
    """

    def train_one(seed: int) -> dict[str, Any]:
        torch.manual_seed(seed)  # low-rank updates begin at random
        copied = copy.deepcopy(net)
        copied.encoder = learner(copied.get_submodule("encoder"), targets, how, rank)
        result = train(copied, seed)
        if how == "lora":
            copied.encoder = merged(copied.encoder)  # the low-rank updates become part of the weights
        return {"weights": copied.state_dict(), "result": vars(result)}

    trained = [finished.get_or_make(f"{name}, seed {seed}", partial(train_one, seed)) for seed in seeds]
    net.load_state_dict(mean_weights([training["weights"] for training in trained]))
    return FitResult(**trained[0]["result"])


def mean_weights(runs: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each tensor of nets of one shape, of like names; of whole numbers, the first net's."""
    first = runs[0]
    if len(runs) == 1:
        return dict(first)
    return {
        name: torch.stack([run[name].double() for run in runs]).mean(dim=0).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in first.items()
    }
