"""The metrics of every step, with their intervals, and the warnings that belong to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pipeline.core.schemas import ScoreStep, subset_name, subsets_of
from pipeline.scoring import diagnostics, intervals, score_intervals, sentiment
from pipeline.scoring.diagnostics import Evidence, Finding, PartScores
from pipeline.sentiment.scored import IN_SUBSETS, STEP_NAMES, Scored
from pipeline.sentiment.track import FINETUNED, Track
from pipeline.sentiment.variants import Variant, by_variant

FEW_ROWS = 100
"""Fewer rows are worth a warning."""

CURVES = ("with", "without")
"""The learning curves: with the source, and without."""

CORRELATIONS = ("pearson", "spearman", "ccc", "slope")
"""Uninformative for the mean baseline, which is constant, or, in a cross-validation, falls where a fold rises."""


@dataclass(frozen=True)
class Measured:
    """All that was scored; ``source`` and ``source_text`` are None where no row of theirs is a test row."""

    track: Track
    source: Scored | None
    source_text: Scored | None
    target: Scored
    parts: dict[str, PartScores]
    evidence: Evidence

    def metrics(self) -> dict[str, Any]:
        metrics: dict[str, Any] = {}
        for name, scored in (("source", self.source), ("source_text", self.source_text)):
            if scored is not None:
                metrics[name] = {"n": len(scored.actual), **step_metrics(scored, "source")}
                if scored.whole("ridge") in scored.systems:
                    metrics[name]["ridge"] = step_metrics(scored, "ridge")
                    metrics[name] |= minus_ridge(scored, "source")
        metrics["target"] = target_metrics(self.track, self.target, self.parts)
        metrics["diagnosis"] = _diagnosis(diagnostics.diagnose(self.evidence))
        if warnings := _warnings(self, metrics):
            metrics["warnings"] = warnings
        return metrics


def step_metrics(scored: Scored, step: ScoreStep) -> dict[str, float]:
    """All that is known of one step, with intervals; what is undefined is left out."""
    variant = scored.whole(step)
    metrics = dict(scored.reports[variant])
    for metric in ("pearson", "ccc", "mae"):
        if metric in metrics:
            metrics |= intervals.interval_metrics(
                scored.resampled[variant][metric], scored.block.confidence, f"{metric}_"
            )
    system = {step: scored.systems[variant]}
    p = intervals.permutation_p(scored.actual, system, scored.groups, scored.block.permutations, scored.seed)
    if step in p:
        metrics["permutation_p"] = p[step]
    if variant in scored.within:
        metrics["pearson_within_folds"] = scored.within[variant]
    if variant in scored.train:
        metrics["resubstitution_pearson"] = scored.train[variant]
    return metrics


def target_metrics(track: Track, scored: Scored, parts: dict[str, PartScores]) -> dict[str, Any]:
    metrics: dict[str, Any] = {
        "n": len(scored.actual),
        "groups": len(set(scored.groups)),
        "protocol": track.protocol,
        "taken": track.taken,
        **{step: step_metrics(scored, step) for step in scored.steps},
    }
    dropped = [*CORRELATIONS, *(f"{metric}_ci_{end}" for metric in CORRELATIONS for end in ("low", "high"))]
    without = {*dropped, "permutation_p", "pearson_within_folds", "resubstitution_pearson"}
    metrics["mean"] = {key: value for key, value in metrics["mean"].items() if key not in without}
    metrics["subsets"] = _subset_metrics(track, scored)
    metrics |= minus_ridge(scored, "finetuned")
    if curve := _curve_metrics(scored):
        metrics["curve"] = curve
    predictions = scored.whole("finetuned").of(track.stages[FINETUNED].predictions)
    if held := score_intervals.coverage_metrics(predictions, track.target, scored.block.coverage):
        metrics["conformal"] = held
    if parts:
        metrics["modality_gap"] = {
            name: {f"{key}_pearson": r for key in ("train", "val", "test") if (r := getattr(part, key)) is not None}
            for name, part in parts.items()
        }
    return metrics


def minus_ridge(scored: Scored, step: ScoreStep) -> dict[str, dict[str, float]]:
    """``<step>_minus_ridge``, of r, and ``<step>_minus_ridge_mae``; left out where undefined."""
    differences = {}
    for metric, key in (("pearson", f"{step}_minus_ridge"), ("mae", f"{step}_minus_ridge_mae")):
        if difference := scored.difference(scored.whole(step), scored.whole("ridge"), metric):
            differences[key] = difference
    return differences


def _subset_metrics(track: Track, scored: Scored) -> dict[str, Any]:
    names = [subset_name(subset) for subset in subsets_of(track.modalities)]
    return {name: {step: _with_interval(scored, Variant(step, name)) for step in IN_SUBSETS} for name in names}


def _with_interval(scored: Scored, variant: Variant) -> dict[str, float]:
    """Pearson's r, with its interval where there is one; empty where it is undefined."""
    value = scored.reports[variant].get("pearson")
    if value is None:
        return {}
    return {
        "pearson": value,
        **intervals.interval_metrics(scored.resampled[variant]["pearson"], scored.block.confidence),
    }


def _curve_metrics(scored: Scored) -> dict[str, Any]:
    """The learning curve, by ``with_<groups>`` and ``without_<groups>`` the source."""
    metrics: dict[str, Any] = {}
    for groups, of_size in groupby(scored.curve, key=lambda variant: variant.groups):
        points = list(of_size)
        for variant in points:
            metrics[curve_point(variant)] = {**_with_interval(scored, variant), "mae": scored.reports[variant]["mae"]}
        if len(points) == 2 and (difference := scored.difference(points[0], points[1], "pearson")):
            metrics[f"with_minus_without_{groups}"] = difference
    return metrics


def curve_point(variant: Variant) -> str:
    """What a point of the learning curve is called in the metrics."""
    return f"{CURVES[0] if variant.with_source else CURVES[1]}_{variant.groups}"


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
    warnings = []
    target = metrics["target"]
    if target["n"] < FEW_ROWS:
        warnings.append(f"only {target['n']} scored target rows: the intervals are wide")
    warnings += intervals.few_groups_warnings(measured.target.groups, "the scored target rows")
    if measured.source is None:
        warnings.append("the source has no test rows, so its model is not scored")
    why = "it is a constant" if target["protocol"] == "holdout" else "cross-validation makes it negative in any case"
    warnings.append(f"no correlation of the mean baseline is given: {why}")
    unfit = sentiment.inapplicable_metrics(measured.target.actual)
    for need in dict.fromkeys(unfit.values()):
        warnings.append(f"no {', '.join(name for name, needed in unfit.items() if needed == need)}: they need {need}")
    named = [("source", metrics.get("source")), *((name, target.get(name)) for name in STEP_NAMES if name != "mean")]
    for name, report in named:
        known = unfit if name != "source" else {}
        missing = [metric for metric in sentiment.METRICS if report is not None and metric not in {**report, **known}]
        warnings += [f"{name}: {', '.join(missing)} undefined"] if missing else []
    predicted = by_variant(measured.track.stages[FINETUNED].predictions)
    gone = [variant for variant in predicted if variant.groups and variant not in measured.target.systems]
    warnings += [f"curve {curve_point(variant)}: not every fold has so many groups" for variant in sorted(gone)]
    if not measured.parts:
        warnings.append("the modality gap is not measured: the target has no validation and test part")
    return warnings
