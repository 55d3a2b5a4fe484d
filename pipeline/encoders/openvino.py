"""A text encoder compiled by OpenVINO: on a processor the same vectors faster, and in bfloat16 faster still."""

import logging
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.core.errors import InputError
from pipeline.params import Precision

HINTS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16"}

ALIKE = 0.998
"""The cosine that vectors of a converted net have at least with those of torch."""

Batch = Mapping[str, Tensor]

_COMPILING = threading.Lock()


class Compiled:
    """``compiled(input_ids=..., attention_mask=...)``, as ``text.MeanPooled``, on the processor; threads call it.

    Args:
        net: a trained encoder of texts; what becomes of its weights later does not reach what was compiled.
        precision: ``bf16`` is only faster on a processor with instructions for it (AVX-512 BF16 or AMX).
        probes: two batches of unlike shapes.
        threads: how many may call it at once; each computes on one of so many threads, as ``side_by_side`` has it.

    Raises InputError when OpenVINO cannot convert the net, or the converted net computes something else.
    """

    def __init__(self, net: nn.Module, precision: Precision, probes: tuple[Batch, Batch], threads: int) -> None:
        openvino, (example, other) = runtime(), probes
        streams = {"NUM_STREAMS": threads, "INFERENCE_NUM_THREADS": threads}
        with _COMPILING, torch.inference_mode(), _quietly():
            try:
                model = openvino.convert_model(net, example_input=dict(example))
                settings = streams | {"INFERENCE_PRECISION_HINT": HINTS[precision]}
                self.model = openvino.Core().compile_model(model, "CPU", settings)
            except Exception as error:  # each of its frontends has errors of its own
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise InputError(f"{WHERE}: OpenVINO cannot convert this encoder ({reason}); set it to torch") from None
        expected, made = net(**other).detach().numpy(), self(**other)
        lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(made, axis=1)
        cosine = float(((expected * made).sum(axis=1) / np.maximum(lengths, 1e-12)).min())
        if not cosine >= ALIKE:
            raise InputError(f"{WHERE}: converted by OpenVINO this encoder gives other vectors; set it to torch")

    def __call__(self, **inputs: Tensor) -> np.ndarray:
        """int64 [B, T] each → float32 [B, width]."""
        request = self.model.create_infer_request()  # one request serves one thread
        return np.array(request.infer({name: tensor.numpy() for name, tensor in inputs.items()})[0])


WHERE = "params.yaml: embed.text.runtime: openvino"


def runtime() -> Any:
    """The package. Raises InputError where it is not installed."""
    modules: dict[str, Any] = sys.modules
    modules.setdefault("openvino_telemetry", None)  # it would report each import; without it nothing is sent
    try:
        return import_module("openvino")
    except ImportError:
        raise InputError(f"{WHERE}: needs more packages; `pip install emocare-pipeline[openvino]`") from None


@contextmanager
def _quietly() -> Iterator[None]:
    """Tracing warns of each branch of Python that it follows; ``Compiled`` looks at what comes out instead."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
