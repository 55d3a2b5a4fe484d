"""A text encoder compiled by OpenVINO: on a processor the same vectors faster, and in bfloat16 faster still."""

import copy
import logging
import sys
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

ALIKE: dict[Precision, float] = {"fp32": 0.99999, "bf16": 0.998}
"""The cosine that vectors of a converted net have at least with those of torch."""

WHERE = "embed.text.runtime: openvino"

Batch = Mapping[str, Tensor]


class Compiled:
    """``compiled(input_ids=..., attention_mask=...)``, as ``text.MeanPooled``, on the processor; threads call it.

    Args:
        net: a trained encoder of texts; what becomes of its weights later does not reach what was compiled.
        precision: ``bf16`` needs a processor with instructions for it (AVX-512 BF16 or AMX).
        probes: two batches of unlike shapes; the second as long, and as unevenly filled, as batches come.
        threads: how many may call it at once; each computes on one of so many threads, as ``side_by_side`` has it.

    Raises InputError when OpenVINO cannot convert the net, the converted net computes something else, or the processor
    cannot do it in that precision.
    """

    def __init__(self, net: nn.Module, precision: Precision, probes: tuple[Batch, Batch], threads: int) -> None:
        openvino, copied, (example, other) = package(), copy.deepcopy(net).eval(), probes
        core = openvino.Core()
        if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise InputError(f"{WHERE}: this processor has no instructions for bf16; set embed.text.precision: fp32")
        # Pinned threads of several processes would all sit on the first processor.
        settings = {"NUM_STREAMS": threads, "INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
        with torch.inference_mode(), _quietly():
            try:
                model = openvino.convert_model(copied, example_input=dict(example))
                self.model = core.compile_model(model, "CPU", settings | {"INFERENCE_PRECISION_HINT": HINTS[precision]})
            except MemoryError:
                raise
            except Exception as error:  # what it cannot convert ends in classes of its own, which have no other base
                raise InputError(f"{WHERE}: it cannot convert this encoder ({_reason(error)}); set torch") from None
            expected, actual = copied(**other).numpy(), self(**other)
        lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(actual, axis=1)
        cosine = float(((expected * actual).sum(axis=1) / np.maximum(lengths, 1e-12)).min())
        if not cosine >= ALIKE[precision]:
            instead = "torch" if precision == "fp32" else "torch, or embed.text.precision: fp32"
            raise InputError(
                f"{WHERE}: it gives other vectors of this encoder (a cosine of {cosine:.4f}); set {instead}"
            )

    def __call__(self, **inputs: Tensor) -> np.ndarray:
        """int64 [B, T] each → float32 [B, width]."""
        request = self.model.create_infer_request()  # one request serves one thread
        return np.array(request.infer({name: tensor.numpy() for name, tensor in inputs.items()})[0])


def _reason(error: Exception) -> str:
    """The line that names operations, where there is one: before it stand places in OpenVINO's own files."""
    lines = [line.strip("- ") for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "operations:" in line] or [line for line in lines if "failed at" not in line]
    return (telling or lines or [type(error).__name__])[0]


def package() -> Any:
    """OpenVINO. Raises InputError where it is not installed, or does not load."""
    modules: dict[str, Any] = sys.modules
    modules.setdefault("openvino_telemetry", None)  # it would report each import; without it nothing is sent
    try:
        return import_module("openvino")
    except ModuleNotFoundError:
        raise InputError(f'{WHERE}: needs more packages; `pip install "emocare-pipeline[openvino]"`') from None
    except ImportError as error:
        raise InputError(f"{WHERE}: OpenVINO does not load ({error}); set torch") from None


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
