"""Predictions of rows that nobody saw: the steps', their subsets', and those of the baselines."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from pipeline.core.errors import InputError
from pipeline.core.schemas import FeatureSubset, ScoreStep, repeat_of, subset_name, subsets_of
from pipeline.params import EvaluateParams, Params
from pipeline.scoring import intervals, sentiment
from pipeline.scoring.ridge import ridge
from pipeline.sentiment.track import ADAPTERS, CORPUS_OF, FINETUNED, SOURCE, SOURCE_TEXT, Track
from pipeline.sentiment.variants import Variant, by_variant

STAGE_OF = {"zero_shot": ADAPTERS, "adapted": ADAPTERS, "finetuned": FINETUNED}
IN_ONE_SUBSET = ("text_transfer", "text_tuned", "finetuned_alone")
"""Steps that are there where there are words, or several rows to a group, and are scored with all modalities."""
IN_SUBSETS = ("ridge", "zero_shot", "adapted", "finetuned")
STEP_NAMES: dict[ScoreStep, str] = {
    "mean": "mean of the training scores",
    "ridge": "ridge on the target alone",
    "text_transfer": "source's text model as it is",
    "text_tuned": "text encoder tuned on the target's words",
    "zero_shot": "adapters without target labels",
    "adapted": "adapters with target labels",
    "finetuned_alone": "fine-tuned, without the rest of the group",
    "finetuned": "fine-tuned as inner folds choose",
}
CANDIDATE_NAMES = {
    "ridge": "ridge on the target alone",
    "text_tuned": "the text encoder tuned on the target alone",
    "text_transfer": "the source's text model as it is",
    "text_transfer_tuned": "the source's text model tuned",
    "text_averaged": "the average of both text models",
    "adapters": "the source's model through adapters",
    "all": "all of it tuned",
}
"""The candidates of `finetune_e2e`."""


def taken_in_words(counts: Mapping[str, int]) -> str:
    """What inner folds chose, and in how many of the scored folds."""
    total = sum(counts.values())
    if total == 1:
        return CANDIDATE_NAMES[next(iter(counts))]
    return ", ".join(f"{CANDIDATE_NAMES[name]} in {count} of {total} folds" for name, count in counts.items())


@dataclass(frozen=True)
class Scored:
    """Predictions of rows that nobody saw.

    Attributes:
        ids, groups: [n] names; where groups are scored, both are those of the groups.
        actual: float64 [n].
        modalities: all that the track uses.
        systems: variant → float64 [repeats, n].
        train: variant → Pearson's r on training rows, mean over folds; without those for which it is undefined.
        within: variant → the mean of the r of each fold's own test rows; empty where there is one fold.
    """

    ids: np.ndarray
    groups: np.ndarray
    actual: np.ndarray
    modalities: FeatureSubset
    systems: dict[Variant, np.ndarray]
    train: dict[Variant, float]
    within: dict[Variant, float]
    block: EvaluateParams = field(repr=False)
    seed: int

    def whole(self, step: ScoreStep) -> Variant:
        """The step with all modalities."""
        return Variant(step, subset_name(self.modalities))

    @property
    def steps(self) -> list[ScoreStep]:
        """The steps that were scored, in the order of the track."""
        return [step for step in STEP_NAMES if self.whole(step) in self.systems]

    @property
    def curve(self) -> list[Variant]:
        """The points of the learning curve that were scored, by size, each with the source and then without."""
        points = [variant for variant in self.systems if variant.groups]
        return sorted(points, key=lambda variant: (variant.groups, not variant.with_source))

    @cached_property
    def resampled(self) -> dict[Variant, dict[str, intervals.Resampled]]:
        """Every system in the same resamples; see ``intervals.resampled_scores``."""
        return intervals.resampled_scores(self.actual, self.systems, self.groups, self.block.bootstrap, self.seed)

    @cached_property
    def reports(self) -> dict[Variant, dict[str, float]]:
        """Every metric of every system; see ``sentiment.report``."""
        return {variant: sentiment.report(self.actual, predicted) for variant, predicted in self.systems.items()}

    def interval(self, variant: Variant, metric: str) -> tuple[float, float] | None:
        return self.resampled[variant][metric].interval(self.block.confidence)

    def difference(self, a: Variant, b: Variant, metric: str) -> dict[str, float]:
        """``a`` minus ``b`` on the same resamples, with its interval; nothing where one of them is undefined."""
        values = [self.reports[variant].get(metric) for variant in (a, b)]
        if values[0] is None or values[1] is None:
            return {}
        drawn = self.resampled[a][metric] - self.resampled[b][metric]
        return {"value": values[0] - values[1], **intervals.interval_metrics(drawn, self.block.confidence)}


def source_scored(track: Track, stage: str, params: Params) -> Scored | None:
    """The source model with ridge beside it, or its text model, on the source's own test rows; None without such rows.

    Ridge is fitted on the rows that the model may learn from, those for training and validation. Raises InputError when
    a row has no prediction.
    """
    table = track.tables[CORPUS_OF[stage]]
    test, train = (np.flatnonzero(table["split"] == name) for name in ("test", "train"))
    if not len(test):
        return None
    modalities: FeatureSubset = ("text",) if stage == SOURCE_TEXT else track.stages[stage].description.modalities
    variant = Variant("source", subset_name(modalities))
    rows = variant.of(track.stages[stage].predictions).set_index("sample_id")["score"]
    predicted = {variant: rows.reindex(table["sample_id"]).to_numpy(np.float64)}
    if np.isnan(predicted[variant]).any():
        raise InputError(f"models/{stage}/predictions.parquet: has not every row of the source; run `dvc repro`")
    if stage == SOURCE:
        blocks = [track.blocks["source"][name] for name in modalities]
        actual, groups = table["score"].to_numpy(np.float64), table["group_id"].to_numpy(dtype=str)
        fitted = np.flatnonzero(table["split"].isin(["train", "val"]))
        predicted[Variant("ridge", variant.subset)] = ridge(blocks, actual, fitted, groups)
    per_group = params.evaluate.sentiment_per == "group"
    known = {}
    for one, scores in predicted.items():
        _, _, actual, fold_predicted = averaged(table.iloc[train], scores[None, train], per_group)
        r = sentiment.pearson(actual, fold_predicted[0]) if len(train) else None
        known |= {} if r is None else {one: r}
    ids, groups, actual, _ = averaged(table.iloc[test], np.zeros((1, len(test))), per_group)
    systems = {one: averaged(table.iloc[test], scores[None, test], per_group)[3] for one, scores in predicted.items()}
    return Scored(ids, groups, actual, modalities, systems, known, {}, params.evaluate, params.seed)


def target_scored(track: Track, params: Params) -> Scored:
    """Every step, subset and point of the learning curve on the target's unseen rows."""
    predicted = by_variant(pd.concat([track.stages[name].predictions for name in (ADAPTERS, FINETUNED)]))
    variants = _wanted(track, set(predicted))
    parts = {variant: part for variant, part in predicted.items() if variant in variants}
    parts |= by_variant(baseline_predictions(track))
    per_group = params.evaluate.sentiment_per == "group"
    rows = track.target[track.target["sample_id"].isin(track.scored["sample_id"])]
    ids, groups, actual, _ = averaged(rows, np.zeros((1, len(rows))), per_group)
    systems, train, within = {}, {}, {}
    several = track.scored["fold"].nunique() > 1
    for variant, part in parts.items():
        pooled = _pooled(part, track, rows["sample_id"], variant)
        if len(pooled):
            systems[variant] = averaged(rows, pooled, per_group)[3]
        scoring = part[part["fold"].isin(part.loc[part["split"] == "test", "fold"])]
        for role, known in (("train", train), ("test", within)) if several else (("train", train),):
            r = _in_folds(scoring[scoring["split"] == role], track.target, per_group)
            if r is not None:
                known[variant] = r
    return Scored(ids, groups, actual, track.modalities, systems, train, within, params.evaluate, params.seed)


def averaged(
    rows: pd.DataFrame, predicted: np.ndarray, per_group: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Ids, groups, scores [n] and ``predicted`` [repeats, n] of rows, or of the means of their groups."""
    groups = rows["group_id"].to_numpy(dtype=str)
    actual = rows["score"].to_numpy(dtype=np.float64)
    if not per_group or rows.empty:
        return rows["sample_id"].to_numpy(dtype=str), groups, actual, predicted
    names = np.unique(groups)
    return names, names, sentiment.group_means(actual, groups), sentiment.group_means(predicted, groups)


def _wanted(track: Track, predicted: set[Variant]) -> set[Variant]:
    """What of the predictions is scored. Raises InputError when a step or one of its subsets is missing."""
    subsets = subsets_of(track.modalities)
    variants = {Variant(step, subset_name(subset)) for step in IN_SUBSETS[1:] for subset in subsets}
    if missing := sorted(variants - predicted):
        step, subset, *_ = missing[0]
        raise InputError(f"models/{STAGE_OF[step]}/predictions.parquet: has no {subset} of {step}; run `dvc repro`")
    return variants | {variant for variant in predicted if variant.step in IN_ONE_SUBSET or variant.groups}


def _pooled(predictions: pd.DataFrame, track: Track, ids: pd.Series, variant: Variant) -> np.ndarray:
    """One variant's predictions of the rows ``ids`` by the folds that left them out, float64 [repeats, n].

    A point of the learning curve may be missing in a repeat whose folds have too few groups, and then the repeat is.
    Raises InputError when another variant does not predict each row once in each repeat.
    """
    test = predictions[predictions["split"] == "test"]
    pooled, scores, repeat_of = [], test["score"].to_numpy(dtype=np.float64), _repeats(test["fold"])
    for repeat in dict.fromkeys(_repeats(track.scored["fold"])):
        in_repeat = repeat_of == repeat
        known = pd.Index(test["sample_id"][in_repeat])
        if known.is_unique and len(known) == len(ids) and ids.isin(known).all():
            pooled.append(scores[in_repeat][known.get_indexer(pd.Index(ids))])
        elif not variant.groups:
            what = f"{variant.step} with {variant.subset}: repeat {repeat}"
            raise InputError(f"predictions of {what} does not have each test row once; run `dvc repro`")
    return np.array(pooled)


def _repeats(folds: pd.Series) -> np.ndarray:
    """The repeat that each fold belongs to, int64 [n]."""
    return folds.map(repeat_of).to_numpy(dtype=np.int64)


def _in_folds(predictions: pd.DataFrame, table: pd.DataFrame, per_group: bool) -> float | None:
    """Pearson's r on the rows of each fold, averaged; None where there are none or it is undefined."""
    at = pd.Index(table["sample_id"]).get_indexer(pd.Index(predictions["sample_id"]))
    known, correlations = predictions[at >= 0], []
    rows = table[["sample_id", "group_id", "score"]].iloc[at[at >= 0]]
    scores, folds = known["score"].to_numpy(dtype=np.float64), known["fold"].to_numpy(dtype=str)
    for fold in np.unique(folds):
        _, _, actual, predicted = averaged(rows[folds == fold], scores[None, folds == fold], per_group)
        correlations.append(sentiment.pearson(actual, predicted[0]))
    defined = [value for value in correlations if value is not None]
    return float(np.mean(defined)) if defined and len(defined) == len(correlations) else None


def baseline_predictions(track: Track) -> pd.DataFrame:
    """The mean and, for every subset, ridge on the target alone: fitted on each scoring fold's train and val rows.

    Its columns are those of the models' predictions, ``schemas.SCORES_TABLE``.
    """
    scores = track.target["score"].to_numpy(dtype=np.float64)
    groups = track.target["group_id"].to_numpy(dtype=str)
    modalities, tables = track.modalities, []
    for fold in dict.fromkeys(track.scored["fold"]):
        fitted = track.rows(fold, "train", "val")
        if not len(fitted):
            raise InputError(f"data/split/target_folds.parquet: {fold} has no row to learn from; run `dvc repro`")
        predicted = {Variant("mean", subset_name(modalities)): np.full(len(scores), scores[fitted].mean())}
        for subset in subsets_of(modalities):
            blocks = [track.blocks["target"][name] for name in subset]
            variant = Variant("ridge", subset_name(subset))
            predicted[variant] = ridge(blocks, scores, fitted, groups, select=subset == modalities)
        roles = track.folds[track.folds["fold"] == fold].rename(columns={"role": "split"})
        at = pd.Index(track.target["sample_id"]).get_indexer(pd.Index(roles["sample_id"]))
        tables += [roles.assign(**variant._asdict(), score=values[at]) for variant, values in predicted.items()]
    return pd.concat(tables, ignore_index=True)
