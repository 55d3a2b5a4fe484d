"""Fits of the fusion that do not depend on one another, side by side in processes.

What a process has fitted is among the finished pieces of the stage, where ``fit_fusion`` finds it when it is asked for
the same: so results do not depend on the number of processes, and one process does without all of this.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pipeline.core.layout import Layout
from pipeline.core.parallel import in_processes
from pipeline.core.schemas import AVERAGED, FusionCandidate
from pipeline.params import Params
from pipeline.posts.folds import NamedFold
from pipeline.posts.fusion_candidates import FusionCandidateResult, fit_fusion, fit_settings
from pipeline.posts.fusion_rows import FusionRows, ModalitySubset, read_fusion_rows
from pipeline.training.device import one_thread, workers

QUICK: tuple[FusionCandidate, ...] = ("best_specialist", "averaged")
"""Candidates with nothing to solve."""


@dataclass(frozen=True)
class FusionJob:
    """One candidate on one fold.

    Attributes:
        subset: the modalities that it knows; None: all, with each of the settings that are tried.
        settings: those that were chosen, where a subset is named.
    """

    params: Params
    layout: Layout
    name: FusionCandidate
    fold: NamedFold
    subset: ModalitySubset | None = None
    settings: dict[str, Any] | None = None


def try_side_by_side(
    names: Sequence[FusionCandidate], folds: Sequence[NamedFold], params: Params, layout: Layout
) -> None:
    """Fits these candidates on all inner folds."""
    slowest_first: list[FusionCandidate] = [name for name in reversed(names) if name not in QUICK]
    _run([FusionJob(params, layout, name, fold) for name in slowest_first for fold in folds])


def fit_side_by_side(
    taken: FusionCandidateResult,
    subsets_and_folds: Sequence[tuple[ModalitySubset, NamedFold]],
    params: Params,
    layout: Layout,
) -> None:
    """Fits what was taken, or each part of it, for these subsets of the modalities."""
    parts: list[tuple[FusionCandidate, dict[str, Any]]] = [(taken.name, taken.settings)]
    if taken.name == "averaged":
        parts = [(name, taken.settings[name]) for name in AVERAGED if name in taken.settings]
    _run(
        [
            FusionJob(params, layout, name, fold, subset, settings)
            for subset, fold in subsets_and_folds
            for name, settings in parts
            if name not in QUICK
        ]
    )


def _run(jobs: list[FusionJob]) -> None:
    if jobs and (count := workers(jobs[0].params.processes, jobs[0].params.device)) > 1:
        for _ in in_processes(_fit, jobs, count, "fuse"):
            pass


def _fit(job: FusionJob) -> None:
    corpus = _rows(job.params.model_dump_json(), job.layout)
    with one_thread():
        if job.subset is None:
            fit_settings(job.name, corpus, job.fold, job.params)
        else:
            fit_fusion(job.name, corpus, job.subset, job.fold, job.params, job.settings or {})


@lru_cache(maxsize=1)
def _rows(params: str, layout: Layout) -> FusionRows:
    return read_fusion_rows(Params.model_validate_json(params), layout)
