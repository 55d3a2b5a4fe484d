"""A vocabulary comes back as it was learned."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import DamagedError
from pipeline.encoders import tfidf

TEXTS = ["a good day", "a bad day", "the good cat sat", "a cat and a day", "the bad cat", "good good day"]


def test_a_vocabulary_comes_back_to_the_last_digit(tmp_path: Path) -> None:
    encoder = tfidf.fit(TEXTS)
    assert encoder is not None
    tfidf.write(encoder, tmp_path)
    again = tfidf.read(tmp_path)
    assert again.vocabulary == encoder.vocabulary
    before, after = encoder.sparse(TEXTS), again.sparse(TEXTS)
    np.testing.assert_array_equal(before.toarray(), after.toarray())
    assert before.dtype == after.dtype


def test_texts_without_shared_words_have_no_vocabulary() -> None:
    assert tfidf.fit(["", " "]) is None


def test_a_vocabulary_with_a_number_too_few_is_refused(tmp_path: Path) -> None:
    (tmp_path / tfidf.FILE).write_text('{"terms": ["good", "bad"], "idf": [1.5]}')
    with pytest.raises(DamagedError, match=r"vocabulary\.json: .*idf has 1 numbers for 2 terms"):
        tfidf.read(tmp_path)
