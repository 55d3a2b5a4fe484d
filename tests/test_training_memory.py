"""Whether ``benchmarks/training_memory.py`` counts what a training holds."""

import re
from dataclasses import replace

import pytest
from transformers import BertConfig

from benchmarks import training_memory
from benchmarks.training_memory import Way, most

SMALL = BertConfig(hidden_size=64, num_hidden_layers=2, intermediate_size=256, vocab_size=31_000, num_attention_heads=4)
SIZED = training_memory._text(SMALL, 64, 2, "query", "value")


def test_weights_gradients_and_optimizer_are_counted_and_activations_grow_with_the_batch() -> None:
    parameters = sum(weight.numel() for weight in SIZED.make().parameters())
    rows = [most(replace(SIZED, batch=batch), Way(bf16=False)) for batch in (8, 16, 32)]
    held = 4 * parameters * (1 + 2 + 2)  # weights, two moments, two copies
    assert held < rows[0] < 3 * held
    assert rows[2] - rows[1] == pytest.approx(2 * (rows[1] - rows[0]), rel=0.05)
    # In each layer at least four states of the width of the net and two of the inner width are kept for a token.
    assert rows[2] - rows[1] > 16 * 128 * 4 * SMALL.num_hidden_layers * (4 * 64 + 2 * 256)


def test_a_way_to_need_less_does(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(training_memory, "ENCODERS", {"small": SIZED})
    monkeypatch.setattr("sys.argv", ["training_memory", "--encoders", "small"])
    monkeypatch.setattr(training_memory, "GB", 1.0)
    ways = {"plain": Way(bf16=False), "both": Way(lora=True, checkpointing=True)}
    monkeypatch.setattr(training_memory, "WAYS", ways)
    training_memory.main()
    line = capsys.readouterr().out.splitlines()[-1]
    plain, both = map(float, re.findall(r"\d+\.\d", line))
    assert line.startswith("| small | 32 |") and plain > 1.5 * both


def test_parts_of_a_batch_need_less_than_all_of_it_and_more_than_a_batch_of_their_size() -> None:
    part, parts, whole = (
        most(replace(SIZED, batch=batch), Way(bf16=False, accumulate=of)) for batch, of in ((8, 1), (32, 4), (32, 1))
    )
    gradients = 4 * sum(weight.numel() for weight in SIZED.make().parameters())
    assert part < parts < whole
    assert parts - part == pytest.approx(gradients, rel=0.1)  # the second part has those of the first beside it
