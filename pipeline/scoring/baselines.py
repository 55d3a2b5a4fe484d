"""What a model of emotions has to beat on the same rows: guessing, counting words, and a linear model on embeddings.

Baselines learn from the rows that models may learn from. How strongly one is regularised, and whether classes are
weighted, is what gives the best macro-F1 on held rows: the validation rows, or, where these are few, those of grouped
folds of all rows. All of them are then learned from. For scores see ``ridge``.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from pipeline.core.folds import Fold
from pipeline.scoring import emotion
from pipeline.scoring.standardisation import standardisation

WEIGHTS: tuple[str | None, ...] = (None, "balanced")
TFIDF_C = (0.3, 1.0, 3.0, 10.0)
EMBEDDINGS_C = (0.0003, 0.003, 0.03, 0.3)
"""Inverse regularisation strengths, strongest first: of equal ones the strongest is taken."""

ITERATIONS = 200
VOCABULARY = 200_000
"""Most frequent one- and two-word terms kept; bounds memory on a large corpus."""

TOKEN = r"(?u)\w+|[^\w\s]"
"""Every word, also of one letter, and every other sign: emoji and exclamation marks carry emotion."""

LEAST_PROBABILITY = 1e-9
"""Probability of a class that no training row has."""


@dataclass(frozen=True)
class BaselineTrainingSet:
    """Rows to learn from, the training rows first: ``codes``, int [n], of ``classes``, and the ``folds`` that judge.

    ``held_out`` are the rows that these hold out, int, as they come fold after fold.
    """

    codes: np.ndarray
    train: int
    classes: int
    folds: Sequence[Fold]

    @property
    def held_out(self) -> np.ndarray:
        return np.concatenate([fold.held_out for fold in self.folds])


@dataclass(frozen=True)
class Baseline:
    """Log-probabilities, float64 [rows, K], and what the held rows chose as ``settings``.

    ``held`` are of the rows that the training set's ``folds`` hold out, by fits that did not know them; ``test`` by one
    on all.
    """

    held: np.ndarray
    test: np.ndarray
    settings: dict[str, Any]


def majority(learned: BaselineTrainingSet, test_rows: int) -> Baseline:
    """Gives every row the class shares of the rows learned from, so the most frequent class wins."""
    row = _shares(learned.codes, learned.classes)
    return Baseline(np.tile(row, (len(learned.held_out), 1)), np.tile(row, (test_rows, 1)), {})


def _shares(codes: np.ndarray, classes: int) -> np.ndarray:
    return np.log(np.maximum(np.bincount(codes, minlength=classes) / len(codes), LEAST_PROBABILITY))


def tfidf_logreg(learned: BaselineTrainingSet, texts: Sequence[str], test_texts: Iterable[Sequence[str]]) -> Baseline:
    """Logistic regression, one class against the rest, on TF-IDF of one- and two-word terms with sublinear counts.

    A missing text is an empty one; those of the test rows come in parts. Terms are those of the training texts. Falls
    back to ``majority`` when none of these holds a word.
    """
    if not any(text.strip() for text in texts[: learned.train]):
        return majority(learned, sum(map(len, test_texts)))
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=TOKEN, max_features=VOCABULARY)
    vectorizer.fit(texts[: learned.train])

    def model(strength: float, weight: str | None) -> OneVsRestClassifier:
        # Dual coordinate descent: on 40,000 short texts a second or two, where L-BFGS takes about a minute.
        return OneVsRestClassifier(
            LogisticRegression(C=strength, class_weight=weight, solver="liblinear", dual=True, tol=1e-2, random_state=0)
        )

    return _chosen(model, TFIDF_C, vectorizer.transform(texts), map(vectorizer.transform, test_texts), learned)


def embeddings_logreg(learned: BaselineTrainingSet, vectors: np.ndarray, test: Iterable[np.ndarray]) -> Baseline:
    """Multinomial logistic regression on vectors, each column standardised by the training rows.

    Args:
        vectors: float32 [n, width]; standardised in place, as it may be large.
        test: the test rows in parts, float32 [rows, width].
    """
    mean, spread = (moment.astype(np.float32) for moment in standardisation(vectors[: learned.train], np.float64))
    vectors -= mean
    vectors /= spread
    parts = ((part - mean) / spread for part in test)

    def model(strength: float, weight: str | None) -> LogisticRegression:
        return LogisticRegression(C=strength, class_weight=weight, max_iter=ITERATIONS)

    return _chosen(model, EMBEDDINGS_C, vectors, parts, learned)


def _chosen(
    model: Callable[[float, str | None], Any],
    strengths: Sequence[float],
    rows: Any,
    test: Iterable[Any],
    learned: BaselineTrainingSet,
) -> Baseline:
    """Fits on the ``rows`` of each fold with every setting; the best on the held ones learns from all."""
    codes, classes = learned.codes, learned.classes
    if len(np.unique(codes)) < 2:
        return majority(learned, sum(part.shape[0] for part in test))
    chosen, best, best_score = (strengths[0], None), np.empty(0), -1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the held rows judge an unfinished fit too
        for setting in product(strengths, WEIGHTS):
            held = np.concatenate(
                [_held_log_probabilities(model(*setting), rows, codes, fold, classes) for fold in learned.folds]
            )
            score = emotion.macro_f1(codes[learned.held_out], held.argmax(axis=1), classes)
            if score > best_score:
                chosen, best, best_score = setting, held, score
        fitted = model(*chosen).fit(rows, codes)
    settings = {"C": chosen[0], "class_weight": chosen[1] or "none"}
    predicted = [np.empty((0, classes)), *(_log_probabilities(fitted, part, classes) for part in test)]
    return Baseline(best, np.concatenate(predicted), settings)


def _held_log_probabilities(model: Any, rows: Any, codes: np.ndarray, fold: Fold, classes: int) -> np.ndarray:
    train, held_out = fold.train, fold.held_out
    if len(np.unique(codes[train])) < 2:
        return np.tile(_shares(codes[train], classes), (len(held_out), 1))
    return _log_probabilities(model.fit(rows[train], codes[train]), rows[held_out], classes)


def _log_probabilities(fitted: Any, rows: Any, classes: int) -> np.ndarray:
    """Columns of all K classes, also of those without a training row."""
    full = np.full((rows.shape[0], classes), np.log(LEAST_PROBABILITY))
    if rows.shape[0]:
        full[:, fitted.classes_] = np.log(np.maximum(fitted.predict_proba(rows), LEAST_PROBABILITY))
    return full
