"""What a fusion may be, from the simplest on; all read the specialists' frozen vectors and out-of-fold predictions.

``best_specialist``  of the modalities that a post has, the most reliable one decides
``stacked_logreg``   multinomial logistic regression on the predictions of the specialists (stacking)
``vectors_logreg``   the same on the vectors of all modalities side by side
``joint_logreg``     the same on both
``averaged``         the mean log-probabilities of the three before it and of ``trained``; its loss is never above the
                     mean of theirs, so it counts as simpler than a net on its own
``trained``          the net of ``fuse.strategy``, trained by epochs: attention, gates or concatenation
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from statistics import median
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

from pipeline.core.schemas import AVERAGED, FINAL, FusionCandidate
from pipeline.nets.fusion import AveragedFusion, FirstPresent, FusedNet, Fusion, LinearFusion
from pipeline.nets.losses import objective
from pipeline.params import Params
from pipeline.posts.descriptions import (
    AveragedFusionNet,
    FirstPresentNet,
    FusionNet,
    FusionNetDescription,
    LinearFusionNet,
)
from pipeline.posts.folds import NamedFold
from pipeline.posts.fusion_rows import FusionRows, ModalitySubset
from pipeline.posts.linear_fusion import STRENGTHS, LinearStart, fit_linear, linear_start
from pipeline.scoring import emotion
from pipeline.scoring.calibration import calibrated_log_loss
from pipeline.training.device import pick
from pipeline.training.finished import rows_digest
from pipeline.training.loop import TrainingPlan, fit, predict
from pipeline.training.optim import adamw
from pipeline.training.rows import TensorRows

DESCRIBED = TypeAdapter[FusionNetDescription](FusionNetDescription)


@dataclass(frozen=True)
class FittedFusion:
    """``logits``, float32 [m, K], are those of the rows that its fold left unseen; ``history`` as of ``loop.fit``."""

    net: FusedNet
    described: FusionNetDescription
    logits: np.ndarray
    best_epoch: int | None = None
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class FusionCandidateResult:
    """A candidate on the inner folds: its logits, float32 [N, K], of the rows that they left unseen.

    Attributes:
        settings: what the folds chose: ``C``, or the ``epochs`` to train for; of what is averaged, those of each part.
        final: where the one fold was the final one.
    """

    name: FusionCandidate
    logits: np.ndarray
    settings: dict[str, Any]
    final: FittedFusion | None


def try_fusion(
    name: FusionCandidate, corpus: FusionRows, folds: list[NamedFold], params: Params
) -> FusionCandidateResult:
    """Fits a candidate on each fold, of several strengths the one that calibrates to the least log-loss out of fold."""
    judged, settings = corpus.grouping.judged(folds), tried_settings(name, params)
    fitted = {fold.name: fit_settings(name, corpus, fold, params) for fold in folds}
    best: FusionCandidateResult | None = None
    least = np.inf
    for at, setting in enumerate(settings):
        logits = np.zeros((len(corpus.posts), len(corpus.labels)), dtype=np.float32)
        for fold in folds:
            logits[fold.held_out] = fitted[fold.name][at].logits
        loss = calibrated_log_loss(logits[judged], corpus.codes.numpy()[judged])
        if best is None or loss < least:
            if name == "trained":
                stopped = [by_setting[at].best_epoch or params.fuse.epochs for by_setting in fitted.values()]
                setting = {"epochs": round(median(stopped))}
            final = fitted[FINAL][at] if FINAL in fitted else None
            least, best = loss, FusionCandidateResult(name, logits, setting, final)
    assert best is not None
    return best


def fit_settings(name: FusionCandidate, corpus: FusionRows, fold: NamedFold, params: Params) -> list[FittedFusion]:
    """A candidate of all modalities on an inner fold, with each of its settings."""
    stopped = corpus.grouping.with_stopping_rows(fold) if name == "trained" else fold
    start = cache(partial(linear_start, name, corpus, corpus.modalities, stopped))
    settings = tried_settings(name, params)
    return [fit_fusion(name, corpus, corpus.modalities, stopped, params, setting, start) for setting in settings]


def average(tried: Collection[FusionCandidateResult]) -> FusionCandidateResult:
    """The candidate ``averaged`` of the others that were tried; it needs nothing fitted on the folds."""
    parts = [candidate for candidate in tried if candidate.name in AVERAGED]
    finals = [candidate.final for candidate in parts if candidate.final is not None]
    settings = {candidate.name: candidate.settings for candidate in parts}
    return FusionCandidateResult(
        "averaged", _mean([candidate.logits for candidate in parts]), settings, _averaged(finals) if finals else None
    )


def _averaged(parts: Sequence[FittedFusion]) -> FittedFusion:
    """Fitted on the same rows each; what was trained by epochs, if any, gives the history."""
    described = [part.described for part in parts]
    whole = AveragedFusionNet(widths=described[0].widths, classes=described[0].classes, parts=tuple(described))  # pyright: ignore[reportArgumentType]
    net = AveragedFusion(whole.widths, [part.net for part in parts])
    by_epochs = next((part for part in parts if part.history), parts[0])
    return FittedFusion(net, whole, _mean([part.logits for part in parts]), by_epochs.best_epoch, by_epochs.history)


def _mean(logits: Sequence[np.ndarray]) -> np.ndarray:
    """The mean log-probabilities, float32 [m, K]."""
    return np.stack([emotion.log_probabilities(part) for part in logits]).mean(axis=0).astype(np.float32)


def tried_settings(name: FusionCandidate, params: Params) -> list[dict[str, Any]]:
    """With what settings a candidate is tried on the inner folds."""
    if name == "trained":
        return [{"epochs": params.fuse.epochs}]
    return [{"C": strength} for strength in STRENGTHS[name]] if name in STRENGTHS else [{}]


def fit_fusion(
    name: FusionCandidate,
    corpus: FusionRows,
    subset: ModalitySubset,
    fold: NamedFold,
    params: Params,
    settings: dict[str, Any],
    start: Callable[[], LinearStart] | None = None,
) -> FittedFusion:
    """A candidate that knows the modalities ``subset``, fitted on a fold's rows and asked for the unseen ones.

    ``start``: gives what a linear candidate starts from, for who fits several settings; made here otherwise.
    """
    if name == "averaged":
        return _averaged(
            [fit_fusion(part, corpus, subset, fold, params, settings[part]) for part in AVERAGED if part in settings]
        )

    def made() -> dict[str, Any]:
        if name == "trained":
            fitted = _fit_trained(corpus, subset, fold, params, settings["epochs"])
        elif name == "best_specialist":
            fitted = _asked(*_first_present(corpus, subset, fold), corpus, subset, fold)
        else:
            begin = start or partial(linear_start, name, corpus, subset, fold)
            codes = corpus.codes.numpy()[fold.train]
            fitted = _asked(*fit_linear(begin(), codes, settings["C"]), corpus, subset, fold)
        described = fitted.described.model_dump(mode="json")
        return vars(fitted) | {"net": fitted.net.state_dict(), "described": described}

    rows = rows_digest(fold.train, fold.val, fold.held_out)
    kept = corpus.finished.get_or_make(f"{name} {subset} {fold.name} {sorted(settings.items())} {rows}", made)
    described = DESCRIBED.validate_python(kept["described"])
    net = build(described)
    net.load_state_dict(kept["net"])
    return FittedFusion(net.eval(), described, kept["logits"], kept["best_epoch"], kept["history"])


def _asked(
    net: FirstPresent | LinearFusion,
    described: FusionNetDescription,
    corpus: FusionRows,
    subset: ModalitySubset,
    fold: NamedFold,
) -> FittedFusion:
    """The net, and its predictions of the rows held out of its fold."""
    with torch.inference_mode():
        logits = net.eval()(*corpus.inputs(fold.held_out, subset)).numpy()
    return FittedFusion(net, described, logits)


def _first_present(corpus: FusionRows, subset: ModalitySubset, fold: NamedFold) -> tuple[FirstPresent, FirstPresentNet]:
    """The most reliable is the one whose probabilities fit the training rows best that have it."""
    codes = corpus.codes.numpy()[fold.train]

    def loss(name: str) -> float:
        here = corpus.present[name].numpy()[fold.train]
        log_probs = corpus.expert_log_probs[name].numpy()[fold.train][here]
        return emotion.log_loss(log_probs, codes[here]) if here.any() else np.inf

    described = FirstPresentNet(
        widths=corpus.widths(subset), classes=len(corpus.labels), order=tuple(sorted(subset, key=loss))
    )
    net = build(described)
    assert isinstance(net, FirstPresent)
    with torch.no_grad():
        net.nothing.copy_(torch.from_numpy(log_shares(codes, len(corpus.labels))))
    return net, described


def log_shares(codes: np.ndarray, classes: int) -> np.ndarray:
    """Logits of a post that has nothing to go by, float64 [K]: log shares of the classes, each counted once more."""
    return np.log((np.bincount(codes, minlength=classes) + 1) / (len(codes) + classes))


def _fit_trained(
    corpus: FusionRows, subset: ModalitySubset, fold: NamedFold, params: Params, epochs: int
) -> FittedFusion:
    """Posts that have none of the modalities are learned from as such, and so give the prior."""
    block, device = params.fuse, pick(params.device)
    torch.manual_seed(params.seed)
    shape = block.model_dump(include={"strategy", "width", "heads", "hidden", "dropout", "modality_dropout"})
    described = FusionNet(widths=corpus.widths(subset), classes=len(corpus.labels), **shape)
    net = build(described)
    assert isinstance(net, Fusion)

    def rows(at: np.ndarray) -> TensorRows:
        return TensorRows(corpus.inputs(at, subset), corpus.codes[torch.from_numpy(at)], block.batch)

    train = rows(fold.train)
    net.standardise_like(train.inputs[0], train.inputs[2])
    counts = np.bincount(corpus.codes.numpy()[fold.train], minlength=len(corpus.labels)).tolist()
    result = fit(
        net,
        train,
        None if fold.val is None else rows(fold.val),
        objective=objective(block.imbalance, counts, power=block.imbalance_power, gamma=block.focal_gamma),
        score=lambda logits, codes: emotion.macro_f1(codes, logits.argmax(axis=1), logits.shape[1]),
        optimizer=adamw([(net, block.learning_rate)], block.weight_decay),
        plan=TrainingPlan(epochs, block.patience, params.seed),
        device=device,
        what=f"fuse {'+'.join(subset)} {fold.name}",
    )
    logits = predict(net, rows(fold.held_out), device)
    return FittedFusion(net, described, logits, result.best_epoch, result.history)


def build(described: FusionNetDescription) -> FusedNet:
    """The net that a description means, with weights as they are initialised."""
    arguments = {name: value for name, value in described.arguments().items() if name != "kind"}
    if isinstance(described, FusionNet):
        return Fusion(**arguments)
    if isinstance(described, LinearFusionNet):
        return LinearFusion(**arguments)
    if isinstance(described, AveragedFusionNet):
        return AveragedFusion(described.widths, [build(part) for part in described.parts])
    return FirstPresent(**arguments)
