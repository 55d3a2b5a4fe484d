"""The source → target track's part of `evaluate`: every step on rows that nobody saw, and what is wrong with it.

Steps are the source model on the source, and on the target: the mean, ridge on the target alone, the source's text
model as it is, adapters without and with the target's labels, and everything tuned together. Under cross-validation
each row is scored by the fold that left it out, all rows of a repeat at once, and repeats are averaged.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold

from pipeline import figures
from pipeline.core import artifacts
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.core.schemas import subsets_of, variant
from pipeline.params import Evaluate, Params
from pipeline.scoring import baselines, columns, diagnostics, intervals, leaks, sentiment
from pipeline.scoring.baselines import Block
from pipeline.scoring.diagnostics import Adapter, Evidence, Finding, Parts, Step
from pipeline.stages import sentiment_tables
from pipeline.stages.sentiment_tables import ADAPTERS, FINETUNED, SOURCE, SOURCE_TEXT, Track

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

FEW_ROWS, FEW_GROUPS = 100, 20
"""Fewer rows, or groups behind an interval, are worth a warning."""

CORRELATIONS = ("pearson", "spearman", "ccc", "slope")
"""What says nothing of the mean baseline, which is constant, or, in a cross-validation, falls where a fold rises."""

INNER_FOLDS = 5


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
    block: Evaluate = field(repr=False)
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


def run(params: Params, layout: Layout, plots: Path) -> dict[str, Any]:
    """Scores the track, draws its figures into ``plots``, and returns its metrics.

    Raises InputError, naming ids, when a row that is to be scored, its group or a copy of it was seen in fitting.
    """
    track = sentiment_tables.read(params, layout)
    leaks.refuse(sentiment_tables.find_leaks(track))
    measured = measure(track, params)
    metrics = measured.metrics()
    _draw(plots, measured, metrics["target"])
    return metrics


@dataclass(frozen=True)
class Measured:
    """All that was scored; ``source`` and ``source_text`` are None where no row of theirs is a test row."""

    track: Track
    source: Scored | None
    source_text: Scored | None
    target: Scored
    parts: dict[str, Parts]
    evidence: Evidence

    def metrics(self) -> dict[str, Any]:
        metrics: dict[str, Any] = {}
        for name, scored in (("source", self.source), ("source_text", self.source_text)):
            if scored is not None:
                metrics[name] = {"n": len(scored.actual), **step_metrics(scored, "source")}
        metrics["target"] = target_metrics(self.track, self.target, self.parts)
        metrics["diagnosis"] = _diagnosis(diagnostics.diagnose(self.evidence))
        if warnings := _warnings(self, metrics):
            metrics["warnings"] = "; ".join(warnings)
        return metrics


def measure(track: Track, params: Params, leaked: Sequence[str] = ()) -> Measured:
    """Scores every step; ``leaked`` is what the leak guard said, for a diagnosis of what must not be reported."""
    source = source_scored(track, SOURCE, params)
    target = target_scored(track, params)
    parts = modality_gap(track, params)
    return Measured(
        track,
        source,
        source_scored(track, SOURCE_TEXT, params) if SOURCE_TEXT in track.stages else None,
        target,
        parts,
        _evidence(track, source, target, parts, params, leaked),
    )


# --- what is scored --------------------------------------------------------------------------------------------------


def source_scored(track: Track, stage: str, params: Params) -> Scored | None:
    """The source model, or its text model, on the source's own test rows; None where there are none."""
    table = track.tables[sentiment_tables.CORPUS_OF[stage]]
    rows = track.stages[stage].predictions.query("variant == 'source'")
    found = table.merge(rows[["sample_id", "score"]], on="sample_id", suffixes=("", "_predicted"))
    parts = {name: found[found["split"] == name] for name in ("train", "test")}
    if parts["test"].empty:
        return None
    per_group = params.evaluate.sentiment_per == "group"
    rows_of = {name: _averaged(part, part[["score_predicted"]].to_numpy().T, per_group) for name, part in parts.items()}
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
    ids, groups, actual, _ = _averaged(rows, np.zeros((1, len(rows))), per_group)
    systems, train, within = {}, {}, {}
    several = track.scored["fold"].nunique() > 1
    for name, part in predictions.groupby("variant", sort=False):
        pooled = _pooled(part, track, rows["sample_id"], str(name))
        if len(pooled):
            systems[str(name)] = _averaged(rows, pooled, per_group)[3]
        scoring = part[part["fold"].isin(part.loc[part["split"] == "test", "fold"])]
        for role, known in (("train", train), ("test", within)) if several else (("train", train),):
            r = _in_folds(scoring[scoring["split"] == role], track.target, per_group)
            if r is not None:
                known[str(name)] = r
    return Scored(ids, groups, actual, systems, train, within, params.evaluate, params.seed)


def _averaged(
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
        _, _, actual, predicted = _averaged(part, part[["predicted"]].to_numpy().T, per_group)
        found.append(sentiment.pearson(actual, predicted[0]))
    defined = [value for value in found if value is not None]
    return float(np.mean(defined)) if defined and len(defined) == len(found) else None


# --- baselines -------------------------------------------------------------------------------------------------------


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


@dataclass(frozen=True)
class Trio:
    """Positions in the target's table of a fold's rows; a cross-validated corpus has one if it came with a split."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def trio_of(track: Track) -> Trio | None:
    """The parts between which a modality may change its meaning; None where no part stands apart."""
    if track.protocol == "holdout":
        return Trio(*(track.positions("final", role) for role in ("train", "val", "test")))
    given = track.target["given_split"].where(track.target["score"].notna(), None)
    parts = [np.flatnonzero(given == name) for name in ("train", "val", "test")]
    return Trio(*parts) if all(len(part) for part in parts) else None


def modality_gap(track: Track, params: Params) -> dict[str, Parts]:
    """Ridge on each modality alone, fitted on training rows only, on all three parts; empty where there are none."""
    trio = trio_of(track)
    if trio is None or not all(len(part) for part in (trio.train, trio.val, trio.test)):
        return {}
    scores = track.target["score"].to_numpy(dtype=np.float64)
    groups = track.target["group_id"].to_numpy(dtype=str)
    per_group = params.evaluate.sentiment_per == "group"
    found = {}
    for name in track.modalities:
        block = track.blocks["target"][name]
        fitted = baselines.ridge([block], scores, trio.train, groups)
        within = _within(block, scores, groups, trio.test)
        parts = {"train": (trio.train, fitted), "val": (trio.val, fitted), "test": (trio.test, fitted)}
        scored = {
            part: _averaged(track.target.iloc[at], values[at][None], per_group)
            for part, (at, values) in {**parts, "within": (trio.test, within)}.items()
        }
        r = {part: sentiment.pearson(actual, predicted[0]) for part, (_, _, actual, predicted) in scored.items()}
        drop = _drop(scored["val"], scored["test"], params)
        found[str(name)] = Parts(r["train"], r["val"], r["test"], r["within"], drop)
    return found


def _within(block: Block, scores: np.ndarray, groups: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Ridge cross-validated among the test rows alone, [N]: what the modality says there by itself."""
    found = np.zeros(len(scores))
    folds = min(INNER_FOLDS, len(set(groups[test])))
    if folds > 1:
        for inner, held in GroupKFold(folds).split(test, groups=groups[test]):
            found[test[held]] = baselines.ridge([block], scores, test[inner], groups)[test[held]]
    return found


def _drop(val: tuple[np.ndarray, ...], test: tuple[np.ndarray, ...], params: Params) -> float | None:
    """Lower end of the interval of r on validation minus r on test rows, whose groups are drawn independently."""
    drawn = [
        intervals.resampled_scores(actual, {"r": predicted}, groups, params.evaluate.bootstrap, params.seed + at)
        for at, (_, groups, actual, predicted) in enumerate((val, test))
    ]
    found = intervals.interval(drawn[0]["r"]["pearson"] - drawn[1]["r"]["pearson"], params.evaluate.confidence)
    return None if found is None else found[0]


# --- metrics ---------------------------------------------------------------------------------------------------------


def step_metrics(scored: Scored, name: str) -> dict[str, float]:
    """All that is known of one step, with intervals; what is undefined is left out."""
    found = sentiment.report(scored.actual, scored.systems[name])
    for metric in ("pearson", "ccc", "mae"):
        limits = scored.interval(name, metric)
        if metric in found and limits is not None:
            found |= {f"{metric}_ci_low": limits[0], f"{metric}_ci_high": limits[1]}
    own = {name: scored.systems[name]}
    p = intervals.permutation_p(scored.actual, own, scored.groups, scored.block.permutations, scored.seed)
    if name in p:
        found["permutation_p"] = p[name]
    if name in scored.within:
        found["pearson_within_folds"] = scored.within[name]
    if name in scored.train:
        found["resubstitution_pearson"] = scored.train[name]
    return found


def target_metrics(track: Track, scored: Scored, parts: dict[str, Parts]) -> dict[str, Any]:
    metrics: dict[str, Any] = {
        "n": len(scored.actual),
        "groups": len(set(scored.groups)),
        "protocol": track.protocol,
        **{name: step_metrics(scored, name) for name in STEP_NAMES if name in scored.systems},
    }
    dropped = [*CORRELATIONS, *(f"{metric}_ci_{end}" for metric in CORRELATIONS for end in ("low", "high"))]
    without = {*dropped, "permutation_p", "pearson_within_folds", "resubstitution_pearson"}
    metrics["mean"] = {key: value for key, value in metrics["mean"].items() if key not in without}
    metrics["subsets"] = _subset_metrics(track, scored)
    for metric, key in (("pearson", "finetuned_minus_ridge"), ("mae", "finetuned_minus_ridge_mae")):
        if found := scored.difference("finetuned", "ridge", metric):
            metrics[key] = found
    if curve := _curve_metrics(scored):
        metrics["curve"] = curve
    if parts:
        metrics["modality_gap"] = {
            name: {f"{key}_pearson": r for key in ("train", "val", "test") if (r := getattr(part, key)) is not None}
            for name, part in parts.items()
        }
    return metrics


def _subset_metrics(track: Track, scored: Scored) -> dict[str, Any]:
    own = track.modalities
    return {
        "_".join(subset): {step: _with_interval(scored, variant(step, subset, own)) for step in IN_SUBSETS}
        for subset in subsets_of(own)
    }


def _with_interval(scored: Scored, name: str) -> dict[str, float]:
    """Pearson's r; empty where it is undefined."""
    value, limits = (
        sentiment.report(scored.actual, scored.systems[name]).get("pearson"),
        scored.interval(name, "pearson"),
    )
    return {} if value is None or limits is None else {"pearson": value, "ci_low": limits[0], "ci_high": limits[1]}


def _curve_metrics(scored: Scored) -> dict[str, Any]:
    """The learning curve, by ``with_<groups>`` and ``without_<groups>`` the source."""
    sizes = sorted({int(name.rpartition(":")[2]) for name in scored.systems if name.startswith("curve:")})
    metrics: dict[str, Any] = {}
    for size in sizes:
        names = {kind: f"curve:{kind}:{size}" for kind in CURVES if f"curve:{kind}:{size}" in scored.systems}
        for kind, name in names.items():
            mae = sentiment.report(scored.actual, scored.systems[name])["mae"]
            metrics[f"{kind}_{size}"] = {**_with_interval(scored, name), "mae": mae}
        if len(names) == 2 and (found := scored.difference(names["with"], names["without"], "pearson")):
            metrics[f"with_minus_without_{size}"] = found
    return metrics


def _diagnosis(findings: Sequence[Finding]) -> dict[str, Any]:
    """What is wrong, in order; findings of one name are numbered from the second on."""
    wrong = [finding for finding in findings if finding.wrong]
    first = wrong[0] if wrong else None
    metrics: dict[str, Any] = {
        "findings": len(wrong),
        "first": first.name if first else "nothing",
        "first_why": first.means if first else "every question was answered without a finding",
    }
    for finding in wrong:
        again = sum(key.partition("-")[0] == finding.name for key in metrics)
        metrics[f"{finding.name}-{again + 1}" if again else finding.name] = {
            "likelihood": finding.likelihood,
            "measured": finding.measured,
            "means": finding.means,
            "try": finding.try_,
        }
    return metrics


def _warnings(measured: Measured, metrics: dict[str, Any]) -> list[str]:
    """What a reader of the numbers must know: all that is small, absent or undefined."""
    found = []
    target = metrics["target"]
    if target["n"] < FEW_ROWS:
        found.append(f"only {target['n']} scored target rows: the intervals are wide")
    if target["groups"] < FEW_GROUPS:
        found.append(f"only {target['groups']} groups among them: the intervals are rough")
    if measured.source is None:
        found.append("the source has no test rows, so its model is not scored")
    why = "is a constant" if target["protocol"] == "holdout" else "falls where the scores of the fold left out rise"
    found.append(f"no correlation of the mean baseline, which {why}")
    named = [("source", metrics.get("source")), *((name, target.get(name)) for name in STEP_NAMES if name != "mean")]
    for name, report in named:
        missing = [metric for metric in sentiment.METRICS if report is not None and metric not in report]
        found += [f"{name}: {', '.join(missing)} undefined"] if missing else []
    predicted = set(measured.track.stages[FINETUNED].predictions["variant"])
    gone = sorted(name for name in predicted if name.startswith("curve:") and name not in measured.target.systems)
    found += [f"{name}: not every fold has so many groups" for name in gone]
    if not measured.parts:
        found.append("no modality gap: the target has no validation and test part")
    return found


# --- evidence --------------------------------------------------------------------------------------------------------


def _evidence(
    track: Track,
    source: Scored | None,
    target: Scored,
    parts: dict[str, Parts],
    params: Params,
    leaked: Sequence[str],
) -> Evidence:
    adapters = track.stages[ADAPTERS].description["adapters"]
    names = Adapter.__dataclass_fields__
    return Evidence(
        groups=len(set(target.groups)),
        leaks=leaked,
        source=None if source is None else _step(source, "source"),
        steps={name: _step(target, name) for name in STEP_NAMES if name != "mean" and name in target.systems},
        adapters={name: Adapter(**{key: losses[key] for key in names}) for name, losses in adapters.items()},
        parts=parts,
        shifts=_shifts(track, params.seed),
    )


def _step(scored: Scored, name: str) -> Step:
    found = sentiment.report(scored.actual, scored.systems[name])
    low, high = scored.interval(name, "pearson") or (None, None)
    train, within = scored.train.get(name), scored.within.get(name)
    return Step(found.get("pearson"), low, high, train, found.get("spread_ratio"), within)


def _shifts(track: Track, seed: int) -> dict[str, columns.Shift]:
    """How a part's columns lie to those of the rest of its corpus; of several parts, the one most in disorder."""
    found = {}
    for corpus, sides in (("source", _source_sides(track)), ("target", _target_sides(track))):
        table = track.tables[corpus]
        groups, scores = table["group_id"].to_numpy(dtype=str), table["score"].to_numpy(dtype=np.float64)
        for modality, block in track.blocks[corpus].items():
            if modality in track.modalities:
                whole = columns.Part(block.vectors, groups, scores)
                pairs = [[whole.at(rows[block.present[rows]]) for rows in side] for side in sides]
                shifts = [shift for here, there in pairs if (shift := columns.shift(here, there, seed)) is not None]
                if shifts:
                    found[f"{corpus} {modality}"] = max(shifts, key=diagnostics.disorder)
    return found


def _source_sides(track: Track) -> list[tuple[np.ndarray, np.ndarray]]:
    split = track.tables["source"]["split"]
    return [(np.flatnonzero(split.isin(["train", "val"])), np.flatnonzero(split == "test"))]


def _target_sides(track: Track) -> list[tuple[np.ndarray, np.ndarray]]:
    """Fitted against scored rows; where no part stands apart, those of each fold, and the table's halves."""
    trio = trio_of(track)
    if trio is not None:
        return [(np.concatenate([trio.train, trio.val]), trio.test)]
    folds = list(dict.fromkeys(track.scored["fold"]))
    first = [fold for fold in folds if fold.partition(".")[0] == folds[0].partition(".")[0]]
    labelled = np.flatnonzero(track.target["sample_id"].isin(track.scored["sample_id"]))
    halves = (labelled[: len(labelled) // 2], labelled[len(labelled) // 2 :])
    return [halves, *((track.positions(fold, "train", "val"), track.positions(fold, "test")) for fold in first)]


# --- figures ---------------------------------------------------------------------------------------------------------


def _draw(plots: Path, measured: Measured, metrics: dict[str, Any]) -> None:
    scored = measured.target
    unit = "groups" if scored.block.sentiment_per == "group" else "rows"
    steps = [
        {"name": label, "step": name, **_bar(metrics[name]), "resubstitution": scored.train.get(name, np.nan)}
        for name, label in STEP_NAMES.items()
        if name in metrics and "pearson_ci_low" in metrics[name]
    ]
    title = f"Pearson's r on {metrics['n']} unseen target {unit}"
    figures.transfer(plots / "transfer.png", pd.DataFrame(steps), title)
    figures.learning_curve(plots / "curve.png", _curve_rows(metrics), "with and without the source")
    subsets = [
        {"subset": subset, "step": step, "value": of["pearson"], "low": of["ci_low"], "high": of["ci_high"]}
        for subset, steps_of in metrics["subsets"].items()
        for step, of in steps_of.items()
        if of
    ]
    figures.sentiment_subsets(plots / "sentiment_subsets.png", pd.DataFrame(subsets), "what each modality brings")
    gap = [
        {"modality": name, "part": part, "value": r}
        for name, of in metrics.get("modality_gap", {}).items()
        for part in ("train", "val", "test")
        if (r := of.get(f"{part}_pearson")) is not None
    ]
    figures.modality_gap(
        plots / "modality_gap.png", pd.DataFrame(gap), "ridge on one modality: does it hold on unseen rows?"
    )
    predicted = pd.DataFrame(
        {
            "sample_id": scored.ids,
            "group_id": scored.groups,
            "actual": scored.actual,
            "predicted": scored.systems["finetuned"].mean(axis=0),
        }
    )
    artifacts.write_csv(plots / "predicted.csv", predicted.round(artifacts.DECIMALS))
    figures.predicted_against_actual(plots / "predicted.png", predicted, f"fine-tuned, {metrics['n']} unseen {unit}")


def _bar(of: dict[str, float]) -> dict[str, float]:
    return {"value": of["pearson"], "low": of["pearson_ci_low"], "high": of["pearson_ci_high"]}


def _curve_rows(metrics: dict[str, Any]) -> pd.DataFrame:
    rows = []
    for key, of in metrics.get("curve", {}).items():
        kind, _, size = key.rpartition("_")
        if kind in CURVES and "pearson" in of:
            rows.append(
                {"kind": kind, "groups": int(size), "value": of["pearson"], "low": of["ci_low"], "high": of["ci_high"]}
            )
    return pd.DataFrame(rows, columns=["kind", "groups", "value", "low", "high"])
