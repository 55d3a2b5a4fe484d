"""The classifiers and the fusion as ONNX, for runtimes without torch; the encoders stay as they are.

``<modality>.onnx``: ``vector`` float32 [batch, width of the specialist's encoder] → ``logits`` [batch, classes], before
calibration. ``fuse.onnx``: for each modality ``vector_<modality>`` float32 [batch, width],
``expert_log_prob_<modality>`` float32 [batch, classes], the specialist's calibrated log-probabilities less their mean
over the classes, and ``present_<modality>`` bool [batch] → ``logits``. Widths and calibrations stand in ``model.json``.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim

from pipeline.core.errors import InputError
from pipeline.nets.fusion import FusedNet
from pipeline.posts.model import Model

TRACED = 3
"""Rows of the batch that is traced; torch would take a batch of one for a constant."""


def write(model: Model, folder: Path) -> None:
    """Writes one file a net. Raises InputError when the packages of the extra ``onnx`` are not installed."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError:
        raise InputError('--onnx needs more packages; `pip install "emocare-pipeline[onnx]"`') from None
    folder.mkdir()
    with _traceable():
        for name, branch in model.branches.items():
            vectors = torch.zeros(TRACED, branch.encoder.width)
            _write(branch.classifier, (vectors,), folder / f"{name}.onnx", ["vector"])
        if model.fusion is not None:
            names = [
                f"{what}_{name}"
                for what in ("vector", "expert_log_prob", "present")
                for name in model.fusion.modalities
            ]
            _write(model.fusion, _inputs(model.fusion, len(model.labels)), folder / "fuse.onnx", names)


def _inputs(fusion: FusedNet, classes: int) -> tuple[dict[str, torch.Tensor], ...]:
    """A batch that the fusion takes, each modality in the order of ``fusion.modalities``."""
    names = fusion.modalities
    return (
        {name: torch.zeros(TRACED, fusion.widths[name]) for name in names},
        {name: torch.zeros(TRACED, classes) for name in names},
        {name: torch.ones(TRACED, dtype=torch.bool) for name in names},
    )


def _write(net: nn.Module, inputs: tuple[Any, ...], path: Path, names: list[str]) -> None:
    batch = Dim("batch", min=1)
    shapes = tuple(
        {0: batch} if isinstance(item, torch.Tensor) else {name: {0: batch} for name in item} for item in inputs
    )
    program = torch.export.export(net.cpu().eval(), inputs, dynamic_shapes=shapes, strict=False)
    torch.onnx.export(
        program, (), path, input_names=names, output_names=["logits"], external_data=False, verbose=False, dynamo=True
    )


@contextmanager
def _traceable() -> Iterator[None]:
    """Attention by its plain formula, whose fused form ONNX has not; and no word of torchvision's missing operators."""
    before = torch.backends.mha.get_fastpath_enabled()
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    torch.backends.mha.set_fastpath_enabled(False)
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
        logger.setLevel(level)
