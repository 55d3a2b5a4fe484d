"""Shapes in signatures are executed, each test has its own cache, nothing reaches for a network, charts are drawn only
where a test looks at them, and files that take long come first.
"""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before anything imports the hub client, which reads it once.
os.environ["HF_HUB_OFFLINE"] = "1"
# Before torch is imported. Nets of tests are small, and several processes test at once: their threads would wait for
# each other, spinning, which made some tests take five times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from jaxtyping import install_import_hook

# What imports make stays. To look through it again and again for what could go takes a fifth of the time.
gc.disable()

# Annotated shapes of nets are checked at every call while testing; in production they cost nothing.
_hook = install_import_hook("pipeline.nets", "beartype.beartype")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOCARE_CACHE", str(tmp_path_factory.mktemp("cache")))


LONGEST = (
    "test_end_to_end.py",
    "test_finetune_e2e.py",
    "test_bundle.py",
    "test_train_adapters.py",
    "test_streams.py",
    "test_specialist.py",
    "test_evaluation.py",
    "test_compare.py",
    "test_kills.py",
    "test_abuse.py",
    "test_bad_bundles.py",
    "test_motion.py",
)
"""Files of tests that take more than twenty seconds, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file is run by one process: with the longest ones first, all processes end at about the same time."""
    places = {name: at for at, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


LOOK_AT_CHARTS = ("figures", "reporting")
"""Folders of tests that do. Elsewhere a test that does is marked ``drawn``; in a file that is marked as a whole, one
that does not is marked ``drawn(False)``."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[Any]:
    """Stages draw charts at their end, which takes longer than all else that they do on a small corpus.

    So most tests get an empty file in place of each; fixtures of a module get what its first test gets.
    """
    from matplotlib.figure import Figure

    with pytest.MonkeyPatch.context() as patch:
        mark = item.get_closest_marker("drawn")
        if item.path.parent.name not in LOOK_AT_CHARTS and (mark is None or mark.args == (False,)):
            patch.setattr(Figure, "savefig", lambda _, path, **settings: Path(path).touch())
        return (yield)
