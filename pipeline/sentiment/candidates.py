"""The models that fine-tuning chooses from, from ridge regression to everything tuned, and the choice.

Each is fitted on inner folds and judged on the rows these hold out; the simplest is taken that no other betters by more
than a standard error. So a fold's model never falls below what is obvious because of a tuning that few rows flattered.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from torch import nn

from pipeline.core.errors import InputError
from pipeline.core.schemas import FeatureSubset, TargetCandidate
from pipeline.encoders import text
from pipeline.nets.transfer import TransferNet
from pipeline.params import Params
from pipeline.scoring import score_selection
from pipeline.sentiment.data import FeatureColumns, FinetuneJob, Target, lines_of, shared
from pipeline.sentiment.finetuned import score_rows
from pipeline.sentiment.initialisation import (
    InnerFold,
    LinearInputs,
    adapted_folds,
    carried_scores,
    judged_by_validation,
    linear_net,
    own_adapters,
)
from pipeline.sentiment.phases import tune_all, tune_words
from pipeline.sentiment.source_model import SourceSpace
from pipeline.sentiment.text_model import encode_lines, in_units_, source_text_head
from pipeline.training.averaging import mean_weights
from pipeline.training.device import one_thread, pick
from pipeline.training.loop import HISTORY

CANDIDATES: tuple[TargetCandidate, ...] = get_args(TargetCandidate)
"""The simplest first. The steps of that name, but that the text transfer has a scale and an offset of the target's, and
``adapters`` are weighed against ridge regression; ``all`` are these tuned end to end. The mean is not among them: where
columns are uninformative, ridge comes near it, and inner folds have too few of few rows to tell the two apart."""

STEADIER: dict[TargetCandidate, TargetCandidate] = {
    "text_tuned": "text_averaged",
    "text_transfer_tuned": "text_averaged",
}
"""A candidate → what takes its place unless that is clearly behind; see ``score_selection.choose``."""


LEAST_SQUARES: frozenset[TargetCandidate] = frozenset({"ridge", "text_transfer", "adapters"})
"""Those that are fitted in closed form, on all rows they learn from, their scale with them. Models of inner folds know
fewer rows and are drawn in further: a scale fitted on the rows they held out stretches the whole model too far."""


@dataclass(frozen=True)
class FittedTransfer:
    """A candidate fitted: ``target`` has the columns that the net reads, text vectors by its own encoder among them."""

    net: TransferNet
    target: Target
    used: FeatureSubset
    report: dict[str, Any]
    history: pd.DataFrame

    def scores(self, subset: FeatureSubset) -> np.ndarray:
        """float64 [N]: of all rows, with the modalities of ``subset`` that it uses."""
        return score_rows(self.net, self.target.columns, shared(subset, self.used))


FEW = 500
"""Training rows; from as many on, the validation rows alone can tell tuned text encoders apart."""


@dataclass(frozen=True)
class TextMode:
    """How the text encoder learns from the target: ``none | lora | full``; ``few``: from so few rows that inner folds
    judge it, and that the encoder as it is is left alone where the source's text model can be tuned instead."""

    how: str
    few: bool = False

    @property
    def tuned(self) -> bool:
        return self.how != "none"


@dataclass(frozen=True)
class Setting:
    """What the candidates of a fold are fitted with.

    Attributes:
        target: with text vectors of the source's text model, where there is one.
        plain: the same with text vectors of the encoder as it is.
        carried: as ``initialisation.LinearInputs`` has it.
        folds: the inner folds that judge.
        whole: all rows that the fold may learn from, and none held.
        mode: how the text encoder learns.
        adapters: what was fitted of the candidate of that name, by the rows learned from; ``all`` begins with it.
    """

    target: Target
    plain: Target
    source: SourceSpace
    job: FinetuneJob
    carried: Mapping[FeatureSubset, np.ndarray]
    folds: list[InnerFold]
    whole: InnerFold
    mode: TextMode
    adapters: dict[bytes, FittedTransfer] = field(default_factory=dict)


@dataclass(frozen=True)
class ChosenTransfer:
    """Which candidate was taken, every candidate's models of the inner folds, and what was known of them."""

    taken: TargetCandidate
    inner: dict[TargetCandidate, list[FittedTransfer]]
    report: dict[str, Any]


def setting_of(target: Target, plain: Target, source: SourceSpace, job: FinetuneJob, mode: TextMode) -> Setting:
    """Inner folds judge; where the text encoder learns from many rows, which is dear, the validation rows alone do."""
    block = job.params.finetune_e2e
    folds = adapted_folds(target, source, job, block.tuned.folds if mode.tuned else block.inner_folds)
    carried = carried_scores(target, source, folds) if job.with_source else {}
    adapters = own_adapters(target, source, job) if job.with_source else {}
    train, val = target.rows(job.fold, "train"), target.rows(job.fold, "val")
    whole = InnerFold(np.sort(np.concatenate([train, val])), np.zeros(0, dtype=np.int64), adapters)
    judges = [judged_by_validation(target, source, job)] if mode.tuned and not mode.few else folds
    return Setting(target, plain, source, job, carried, judges, whole, mode)


def available_candidates(setting: Setting) -> list[TargetCandidate]:
    """The candidates that can be fitted: text models only where there are words, adapters only with the source."""
    block, mode = setting.job.params.finetune_e2e, setting.mode
    with_source = setting.job.with_source
    by_source = with_source and setting.target.by_source_text
    available: dict[TargetCandidate, bool] = {
        "text_transfer": by_source,
        "text_tuned": mode.tuned and not (mode.few and by_source),
        "text_transfer_tuned": mode.tuned and by_source,
        "text_averaged": mode.tuned and by_source and not mode.few,
        "adapters": with_source,
        "all": bool(block.first_epochs or block.epochs or mode.tuned),
    }
    return [name for name in CANDIDATES if available.get(name, True)]


def fit_candidate(name: TargetCandidate, setting: Setting, fold: InnerFold) -> FittedTransfer:
    """Fits one of ``CANDIDATES`` on the rows that a fold learns from."""
    job, target, seed = setting.job, setting.target, setting.job.params.seed
    nothing = pd.DataFrame(columns=[*HISTORY, "phase"])
    if name in ("text_tuned", "text_transfer_tuned"):
        start, head = (setting.plain, None) if name == "text_tuned" else (target, _text_head(setting))
        net, history = tune_words(start, fold, job, setting.mode.how, head)
        return FittedTransfer(net, _read_by(net, start, job.params), ("text",), {}, history)
    if name == "text_averaged":
        return _averaged(setting, fold)
    if name == "ridge":
        with one_thread():
            net, used, report = linear_net(setting.plain, fold, LinearInputs(), seed)
        return FittedTransfer(net, setting.plain, used, report, nothing)
    if name == "text_transfer":
        with one_thread():
            net, _, report = linear_net(target, fold, LinearInputs(text_head=_text_head(setting), probes=False), seed)
        return FittedTransfer(net, target, ("text",), report, nothing)
    linear = _through_adapters(setting, fold, nothing)
    if name == "adapters":
        return linear
    net, used = copy.deepcopy(linear.net), linear.used
    if setting.mode.tuned and "text" not in used:
        used = shared(target.columns.modalities, (*used, "text"))
    history = tune_all(net, target.using(used), fold, job, setting.mode.how)
    return FittedTransfer(net, _read_by(net, target, job.params), used, linear.report, history)


def _averaged(setting: Setting, fold: InnerFold) -> FittedTransfer:
    """The mean of the weights of ``text_tuned`` and ``text_transfer_tuned``, whose trainings are kept and not repeated:
    two ways from one pretrained encoder, which often end in one basin (Wortsman et al., "Model soups", ICML 2022)."""
    plain, carried = (fit_candidate(name, setting, fold) for name in ("text_tuned", "text_transfer_tuned"))
    net = carried.net
    net.load_state_dict(mean_weights([fitted.net.cpu().state_dict() for fitted in (plain, carried)]))
    return replace(carried, target=_read_by(net, setting.target, setting.job.params))


def _through_adapters(setting: Setting, fold: InnerFold, history: pd.DataFrame) -> FittedTransfer:
    """The candidate ``adapters``, fitted once for the rows that a fold learns from."""
    key = fold.train.tobytes()
    if key not in setting.adapters:
        source = setting.source.net if setting.job.with_source else None
        inputs = LinearInputs(source, setting.carried, _text_head(setting))
        with one_thread():
            net, used, report = linear_net(setting.target, fold, inputs, setting.job.params.seed)
        setting.adapters[key] = FittedTransfer(net, setting.target, used, report, history)
    return setting.adapters[key]


def _text_head(setting: Setting) -> nn.Linear | None:
    """The head of the source's text model in the target's unit, where the target's text vectors are by that model."""
    if not setting.target.by_source_text or not setting.job.with_source:
        return None
    return in_units_(source_text_head(setting.job.layout), setting.target.unit)


def _read_by(net: TransferNet, target: Target, params: Params) -> Target:
    """The target with text vectors by the tuned encoder, where there is one."""
    if net.encoder is None:
        return target
    encoder = replace(text.load(params.embed.text), net=net.encoder)
    lines = lines_of(target.table.fillna({"text": ""}), params.target.level)
    vectors = torch.from_numpy(encode_lines(encoder, lines, pick(params.device)))
    columns = FeatureColumns({**target.columns.vectors, "text": vectors}, target.columns.present)
    return replace(target, columns=columns)


def held_scores(fitted: Sequence[FittedTransfer], folds: Sequence[InnerFold], subset: FeatureSubset) -> np.ndarray:
    """float64 [N]: each held-out row by the model that was not fitted on it; NaN for rows that no fold holds out."""
    scores = np.full(len(fitted[0].target.table), np.nan)
    for model, fold in zip(fitted, folds, strict=True):
        scores[fold.held_out] = model.scores(subset)[fold.held_out]
    return scores


def choose(setting: Setting) -> ChosenTransfer:
    """Fits every candidate on every inner fold, and takes the simplest that is not bettered; for either of the tuned
    text models their average, unless that is clearly behind.

    Raises InputError where the corpora allow none of those that params name.
    """
    listed = setting.job.params.finetune_e2e.candidates
    names: list[TargetCandidate] = [name for name in available_candidates(setting) if name in listed]
    if not names:
        raise InputError(
            f"params.yaml: finetune_e2e.candidates: {', '.join(listed)}: not with these corpora, where there are "
            f"{', '.join(available_candidates(setting))}; name one of these"
        )
    inner: dict[TargetCandidate, list[FittedTransfer]] = {
        name: [fit_candidate(name, setting, fold) for fold in setting.folds] for name in names
    }
    held = np.concatenate([fold.held_out for fold in setting.folds])
    unit, actual = setting.target.unit, setting.target.scores.numpy().astype(np.float64)[held]
    groups = setting.target.table["group_id"].to_numpy(dtype=str)[held]
    everything = setting.target.columns.modalities
    predicted: dict[TargetCandidate, np.ndarray] = {
        name: unit * held_scores(inner[name], setting.folds, everything)[held] for name in names
    }
    taken, report = score_selection.choose(predicted, unit * actual, groups, STEADIER)
    return ChosenTransfer(taken, inner, report)
