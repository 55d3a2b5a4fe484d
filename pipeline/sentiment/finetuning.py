"""One model to fit, of a fold or of a point of the learning curve: the candidate that inner folds choose."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from pipeline.core.descriptions import read_description
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.core.schemas import FINAL, FeatureSubset, repeat_of, subset_name, subsets_of
from pipeline.encoders import text
from pipeline.params import Params
from pipeline.sentiment.candidates import (
    FEW,
    LEAST_SQUARES,
    ChosenTransfer,
    FittedTransfer,
    Setting,
    TextMode,
    available_candidates,
    choose,
    fit_candidate,
    held_scores,
    setting_of,
)
from pipeline.sentiment.data import FinetuneJob, Target, fold_names, limit_groups, of_fold, read_target
from pipeline.sentiment.descriptions import (
    AdaptersDescription,
    GroupContext,
    SourceDescription,
    TransferNetArguments,
    WordsDescription,
)
from pipeline.sentiment.finetuned import describe_net
from pipeline.sentiment.group_context import fit_context, group_keys, in_groups
from pipeline.sentiment.phases import objective
from pipeline.sentiment.source_model import SourceSpace, read_source
from pipeline.sentiment.variants import Variant
from pipeline.training.finished import Finished

SHORT = 0.05
"""By what share a fold may fall short of a size of the learning curve."""


@dataclass(frozen=True)
class TunedModel:
    """The fine-tuned net: its tensors by name, what it is rebuilt from, and the modalities it listens to; and what the
    other rows of a group do to its scores."""

    weights: dict[str, Tensor]
    net: TransferNetArguments
    used: FeatureSubset
    words: WordsDescription | None
    context: GroupContext | None


@dataclass(frozen=True)
class FinetuneOutcome:
    """What a job leaves; ``model`` only of the fold ``final``."""

    predictions: pd.DataFrame
    history: pd.DataFrame
    report: dict[str, Any]
    model: TunedModel | None = None


def curve_jobs(target: Target, folds: list[str], params: Params, layout: Layout, kept: Finished) -> list[FinetuneJob]:
    """The learning curve, on the folds of the first repeat.

    A size that a fold does not have is left out, unless it falls short by a twentieth at most and gives all it has.
    """
    scored = [fold for fold in folds if fold != FINAL and repeat_of(fold) == 0] or [FINAL]
    known = target.table.set_index("sample_id")["group_id"]
    most = min(
        known[
            target.folds.loc[(target.folds["fold"] == fold) & (target.folds["role"] != "test"), "sample_id"]
        ].nunique()
        for fold in scored
    )
    sizes = [size for size in params.finetune_e2e.curve if (1 - SHORT) * size <= most]
    return [
        FinetuneJob(of_fold(params, fold), layout, fold, kept, size, with_source)
        for size in sizes
        for with_source in (True, False)
        for fold in scored
    ]


def tune(job: FinetuneJob) -> dict[str, Any]:
    """The outcome of a job, as ``outcome_of`` takes it.

    Chooses a model on inner folds, fits it on all that its fold may learn from, and predicts the fold's rows.

    A point of the learning curve is not chosen: the most intricate candidate shows at each size what the source brings.
    """
    target, plain, source = _read(job)
    if job.groups is not None:
        return vars(_point(target, plain, source, job, job.groups))
    mode, everything = text_mode(target, job.params), target.columns.modalities
    setting = setting_of(target, plain, source, job, mode)
    choice = choose(setting)
    model, inner, tables = fit_candidate(choice.taken, setting, setting.whole), choice.inner[choice.taken], []
    if "text_tuned" in choice.inner:  # as it was tuned, though it be the taken model, which is rescaled
        words = model if choice.taken == "text_tuned" else fit_candidate("text_tuned", setting, setting.whole)
        variant = Variant("text_tuned", subset_name(everything))
        tables.append(_predicted(setting, words, choice.inner["text_tuned"], everything, variant))
    scaled = choice.taken not in LEAST_SQUARES
    scale, offset = _output_scale(inner, setting) if scaled else (1.0, 0.0)
    for fitted in (model, *inner):
        fitted.net.rescale(scale, offset)  # now, so that the tables hold the predictions of the saved net
    context = _context(inner, setting, scaled=scaled)
    for subset in subsets_of(everything):
        tables.append(_predicted(setting, model, inner, subset, Variant("finetuned", subset_name(subset)), context))
    if _in_groups_of_several(setting):
        alone = Variant("finetuned_alone", subset_name(everything))
        tables.append(_predicted(setting, model, inner, everything, alone))
    report = {**choice.report, **model.report, "modalities": "+".join(model.used)}
    model.net.rescale(target.unit, 0.0)  # what is kept gives scores of the corpus
    context = None if context is None else context.in_scores(target.unit)
    report |= {"scale": scale, "offset": offset * target.unit, "text": mode.how}
    report |= {} if context is None else {"group_context": context.model_dump()}
    outcome = vars(FinetuneOutcome(pd.concat(tables), _history(choice), report))
    if job.fold != FINAL:
        return outcome
    tuned = _tuned_model(model, context, job.params, job.layout)
    parts = {"net": tuned.net, "words": tuned.words, "context": context}
    plain_parts = {name: None if part is None else part.model_dump(mode="json") for name, part in parts.items()}
    return outcome | {"model": vars(tuned) | plain_parts}


def outcome_of(fields: dict[str, Any]) -> FinetuneOutcome:
    """The outcome of a job from what ``tune`` gives, which may have lain in a file meanwhile."""
    model = fields["model"]
    if model is not None:
        words = None if model["words"] is None else WordsDescription.model_validate(model["words"])
        context = None if model["context"] is None else GroupContext.model_validate(model["context"])
        net = TransferNetArguments.model_validate(model["net"])
        model = TunedModel(model["weights"], net, tuple(model["used"]), words, context)
    return FinetuneOutcome(**{**fields, "model": model})


def _read(job: FinetuneJob) -> tuple[Target, Target, SourceSpace]:
    """The target, that with text vectors by the encoder as it is, and the source: limited to the job's groups, and with
    scores in the unit for what the job learns from."""
    plain = read_target(job.layout, by_source_text=False)
    target = read_target(job.layout) if job.with_source else plain
    if (groups := job.groups) is not None:
        target, plain = (limit_groups(item, job.fold, groups, job.params) for item in (target, plain))
    unit = target.learning_unit(job.fold)
    return target.in_units(unit), plain.in_units(unit), read_source(job.layout).in_units(unit)


def _point(target: Target, plain: Target, source: SourceSpace, job: FinetuneJob, groups: int) -> FinetuneOutcome:
    """A point of the learning curve, on vectors as they are: its test rows."""
    setting = setting_of(target, plain, source, job, TextMode("none"))
    taken = available_candidates(setting)[-1]
    model, everything = fit_candidate(taken, setting, setting.whole), target.columns.modalities
    variant = Variant("finetuned", subset_name(everything), job.with_source, groups)
    predictions = target.predicted(job.fold, variant, model.scores(everything))
    tests = predictions[predictions["split"] == "test"]
    return FinetuneOutcome(tests, model.history, {**model.report, "taken": taken})


def _history(choice: ChosenTransfer) -> pd.DataFrame:
    """The epochs of the first inner fold, whose held rows nothing stopped on: those of the most intricate candidate."""
    return list(choice.inner.values())[-1][0].history


def _predicted(
    setting: Setting,
    model: FittedTransfer,
    inner: Sequence[FittedTransfer],
    subset: FeatureSubset,
    variant: Variant,
    context: GroupContext | None = None,
) -> pd.DataFrame:
    """The fold's rows by the model; validation rows, which it was fitted on, by those of the inner folds.

    Validation rows have only each other for a group: what a model fitted on them gives would be no prediction.
    """
    target = setting.target
    scores, val = model.scores(subset), target.rows(setting.job.fold, "val")
    scores[val] = held_scores(inner, setting.folds, subset)[val]
    if context is not None:
        keys, learned = _keys(model, target), np.isin(np.arange(len(scores)), val)
        for rows in (learned, ~learned):
            scores[rows] = in_groups(scores[rows], keys[rows], context)
    return target.predicted(setting.job.fold, variant, scores)


def _tuned_model(model: FittedTransfer, context: GroupContext | None, params: Params, layout: Layout) -> TunedModel:
    words, target = None, model.target
    if target.words:
        weights = "target" if model.net.encoder is not None else "source" if target.by_source_text else "frozen"
        words = WordsDescription(encoder=text.load(params.embed.text).identity, weights=weights)
    adapters = read_description(layout.model("train_adapters"), AdaptersDescription).net
    source = read_description(layout.model("train_source"), SourceDescription).net
    if model.net.source is not None:
        source = source.model_copy(update={"unit": model.net.source.unit})
    net = describe_net(model.net, target, adapters, source)
    return TunedModel(dict(model.net.cpu().state_dict()), net, model.used, words, context)


def text_mode(target: Target, params: Params) -> TextMode:
    """How the text encoder learns from the target, in all folds alike."""
    block = params.finetune_e2e
    if block.text == "auto":
        fewest = min(len(target.with_words(target.rows(fold, "train"))) for fold in fold_names(target.folds))
        enough = block.auto_groups if params.target.level == "group" else block.auto_rows
        return TextMode("full", few=fewest < FEW) if target.words and fewest >= enough else TextMode("none")
    if block.text != "none" and not target.words:
        raise InputError(
            f"params.yaml: finetune_e2e.text: {block.text!r} cannot be: the target's text is no words; "
            "give none or auto"
        )
    return TextMode(block.text)


SCALES = (0.25, 100.0)
"""Between what the scale of the output is looked for."""

PRIOR_ROWS = 20
"""The weight of a scale of 1, as a number of rows: a few held rows change the output little."""


def _output_scale(inner: Sequence[FittedTransfer], setting: Setting) -> tuple[float, float]:
    """The scale, about the mean score learned from, at which the loss of params is least on the rows that the inner
    folds held out, with the offset that belongs to it; (1, 0) where there are too few rows.

    It stretches predictions that rank well and cluster, and draws in those of an encoder tuned until it nearly knows
    its training rows by heart, which spread further than their correlation on other rows warrants. The mean stays: that
    of a few held groups is too noisy. The scale stays above zero: below, it would turn the order of all rows round on a
    whim of a few.
    """
    at = np.concatenate([fold.held_out for fold in setting.folds])
    block, target = setting.job.params.finetune_e2e, setting.target
    if not block.scale or len(at) < 3:
        return 1.0, 0.0
    actual, loss = target.scores[torch.from_numpy(at)], objective(block)
    centre = float(target.scores[torch.from_numpy(setting.whole.train)].mean())
    apart = torch.from_numpy(held_scores(inner, setting.folds, target.columns.modalities)[at] - centre)

    def loss_at(log_scale: float) -> float:
        return loss((centre + math.exp(log_scale) * apart)[:, None], actual).item()

    best = minimize_scalar(loss_at, bounds=(math.log(SCALES[0]), math.log(SCALES[1])), method="bounded")
    if best.fun > loss_at(0.0) - 1e-9:  # a constant prediction, or a loss that no scale changes
        return 1.0, 0.0
    scale = math.exp(best.x * len(at) / (len(at) + PRIOR_ROWS))
    return scale, centre * (1 - scale)


def _in_groups_of_several(setting: Setting) -> bool:
    """Whether rows may be moved by others of their group."""
    several = bool(setting.target.table["given_group"].duplicated().any())
    return several and setting.job.params.finetune_e2e.group_context


def _context(inner: Sequence[FittedTransfer], setting: Setting, *, scaled: bool) -> GroupContext | None:
    """What the other rows of a group are to do to a score, by the rows that the inner folds held out; ``scaled`` as of
    ``fit_context``."""
    if not _in_groups_of_several(setting):
        return None
    target, everything = setting.target, setting.target.columns.modalities
    at = np.concatenate([fold.held_out for fold in setting.folds])
    scores, actual = held_scores(inner, setting.folds, everything)[at], target.scores.numpy().astype(np.float64)
    keys, blocks = _keys(inner[0], target)[at], target.table["group_id"].to_numpy(dtype=str)[at]
    return fit_context(scores, actual[at], keys, blocks, float(actual[setting.whole.train].mean()), scaled=scaled)


def _keys(model: FittedTransfer, target: Target) -> np.ndarray:
    """The rows' ``group_keys``: none for rows without any modality that the model uses: their score is constant."""
    usable = np.any([target.columns.present[name].numpy() for name in model.used], axis=0)
    keys = group_keys(target.table["given_group"])
    keys[~usable] = None
    return keys
