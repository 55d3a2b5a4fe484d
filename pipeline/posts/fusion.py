"""The fusion: which candidate is taken, and its predictions of unseen rows.

Candidates are compared on grouped inner folds of the training and validation rows, each with out-of-fold predictions of
the specialists; see ``fusion_candidates``. The one that is taken is fitted again on all of these rows, whole and with
every subset of the modalities.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pipeline.core import artifacts
from pipeline.core.descriptions import read_description
from pipeline.core.layout import Layout
from pipeline.core.schemas import FINAL, subset_name, subsets_of
from pipeline.nets.fusion import FusedNet
from pipeline.params import Params
from pipeline.posts.descriptions import FusionDescription, SpecialistDescription
from pipeline.posts.folds import NamedFold
from pipeline.posts.fusion_candidates import (
    FittedFusion,
    FusionCandidateResult,
    average,
    build,
    fit_fusion,
    log_shares,
    try_fusion,
)
from pipeline.posts.fusion_jobs import fit_side_by_side, try_side_by_side
from pipeline.posts.fusion_rows import FusionRows, ModalitySubset
from pipeline.scoring import calibration, selection
from pipeline.scoring.selection import Selection
from pipeline.training.checkpoint import load_net
from pipeline.training.device import one_thread

UNFUSED = "specialist"
"""The ``fold`` of rows that the specialist of the only modality predicted out of its own folds."""


@dataclass(frozen=True)
class FusionOutcome:
    """What was taken, and what it predicted.

    Attributes:
        taken: None in a corpus of one modality.
        final: the same, fitted on all training and validation rows (of many, on the training rows).
        folds: every fold that a model was fitted for, the final one last.
        logits: float32 [N, K]; ``folds`` say of which rows.
        subsets: (``masked | retrained``, name of the subset) → float32 [test rows, K].
        nothing: in a corpus of one modality, the K logits of a post without it.
    """

    choice: Selection
    taken: FusionCandidateResult | None
    final: FittedFusion | None
    folds: list[NamedFold]
    logits: np.ndarray
    subsets: dict[tuple[str, str], np.ndarray]
    nothing: tuple[float, ...] | None = None


def choose_fusion(corpus: FusionRows, params: Params, layout: Layout) -> FusionOutcome:
    """Compares the candidates, and fits the one that is taken."""
    block, grouping = params.fuse, corpus.grouping
    folds = grouping.inner(block.folds, block.inner_rows)
    judged = grouping.judged(folds)
    if several := len(folds) > 1:  # of more rows every process would take as much memory again
        try_side_by_side(block.candidates, folds, params, layout)
    with one_thread():
        by_name = {name: try_fusion(name, corpus, folds, params) for name in block.candidates if name != "averaged"}
        if "averaged" in block.candidates:
            by_name["averaged"] = average(by_name.values())
        tried = [by_name[name] for name in block.candidates]
        choice = selection.choose(
            [candidate.name for candidate in tried],
            [candidate.logits[judged] for candidate in tried],
            corpus.codes.numpy()[judged],
            grouping.groups[judged],
        )
        taken = tried[choice.taken]
        logits, final = taken.logits.copy(), taken.final
        whole = grouping.whole() if final is None else folds[-1]
        if several:
            fit_side_by_side(taken, _final_fits(corpus, whole), params, layout)
        if final is None:
            folds = [*folds, whole]
            final = fit_fusion(taken.name, corpus, corpus.modalities, folds[-1], params, taken.settings)
            logits[folds[-1].held_out] = final.logits
        subsets = _subsets(corpus, taken, final, folds[-1], params)
    return FusionOutcome(choice, taken, final, folds, logits, subsets)


def _final_fits(corpus: FusionRows, whole: NamedFold) -> list[tuple[ModalitySubset, NamedFold]]:
    """What is fitted when the choice is made: all modalities, and each smaller subset."""
    again = _again(corpus, whole)
    return [(subset, whole if subset == corpus.modalities else again) for subset in subsets_of(corpus.modalities)]


def _again(corpus: FusionRows, whole: NamedFold) -> NamedFold:
    """The fold of a retrained subset, which predicts only test rows."""
    return replace(whole, held_out=corpus.grouping.part("test"), val=None)


def _subsets(
    corpus: FusionRows, taken: FusionCandidateResult, final: FittedFusion, fold: NamedFold, params: Params
) -> dict[tuple[str, str], np.ndarray]:
    """Predictions of the test rows with each subset: the others masked, or a candidate of these alone."""
    test, again = corpus.grouping.part("test"), _again(corpus, fold)
    subsets: dict[tuple[str, str], np.ndarray] = {}
    for subset in subsets_of(corpus.modalities):
        with torch.inference_mode():
            masked = final.net.cpu().eval()(*corpus.masked(test, subset)).numpy()
        subsets["masked", subset_name(subset)] = masked
        retrained = masked
        if subset != corpus.modalities:
            retrained = fit_fusion(taken.name, corpus, subset, again, params, taken.settings).logits
        subsets["retrained", subset_name(subset)] = retrained
    return subsets


def unfused(corpus: FusionRows, layout: Layout) -> FusionOutcome:
    """The outcome in a corpus of one modality: its specialist's predictions and decisions, unchanged."""
    (only,) = corpus.modalities
    logits, absent = corpus.expert_log_probs[only].numpy().copy(), ~corpus.present[only].numpy()
    test, known = corpus.grouping.part("test"), corpus.grouping.part("train", "val")
    ids = corpus.posts["sample_id"].to_numpy()
    predicted = artifacts.read_predictions(layout.predictions(f"train_{only}"), len(corpus.labels)).rows["sample_id"]
    # Of a row that the specialist was fitted on, and that was held out of no fold, nothing is known.
    held_out = known[np.isin(ids, predicted)[known] | absent[known]]
    nothing = log_shares(corpus.codes.numpy()[known], len(corpus.labels)).round(artifacts.DECIMALS)
    logits[absent] = nothing
    offset = read_description(layout.model(f"train_{only}"), SpecialistDescription).calibration.offset
    # The log-probabilities are calibrated already.
    calibrated = replace(calibration.identity_calibration(len(corpus.labels)), offset=offset)
    choice = selection.without_rivals(only, logits[held_out], corpus.codes.numpy()[held_out], calibrated)
    nobody = np.array([], dtype=int)
    folds = [NamedFold(nobody, held_out, UNFUSED), NamedFold(known, test, FINAL)]
    subsets = {(kind, only): logits[test] for kind in ("masked", "retrained")}
    return FusionOutcome(choice, None, None, folds, logits, subsets, tuple(nothing.tolist()))


def load_fusion(folder: Path) -> FusedNet | None:
    """The fusion in a folder, ready to predict; None where one modality has nothing to fuse."""
    description = read_description(folder, FusionDescription)
    if description.net is None:
        return None
    return load_net(folder, partial(build, description.net))
