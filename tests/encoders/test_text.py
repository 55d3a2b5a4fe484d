from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from pipeline.core.errors import InputError
from pipeline.encoders import text
from pipeline.encoders.text import equal_length_batches, length_batches
from pipeline.encoders.text_rows import BagRows
from pipeline.params import EmbedTextParams
from tests import tiny

CPU = torch.device("cpu")
TEXTS = ["i am so happy today !", "sad", "the cat is not very angry . the dog is", "me rn", "zebra"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.distilbert(tmp_path_factory.mktemp("distilbert"))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> text.TextEncoder:
    return text.load(EmbedTextParams(encoder=str(folder), max_tokens=16, batch_tokens=64))


def one_by_one(folder: Path, texts: list[str], max_tokens: int) -> np.ndarray:
    """The mean of the token states, each text alone, so that nothing is padded."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    vectors = []
    with torch.no_grad():
        for item in texts:
            inputs = tokenizer(item, truncation=True, max_length=max_tokens, return_tensors="pt")
            vectors.append(model(**inputs).last_hidden_state[0].mean(0).numpy())
    return np.stack(vectors)


def test_vectors_equal_each_text_encoded_alone(encoder: text.TextEncoder, folder: Path) -> None:
    vectors = encoder.encode(TEXTS, CPU)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, one_by_one(folder, TEXTS, 16), atol=1e-6)


def test_batches_do_not_change_the_vectors(encoder: text.TextEncoder) -> None:
    together = encoder.encode(TEXTS, CPU)
    alone = np.concatenate([encoder.encode([item], CPU) for item in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_long_texts_are_cut_with_their_end_mark_kept(encoder: text.TextEncoder) -> None:
    (tokens,) = encoder.tokenize(["happy " * 100])
    separator = tiny.VOCABULARY.index("[SEP]")
    assert len(tokens) == 16
    assert tokens[-1] == separator


def test_max_tokens_never_exceeds_what_the_model_takes(folder: Path) -> None:
    assert text.load(EmbedTextParams(encoder=str(folder), max_tokens=512)).max_tokens == 64


def test_tokenizer_knows_its_words(encoder: text.TextEncoder) -> None:
    marks = [tiny.VOCABULARY.index(mark) for mark in ("[CLS]", "sad", "[UNK]", "[SEP]")]
    assert encoder.tokenize(["Sad ☃"]) == [marks]
    assert encoder.tokenize([]) == []


def test_collate_pads_on_the_right(encoder: text.TextEncoder) -> None:
    batch = encoder.collate([[5, 6, 7], [8]])
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_net_is_differentiable_and_padding_gets_no_gradient(encoder: text.TextEncoder) -> None:
    batch = encoder.collate(encoder.tokenize(["sad", "i am so happy"]))
    embedding = encoder.net.get_parameter("model.embeddings.word_embeddings.weight")
    encoder.net(**batch).sum().backward()
    assert embedding.grad is not None
    assert embedding.grad[tiny.VOCABULARY.index("happy")].abs().sum() > 0
    assert embedding.grad[0].abs().sum() == 0
    encoder.net.zero_grad()


def test_lora_names_the_query_and_value_projections(encoder: text.TextEncoder) -> None:
    assert encoder.lora_targets == ["q_lin", "v_lin"]


def test_length_batches_are_sorted_and_keep_to_the_budget() -> None:
    lengths = [3, 10, 4, 10, 1, 30]
    batches = [batch.tolist() for batch in length_batches(lengths, 20)]
    # The text of 30 tokens is over the budget, so it goes alone; then two of 10, then 20 // 4 = 5 of at most 4.
    assert batches == [[5], [1, 3], [2, 0, 4]]
    assert length_batches([], 20) == []


def test_equal_length_batches_hold_one_length_and_keep_to_the_budget() -> None:
    batches = [batch.tolist() for batch in equal_length_batches([3, 10, 3, 10, 10, 30], 20)]
    assert batches == [[5], [1, 3], [4], [0, 2]]
    assert equal_length_batches([], 20) == []


def test_identity_holds_no_path_and_follows_the_weights(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "deep" / folder.name
    copy.parent.mkdir()
    tiny.distilbert(copy)
    identity = text.load(EmbedTextParams(encoder=str(copy))).identity
    assert identity == text.load(EmbedTextParams(encoder=str(folder))).identity
    assert str(tmp_path) not in str(identity)
    model = AutoModel.from_pretrained(copy)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[7] += 1
    model.save_pretrained(copy)
    assert text.load(EmbedTextParams(encoder=str(copy))).identity["sha256"] != identity["sha256"]


def test_weights_with_a_hole_are_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tiny.distilbert(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["transformer.layer.1.attention.q_lin.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lack 1 parameters of the model, such as transformer\.layer\.1"):
        text.load(EmbedTextParams(encoder=str(tmp_path)))


def test_the_packaged_encoder_is_the_one_that_was_released() -> None:
    encoder = text.load(EmbedTextParams())
    assert encoder.width == 384
    assert encoder.lora_targets == ["query", "value"]
    person, dog, very, day = encoder.encode(
        ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"], CPU
    )

    def cosine(one: np.ndarray, other: np.ndarray) -> float:
        return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))

    # The similarities that the hub's page of all-MiniLM-L6-v2 shows for these sentences.
    found = [cosine(person, other) for other in (dog, very, day)]
    np.testing.assert_allclose(found, [0.6946, 0.9429, 0.2569], atol=2e-4)


def test_a_step_of_training_reads_some_texts_of_each_row_drawn_anew(encoder: text.TextEncoder) -> None:
    bags = [TEXTS, [], TEXTS[:2]]
    rows = BagRows(encoder, bags, torch.zeros(3), batch=2, most=3)
    whole = {name: encoder.collate(encoder.tokenize([name]))["input_ids"][0].tolist() for name in TEXTS}

    def read(rng: np.random.Generator | None, at: int) -> list[str]:
        (tokens,) = rows.load(np.array([at]), rng)
        kept = [
            ids[mask.bool()].tolist() for ids, mask in zip(tokens["input_ids"], tokens["attention_mask"], strict=True)
        ]
        return [name for ids in kept for name, known in whole.items() if known == ids]

    drawn = [read(np.random.default_rng(seed), 0) for seed in range(20)]
    assert all(len(some) == len(set(some)) == 3 for some in drawn)
    assert len({frozenset(some) for some in drawn}) > 3
    assert read(np.random.default_rng(0), 0) == drawn[0]
    assert read(None, 0) == TEXTS and read(np.random.default_rng(0), 2) == TEXTS[:2]
    (tokens,) = rows.load(np.array([2, 1, 0]), None)
    assert tokens["line_of"].tolist() == [0, 0, 1, 2, 2, 2, 2, 2]  # a row without a text has an empty one
    assert sorted(np.concatenate(rows.batches(np.random.default_rng(0)))) == [0, 1, 2]
