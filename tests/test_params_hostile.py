"""A params.yaml that is out to break its reader: one line each."""

from pathlib import Path

import pytest

from pipeline.core.errors import InputError
from pipeline.params import load

BOMB = "a0: &a0 [1, 1]\n" + "\n".join(f"a{at}: &a{at} [*a{at - 1}, *a{at - 1}]" for at in range(1, 40))
"""Forty lines that are a list of a million million numbers."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: " + "[" * 5000, "not valid YAML: nested too deep"),
        ("\n".join(" " * depth + "a:" for depth in range(5000)), "not valid YAML: nested too deep"),
        (f"seed: {'[' * 3}{']' * 3}\n{BOMB}", "seed: [[[]]] is not allowed"),
        ("seed: &a [*a]", "seed: [[[[[[[...]]]]]]] is not allowed"),
        ("seed: 0x" + "9" * 5000, "seed: a number of thousands of digits is not allowed"),
        ("seed: 1" + "9" * 5000, "not valid YAML: Exceeds the limit"),
        ("seed: 2026-02-31", "not valid YAML: day is out of range"),
        ("seed: !!python/object:os.system x", "not valid YAML: could not determine a constructor"),
        ("", "params.yaml: is empty; restore it, or write {} into it where all defaults are meant"),
        ("# seed: 1\n", "params.yaml: is empty"),
        ("null", "params.yaml: is empty"),
        ("- 1", "the file: [1] is not allowed; give a block of keys: tracks, seed"),
        ("posts: {labels: [A, B, A]}", "posts.labels: A stands there twice; name each once"),
        ("tracks: [posts, posts]", "tracks: posts stands there twice"),
        ("finetune_e2e: {curve: [20, 20]}", "finetune_e2e.curve: 20 stands there twice"),
        ("split: {val_share: 1.0e-320}", "split.val_share: 1e-320 is not allowed; give a number, at least 0.001"),
        ("adapter: {hidden: [64, -1]}", "adapter.hidden.1: -1 is not allowed"),
    ],
)
def test_a_file_that_is_out_to_break_its_reader(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "params.yaml").write_text(content)
    with pytest.raises(InputError) as caught:
        load(tmp_path / "params.yaml")
    assert message in str(caught.value)
    assert max(map(len, str(caught.value).splitlines())) < 600


def test_widths_may_repeat(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("adapter: {hidden: [64, 64]}")
    assert load(tmp_path / "params.yaml").adapter.hidden == (64, 64)
