"""What the diagnosis is drawn from: modality gaps, moved columns, steps and adapters."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.core.schemas import ScoreStep, repeat_of
from pipeline.params import Params
from pipeline.scoring import columns, diagnostics, intervals, sentiment
from pipeline.scoring.diagnostics import AdapterLosses, Evidence, PartScores, Step
from pipeline.scoring.ridge import FeatureBlock, inner_folds, ridge
from pipeline.sentiment.descriptions import AdapterReport
from pipeline.sentiment.scored import Scored, averaged
from pipeline.sentiment.track import ADAPTERS, Track


@dataclass(frozen=True)
class SplitRows:
    """Positions in the target's table of a fold's rows; a cross-validated corpus has one if it came with a split."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def split_rows(track: Track) -> SplitRows | None:
    """The parts between which a modality may change its meaning; None where no part stands apart."""
    if track.protocol == "holdout":
        return SplitRows(*(track.rows("final", role) for role in ("train", "val", "test")))
    given = track.target["given_split"].where(track.target["score"].notna(), None)
    parts = [np.flatnonzero(given == name) for name in ("train", "val", "test")]
    return SplitRows(*parts) if all(len(part) for part in parts) else None


def modality_gap(track: Track, params: Params) -> dict[str, PartScores]:
    """Ridge on each modality alone, fitted on training rows only, on all three parts; empty where there are none."""
    trio = split_rows(track)
    if trio is None or not all(len(part) for part in (trio.train, trio.val, trio.test)):
        return {}
    scores = track.target["score"].to_numpy(dtype=np.float64)
    groups = track.target["group_id"].to_numpy(dtype=str)
    per_group = params.evaluate.sentiment_per == "group"
    part_scores = {}
    for name in track.modalities:
        block = track.blocks["target"][name]
        fitted = ridge([block], scores, trio.train, groups)
        within = _within(block, scores, groups, trio.test)
        parts = {"train": (trio.train, fitted), "val": (trio.val, fitted), "test": (trio.test, fitted)}
        scored = {
            part: averaged(track.target.iloc[at], values[at][None], per_group)
            for part, (at, values) in {**parts, "within": (trio.test, within)}.items()
        }
        r = {part: sentiment.pearson(actual, predicted[0]) for part, (_, _, actual, predicted) in scored.items()}
        drop = _drop(scored["val"], scored["test"], params)
        part_scores[str(name)] = PartScores(r["train"], r["val"], r["test"], r["within"], drop)
    return part_scores


def _within(block: FeatureBlock, scores: np.ndarray, groups: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Ridge cross-validated among the test rows alone, [N]: the predictions of the modality by itself."""
    predicted = np.zeros(len(scores))
    for fold in inner_folds(groups[test]):
        held_out = test[fold.held_out]
        predicted[held_out] = ridge([block], scores, test[fold.train], groups)[held_out]
    return predicted


def _drop(val: tuple[np.ndarray, ...], test: tuple[np.ndarray, ...], params: Params) -> float | None:
    """Lower end of the interval of r on validation minus r on test rows, whose groups are drawn independently."""
    drawn = [
        intervals.resampled_scores(actual, {"r": predicted}, groups, params.evaluate.bootstrap, params.seed + at)
        for at, (_, groups, actual, predicted) in enumerate((val, test))
    ]
    limits = (drawn[0]["r"]["pearson"] - drawn[1]["r"]["pearson"]).interval(params.evaluate.confidence)
    return None if limits is None else limits[0]


def gather_evidence(
    track: Track,
    source: Scored | None,
    target: Scored,
    parts: dict[str, PartScores],
    params: Params,
    leaked: Sequence[str],
) -> Evidence:
    described = track.stages[ADAPTERS].description
    adapters: dict[str, AdapterReport] = {
        name: adapter for name, adapter in described.adapters.items() if not described.net[name].identity
    }
    losses = {
        name: adapter.model_dump(include={*AdapterLosses.__dataclass_fields__}) for name, adapter in adapters.items()
    }
    return Evidence(
        groups=len(set(target.groups)),
        leaks=leaked,
        taken=track.taken,
        source=None if source is None else _step(source, "source"),
        steps={step: _step(target, step) for step in target.steps if step != "mean"},
        adapters={name: AdapterLosses(**adapter_losses) for name, adapter_losses in losses.items()},
        parts=parts,
        shifts=_shifts(track, params.seed),
    )


def _step(scored: Scored, step: ScoreStep) -> Step:
    variant = scored.whole(step)
    report = scored.reports[variant]
    low, high = scored.interval(variant, "pearson") or (None, None)
    train, within = scored.train.get(variant), scored.within.get(variant)
    return Step(report.get("pearson"), low, high, train, report.get("spread_ratio"), within)


def _shifts(track: Track, seed: int) -> dict[str, columns.Shift]:
    """How a part's columns lie to those of the rest of its corpus; of several parts, the one most in disorder."""
    worst = {}
    for corpus, sides in (("source", _source_sides(track)), ("target", _target_sides(track))):
        table = track.tables[corpus]
        groups, scores = table["group_id"].to_numpy(dtype=str), table["score"].to_numpy(dtype=np.float64)
        for modality, block in track.blocks[corpus].items():
            if modality in track.modalities:
                whole = columns.ColumnSample(block.vectors, groups, scores)
                pairs = [[whole.at(rows[block.present[rows]]) for rows in side] for side in sides]
                shifts = [shift for here, there in pairs if (shift := columns.shift(here, there, seed)) is not None]
                if shifts:
                    worst[f"{corpus} {modality}"] = max(shifts, key=diagnostics.disorder)
    return worst


def _source_sides(track: Track) -> list[tuple[np.ndarray, np.ndarray]]:
    split = track.tables["source"]["split"]
    return [(np.flatnonzero(split.isin(["train", "val"])), np.flatnonzero(split == "test"))]


def _target_sides(track: Track) -> list[tuple[np.ndarray, np.ndarray]]:
    """Fitted against scored rows; where no part stands apart, those of each fold, and the table's halves."""
    trio = split_rows(track)
    if trio is not None:
        return [(np.concatenate([trio.train, trio.val]), trio.test)]
    folds = list(dict.fromkeys(track.scored["fold"]))
    first = [fold for fold in folds if repeat_of(fold) == repeat_of(folds[0])]
    labelled = np.flatnonzero(track.target["sample_id"].isin(track.scored["sample_id"]))
    halves = (labelled[: len(labelled) // 2], labelled[len(labelled) // 2 :])
    return [halves, *((track.rows(fold, "train", "val"), track.rows(fold, "test")) for fold in first)]
