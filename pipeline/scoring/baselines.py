"""What a fusion has to beat on the same rows: guessing, counting words, and a linear model on the same embeddings.

Every baseline is fitted on training rows alone. How strongly it is regularised, and whether classes are weighted, is
what gives the best macro-F1 on the validation rows, which are not added to the fit afterwards.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from pipeline.scoring import emotion

WEIGHTS: tuple[str | None, ...] = (None, "balanced")
TFIDF_C = (0.3, 1.0, 3.0, 10.0)
EMBEDDINGS_C = (0.0003, 0.003, 0.03, 0.3)
"""Inverse regularisation strengths, strongest first: of equal ones the strongest is taken."""

ITERATIONS = 200
VOCABULARY = 200_000
"""Most frequent one- and two-word terms kept; bounds memory on a large corpus."""

TOKEN = r"(?u)\w+|[^\w\s]"
"""Every word, also of one letter, and every other sign: emoji and exclamation marks carry emotion."""

NEVER = 1e-9
"""Probability of a class that no training row has."""


@dataclass(frozen=True)
class Baseline:
    """``val`` and ``test`` are log-probabilities, float64 [rows, K]; ``settings`` is what the validation rows chose."""

    val: np.ndarray
    test: np.ndarray
    settings: dict[str, Any]


def majority(train_labels: np.ndarray, classes: int, val_rows: int, test_rows: int) -> Baseline:
    """Gives every row the class shares of the training rows, so the most frequent class wins."""
    shares = np.bincount(train_labels, minlength=classes) / len(train_labels)
    row = np.log(np.maximum(shares, NEVER))
    return Baseline(np.tile(row, (val_rows, 1)), np.tile(row, (test_rows, 1)), {})


def tfidf_logreg(
    train_texts: Sequence[str],
    val_texts: Sequence[str],
    test_texts: Sequence[str],
    train_labels: np.ndarray,
    val_labels: np.ndarray,
    classes: int,
) -> Baseline:
    """Logistic regression on TF-IDF of one- and two-word terms with sublinear counts; a missing text is an empty one.

    Falls back to ``majority`` when no training text holds a word.
    """
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=TOKEN, max_features=VOCABULARY)
    if not any(text.strip() for text in train_texts):
        return majority(train_labels, classes, len(val_texts), len(test_texts))
    vectorizer.fit(train_texts)
    train, val, test = (_counted(vectorizer, texts) for texts in (train_texts, val_texts, test_texts))
    return _logreg(train, val, test, train_labels, val_labels, classes, TFIDF_C)


def _counted(vectorizer: TfidfVectorizer, texts: Sequence[str]) -> csr_array:
    counted: Any = vectorizer.transform(texts)
    return csr_array(counted)


def embeddings_logreg(
    train: np.ndarray,
    val: np.ndarray,
    test: np.ndarray,
    train_labels: np.ndarray,
    val_labels: np.ndarray,
    classes: int,
) -> Baseline:
    """Logistic regression on vectors [rows, width], each column standardised by the training rows."""
    mean = train.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread = train.std(axis=0, dtype=np.float64).astype(np.float32)
    spread[spread < 1e-6] = 1.0  # a constant column says nothing and must not be divided by nothing
    train, val, test = ((part - mean) / spread for part in (train, val, test))
    return _logreg(train, val, test, train_labels, val_labels, classes, EMBEDDINGS_C)


def _logreg(
    train: np.ndarray | csr_array,
    val: np.ndarray | csr_array,
    test: np.ndarray | csr_array,
    train_labels: np.ndarray,
    val_labels: np.ndarray,
    classes: int,
    strengths: Sequence[float],
) -> Baseline:
    if len(np.unique(train_labels)) < 2:
        return majority(train_labels, classes, len(val_labels), test.shape[0])
    best, best_score = None, -1.0
    for weight in WEIGHTS:
        # Each fit starts from the one before, a little more regularised, which halves the iterations.
        model = LogisticRegression(class_weight=weight, max_iter=ITERATIONS, warm_start=True)
        for strength in strengths:
            model.set_params(C=strength)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # the validation rows judge an unfinished fit too
                model.fit(train, train_labels)
            val_logits = _log_probabilities(model, val, classes)
            score = emotion.macro_f1(val_labels, val_logits.argmax(axis=1), classes) if len(val_labels) else 0.0
            if score > best_score:
                settings = {"C": strength, "class_weight": weight or "none"}
                best = Baseline(val_logits, _log_probabilities(model, test, classes), settings)
                best_score = score
    assert best is not None
    return best


def _log_probabilities(model: LogisticRegression, rows: np.ndarray | csr_array, classes: int) -> np.ndarray:
    """Columns of all K classes, also of those without a training row."""
    full = np.full((rows.shape[0], classes), np.log(NEVER))
    if rows.shape[0]:
        full[:, model.classes_] = np.log(np.maximum(model.predict_proba(rows), NEVER))
    return full
