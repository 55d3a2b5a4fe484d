"""Predictions of rows that nobody saw: the steps', their subsets', and those of the baselines."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from pipeline.core.errors import InputError
from pipeline.core.schemas import subsets_of, variant
from pipeline.params import EvaluateParams, Params
from pipeline.scoring import baselines, intervals, sentiment
from pipeline.sentiment.track import ADAPTERS, CORPUS_OF, FINETUNED, Track

STAGE_OF = {"text_transfer": ADAPTERS, "zero_shot": ADAPTERS, "adapted": ADAPTERS, "finetuned": FINETUNED}
IN_SUBSETS = ("ridge", "zero_shot", "adapted", "finetuned")
CURVES = ("with", "without")
STEP_NAMES = {
    "mean": "mean of the training scores",
    "ridge": "ridge on the target alone",
    "text_transfer": "source's text model as it is",
    "zero_shot": "adapters without target labels",
    "adapted": "adapters with target labels",
    "finetuned": "fine-tuned end to end",
}


@dataclass(frozen=True)
class Scored:
    """Predictions of rows that nobody saw.

    Attributes:
        ids, groups: [n] names; where groups are scored, both are those of the groups.
        actual: float64 [n].
        systems: name → float64 [repeats, n].
        train: name → Pearson's r on training rows, mean over folds; without those for which it is undefined.
        within: name → the mean of the r of each fold's own test rows; empty where there is one fold.
    """

    ids: np.ndarray
    groups: np.ndarray
    actual: np.ndarray
    systems: dict[str, np.ndarray]
    train: dict[str, float]
    within: dict[str, float]
    block: EvaluateParams = field(repr=False)
    seed: int

    def only(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        return {name: self.systems[name] for name in names if name in self.systems}

    @cached_property
    def resampled(self) -> dict[str, dict[str, np.ndarray]]:
        """Every system in the same resamples; see ``intervals.resampled_scores``."""
        return intervals.resampled_scores(self.actual, self.systems, self.groups, self.block.bootstrap, self.seed)

    def interval(self, name: str, metric: str) -> tuple[float, float] | None:
        return intervals.interval(self.resampled[name][metric], self.block.confidence)

    def difference(self, a: str, b: str, metric: str) -> dict[str, float]:
        """``a`` minus ``b`` on the same resamples; nothing where one of them is undefined."""
        values = [sentiment.report(self.actual, self.systems[name]).get(metric) for name in (a, b)]
        found = intervals.interval(self.resampled[a][metric] - self.resampled[b][metric], self.block.confidence)
        if values[0] is None or values[1] is None or found is None:
            return {}
        return {"value": values[0] - values[1], "ci_low": found[0], "ci_high": found[1]}


def source_scored(track: Track, stage: str, params: Params) -> Scored | None:
    """The source model, or its text model, on the source's own test rows; None where there are none."""
    table = track.tables[CORPUS_OF[stage]]
    rows = track.stages[stage].predictions.query("variant == 'source'")
    found = table.merge(rows[["sample_id", "score"]], on="sample_id", suffixes=("", "_predicted"))
    parts = {name: found[found["split"] == name] for name in ("train", "test")}
    if parts["test"].empty:
        return None
    per_group = params.evaluate.sentiment_per == "group"
    rows_of = {name: averaged(part, part[["score_predicted"]].to_numpy().T, per_group) for name, part in parts.items()}
    train_actual, train_predicted = rows_of["train"][2:]
    remembered = sentiment.pearson(train_actual, train_predicted[0]) if len(train_actual) else None
    ids, groups, actual, predicted = rows_of["test"]
    train = {} if remembered is None else {"source": remembered}
    return Scored(ids, groups, actual, {"source": predicted}, train, {}, params.evaluate, params.seed)


def target_scored(track: Track, params: Params) -> Scored:
    """Every step, subset and point of the learning curve on the target's unseen rows."""
    predictions = pd.concat([track.stages[name].predictions for name in (ADAPTERS, FINETUNED)])
    wanted = _variants(track, set(predictions["variant"]))
    predictions = pd.concat([predictions[predictions["variant"].isin(wanted)], baseline_predictions(track)])
    per_group = params.evaluate.sentiment_per == "group"
    rows = track.target[track.target["sample_id"].isin(track.scored["sample_id"])]
    ids, groups, actual, _ = averaged(rows, np.zeros((1, len(rows))), per_group)
    systems, train, within = {}, {}, {}
    several = track.scored["fold"].nunique() > 1
    for name, part in predictions.groupby("variant", sort=False):
        pooled = _pooled(part, track, rows["sample_id"], str(name))
        if len(pooled):
            systems[str(name)] = averaged(rows, pooled, per_group)[3]
        scoring = part[part["fold"].isin(part.loc[part["split"] == "test", "fold"])]
        for role, known in (("train", train), ("test", within)) if several else (("train", train),):
            r = _in_folds(scoring[scoring["split"] == role], track.target, per_group)
            if r is not None:
                known[str(name)] = r
    return Scored(ids, groups, actual, systems, train, within, params.evaluate, params.seed)


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


def _variants(track: Track, found: set[str]) -> set[str]:
    """What of the predictions is scored. Raises InputError when a step or one of its subsets is missing."""
    own = track.modalities
    wanted = {variant(step, subset, own) for step in IN_SUBSETS[1:] for subset in subsets_of(own)}
    if missing := sorted(wanted - found):
        stage = STAGE_OF[missing[0].partition(":")[0]]
        raise InputError(f"models/{stage}/predictions.parquet: has no variant {missing[0]}; run `dvc repro`")
    return wanted | {name for name in found if name == "text_transfer" or name.startswith("curve:")}


def _pooled(predictions: pd.DataFrame, track: Track, ids: pd.Series, name: str) -> np.ndarray:
    """One variant's predictions of the rows ``ids`` by the folds that left them out, float64 [repeats, n].

    A point of the learning curve may be missing in a repeat whose folds have too few groups, and then the repeat is.
    Raises InputError when another variant does not predict each row once in each repeat.
    """
    test = predictions[predictions["split"] == "test"]
    found = []
    repeats = track.scored["fold"].str.partition(".")[0]
    for repeat in dict.fromkeys(repeats):
        rows = test[test["fold"].str.partition(".")[0] == repeat].set_index("sample_id")["score"]
        if rows.index.is_unique and len(rows) == len(ids) and ids.isin(rows.index).all():
            found.append(rows.loc[ids].to_numpy(dtype=np.float64))
        elif not name.startswith("curve:"):
            raise InputError(f"predictions of {name}: {repeat} does not have each test row once; run `dvc repro`")
    return np.array(found)


def _in_folds(predictions: pd.DataFrame, table: pd.DataFrame, per_group: bool) -> float | None:
    """Pearson's r on the rows of each fold, averaged; None where there are none or it is undefined."""
    rows = predictions.rename(columns={"score": "predicted"}).merge(table, on="sample_id")
    found = []
    for _, part in rows.groupby("fold"):
        _, _, actual, predicted = averaged(part, part[["predicted"]].to_numpy().T, per_group)
        found.append(sentiment.pearson(actual, predicted[0]))
    defined = [value for value in found if value is not None]
    return float(np.mean(defined)) if defined and len(defined) == len(found) else None


def baseline_predictions(track: Track) -> pd.DataFrame:
    """The mean and, for every subset, ridge on the target alone: fitted on each scoring fold's train and val rows.

    Columns ``sample_id, split, fold, variant, score``, as the models' predictions have them.
    """
    scores = track.target["score"].to_numpy(dtype=np.float64)
    groups = track.target["group_id"].to_numpy(dtype=str)
    own, tables = track.modalities, []
    for fold in dict.fromkeys(track.scored["fold"]):
        fitted = track.positions(fold, "train", "val")
        if not len(fitted):
            raise InputError(f"data/split/target_folds.parquet: {fold} has no row to learn from; run `dvc repro`")
        found = {"mean": np.full(len(scores), scores[fitted].mean())}
        for subset in subsets_of(own):
            blocks = [track.blocks["target"][name] for name in subset]
            found[variant("ridge", subset, own)] = baselines.ridge(blocks, scores, fitted, groups, select=subset == own)
        roles = track.folds[track.folds["fold"] == fold].rename(columns={"role": "split"})
        at = pd.Index(track.target["sample_id"]).get_indexer(pd.Index(roles["sample_id"]))
        tables += [roles.assign(variant=name, score=values[at]) for name, values in found.items()]
    return pd.concat(tables, ignore_index=True)
