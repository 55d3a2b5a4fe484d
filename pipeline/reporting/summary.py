"""What ``python -m pipeline summary`` prints: the scores of a finished run beside their baselines, on one screen.

It computes no metric: every score is one of ``metrics/details/evaluate.json``. Which corpora are built in stands in
``metrics/details/split.json``.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.core import artifacts
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.core.metrics import built_in
from pipeline.core.terminal import printable
from pipeline.corpora.refusals import dropped_rows_messages, unread_messages
from pipeline.posts.evaluation_figures import BASELINE_NAMES
from pipeline.reporting.changes import changed_since
from pipeline.reporting.evaluated import read_evaluated
from pipeline.reporting.screen import Screen
from pipeline.sentiment.scored import STEP_NAMES, taken_in_words

PIPED_WIDTH = 100
"""Piped output is not folded at 80 columns."""

WARNINGS = 3
"""Of each track at most so many are shown, the gravest first as `evaluate` wrote them."""

NAME_WIDTH, SCORE_WIDTH = 50, 23
"""Columns, so that the tables of both tracks stand one above the other."""


def run(layout: Layout) -> None:
    """Raises InputError when nothing was evaluated yet, or there is no project."""
    if not layout.params.is_file() and not layout.details("evaluate").is_file():
        raise InputError(
            f"{layout.root.absolute()}: no project, which has a params.yaml; go to its folder, or --project"
        )
    evaluated = read_evaluated(layout)
    posts, sentiment = _track(evaluated, "posts", "fusion"), _track(evaluated, "sentiment", "target")
    if not posts and not sentiment:
        raise InputError(f"{layout.details('evaluate')}: has no scores of any track; run `dvc repro`")
    console = Screen(PIPED_WIDTH)
    built_in_corpora = built_in(layout)
    if posts:
        _show_posts(console, posts, built_in_corpora)
        console.print()
    if sentiment:
        _show_sentiment(console, sentiment, built_in_corpora)
        console.print()
    if not layout.details("split").is_file():
        missing = layout.details("split").relative_to(layout.root).as_posix()
        console.print(Text(f"{missing}: not found, so built-in corpora are not marked", "yellow"))
    for warning in (*_lost(layout), *changed_since(layout)):
        console.print(Text(f"! {printable(warning)}", "yellow"))
    _show_next(console, posts, sentiment)


def _lost(layout: Layout) -> list[str]:
    """What of the corpora is not behind the scores: rows left out, columns, files and ends of texts not read."""
    lines = []
    for stage, said in (("split", dropped_rows_messages), ("embed", unread_messages)):
        path = layout.details(stage)
        lines += said(artifacts.read_json(path)) if path.is_file() else []
    return lines


def _track(evaluated: Mapping[str, Any], name: str, needed: str) -> dict[str, Any]:
    """The numbers of a track; empty where it was not evaluated."""
    track = evaluated.get(name) or {}
    return track if needed in track else {}


# --- the tracks ------------------------------------------------------------------------------------------------------


def _show_posts(console: Console, posts: Mapping[str, Any], built_in_corpora: Sequence[str]) -> None:
    table = _scores(f"Posts{' (built-in)' if 'posts' in built_in_corpora else ''}: {posts['n']} test rows", "macro-F1")
    table.add_row("fusion", _score(posts["fusion"], "macro_f1"), style="bold")
    for name in ("text", "image", "video"):
        if posts.get(name, {}).get("n"):
            table.add_row(f"{name} alone, the {posts[name]['n']} rows that have it", _score(posts[name], "macro_f1"))
    for name, scores in posts["baselines"].items():
        table.add_row(f"baseline: {BASELINE_NAMES[name]}", _score(scores, "macro_f1"))
    gain = posts["fusion_minus_best_baseline"]
    table.add_row(f"fusion less {BASELINE_NAMES[gain['baseline']]}", _difference(gain), _verdict(gain))
    console.print(table)
    _show_warnings(console, posts)


def _show_sentiment(console: Console, sentiment: Mapping[str, Any], built_in_corpora: Sequence[str]) -> None:
    target = sentiment["target"]
    how = {"holdout": "held out", "cross_validation": "cross-validated"}[target["protocol"]]
    mark = " (built-in)" if "target" in built_in_corpora else ""
    table = _scores(f"Transfer{mark}: {target['n']} test rows, {how}", "Pearson's r", "MAE")
    for name, label in (("source", "source model on the source"), ("source_text", "source's text model on the source")):
        if name in sentiment:
            table.add_row(f"{label}, {sentiment[name]['n']} test rows", *_step(sentiment[name]))
    if "ridge" in sentiment.get("source", {}):
        table.add_row("baseline: ridge on the source", *_step(sentiment["source"]["ridge"]))
    for name, label in STEP_NAMES.items():
        if name in target:
            label = f"baseline: {label}" if name in ("mean", "ridge") else label
            table.add_row(label, *_step(target[name]), style="bold" if name == "finetuned" else None)
    gains = [target.get(key) for key in ("finetuned_minus_ridge", "finetuned_minus_ridge_mae")]
    if any(gains):
        table.add_row("fine-tuned less ridge", *(_difference(gain) if gain else "" for gain in gains))
        table.add_row("", *(_verdict(gain) if gain else "" for gain in gains))
    console.print(table)
    console.print(Text(f"fine-tuning took {taken_in_words(target['taken'])}"))
    if "source" in built_in_corpora and "target" not in built_in_corpora:
        console.print(Text("! what is carried over was learned from the built-in source", "yellow"))
    _show_warnings(console, sentiment)


def _scores(title: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(title, width=NAME_WIDTH)
    for name in (*columns, "")[:2]:
        table.add_column(name, width=SCORE_WIDTH)
    return table


def _step(scores: Mapping[str, Any]) -> tuple[str, str]:
    return _score(scores, "pearson"), _score(scores, "mae")


def _score(scores: Mapping[str, Any], metric: str) -> str:
    """``value [low, high]``; a dash where it is undefined."""
    if metric not in scores:
        return "-"
    value = f"{scores[metric]:.3f}"
    if f"{metric}_ci_low" not in scores:
        return value
    return f"{value} [{scores[f'{metric}_ci_low']:.3f}, {scores[f'{metric}_ci_high']:.3f}]"


def _difference(gain: Mapping[str, float]) -> str:
    value = f"{gain['value']:+.3f}"
    return f"{value} [{gain['ci_low']:+.3f}, {gain['ci_high']:+.3f}]" if "ci_low" in gain else value


def _verdict(gain: Mapping[str, float]) -> str:
    """What the interval of a difference says."""
    if "ci_low" not in gain:
        return "no interval"
    if gain["ci_low"] > 0:
        return "above 0"
    return "below 0" if gain["ci_high"] < 0 else "may be 0"


def _show_warnings(console: Console, track: Mapping[str, Any]) -> None:
    warnings = track.get("warnings", [])
    more = len(warnings) - WARNINGS
    if more > 0:
        warnings = [*warnings[:WARNINGS], f"and {more} more in metrics/details/evaluate.json"]
    for warning in warnings:
        console.print(Text(f"! {printable(warning)}", "yellow"))


# --- what next -------------------------------------------------------------------------------------------------------


def _show_next(console: Console, posts: Mapping[str, Any], sentiment: Mapping[str, Any]) -> None:
    table = Table("Look at next", "", box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    for command, why in _commands(posts, sentiment):
        table.add_row(f"python -m pipeline {command}", why)
    console.print(table)


def _commands(posts: Mapping[str, Any], sentiment: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Commands, and why one would call them after this run."""
    diagnosis = sentiment.get("diagnosis", {})
    if diagnosis.get("findings"):
        yield "diagnose", f"the transfer: {_count(diagnosis['findings'])}, the likeliest {diagnosis['first']}"
    if posts:
        wrong = round(posts["n"] * (1 - posts["fusion"]["accuracy"]))
        yield "errors", f"the {wrong} of {posts['n']} test posts that the fusion takes for another class"
    yield "report", "all of it as one page: curves, classes, ablation, mistakes, params"
    yield "compare", "this run beside other experiments"


def _count(findings: int) -> str:
    return "1 finding" if findings == 1 else f"{findings} findings"
