from pathlib import Path

import pytest

from pipeline.core.errors import InputError
from pipeline.encoders import text
from pipeline.params import EmbedTextParams
from pipeline.training.tuning import freeze_below
from tests import tiny


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
