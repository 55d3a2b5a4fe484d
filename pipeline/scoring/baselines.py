"""What a fusion has to beat on the same rows: guessing, counting words, and a linear model on the same embeddings.

Every baseline is fitted on training rows alone. How strongly it is regularised, and whether classes are weighted, is
what gives the best macro-F1 on the validation rows, which are not added to the fit afterwards.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

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
    """Logistic regression, one class against the rest, on TF-IDF of one- and two-word terms with sublinear counts.

    A missing text is an empty one. Falls back to ``majority`` when no training text holds a word.
    """
    if not any(text.strip() for text in train_texts):
        return majority(train_labels, classes, len(val_texts), len(test_texts))
    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, token_pattern=TOKEN, max_features=VOCABULARY
    ).fit(train_texts)
    parts: list[Any] = [vectorizer.transform(texts) for texts in (train_texts, val_texts, test_texts)]

    def model(strength: float, weight: str | None) -> OneVsRestClassifier:
        # Dual coordinate descent: on 40,000 short texts a second or two, where L-BFGS takes about a minute.
        return OneVsRestClassifier(
            LogisticRegression(C=strength, class_weight=weight, solver="liblinear", dual=True, tol=1e-2, random_state=0)
        )

    return _chosen(model, TFIDF_C, parts, train_labels, val_labels, classes)


def embeddings_logreg(
    train: np.ndarray,
    val: np.ndarray,
    test: np.ndarray,
    train_labels: np.ndarray,
    val_labels: np.ndarray,
    classes: int,
) -> Baseline:
    """Multinomial logistic regression on vectors [rows, width], each column standardised by the training rows."""
    mean = train.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread = train.std(axis=0, dtype=np.float64).astype(np.float32)
    spread[spread < 1e-6] = 1.0  # a constant column says nothing and must not be divided by nothing
    parts = [(part - mean) / spread for part in (train, val, test)]

    def model(strength: float, weight: str | None) -> LogisticRegression:
        return LogisticRegression(C=strength, class_weight=weight, max_iter=ITERATIONS)

    return _chosen(model, EMBEDDINGS_C, parts, train_labels, val_labels, classes)


def _chosen(
    model: Callable[[float, str | None], Any],
    strengths: Sequence[float],
    parts: Sequence[Any],
    train_labels: np.ndarray,
    val_labels: np.ndarray,
    classes: int,
) -> Baseline:
    """Fits on the first of ``parts`` (train, val, test) with every setting, and keeps the best on the second."""
    train, val, test = parts
    if len(np.unique(train_labels)) < 2:
        return majority(train_labels, classes, val.shape[0], test.shape[0])
    best, best_score = None, -1.0
    for strength, weight in product(strengths, WEIGHTS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the validation rows judge an unfinished fit too
            fitted = model(strength, weight).fit(train, train_labels)
        val_logits = _log_probabilities(fitted, val, classes)
        score = emotion.macro_f1(val_labels, val_logits.argmax(axis=1), classes) if len(val_labels) else 0.0
        if score > best_score:
            settings = {"C": strength, "class_weight": weight or "none"}
            best, best_score = Baseline(val_logits, _log_probabilities(fitted, test, classes), settings), score
    assert best is not None
    return best


def _log_probabilities(fitted: Any, rows: Any, classes: int) -> np.ndarray:
    """Columns of all K classes, also of those without a training row."""
    full = np.full((rows.shape[0], classes), np.log(NEVER))
    if rows.shape[0]:
        full[:, fitted.classes_] = np.log(np.maximum(fitted.predict_proba(rows), NEVER))
    return full
