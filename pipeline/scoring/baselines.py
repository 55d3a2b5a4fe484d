"""What a model has to beat on the same rows: guessing, counting words, and a linear model on the same embeddings.

Baselines learn from the rows that models may learn from. For emotions, how strongly one is regularised, and whether
classes are weighted, is what gives the best macro-F1 on held rows: the validation rows, or, where these are few, those
of grouped folds of all rows. All of them are then learned from. For scores training and validation rows are one, and
cross-validation among them by groups chooses.
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
from sklearn.model_selection import GroupKFold
from sklearn.multiclass import OneVsRestClassifier

from pipeline.core.schemas import subsets_of
from pipeline.scoring import emotion
from pipeline.scoring.one_standard_error import worthwhile
from pipeline.scoring.standardisation import CLIP, standardisation

WEIGHTS: tuple[str | None, ...] = (None, "balanced")
TFIDF_C = (0.3, 1.0, 3.0, 10.0)
EMBEDDINGS_C = (0.0003, 0.003, 0.03, 0.3)
"""Inverse regularisation strengths, strongest first: of equal ones the strongest is taken."""

ITERATIONS = 200
VOCABULARY = 200_000
"""Most frequent one- and two-word terms kept; bounds memory on a large corpus."""

TOKEN = r"(?u)\w+|[^\w\s]"
"""Every word, also of one letter, and every other sign: emoji and exclamation marks carry emotion."""

ALPHAS = np.logspace(0, 5, 11)
INNER_FOLDS = 5
"""Ridge's penalties, and the folds that choose among them."""

NEVER = 1e-9
"""Probability of a class that no training row has."""

Folds = Sequence[tuple[np.ndarray, np.ndarray]]
"""The rows to learn from and the held rows of each fold, int positions."""


@dataclass(frozen=True)
class Learned:
    """Rows to learn from, the training rows first: ``codes``, int [n], of ``classes``, and the ``folds`` that judge.

    ``held`` are the rows that these hold out, int, as they come fold after fold.
    """

    codes: np.ndarray
    train: int
    classes: int
    folds: Folds

    @property
    def held(self) -> np.ndarray:
        return np.concatenate([held for _, held in self.folds])


@dataclass(frozen=True)
class Baseline:
    """Log-probabilities, float64 [rows, K], and what the held rows chose as ``settings``.

    ``held`` are of the rows that ``Learned.folds`` hold out, by fits that did not know them; ``test`` by one on all.
    """

    held: np.ndarray
    test: np.ndarray
    settings: dict[str, Any]


def majority(learned: Learned, test_rows: int) -> Baseline:
    """Gives every row the class shares of the rows learned from, so the most frequent class wins."""
    row = _shares(learned.codes, learned.classes)
    return Baseline(np.tile(row, (len(learned.held), 1)), np.tile(row, (test_rows, 1)), {})


def _shares(codes: np.ndarray, classes: int) -> np.ndarray:
    return np.log(np.maximum(np.bincount(codes, minlength=classes) / len(codes), NEVER))


def tfidf_logreg(learned: Learned, texts: Sequence[str], test_texts: Iterable[Sequence[str]]) -> Baseline:
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


def embeddings_logreg(learned: Learned, vectors: np.ndarray, test: Iterable[np.ndarray]) -> Baseline:
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
    learned: Learned,
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
            score = emotion.macro_f1(codes[learned.held], held.argmax(axis=1), classes)
            if score > best_score:
                chosen, best, best_score = setting, held, score
        fitted = model(*chosen).fit(rows, codes)
    settings = {"C": chosen[0], "class_weight": chosen[1] or "none"}
    said = [np.empty((0, classes)), *(_log_probabilities(fitted, part, classes) for part in test)]
    return Baseline(best, np.concatenate(said), settings)


def _held_log_probabilities(
    model: Any, rows: Any, codes: np.ndarray, fold: tuple[np.ndarray, np.ndarray], classes: int
) -> np.ndarray:
    inner, held = fold
    if len(np.unique(codes[inner])) < 2:
        return np.tile(_shares(codes[inner], classes), (len(held), 1))
    return _log_probabilities(model.fit(rows[inner], codes[inner]), rows[held], classes)


def _log_probabilities(fitted: Any, rows: Any, classes: int) -> np.ndarray:
    """Columns of all K classes, also of those without a training row."""
    full = np.full((rows.shape[0], classes), np.log(NEVER))
    if rows.shape[0]:
        full[:, fitted.classes_] = np.log(np.maximum(fitted.predict_proba(rows), NEVER))
    return full


# --- scores ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FeatureBlock:
    """One modality's ``vectors``, float [N, width], and for which rows it is ``present``, bool [N]."""

    vectors: np.ndarray
    present: np.ndarray


def ridge(
    blocks: Sequence[FeatureBlock], scores: np.ndarray, fitted: np.ndarray, groups: np.ndarray, *, select: bool = False
) -> np.ndarray:
    """Ridge regression on all blocks side by side: predictions for every row, float64 [N].

    Args:
        blocks: the modalities; an absent one counts as zeros, which is the mean of the fitted rows.
        scores: [N]; read for the fitted rows only.
        fitted: int [n], positions of the rows to fit on: training and validation rows.
        groups: [N] names; rows of a group stay together in the cross-validation among the fitted rows that chooses the
            penalty, by squared error, from ``ALPHAS``.
        select: lets the same cross-validation leave blocks out, as one that says nothing costs accuracy; see
            ``worthwhile``.
    """
    standard = [_standardised(block, fitted) for block in blocks]
    y, folds = np.asarray(scores, dtype=np.float64)[fitted], inner_folds(groups[fitted])
    tried = []
    for chosen in subsets_of(standard) if select else [tuple(standard)]:
        rows = np.concatenate(chosen, axis=1)
        tried.append((*penalty(rows[fitted], y, folds), rows))
    _, alpha, rows = tried[worthwhile([errors for errors, _, _ in tried], groups[fitted])]
    return _ridge_path(rows[fitted], y, rows, np.array([alpha]))[0]


def inner_folds(groups: np.ndarray) -> Folds:
    """Folds among rows of these ``groups``, [n] names, which stay whole; none of a single group."""
    folds = min(INNER_FOLDS, len(set(groups)))
    return list(GroupKFold(folds).split(groups, groups=groups)) if folds > 1 else []


def penalty(x: np.ndarray, y: np.ndarray, folds: Folds) -> tuple[np.ndarray, float]:
    """The penalty of least squared error in a cross-validation of ridge, and the errors it has, float64 [n].

    Of equal penalties the strongest is taken, also where there are no folds to choose by: then the errors are zeros.
    ``x`` is [n, width], ``y`` [n].
    """
    errors = np.zeros((len(ALPHAS), len(x)))
    for inner, held in folds:
        errors[:, held] = (_ridge_path(x[inner], y[inner], x[held], ALPHAS) - y[held]) ** 2
    best = len(ALPHAS) - 1 - int(errors.sum(axis=1)[::-1].argmin())
    return errors[best], float(ALPHAS[best])


def _standardised(block: FeatureBlock, fitted: np.ndarray) -> np.ndarray:
    known = block.vectors[fitted][block.present[fitted]].astype(np.float64)
    if len(known) == 0:
        return np.zeros(block.vectors.shape)
    mean, spread = standardisation(known)
    return np.clip((block.vectors - mean) / spread, -CLIP, CLIP) * block.present[:, None]


def _ridge_path(x: np.ndarray, y: np.ndarray, wanted: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """Predictions [alphas, m] for the rows ``wanted`` under each penalty, with an intercept that is not penalised.

    One eigendecomposition serves all penalties, of the smaller of the two matrices that ridge may be written with.
    """
    mean, offset = x.mean(axis=0), y.mean()
    x, y, wanted = x - mean, y - offset, wanted - mean
    wide = x.shape[1] > len(x)
    values, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    moments = vectors.T @ (y if wide else x.T @ y)
    basis = (wanted @ x.T if wide else wanted) @ vectors
    return (basis @ (moments[:, None] / (np.maximum(values, 0.0)[:, None] + alphas))).T + offset
