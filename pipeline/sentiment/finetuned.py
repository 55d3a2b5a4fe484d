"""The fine-tuned net as a model of its own: described, rebuilt from its description, and asked for scores."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.core.descriptions import read_description
from pipeline.core.errors import DamagedError
from pipeline.core.schemas import FeatureSubset
from pipeline.nets.adapter import Adapter
from pipeline.nets.columns import InputColumns
from pipeline.nets.transfer import ScoreNet, TransferNet
from pipeline.sentiment.data import FeatureColumns, Target
from pipeline.sentiment.descriptions import (
    AdapterArguments,
    FinetunedDescription,
    ScoreNetArguments,
    TransferNetArguments,
)
from pipeline.training.checkpoint import REMEDY, WEIGHTS, check_shapes, load_weights
from pipeline.training.device import one_thread

ROWS = 256
"""Rows of a batch. Every batch is filled up to it, so that a row's score does not hang on its company: a matrix product
of another height may add its terms in another order."""


def describe_net(
    net: TransferNet,
    target: Target,
    adapters: Mapping[str, AdapterArguments],
    source: ScoreNetArguments,
) -> TransferNetArguments:
    """The arguments that the net is rebuilt from.

    Args:
        adapters, source: those of the models that it started from.
    """
    return TransferNetArguments(
        adapters=dict(adapters) if net.source is not None else {},
        source=source if net.source is not None else None,
        widths=target.columns.widths,
        text_head=net.text_head is not None,
        columns={name: inputs.columns for name, inputs in target.inputs.items()},
    )


def load_finetuned(folder: Path, encoder: nn.Module | None = None) -> TransferNet:
    """The fine-tuned net in a folder, ready to predict.

    Args:
        encoder: a text encoder of the kind that was tuned; its weights are taken from the folder. None where the
            description says that none was tuned.
    """
    arguments = read_description(folder, FinetunedDescription).net
    check_shapes(folder, partial(_built, arguments, None), but="encoder")
    net = _built(arguments, encoder)
    load_weights(folder, net)
    for name, columns in net.columns.items():
        assert isinstance(columns, InputColumns)
        if len(columns.index) and not 0 <= int(columns.index.min()) <= int(columns.index.max()) < columns.columns:
            raise DamagedError(f"{folder / WEIGHTS}: reads columns of {name} that it does not have", REMEDY)
    return net.requires_grad_(False).eval()


def _built(arguments: TransferNetArguments, encoder: nn.Module | None) -> TransferNet:
    """The net with weights as they are initialised."""
    columns = {
        name: InputColumns(count, torch.zeros(arguments.widths[name])) for name, count in arguments.columns.items()
    }
    return TransferNet(
        {name: Adapter(**adapter.arguments()) for name, adapter in arguments.adapters.items()},
        None if arguments.source is None else ScoreNet(**arguments.source.arguments()),
        arguments.widths,
        text_head=nn.Linear(arguments.widths["text"], 1) if arguments.text_head else None,
        encoder=encoder,
        columns=columns,
    )


def score_rows(net: TransferNet, columns: FeatureColumns, subset: FeatureSubset) -> np.ndarray:
    """float64 [N]: the net's scores of rows with only the modalities of ``subset``; on the processor."""
    count = len(next(iter(columns.present.values())))
    scores = np.empty(count, dtype=np.float64)
    net.cpu().eval()
    with torch.inference_mode(), one_thread():
        for at in range(0, count, ROWS):
            rows = np.arange(at, min(at + ROWS, count))
            vectors, present = columns.at(rows, subset)
            full = net(_filled_up(vectors), _filled_up(present))
            scores[rows] = full[: len(rows), 0].numpy()
    return scores


def _filled_up(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The rows with rows of zeros after them, ``ROWS`` in all."""
    return {name: torch.cat([part, part.new_zeros(ROWS - len(part), *part.shape[1:])]) for name, part in parts.items()}
