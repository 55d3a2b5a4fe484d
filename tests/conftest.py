"""Shapes in signatures are executed, each test has its own cache, and nothing reaches for a network."""

import os

# Before anything imports the hub client, which reads it once.
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
from jaxtyping import install_import_hook

# Annotated shapes of nets are checked at every call while testing; in production they cost nothing.
_hook = install_import_hook("pipeline.nets", "beartype.beartype")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOCARE_CACHE", str(tmp_path_factory.mktemp("cache")))
