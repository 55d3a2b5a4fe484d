"""A corpus of features → a table of scores: part by part, resumed after a kill; and one score for a terminal."""

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from pipeline.core import artifacts
from pipeline.core.errors import InputError
from pipeline.core.files import digest_of_input
from pipeline.core.progress import progress
from pipeline.core.terminal import printable
from pipeline.corpora.features import FeatureCorpus, read_unscored
from pipeline.corpora.refusals import count_reasons
from pipeline.scoring.conformal import conformal_quantile
from pipeline.sentiment.group_context import GroupSums
from pipeline.serving.ray_tables import RayWorkers, made
from pipeline.serving.score_model import ScoreModel
from pipeline.serving.score_predictor import Score, ScorePredictor
from pipeline.serving.shards import Finish, only_writer, write_table
from pipeline.serving.spelling import misspelt

CHUNK = 1024
"""Rows scored and kept together: a killed run loses at most so many, and memory holds so many."""

SCALE = 41
"""Characters of the scale that a score is shown on."""


def score_corpus(
    predictor: ScorePredictor, corpus: Path, out: Path, coverage: float, ray_workers: RayWorkers | None = None
) -> int:
    """Writes one row for each row of a corpus, in order (at the level of groups: for each group); returns how many
    have no score.

    A model of groups needs all rows of a group at once, so there the corpus is read whole. Where rows are moved by
    their groups, that is done when the parts are joined.

    Args:
        corpus: any format that ``target.corpus`` takes; it needs no score.
        out: ``.parquet`` or ``.csv``.
        ray_workers: the processes that score, if not this one; what is written is the same.

    Raises InputError when the corpus cannot be read, has other columns than the model reads, another run is writing
    ``out``, or a cluster fails.
    """
    rows = 2**31 - 1 if predictor.model.description.level == "group" else CHUNK
    files = sorted(corpus.glob("*.csd")) if corpus.is_dir() else [corpus]
    inputs = [predictor.model.identity, str(coverage), *map(digest_of_input, files)]
    identity = artifacts.digest(f"{at} {part}" for at, part in enumerate(inputs))
    make, schema = partial(_table, coverage=coverage, corpus=str(corpus)), scores_schema(predictor)
    with only_writer(out), made(predictor, make, ray_workers) as tables, progress("scoring", None) as advance:

        def parts() -> Iterator[FeatureCorpus]:
            anything = False
            for part in read_unscored(corpus, rows):
                _check_spelling(predictor, part, corpus)
                _say_left_out(predictor, part, corpus)
                anything = anything or predictor.reads(part)
                yield part
                advance(len(part.rows))
            if not anything:
                raise predictor.nothing_to_read(str(corpus))

        if predictor.model.description.context is None:
            return write_table(out, identity, parts(), tables, schema)
        finish = Finish(schema.append(GROUP), partial(_in_groups, model=predictor.model, coverage=coverage))
        return write_table(out, identity, parts(), tables, schema, finish)


def _check_spelling(predictor: ScorePredictor, part: FeatureCorpus, corpus: Path) -> None:
    """Raises InputError for a column that would be one that the model reads if it were spelt so."""
    description = predictor.model.description
    others = ("id", "group") if description.level == "group" or description.context is not None else ("id",)
    known = {"text": part.words, "id": part.rows["id"].notna().any(), "group": part.rows["grouped"].any()}
    have = [*part.features, *(name for name, there in known.items() if there)]
    if (other := misspelt([*part.ignored_columns, *have], predictor.model.modalities, others)) is not None:
        raise InputError(f"{corpus}: unknown column {other} Rename it, or leave it out")


def _say_left_out(predictor: ScorePredictor, part: FeatureCorpus, corpus: Path) -> None:
    """Rows that are left out of their groups have no row of the output that could say so."""
    if predictor.model.description.level == "group" and len(part.refused):
        why = ", ".join(f"{count} x {reason}" for reason, count in count_reasons(part.refused).items())
        first = part.refused.iloc[0]["row"]
        message = f"{corpus}: {len(part.refused)} rows are left out of their groups ({why}); the first is row {first}"
        print(printable(message), file=sys.stderr)


GROUP = pa.field("group", pa.string())
"""The last column of parts whose rows are still to be moved by their groups."""


def _table(predictor: ScorePredictor, part: FeatureCorpus, *, coverage: float, corpus: str) -> pa.Table:
    scores = predictor.score(part, coverage, corpus)
    rows = [{"id": name, **_row(score)} for name, score in zip(predictor.ids(part), scores, strict=True)]
    table = pa.Table.from_pylist(rows, schema=scores_schema(predictor))
    if predictor.model.description.context is None:
        return table
    keys = [None if score.score is None else key for key, score in zip(predictor.group_keys(part), scores, strict=True)]
    return table.append_column(GROUP, pa.array(keys, GROUP.type))


def _in_groups(parts: Callable[[], Iterator[pa.Table]], *, model: ScoreModel, coverage: float) -> Iterator[pa.Table]:
    """The parts with scores, intervals and changes as groups make them: read twice, as a group may lie in many."""
    assert model.description.context is not None
    sums, width = GroupSums(model.description.context), conformal_quantile(model.calibration_in_groups, coverage)
    changes = [f"{name}_change" for name in model.modalities]
    for part in parts():
        sums.add(*_scores_and_keys(part, changes))
    for part in parts():
        scores, keys = _scores_and_keys(part, changes)
        moved, where = sums.moved(scores, keys)
        frame = part.drop_columns([GROUP.name]).to_pandas()
        score = moved[where, 0]
        frame.loc[where, "score"] = score
        frame.loc[where, ["score_low", "score_high"]] = np.nan
        if np.isfinite(width):
            frame.loc[where, ["score_low", "score_high"]] = np.column_stack([score - width, score + width])
        for at, name in enumerate(model.modalities, start=1):
            heard = where & (frame[f"{name}_state"] == "present")
            frame.loc[heard, f"{name}_change"] = moved[heard, 0] - moved[heard, at]
        yield pa.Table.from_pandas(frame, schema=part.schema.remove(len(part.schema) - 1), preserve_index=False)


def _scores_and_keys(part: pa.Table, changes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """float64 [N, 1 + changes]: each score, and what it is without each modality; and the rows' group keys."""
    scores = part["score"].to_numpy()
    without = [scores - part[name].to_numpy() for name in changes]
    return np.column_stack([scores, *without]), np.array(part[GROUP.name].to_pylist(), dtype=object)


def scores_schema(predictor: ScorePredictor) -> pa.Schema:
    """Columns of the output; ``reason`` says why a row has no score, and is null where it has one."""
    columns = [pa.field("id", pa.string(), nullable=False)]
    columns += [pa.field(name, pa.float64()) for name in ("score", "score_low", "score_high")]
    for name in predictor.model.modalities:
        columns += [pa.field(f"{name}_state", pa.string()), pa.field(f"{name}_change", pa.float64())]
    return pa.schema([*columns, pa.field("reason", pa.string())])


def _row(score: Score) -> dict[str, object]:
    row: dict[str, object] = {"score": score.score, "score_low": score.low, "score_high": score.high}
    for name, part in score.parts.items():
        row |= {f"{name}_state": part.state, f"{name}_change": part.change}
    return row | {"reason": score.reason}


def show(console: Console, score: Score, scale: tuple[float, float], coverage: float) -> None:
    """Prints a score on the scale of those that the model learned from."""
    assert score.score is not None
    lines: list[Text | Table] = [Text(f"score {score.score:+.3f}", "bold")]
    if score.low is not None and score.high is not None:
        lines.append(Text(f"{coverage:.0%} interval [{score.low:+.3f}, {score.high:+.3f}]"))
    lines.append(Text(f"{scale[0]:+.1f} {_scale(score, scale)} {scale[1]:+.1f}"))
    table = Table("modality", "state", "change in score", box=None, pad_edge=False)
    for name, part in score.parts.items():
        table.add_row(name, part.state, f"{part.change:+.3f}" if part.state == "present" else "")
    console.print(Group(*lines, Text(), table))


def _scale(score: Score, scale: tuple[float, float]) -> str:
    low, high = scale

    def place(value: float) -> int:
        share = (value - low) / (high - low) if high > low else 0.5
        return round(min(max(share, 0.0), 1.0) * (SCALE - 1))

    signs = ["·"] * SCALE
    if score.low is not None and score.high is not None:
        signs[place(score.low) : place(score.high) + 1] = "─" * (place(score.high) - place(score.low) + 1)
    assert score.score is not None
    signs[place(score.score)] = "●"
    return "".join(signs)
