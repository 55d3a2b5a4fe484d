import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.core.errors import InputError
from pipeline.encoders import openvino, text
from pipeline.encoders.sources import TextContents
from pipeline.params import EmbedTextParams
from tests import tiny
from tests.processors import skip_without

CPU = torch.device("cpu")
TEXTS = ["i am so happy today !", "sad", "the cat is not very angry . the dog is", "me rn", "zebra"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.distilbert(tmp_path_factory.mktemp("distilbert"))


def load(folder: Path, **settings: str) -> text.TextEncoder:
    return text.load(EmbedTextParams.model_validate({"encoder": str(folder), "max_tokens": 16} | settings))


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


def test_openvino_gives_the_vectors_of_torch(folder: Path) -> None:
    expected, made = load(folder).encode(TEXTS, CPU), load(folder, runtime="openvino").encode(TEXTS, CPU)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, expected, atol=1e-5)


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_the_packaged_encoder_in_bf16_gives_almost_the_same(runtime: str) -> None:
    skip_without(runtime, "bf16")
    said = ["I can't believe how lovely this is", "no.", "a long and rather dull description of a Tuesday " * 4]
    made = text.load(EmbedTextParams.model_validate({"runtime": runtime, "precision": "bf16"})).encode(said, CPU)
    expected = text.load(EmbedTextParams()).encode(said, CPU)
    assert made.dtype == np.float32
    assert not np.array_equal(made, expected)
    assert cosines(made, expected).min() > openvino.ALIKE["bf16"]


def test_what_becomes_of_the_weights_later_does_not_reach_what_was_compiled(folder: Path) -> None:
    encoder = load(folder, runtime="openvino")
    before = encoder.encode(TEXTS, CPU)
    with torch.no_grad():
        for parameter in encoder.net.parameters():
            parameter.mul_(-1.0)
    np.testing.assert_array_equal(encoder.encode(TEXTS, CPU), before)


def test_few_texts_are_divided_among_threads(folder: Path) -> None:
    encoder = replace(load(folder, runtime="openvino"), threads=3)
    several = [" ".join(TEXTS[at % 4 :]) for at in range(80)]
    batches: list[int] = []
    whole = text.TextEncoder.encode_tokens

    def counted(self: text.TextEncoder, tokens: list[list[int]], device: torch.device) -> np.ndarray:
        batches.append(len(tokens))
        return whole(self, tokens, device)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(text.TextEncoder, "encode_tokens", counted)
        made = encoder.encode(several, CPU)
    assert len(batches) >= 3
    assert sum(batches) == len(several)
    np.testing.assert_allclose(made, load(folder).encode(several, CPU), atol=1e-5)


def test_a_card_changes_neither_the_batches_nor_what_is_computed(folder: Path) -> None:
    encoder, pending = load(folder, runtime="openvino"), {str(at): of for at, of in enumerate(TEXTS)}
    here, card = TextContents(encoder, CPU), TextContents(encoder, torch.device("cuda"))
    assert list(card.batches(pending)) == list(here.batches(pending))
    assert card.computed == here.computed
    assert card.computed["device"] == "cpu"


def test_bf16_of_unlike_processors_shares_no_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = TextContents(load(folder, precision="bf16"), CPU)
    found = []
    for there in (True, False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda there=there: {"avx512_bf16": there, "avx2": True})
        found.append(contents.computed["bf16"])
    assert found == [["avx512_bf16"], []]
    assert "bf16" not in TextContents(load(folder), CPU).computed


def test_a_tuned_net_is_compiled_anew(folder: Path) -> None:
    encoder = load(folder, runtime="openvino")
    before = encoder.encode(TEXTS, CPU)
    other = load(folder).net
    with torch.no_grad():
        other.get_parameter("model.embeddings.word_embeddings.weight").mul_(-1.0)
    tuned = replace(encoder, net=other).encode(TEXTS, CPU)
    np.testing.assert_allclose(tuned, replace(load(folder), net=other).encode(TEXTS, CPU), atol=1e-5)
    np.testing.assert_array_equal(encoder.encode(TEXTS, CPU), before)
    assert np.abs(tuned - before).max() > 0.1


def test_only_other_settings_than_the_defaults_are_in_the_identity(folder: Path) -> None:
    usual = load(folder)
    assert not {"runtime", "precision"} & usual.identity.keys()
    assert load(folder, runtime="torch", precision="fp32").identity == usual.identity
    other = load(folder, runtime="openvino", precision="bf16")
    assert other.identity == usual.identity | {"runtime": "openvino", "precision": "bf16"}
    import openvino as package

    assert TextContents(other, CPU).computed["openvino"] == package.__version__
    assert "openvino" not in TextContents(usual, CPU).computed


class Branching(nn.Module):
    """Follows the values of its inputs, so that what was traced is not what it computes."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        ids = input_ids * attention_mask
        return (
            torch.stack([ids.sum(1), ids[:, 0]], 1) if len(ids) > 1 else torch.stack([ids[:, 0], ids.sum(1)], 1)
        ) + 0.5


def test_a_processor_without_bf16_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino as package

    monkeypatch.setattr(package.Core, "get_property", lambda *given: ["FP32", "INT8"])
    with pytest.raises(InputError, match=r"no instructions for bf16; set embed\.text\.precision: fp32"):
        load(folder, runtime="openvino", precision="bf16").encode(TEXTS, CPU)


def probe(*rows: list[int]) -> dict[str, Tensor]:
    ids = torch.tensor(rows)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def test_a_net_that_is_converted_to_something_else_is_refused() -> None:
    with pytest.raises(InputError, match=r"embed\.text\.runtime: openvino: it gives other vectors .*; set torch$"):
        openvino.Compiled(Branching(), "fp32", (probe([1, 2, 3], [4, 5, 6]), probe([1, 20, 30, 40])), 1)


def test_a_net_that_cannot_be_converted_is_refused_in_one_line() -> None:
    class Unknown(nn.Module):
        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            return torch.linalg.svdvals(input_ids.float()[:, None, :])

    with pytest.raises(InputError, match=r"embed\.text\.runtime: openvino: it cannot convert .*svd") as error:
        openvino.Compiled(Unknown(), "fp32", (probe([1, 2]), probe([1, 2, 3])), 1)
    assert len(str(error.value).splitlines()) == 1


def test_threads_may_encode_at_once(folder: Path) -> None:
    encoder = replace(load(folder, runtime="openvino"), threads=2)
    rows = [encoder.tokenize([" ".join(TEXTS[at % 3 :])]) for at in range(60)]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda row: encoder.encode_tokens(row, CPU), rows))
    for row, made in zip(rows, together, strict=True):
        np.testing.assert_array_equal(made, encoder.encode_tokens(row, CPU))


def test_nothing_is_reported_and_nothing_warned_of(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(folder, runtime="openvino").encode(TEXTS[:1], CPU)
    from openvino.tools.ovc import telemetry_utils

    assert telemetry_utils.tm.__name__.endswith("telemetry_stub")


def test_without_its_package_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match=r'pip install "emocare-pipeline\[openvino\]"'):
        load(folder, runtime="openvino")  # not only once an encoder was tuned for hours
