"""A few kills of a few stages; ``python -m tests.robustness.kills`` makes two hundred, of all commands."""

import random
import sys
from contextlib import suppress

import pytest

from tests.robustness import kills
from tests.robustness.kills import Project

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")

STAGES = ("sample", "split", "embed", "train_text", "train_source", "train_adapters")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return kills.project(tmp_path_factory.mktemp("kills"), tmp_path_factory.mktemp("aside"), STAGES)


@pytest.mark.parametrize(
    ("stage", "way"),
    [("embed", "SIGKILL"), ("train_text", "SIGTERM"), ("train_adapters", "SIGINT"), ("split", "full")],
)
def test_a_stage_that_was_ended_goes_on_as_if_nothing_had_been(small: Project, stage: str, way: str) -> None:
    rng = random.Random(5)  # first past the middle: sooner, no piece is finished that might be made again
    for _ in range(5):
        with suppress(kills.TooLate):
            assert kills.killed(small, stage, way, rng) is None
            return
    pytest.fail("it was done before each of five kills")
