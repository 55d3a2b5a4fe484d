"""A track that is switched off: its tables have no rows, and each of its stages ends at once with empty outputs.

`split` alone reads params ``tracks``; the stages after it see the empty tables. So switching one track off, or on
again, reruns nothing of the other.
"""

import sys

from pipeline.core import artifacts
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.core.metrics import write_metrics
from pipeline.core.tracks import Track

TABLES: dict[Track, str] = {"posts": "posts", "sentiment": "target"}
"""The table that tells whether a track is on: `split` ends with an error where one that is has no rows."""


def is_off(track: Track, layout: Layout) -> bool:
    """Raises InputError when `split` has not run."""
    return artifacts.count_rows(layout.table(TABLES[track])) == 0


def refuse_off(track: Track, layout: Layout) -> None:
    """Raises InputError when the track was switched off in the run that lies in ``layout``."""
    if layout.table(TABLES[track]).is_file() and is_off(track, layout):
        raise InputError(f"{layout.params}: tracks leaves {track} out; add it and run `dvc repro`")


def left_empty(stage: str, track: Track, layout: Layout) -> bool:
    """Whether the track of a training stage is off; then its empty outputs are written, and one line says why."""
    if not is_off(track, layout):
        return False
    for folder in (layout.model(stage), layout.plots(stage)):
        with artifacts.replacing_folder(folder) as aside:
            (aside / "OFF").write_text(f"params `tracks` leaves {track} out\n", encoding="utf-8", newline="\n")
    write_metrics(layout, stage, {})
    print(f"{stage}: nothing to do, since params `tracks` leaves {track} out", file=sys.stderr)
    return True
