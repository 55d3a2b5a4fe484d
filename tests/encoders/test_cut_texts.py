"""Texts that an encoder does not read to their end are counted; each word of the tiny model is a token."""

from collections.abc import Iterator

import pytest

from pipeline.encoders import cut_texts, text
from pipeline.encoders.text import TextEncoder
from pipeline.params import EmbedTextParams
from tests import tiny


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    """Reads eight tokens, of which two mark the start and the end."""
    return text.load(EmbedTextParams(encoder=str(tiny.distilbert(tmp_path_factory.mktemp("tiny"))), max_tokens=8))


def test_a_text_is_cut_from_one_token_too_many_on(encoder: TextEncoder):
    texts = [" ".join(["cat"] * words) for words in (1, 5, 6, 7, 200)]
    assert cut_texts.count_cut(encoder, [None, " ", *texts]) == {"max_tokens": 8, "counted": 5, "cut": 2}


def test_no_more_texts_are_read_than_are_counted(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cut_texts, "COUNTED", 2)

    def texts() -> Iterator[str]:
        yield from ("cat " * 9, "cat")
        raise AssertionError("a third text was read")

    assert cut_texts.count_cut(encoder, texts()) == {"max_tokens": 8, "counted": 2, "cut": 1}
