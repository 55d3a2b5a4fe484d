"""A few kills of a stage; ``python -m tests.robustness.kills`` makes two hundred, of more stages."""

import random
import sys

import pytest

from tests.robustness.kills import Project, killed, project

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return project(tmp_path_factory.mktemp("kills"), ("train_adapters",))


@pytest.mark.parametrize("way", ["SIGKILL", "SIGINT", "full"])
def test_a_stage_that_was_ended_goes_on_as_if_nothing_had_been(small: Project, way: str) -> None:
    assert killed(small, "train_adapters", way, random.Random(way)) is None
