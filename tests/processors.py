"""What the processor of the machine can do, for tests that need more than every processor has."""

import pytest

from pipeline.encoders import openvino


def skip_without(runtime: str, precision: str) -> None:
    """Skips a test of OpenVINO in bf16 where there are no instructions for it."""
    if (runtime, precision) == ("openvino", "bf16"):
        has = openvino.package().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if "BF16" not in has:
            pytest.skip("this processor has no instructions for bf16")
