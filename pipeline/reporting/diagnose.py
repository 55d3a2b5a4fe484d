"""Says what is wrong with the source → target transfer: what was measured, what it means, what to try.

A command beside the stages: it reads what `evaluate` reads and writes nothing. Where the leak guard stops `evaluate`,
it reports the leak instead, first.

Reads: what ``sentiment.track`` reads.
"""

import re
from collections.abc import Sequence

from rich.table import Table

from pipeline.core import off
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.params import Params
from pipeline.reporting.screen import Screen
from pipeline.scoring.diagnostics import Evidence, Finding, diagnose
from pipeline.sentiment import evaluation as sentiment_evaluation
from pipeline.sentiment.leak_checks import find_leaks
from pipeline.sentiment.scored import STEP_NAMES
from pipeline.sentiment.track import read_track

PIPED_WIDTH = 160
"""Piped output is not folded at 80 columns."""


def run(params: Params, layout: Layout) -> None:
    show(find(params, layout))


def find(params: Params, layout: Layout) -> list[Finding]:
    """Every answer, what is wrong first. Raises InputError when a file is missing or cannot be read."""
    off.refuse_off("sentiment", layout)
    track = read_track(params, layout)
    leaked = [str(leak) for leak in find_leaks(track)]
    try:
        return diagnose(sentiment_evaluation.measure(track, params, leaked).evidence)
    except InputError:
        # Tables that leak may not fit together either, and then the leak is all that can be said.
        if not leaked:
            raise
        return diagnose(Evidence(groups=track.scored["group_id"].nunique(), leaks=leaked))


def show(findings: Sequence[Finding]) -> None:
    wrong = [finding for finding in findings if finding.wrong]
    console = Screen(PIPED_WIDTH)
    if wrong:
        table = Table("", "finding", "measured", "what it means", "what to try", show_lines=True)
        for place, finding in enumerate(wrong, start=1):
            table.add_row(str(place), finding.name, finding.measured, finding.means, finding.try_)
        console.print("What is wrong, the likeliest cause first:")
        console.print(table)
    else:
        console.print("Nothing is wrong, as far as these questions go.")
    table = Table("asked", "measured", "answer", box=None, pad_edge=False)
    for finding in findings:
        if not finding.wrong:
            table.add_row(finding.name, finding.measured, finding.means)
    if table.row_count:
        console.print("\nWhat was asked and found in order:")
        console.print(table)
    measured = " ".join(finding.measured for finding in findings)
    names = [f"{step}: {name}" for step, name in STEP_NAMES.items() if re.search(rf"\b{step}\b", measured)]
    if names:
        console.print(f"\nThe steps: {'; '.join(names)}.")
