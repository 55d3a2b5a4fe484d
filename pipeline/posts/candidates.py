"""What a specialist may be, from the simplest on: each is fitted on inner folds, and the one taken on all rows.

``majority``       the class shares of the training rows
``stream_logreg``  logistic regression on those streams of a clip, of all subsets, that serve best (clips only)
``logreg``         multinomial logistic regression on the encoder's vectors, solved to its optimum
``tfidf_logreg``   the same on TF-IDF of words and pairs of words (texts only)
``joint_logreg``   the same on both side by side (texts only)
``head``           a classifier trained by epochs, with weights for rare classes and dropout
``lora``, ``full`` the encoder learns too: see ``trained_candidates``
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array, hstack
from torch import nn

from pipeline.core.schemas import Candidate, Stream, subsets_of
from pipeline.encoders import tfidf
from pipeline.encoders.tfidf import TfidfEncoder
from pipeline.nets.specialist import Specialist
from pipeline.posts.descriptions import OF_WORDS
from pipeline.posts.folds import NamedFold
from pipeline.posts.specialist_rows import SpecialistRows
from pipeline.scoring import logistic
from pipeline.scoring.calibration import calibrated_log_loss
from pipeline.scoring.standardisation import standardisation, standardised
from pipeline.training.finished import rows_digest

STRENGTHS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
WORD_STRENGTHS = (0.3, 1.0, 3.0, 10.0)
"""Inverse regularisation strengths, strongest first, on standardised vectors and where there are words."""

LINEAR: tuple[Candidate, ...] = ("majority", "stream_logreg", "logreg", "tfidf_logreg", "joint_logreg")


@dataclass(frozen=True)
class FittedSpecialist:
    """A fitted candidate.

    Attributes:
        net: as ``model.safetensors`` holds it; None for an inner fold whose net nobody asks for again.
        logits: float32 [m, K], of the rows that its fold left unseen.
        words: the vocabulary of a candidate of words.
        history: one dict an epoch of an iterative training.
        best_epoch: of such a training.
    """

    net: nn.Module | None
    logits: np.ndarray
    words: TfidfEncoder | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int | None = None


@dataclass(frozen=True)
class CandidateResult:
    """A candidate on the inner folds.

    Attributes:
        logits: float32 [N, K]; only the rows that the folds left unseen count.
        settings: what the folds chose: ``C``, which ``streams``, or the ``epochs`` to train for.
        fitted: by fold.
    """

    name: Candidate
    logits: np.ndarray
    settings: dict[str, Any]
    fitted: dict[str, FittedSpecialist]


def try_linear(name: Candidate, corpus: SpecialistRows, folds: list[NamedFold]) -> CandidateResult | None:
    """Fits one of ``LINEAR`` on each fold; the strength is the one that calibrates to the least log-loss out of fold.

    None where the training texts of a fold have no words.
    """
    strengths = {"majority": (1.0,), "logreg": STRENGTHS, "stream_logreg": STRENGTHS}.get(name, WORD_STRENGTHS)
    judged = corpus.grouping.judged(folds)
    best: CandidateResult | None = None
    least = np.inf
    for streams in subsets_of(list(corpus.streams)) if name == "stream_logreg" else [None]:
        designs = [_design(name, corpus, fold, streams) for fold in folds]
        if any(design is None for design in designs):
            return None
        for strength in strengths:
            logits = np.zeros((len(corpus.posts), len(corpus.labels)), dtype=np.float32)
            fitted = {}
            for fold, design in zip(folds, designs, strict=True):
                assert design is not None
                fitted[fold.name] = _fit(name, corpus, fold, design, strength)
                logits[fold.held_out] = fitted[fold.name].logits
            loss = calibrated_log_loss(logits[judged], corpus.codes.numpy()[judged])
            if loss < least:
                settings = {} if name == "majority" else {"C": strength}
                if streams is not None:
                    settings["streams"] = list(streams)
                least, best = loss, CandidateResult(name, logits, settings, fitted)
    return best


def fit_linear(
    name: Candidate, corpus: SpecialistRows, fold: NamedFold, settings: Mapping[str, Any]
) -> FittedSpecialist:
    """The candidate with what the folds chose."""
    design = _design(name, corpus, fold, settings.get("streams"))
    assert design is not None
    return _fit(name, corpus, fold, design, settings.get("C", 1.0))


@dataclass(frozen=True)
class _Design:
    """The training rows and the unseen rows of a fold on one scale; by what ``mean`` and ``scale`` they came there.

    ``columns``, bool [width], are those of the vectors that are regressed on; None: all.
    """

    train: np.ndarray | csr_array
    unseen: np.ndarray | csr_array
    mean: np.ndarray
    scale: np.ndarray
    words: TfidfEncoder | None = None
    columns: np.ndarray | None = None
    streams: str = ""

    @cached_property
    def regressed(self) -> logistic.Design:
        return logistic.design(self.train)


def _design(
    name: Candidate, corpus: SpecialistRows, fold: NamedFold, streams: Sequence[Stream] | None
) -> _Design | None:
    """What a candidate of ``LINEAR`` regresses on. None where it needs words and there are none.

    Beside TF-IDF, whose rows have length 1, a vector's columns are scaled down so that its rows have about that length.
    """
    vectors = corpus.vectors
    mean, scale = standardisation(vectors[fold.train], np.float64)
    if name not in OF_WORDS:
        columns = None if streams is None else _columns_of(corpus, streams)
        train, unseen = (standardised(vectors[at], mean, scale) for at in (fold.train, fold.held_out))
        if columns is not None:
            train, unseen = train[:, columns], unseen[:, columns]
        return _Design(train, unseen, mean, scale, columns=columns, streams="+".join(streams or ()))
    words = tfidf.fit(corpus.texts(fold.train))
    if words is None:
        return None
    counts = [words.sparse(corpus.texts(at)) for at in (fold.train, fold.held_out)]
    if name == "tfidf_logreg":
        return _Design(counts[0], counts[1], np.zeros(words.width), np.ones(words.width), words)
    scale = scale * vectors.shape[1] ** 0.5
    train, unseen = (
        csr_array(hstack([csr_array((vectors[at] - mean) / scale), tfidf_rows]))
        for at, tfidf_rows in zip((fold.train, fold.held_out), counts, strict=True)
    )
    zeros, ones = np.zeros(words.width), np.ones(words.width)
    return _Design(train, unseen, np.concatenate([mean, zeros]), np.concatenate([scale, ones]), words)


def _columns_of(corpus: SpecialistRows, streams: Sequence[Stream]) -> np.ndarray:
    """bool [width]: which columns are those of these streams."""
    columns = np.zeros(corpus.vectors.shape[1], dtype=bool)
    for stream in streams:
        columns[corpus.streams[stream]] = True
    return columns


def _fit(
    name: Candidate, corpus: SpecialistRows, fold: NamedFold, design: _Design, strength: float
) -> FittedSpecialist:
    codes, classes = corpus.codes.numpy()[fold.train], len(corpus.labels)
    if name == "majority":
        shares = np.bincount(codes, minlength=classes) / len(codes)
        weights = np.zeros((classes, design.train.shape[1]))
        bias = np.where(shares > 0, np.log(np.maximum(shares, 1e-9)), logistic.ABSENT_CLASS_LOGIT)
    else:
        key = f"{name} {design.streams} {fold.name} {strength} {rows_digest(fold.train)}"
        kept = corpus.finished.get_or_make(key, lambda: _solved(design, codes, classes, strength))
        weights, bias = kept["weights"], kept["bias"]
    logits = (design.unseen @ weights.T + bias).astype(np.float32)
    if design.columns is not None:
        compact, weights = weights, np.zeros((classes, len(design.mean)))
        weights[:, design.columns] = compact
    return FittedSpecialist(_net(weights, bias, design.mean, design.scale), logits, design.words)


def _solved(design: _Design, codes: np.ndarray, classes: int, strength: float) -> dict[str, np.ndarray]:
    weights, bias = logistic.fit(design.regressed, codes, classes, strength)
    return {"weights": weights, "bias": bias}


def _net(weights: np.ndarray, bias: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> Specialist:
    net = Specialist(weights.shape[1], len(bias), dropout=0.0)
    with torch.no_grad():
        for tensor, values in ((net.mean, mean), (net.scale, scale), (net.head.weight, weights), (net.head.bias, bias)):
            tensor.copy_(torch.from_numpy(np.asarray(values)))
    return net.eval()
