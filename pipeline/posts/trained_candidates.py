"""Candidates that are trained by epochs: a classifier on the encoder's vectors, or with the encoder learning too."""

from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline import params as parameters
from pipeline.core import artifacts
from pipeline.core.layout import Layout
from pipeline.core.schemas import FINAL, LEARNING, Candidate
from pipeline.encoders import image, text, video
from pipeline.encoders.media_rows import MediaRows
from pipeline.encoders.text_rows import TokenRows
from pipeline.nets.losses import Objective, objective
from pipeline.nets.specialist import Specialist, TunedSpecialist
from pipeline.params import Params
from pipeline.posts.candidates import CandidateResult, FittedSpecialist
from pipeline.posts.descriptions import TUNED
from pipeline.posts.folds import NamedFold
from pipeline.posts.specialist_rows import MEDIA_COLUMN, SpecialistRows
from pipeline.scoring import emotion
from pipeline.training.checkpoint import resume_state
from pipeline.training.device import one_thread, pick
from pipeline.training.finished import rows_digest
from pipeline.training.loop import FitResult, TrainingPlan, fit, predict
from pipeline.training.optim import adamw
from pipeline.training.rows import TensorRows, TrainingRows
from pipeline.training.tuning import TunedTraining, for_few, learner


def try_trained(
    name: Candidate, corpus: SpecialistRows, folds: list[NamedFold], params: Params, layout: Layout
) -> CandidateResult:
    """Trains the candidate on each fold; the epochs to train for are the median of those that were best.

    A fold that has no rows to stop on gets some of its training groups, where stopping can make a difference.
    """
    block = params.of_specialist(corpus.modality)
    plan = block.tuned if name in TUNED else block.head
    most = _tuned(corpus, params).epochs if name in TUNED else plan.epochs
    if name in TUNED and len(folds) > 1:
        folds = corpus.grouping.cross(corpus.grouping.part("train", "val"), block.tuned.folds)
    logits = np.zeros((len(corpus.posts), len(corpus.labels)), dtype=np.float32)
    fitted = {}
    for fold in folds:
        stopped = fold if plan.patience >= plan.epochs else corpus.grouping.with_stopping_rows(fold)
        trained = fit_trained(name, corpus, stopped, params, layout, most)
        logits[fold.held_out] = trained.logits
        fitted[fold.name] = trained
    epochs = round(median(specialist.best_epoch or most for specialist in fitted.values()))
    return CandidateResult(name, logits, {"epochs": epochs}, fitted)


def _tuned(corpus: SpecialistRows, params: Params) -> parameters.EncoderTuningParams:
    """How the encoder is tuned on this corpus, in its folds and on the whole."""
    return for_few(params.of_specialist(corpus.modality).tuned, len(corpus.grouping.part("train", "val")))


def fit_trained(
    name: Candidate, corpus: SpecialistRows, fold: NamedFold, params: Params, layout: Layout, epochs: int
) -> FittedSpecialist:
    """Trains the candidate for at most so many epochs: for all of them, where the fold has no rows to stop on.

    Only the final fold's net is kept: an encoder a fold is too many.
    """

    def train() -> dict[str, Any]:
        trained = (
            _fit_tuned(name, corpus, fold, params, layout, epochs)
            if name in TUNED
            else _fit_head(corpus, fold, params, epochs)
        )
        assert trained.net is not None
        weights = trained.net.state_dict() if fold.name == FINAL else None
        return {
            "weights": weights,
            "logits": trained.logits,
            "history": trained.history,
            "best_epoch": trained.best_epoch,
        }

    rows = rows_digest(fold.train, fold.val, fold.held_out)
    kept = corpus.finished.get_or_make(f"{name} {fold.name} {epochs} epochs {rows}", train)
    net, weights = None, kept.pop("weights")
    if weights is not None:
        net = _net(name, corpus, params, layout)
        net.load_state_dict(weights)
    return FittedSpecialist(net, **kept)


def _net(name: Candidate, corpus: SpecialistRows, params: Params, layout: Layout) -> nn.Module:
    """The candidate's net as it is initialised."""
    block = params.of_specialist(corpus.modality)
    vectors = _own_vectors(corpus, np.array([0])) if name in TUNED else corpus.vectors
    classifier = Specialist(vectors.shape[1], len(corpus.labels), hidden=block.hidden, dropout=block.dropout)
    if name not in TUNED:
        return classifier
    encoder, targets, _ = _raw(corpus, params, layout)
    return TunedSpecialist(learner(encoder, targets, name, block.tuned.lora_rank), classifier)


def _fit_head(corpus: SpecialistRows, fold: NamedFold, params: Params, epochs: int) -> FittedSpecialist:
    block = params.of_specialist(corpus.modality)
    torch.manual_seed(params.seed)
    net = Specialist(corpus.vectors.shape[1], len(corpus.labels), hidden=block.hidden, dropout=block.dropout)
    net.standardise_like(torch.from_numpy(corpus.vectors[fold.train]))

    def rows(at: np.ndarray) -> TensorRows:
        return TensorRows((torch.from_numpy(corpus.vectors[at]),), corpus.codes[at], block.head.batch)

    device = pick(params.device)
    with one_thread():
        result = fit(
            net,
            rows(fold.train),
            None if fold.val is None else rows(fold.val),
            objective=_objective(corpus, block, fold.train),
            score=_score,
            optimizer=adamw([(net, block.head.learning_rate)], block.head.weight_decay),
            plan=TrainingPlan(epochs, block.head.patience, params.seed),
            device=device,
            what=f"train_{corpus.modality} head {fold.name}",
        )
        return _fitted(net, result, predict(net, rows(fold.held_out), device))


def _fit_tuned(
    name: Candidate, corpus: SpecialistRows, fold: NamedFold, params: Params, layout: Layout, epochs: int
) -> FittedSpecialist:
    """The encoder learns too: all its weights, or low-rank updates of its attention."""
    block = params.of_specialist(corpus.modality)
    tuned = _tuned(corpus, params).model_copy(update={"epochs": epochs})
    torch.manual_seed(params.seed)
    encoder, targets, make_rows = _raw(corpus, params, layout)
    fold = _shown_fold(corpus, fold)
    width = _own_vectors(corpus, fold.train[:1]).shape[1]
    classifier = Specialist(width, len(corpus.labels), hidden=block.hidden, dropout=block.dropout)
    net = TunedSpecialist(learner(encoder, targets, name, tuned.lora_rank), classifier)
    device = pick(params.device)
    rows = {"train": fold.train, "val": np.array([], dtype=int) if fold.val is None else fold.val}
    content = corpus.embeddings.content[corpus.embeddings.present]
    named = zip(corpus.posts["sample_id"], corpus.posts["label"], content, strict=True)
    known = np.array([" ".join(cells) for cells in named])
    identity = {
        "stage": f"train_{corpus.modality} {name}",
        "params": block.model_copy(update={"tuned": tuned}).model_dump(exclude={"candidates"}),
        "encoder": corpus.embeddings.encoder,
        "seed": params.seed,
        "device": str(device),
        "labels": list(corpus.labels),
        **{f"{role} rows": artifacts.digest(known[at].tolist()) for role, at in rows.items()},
    }
    training = TunedTraining(
        net,
        [classifier],
        make_rows(fold.train),
        None if fold.val is None else make_rows(fold.val),
        objective=_objective(corpus, block, fold.train),
        score=_score,
        tuned=tuned,
        seed=params.seed,
        device=device,
        what=f"train_{corpus.modality} {name} {fold.name}",
    )
    result = training.fit(resume_state(layout.cache, identity))
    return _fitted(net, result, _predicted(net, classifier, corpus, fold.held_out, make_rows, device))


def _own_vectors(corpus: SpecialistRows, at: np.ndarray) -> np.ndarray:
    """The vectors of the encoder that can learn: of a clip, those of its frames."""
    return corpus.vectors[at][:, corpus.streams[LEARNING[corpus.modality]] if corpus.streams else slice(None)]


def _shown(corpus: SpecialistRows, at: np.ndarray) -> np.ndarray:
    """Of these rows, those that the encoder can learn from: a clip that is only heard has no frames."""
    return at[~np.isnan(_own_vectors(corpus, at)).any(axis=1)]


def _shown_fold(corpus: SpecialistRows, fold: NamedFold) -> NamedFold:
    return replace(fold, train=_shown(corpus, fold.train), val=None if fold.val is None else _shown(corpus, fold.val))


def _predicted(
    net: nn.Module,
    classifier: Specialist,
    corpus: SpecialistRows,
    at: np.ndarray,
    make_rows: Callable[[np.ndarray], TrainingRows],
    device: torch.device,
) -> np.ndarray:
    """Logits of the rows ``at``, float32 [n, K]; a row without what the encoder reads is as the mean row is."""
    shown = _shown(corpus, at)
    lacks = torch.full((1, len(classifier.mean)), float("nan"), device=device)
    with torch.inference_mode():
        mean = classifier.to(device).eval()(lacks).cpu().numpy()
    logits = np.repeat(mean, len(at), axis=0)
    if len(shown):
        logits[np.isin(at, shown)] = predict(net, make_rows(shown), device)
    return logits


def _fitted(net: nn.Module, result: FitResult, logits: np.ndarray) -> FittedSpecialist:
    return FittedSpecialist(net, logits, history=result.history, best_epoch=result.best_epoch)


def _score(logits: np.ndarray, codes: np.ndarray) -> float:
    return emotion.macro_f1(codes, logits.argmax(axis=1), logits.shape[1])


def _objective(corpus: SpecialistRows, block: parameters.ClassifierParams, train: np.ndarray) -> Objective:
    counts = np.bincount(corpus.codes.numpy()[train], minlength=len(corpus.labels))
    return objective(block.imbalance, counts.tolist(), power=block.imbalance_power, gamma=block.focal_gamma)


def _raw(
    corpus: SpecialistRows, params: Params, layout: Layout
) -> tuple[nn.Module, list[str], Callable[[np.ndarray], TrainingRows]]:
    """A fresh encoder that can learn, its targets for LoRA, and a function from row numbers to raw inputs for it."""
    tuned = _tuned(corpus, params)
    inputs = corpus.posts[MEDIA_COLUMN[corpus.modality]].to_numpy()
    if corpus.modality == "text":
        texts = text.load(params.embed.text)
        return (
            texts.net,
            texts.lora_targets,
            lambda at: TokenRows(texts, inputs[at].tolist(), corpus.codes[at], tuned.batch),
        )

    folder = layout.root / params.posts.media
    if corpus.modality == "image":
        pictures, frames = image.load(params.embed.image), None
        net = pictures.net
    else:
        clips, frames = video.load(params.embed.video), params.embed.video.frames
        pictures, net = clips.image, video.ClipNet(clips)

    def media(at: np.ndarray) -> TrainingRows:
        return MediaRows(
            pictures,
            [folder / path for path in inputs[at]],
            corpus.codes[at],
            tuned.batch,
            frames=frames,
            augmented=isinstance(tuned, parameters.TunedMediaParams) and tuned.augment,
            max_pixels=params.embed.max_pixels,
            workers=params.embed.workers,
        )

    return net, pictures.lora_targets, media
