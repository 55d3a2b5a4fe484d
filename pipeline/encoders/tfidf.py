"""Texts → TF-IDF of their words and pairs of words, by a vocabulary that was learned from training texts.

It needs no weights and no network, tells what a word means for this corpus alone, and stands beside a transformer's
vector or in its place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import TfidfVectorizer

from pipeline.core import artifacts
from pipeline.core.descriptions import read_typed
from pipeline.core.errors import DamagedError
from pipeline.encoders.text import TextEncoder
from pipeline.scoring.baselines import TOKEN

VOCABULARY = 50_000
"""Most frequent terms kept: what a prediction holds in memory, a row of them for each text, is bounded."""

FEWEST = 2
"""A term of one text alone is dropped: there are many, and what is learned of them never comes up again."""

FILE = "vocabulary.json"


class Vocabulary(BaseModel):
    """``vocabulary.json``: ``terms`` and their inverse document frequencies ``idf``, in the order of the columns."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    terms: Annotated[list[str], Field(min_length=1, max_length=VOCABULARY)]
    idf: list[Annotated[float, Field(ge=0.0, le=1e6)]]

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        if len(self.idf) != len(self.terms):
            raise ValueError(f"idf has {len(self.idf)} numbers for {len(self.terms)} terms")
        return self


@dataclass(frozen=True)
class TfidfEncoder:
    """``width`` columns, one a term; rows have length 1, or 0 where no term is known."""

    vectorizer: TfidfVectorizer

    @property
    def width(self) -> int:
        return len(self.vectorizer.vocabulary_)

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(
            terms=self.vectorizer.get_feature_names_out().tolist(), idf=np.asarray(self.vectorizer.idf_).tolist()
        )

    def sparse(self, texts: Sequence[str]) -> csr_array:
        """float32 [N, width]."""
        return csr_array(self.vectorizer.transform(texts))  # pyright: ignore[reportCallIssue, reportArgumentType]


@dataclass(frozen=True)
class TextWithWords:
    """A transformer's vector and TF-IDF side by side."""

    text: TextEncoder
    words: TfidfEncoder

    @property
    def width(self) -> int:
        return self.text.width + self.words.width

    def beside(self, vectors: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """float32 [N, width] of texts whose ``vectors`` [N, text.width] are at hand."""
        return np.concatenate([vectors, self.words.sparse(texts).toarray()], axis=1)


def fit(texts: Sequence[str]) -> TfidfEncoder | None:
    """The encoder of these texts' terms; None where they have none."""
    vectorizer = _vectorizer()
    try:
        return TfidfEncoder(vectorizer.fit(texts))
    except ValueError:  # an empty vocabulary
        return None


def write(encoder: TfidfEncoder, folder: Path) -> None:
    artifacts.write_json(folder / FILE, encoder.vocabulary.model_dump(), exact=True)


def read(folder: Path) -> TfidfEncoder:
    """The encoder that ``write`` left in a folder. Raises DamagedError when it is missing or is none."""
    path = folder / FILE
    known = read_typed(path, Vocabulary, "dvc repro")
    try:
        vectorizer = _vectorizer(known.terms)
        vectorizer.idf_ = np.array(known.idf)
    except ValueError as error:
        raise DamagedError(f"{path}: no vocabulary ({' '.join(str(error).split())})", "run `dvc repro`") from None
    return TfidfEncoder(vectorizer)


def _vectorizer(terms: list[str] | None = None) -> TfidfVectorizer:
    return TfidfVectorizer(
        ngram_range=(1, 2),
        sublinear_tf=True,
        token_pattern=TOKEN,
        max_features=VOCABULARY,
        min_df=FEWEST,
        vocabulary=terms,
        dtype=np.float32,  # pyright: ignore[reportArgumentType] - any floating type
    )
