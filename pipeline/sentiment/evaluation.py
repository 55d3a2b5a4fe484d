"""The source → target track's part of `evaluate`: every step on rows that nobody saw, and what is wrong with it.

Steps are the source model on the source, and on the target: the mean, ridge on the target alone, the source's text
model as it is, adapters without and with the target's labels, a text encoder tuned on the target's words alone, and the
fine-tuned model. Under cross-validation each row is scored by the fold that left it out, all rows of a repeat at once,
and repeats are averaged.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.core.layout import Layout
from pipeline.params import Params
from pipeline.scoring import leaks
from pipeline.sentiment.evaluation_figures import draw_evaluation
from pipeline.sentiment.evidence import gather_evidence, modality_gap
from pipeline.sentiment.leak_checks import find_leaks
from pipeline.sentiment.metrics import Measured
from pipeline.sentiment.scored import source_scored, target_scored
from pipeline.sentiment.track import SOURCE, SOURCE_TEXT, Track, read_track
from pipeline.sentiment.training_figures import draw_training


def run(params: Params, layout: Layout, plots: Path) -> dict[str, Any]:
    """Scores the track, draws its figures into ``plots``, and returns its metrics.

    Raises InputError, naming ids, when a row that is to be scored, its group or a copy of it was seen in fitting.
    """
    track = read_track(params, layout)
    leaks.refuse(find_leaks(track))
    measured = measure(track, params)
    metrics = measured.metrics()
    draw_training(plots, layout, track)
    draw_evaluation(plots, measured, metrics["target"])
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
        gather_evidence(track, source, target, parts, params, leaked),
    )
