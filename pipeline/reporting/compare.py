"""What ``python -m pipeline compare`` prints: experiments side by side, a column each.

Rows are the params that differ, then the headline metrics with their intervals, the best of each row marked. The same
table goes to a CSV file (every digit), to Markdown, and, scores only, to a picture.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.core import artifacts
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.core.metrics import HEADLINES
from pipeline.figures.comparison import draw_comparison
from pipeline.reporting import experiments
from pipeline.reporting.experiments import Experiment
from pipeline.reporting.screen import Screen

PIPED_WIDTH = 120
"""Piped output is not folded at 80 columns."""

BUILT_IN = "built-in corpora"
"""The row that says of which corpora the figures tell nothing about real data."""

PARAMS = 20
"""At most so many params are printed; files hold all that differ."""

ENDLESS = 10_000

VALUE_WIDTH = 24
"""Longer values of params are folded."""

LOW, HIGH = "_ci_low", "_ci_high"

LABELS = {
    "posts.fusion.macro_f1": "fusion, macro-F1",
    "posts.text.macro_f1": "text alone, macro-F1",
    "posts.image.macro_f1": "image alone, macro-F1",
    "posts.video.macro_f1": "video alone, macro-F1",
    "posts.fusion_minus_best_baseline.value": "fusion less best baseline",
    "sentiment.target.ridge.pearson": "ridge, r",
    "sentiment.target.finetuned.pearson": "fine-tuned, r",
    "sentiment.target.finetuned.mae": "fine-tuned, MAE",
    "posts.out_of_fold.macro_f1": "out of fold, macro-F1",
    "sentiment.out_of_fold.pearson": "out of fold, r",
    "sentiment.val.pearson": "val r",
}


@dataclass(frozen=True)
class Metric:
    """A row: one headline of all experiments; NaN where one lacks it."""

    stage: str
    key: str
    values: np.ndarray
    lows: np.ndarray
    highs: np.ndarray

    @property
    def label(self) -> str:
        label = LABELS.get(self.key, self.key)
        return label if self.stage == "evaluate" else f"{self.stage}: {label}"

    @property
    def is_score(self) -> bool:
        return not self.key.endswith(".rows")

    @property
    def differs(self) -> bool:
        known = self.values[~np.isnan(self.values)]
        return 0 < len(known) < len(self.values) or len(set(known.tolist())) > 1

    @property
    def best(self) -> np.ndarray:
        """bool [experiments]: all that share the best value; none where there is nothing to choose between."""
        known = self.values[~np.isnan(self.values)]
        if not self.is_score or len(set(known.tolist())) < 2:
            return np.zeros(len(self.values), dtype=bool)
        return self.values == (known.min() if self.key.endswith(".mae") else known.max())

    def cell(self, at: int, between: str = " ") -> str:
        """``value [low, high]``, with ``between`` before the interval."""
        value, low, high = self.values[at], self.lows[at], self.highs[at]
        if np.isnan(value):
            return "-"
        if not self.is_score:
            return f"{value:.0f}"
        return f"{value:.3f}" if np.isnan(low) else f"{value:.3f}{between}[{low:.3f}, {high:.3f}]"


@dataclass(frozen=True)
class Comparison:
    """Columns, and the rows on which they differ or are scored.

    Attributes:
        params: key → a value for each column.
        built_in: of each column, which corpora are built-in examples; empty where none is.
    """

    columns: tuple[Experiment, ...]
    params: dict[str, list[str]]
    metrics: list[Metric]
    built_in: list[str]


def compare(columns: Sequence[Experiment]) -> Comparison:
    """Raises InputError when none of the experiments has a metric."""
    if not any(column.metrics for column in columns):
        names = ", ".join(column.name for column in columns)
        raise InputError(f"no metrics: {names}; `dvc repro` makes them, `dvc pull` fetches those of other machines")
    keys = dict.fromkeys(key for column in columns for key in column.params)
    params = {key: [column.params.get(key, "-") for column in columns] for key in keys}
    differing = {key: values for key, values in params.items() if len(set(values)) > 1}
    built_in = [column.built_in for column in columns]
    named = [] if set(built_in) <= {"none", "-"} else built_in
    return Comparison(tuple(columns), differing, list(_metrics(columns)), named)


def _metrics(columns: Sequence[Experiment]) -> Iterator[Metric]:
    """Test scores, then of the other stages what differs."""
    stages = ["evaluate", *(stage for stage in HEADLINES if stage != "evaluate")]
    for stage in stages:
        for key in HEADLINES[stage]:
            if key.endswith((LOW, HIGH)):
                continue
            values, lows, highs = (
                np.array([column.metrics.get((stage, f"{key}{end}"), np.nan) for column in columns], dtype=np.float64)
                for end in ("", LOW, HIGH)
            )
            metric = Metric(stage, key, values, lows, highs)
            if metric.differs or (stage == "evaluate" and not np.isnan(values).all()):
                yield metric


# --- on a screen -----------------------------------------------------------------------------------------------------


def run(layout: Layout, names: Sequence[str], csv: Path | None, md: Path | None, picture: Path | None) -> None:
    """Prints the table, and writes those files that are asked for.

    Raises InputError for a name that is none, without DVC, outside of a DVC repository, and without any metric.
    """
    console = Screen(PIPED_WIDTH)
    notes: list[str] = []
    if names:
        chosen = compare(experiments.choose(layout, names))
    else:
        chosen, notes = _newest(experiments.listed(layout), console)
    for table in _tables(chosen, console):
        console.print(table)
    for note in [*_notes(chosen), *notes]:
        console.print(note, soft_wrap=True)
    for out, write in ((csv, write_csv), (md, write_md), (picture, write_picture)):
        if out is not None:
            write(out, chosen)
            console.print(f"{out}: written", soft_wrap=True)


def _newest(known: experiments.Experiments, console: Console) -> tuple[Comparison, list[str]]:
    """Workspace, commit, and the newest experiments, as many as fit; and what is to be said of the others."""
    runs = [run for run in known.runs if run.metrics]
    waiting = [run.name for run in known.runs if not run.metrics]
    shown = len(runs)
    while True:
        chosen = compare([known.workspace, known.head, *runs[len(runs) - shown :]])
        if shown <= 1 or _fits(_table(chosen, range(len(chosen.columns)), "\n "), console):
            break
        shown -= 1
    notes = []
    if older := len(runs) - shown:
        notes.append(f"older experiments left out: {older}; `dvc exp list` names them, to give as arguments")
    if waiting:
        notes.append(f"without metrics, as they failed or wait: {', '.join(waiting)}")
    return chosen, notes


def _fits(table: Table, console: Console) -> bool:
    # Measured on a screen without end, since a narrow one would only say how far the table can be folded.
    endless = console.options.update(width=ENDLESS)
    return console.measure(table, options=endless).maximum <= console.width


def _tables(chosen: Comparison, console: Console) -> Iterator[Table]:
    """One table, or, where the screen is too narrow for it, some below each other."""
    everything = range(len(chosen.columns))
    whole = _table(chosen, everything, " ")
    if _fits(whole, console):
        yield whole
        return
    start = 0
    while start < len(everything):
        end = len(everything)
        table = _table(chosen, range(start, end), "\n ")
        while end > start + 1 and not _fits(table, console):
            end -= 1
            table = _table(chosen, range(start, end), "\n ")
        yield table
        start = end


def _table(chosen: Comparison, columns: range, between: str) -> Table:
    """``between`` a value and its interval is a space, or, to be narrow, a new line."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for at in columns:
        column = chosen.columns[at]
        created = column.created[5:16].replace("T", " ") if column.created else ""
        table.add_column(Text(f" {column.name}\n {created}"), max_width=VALUE_WIDTH, overflow="fold")
    for key, values in list(chosen.params.items())[:PARAMS]:
        table.add_row(Text(key), *(Text(f" {values[at]}") for at in columns), style="dim")
    if chosen.built_in:
        table.add_row(Text(BUILT_IN), *(Text(f" {chosen.built_in[at]}") for at in columns), style="yellow")
    for metric in chosen.metrics:
        best = metric.best
        cells = [
            Text(f"*{metric.cell(at, between)}", "bold green") if best[at] else Text(f" {metric.cell(at, between)}")
            for at in columns
        ]
        table.add_row(Text(metric.label), *cells)
    return table


def _notes(chosen: Comparison) -> Iterator[str]:
    if any(metric.best.any() for metric in chosen.metrics):
        rows = "choose by those out of fold or of val; the others are of test rows"
        yield f"* the best of its row, of MAE the lowest; {rows}"
    if not chosen.params:
        yield "no params differ"
    if (more := len(chosen.params) - PARAMS) > 0:
        yield f"{more} more params differ: `dvc params diff`, or --csv"
    if without := [column.name for column in chosen.columns if not column.metrics]:
        yield f"no metrics here: {', '.join(without)}; `dvc repro` makes them, `dvc pull` fetches them"


# --- files -----------------------------------------------------------------------------------------------------------


def write_csv(path: Path, chosen: Comparison) -> None:
    """Every digit: columns ``file``, ``name`` and one for each experiment; limits of intervals have their own rows."""
    names = [column.name for column in chosen.columns]
    rows = [["params.yaml", key, *values] for key, values in chosen.params.items()]
    if chosen.built_in:
        rows.append(["metrics/split.json", "built_in", *chosen.built_in])
    for metric in chosen.metrics:
        for end, values in (("", metric.values), (LOW, metric.lows), (HIGH, metric.highs)):
            if not np.isnan(values).all():
                shown = ["" if np.isnan(value) else repr(float(value)) for value in values]
                rows.append([f"metrics/{metric.stage}.json", f"{metric.key}{end}", *shown])
    artifacts.write_csv(path, pd.DataFrame(rows, columns=["file", "name", *names]))


def write_md(path: Path, chosen: Comparison) -> None:
    """The table as Markdown, the best of each row bold."""
    lines = [["", *(column.name for column in chosen.columns)], ["---"] * (len(chosen.columns) + 1)]
    lines += [[f"`{key}`", *values] for key, values in chosen.params.items()]
    lines += [[BUILT_IN, *chosen.built_in]] if chosen.built_in else []
    for metric in chosen.metrics:
        cells = [metric.cell(at) for at in range(len(chosen.columns))]
        lines.append(
            [metric.label, *(f"**{cell}**" if best else cell for cell, best in zip(cells, metric.best, strict=True))]
        )
    text = "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
    with artifacts.replacing(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="\n")


def write_picture(path: Path, chosen: Comparison) -> None:
    """Test scores with their intervals, a panel each."""
    rows = [
        {
            "score": metric.label,
            "experiment": column.name,
            "value": metric.values[at],
            "low": metric.lows[at],
            "high": metric.highs[at],
            "best": metric.best[at],
        }
        for metric in chosen.metrics
        if metric.stage == "evaluate" and metric.is_score
        for at, column in enumerate(chosen.columns)
        if not np.isnan(metric.values[at])
    ]
    draw_comparison(path, pd.DataFrame(rows), "Test scores, the best in blue")
