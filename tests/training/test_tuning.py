from pathlib import Path

import pytest
import torch

from pipeline.core.errors import InputError
from pipeline.encoders import text
from pipeline.params import CrossFittedEncoderParams, EmbedTextParams
from pipeline.training.tuning import checkpoint, for_few, freeze_below
from tests import tiny


@pytest.mark.parametrize(
    ("rows", "settings", "batch", "epochs"),
    [
        (1600, {}, 32, 2),  # 100 steps in two epochs
        (1568, {}, 16, 2),  # 98 steps would be too few; 196 are enough
        (500, {}, 16, 4),  # 32 batches
        (100, {}, 16, 15),  # 7 batches
        (500, {"accumulate": 2}, 16, 4),  # parts of a batch are one step
        (500, {"least_steps": 0}, 32, 2),
        (500, {"epochs": 20}, 32, 20),
        (40, {"batch": 1, "epochs": 1}, 1, 3),
    ],
)
def test_few_rows_are_gone_through_more_often(rows: int, settings: dict[str, int], batch: int, epochs: int) -> None:
    tuned = CrossFittedEncoderParams.model_validate({"epochs": 2, "batch": 32, **settings})
    made = for_few(tuned, rows)
    assert (made.batch, made.epochs) == (batch, epochs)
    assert made.freeze_embeddings == (made != tuned)


@pytest.mark.parametrize(("layers", "embeddings"), [(0, False), (0, True), (1, False), (1, True)])
def test_what_is_below_is_frozen(tmp_path: Path, layers: int, embeddings: bool) -> None:
    net = text.load(EmbedTextParams(encoder=str(tiny.distilbert(tmp_path)))).net.requires_grad_(True)
    freeze_below(net, layers, embeddings=embeddings)
    frozen = {name for name, parameter in net.named_parameters() if not parameter.requires_grad}
    expected = {
        name
        for name, _ in net.named_parameters()
        if (".layer.0." in name and layers) or (".embeddings." in name and (embeddings or layers))
    }
    assert frozen == expected and len(frozen) < len(list(net.parameters()))


def test_an_encoder_that_would_not_learn_is_refused(tmp_path: Path) -> None:
    net = text.load(EmbedTextParams(encoder=str(tiny.distilbert(tmp_path)))).net
    with pytest.raises(InputError, match=r"frozen_layers: 2 leaves nothing of the encoder's 2 layers to learn"):
        freeze_below(net, 2, embeddings=False)


@pytest.mark.parametrize("layers", [0, 1])
def test_checkpointing_keeps_less_and_gives_the_same_gradient(tmp_path: Path, layers: int) -> None:
    gradients, kept = [], []
    for checkpointing in (False, True):
        encoder = text.load(EmbedTextParams(encoder=str(tiny.distilbert(tmp_path))))
        net = encoder.net.requires_grad_(True)
        freeze_below(net, layers, embeddings=False)
        if checkpointing:
            checkpoint(net)
        net.train()
        torch.manual_seed(0)
        sizes: list[int] = []

        def keep(value: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(value.numel())
            return value

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            made = net(**encoder.collate(encoder.tokenize(["i am so happy", "the cat is sad today"])))
        kept.append(sum(sizes))
        made.square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in net.named_parameters()})
    for name, gradient in gradients[0].items():
        assert (gradient is None) == (gradients[1][name] is None), name
        assert gradient is None or torch.allclose(gradient, gradients[1][name], atol=1e-7), name
        with torch.inference_mode():
            net.eval()(**encoder.collate(encoder.tokenize(["a cat"])))
    assert kept[1] < 0.7 * kept[0]


def test_an_encoder_without_layers_that_can_is_refused() -> None:
    with pytest.raises(InputError, match=r"tuned\.checkpointing: this encoder has no layers that can do so"):
        checkpoint(torch.nn.Sequential(torch.nn.Linear(2, 2)))
