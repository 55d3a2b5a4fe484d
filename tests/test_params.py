from pathlib import Path

import pytest

from pipeline import params
from pipeline.core.errors import InputError
from tests.imports import ROOT


def load_text(tmp_path: Path, text: str) -> params.Params:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return params.load(path)


def test_the_file_spells_out_every_default() -> None:
    from ruamel.yaml import YAML

    written = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    assert params.load(ROOT / "params.yaml") == params.Params()

    def keys(block: dict, prefix: str = "") -> set[str]:
        found: set[str] = set()
        for name, value in block.items():
            found |= keys(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}"}
        return found

    assert keys(written) == {key for key, _, _ in params.knobs()}


def test_every_knob_says_what_it_does() -> None:
    silent = [key for key, field, _ in params.knobs() if not (field.description or "").endswith(".")]
    assert silent == []


def test_yaml_12_floats_are_numbers(tmp_path: Path) -> None:
    assert load_text(tmp_path, "fuse: {learning_rate: 1e-3}").fuse.learning_rate == 0.001


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed: 1", "sed: unknown key; the top level knows seed, device"),
        ("fuse: {strateg: x}", "fuse.strateg: unknown key; fuse knows"),
        (
            "fuse: {modality_dropout: 1.5}",
            "fuse.modality_dropout: 1.5 is not allowed; give a number, at least 0.0, below 1.0",
        ),
        ("fuse: {strategy: sum}", "fuse.strategy: 'sum' is not allowed; give attention | gated | concat"),
        ("seed: abc", "seed: 'abc' is not allowed; give a whole number, at least 0"),
        ("seed: 1.5", "seed: 1.5 is not allowed"),
        ("embed: {text: {max_tokens: '9'}}", "embed.text.max_tokens: '9' is not allowed"),
        ("train_text: 3", "train_text: 3 is not allowed; give a block of keys: "),
        ("posts: {labels: [1]}", "posts.labels.0: 1 is not allowed"),
        ("fuse: {width: 30}", "fuse.heads: 4 does not divide fuse.width, 30"),
        ("split: {val_share: 0.45, test_share: 0.45}", "leave less than 0.2"),
        (
            "finetune_e2e: {curve: [20, 3]}",
            "finetune_e2e.curve.1: 3 is not allowed; give what is greater than",
        ),
        ("finetune_e2e: {tuned: {folds: 2}}", "finetune_e2e.tuned.folds: unknown key"),
        ("a: [1", "not valid YAML"),
        ("seed: 1\nseed: 2", "not valid YAML"),
        ("- 1", "is not allowed"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_text(tmp_path, text)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "params.yaml"))
    assert "\n" not in str(caught.value)


def test_each_wrong_key_gets_its_line(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_text(tmp_path, "seed: x\ndevice: gpu")
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == ["seed", "device"]


def test_a_missing_file_says_where_to_stand(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not found; run from the project's folder"):
        params.load(tmp_path / "params.yaml")
