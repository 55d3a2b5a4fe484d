"""Raw clips → a corpus of features that the sentiment track reads: columns with names, and what made them.

What is made of a clip is kept by its content and by the stream that made it, so a run that was cut off goes on where it
was. Memory holds ``clips.ROWS`` rows of numbers, and a few decoded clips.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipeline import media
from pipeline.core import artifacts
from pipeline.core.errors import InputError
from pipeline.core.files import MediaError
from pipeline.core.layout import Layout
from pipeline.core.progress import progress
from pipeline.core.schemas import FEATURES, Feature, Stream
from pipeline.corpora import named_columns
from pipeline.corpora.clips import NO_CLIP, ClipRows, check_clips, read_clips
from pipeline.corpora.raw_features import Extractor
from pipeline.encoders import streams, weights
from pipeline.encoders.embedding import EXAMPLES, encode_missing, open_store
from pipeline.encoders.sources import ContentSource, MediaFiles, computation
from pipeline.encoders.streams import ClipEncoder
from pipeline.media import NO_FACE, NO_SOUND
from pipeline.params import EmbedParams, Params
from pipeline.training.device import pick

AT_ONCE = 16
"""Clips whose sound, or numbers, are kept together."""


@dataclass(frozen=True)
class FeatureStream:
    """One way to make numbers of a clip.

    Attributes:
        identity: what tells its numbers from those of any other: ``name``, ``revision`` or ``version``, ``width``.
        columns: names of the numbers, without the modality.
        lacking: reasons that are no fault of the clip: a clip without sound is whole.
    """

    modality: Feature
    identity: dict[str, Any]
    columns: tuple[str, ...]
    contents: ContentSource
    lacking: frozenset[str] = frozenset()


@dataclass
class Extracted:
    """What became of the rows.

    Attributes:
        present: modality → rows that have it.
        reasons: reason → rows, of those that lack something of their clip.
        unreadable: rows of whose clip no stream could read anything; ``examples`` names the first of them.
    """

    rows: int = 0
    present: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    examples: list[str] = field(default_factory=list)


Made = list[np.ndarray | MediaError]
"""What a stream made of each row."""


def run(params: Params, layout: Layout, clips: Path, out: Path, folder: Path) -> str:
    """Extracts as params say; returns what to print. Raises InputError as ``extract``."""
    device = pick(params.device)
    streams = streams_of(params.embed, folder, device)
    done = extract(clips, out, folder, streams, params.embed, layout, device)
    columns = {name: sum(len(streams[at].columns) for at in places) for name, places in _of(streams).items()}
    had = "; ".join(f"{name}: {done.present[name]} rows of {count} columns" for name, count in columns.items())
    lacking = "".join(f"\n  {rows} rows: {reason}" for reason, rows in sorted(done.reasons.items()))
    return f"{out}: {done.rows} rows; {had}" + (f"\nlacking, as the column reason says:{lacking}" if lacking else "")


def streams_of(embed: EmbedParams, folder: Path, device: torch.device) -> list[FeatureStream]:
    """What is made of a clip: the streams that params name. Raises InputError as ``streams.load``."""
    clips = streams.load(embed.video)
    made = [_feature_stream(clips, name, embed, folder, device) for name in sorted(clips.streams)]
    return sorted(made, key=lambda of: FEATURES.index(of.modality))


def _feature_stream(
    clips: ClipEncoder, name: Stream, embed: EmbedParams, folder: Path, device: torch.device
) -> FeatureStream:
    encoder = clips.streams[name]

    def prepare(value: str) -> np.ndarray:
        path = media.inside(folder, value)
        return encoder.prepare(media.read_clip(path, max_pixels=embed.max_pixels, **clips.asks([name])))

    # Memory holds clips as their frames, so a batch of these is counted in frames.
    batch = clips.batch if name == "frames" else AT_ONCE

    def vectors(items: list[np.ndarray]) -> np.ndarray:
        return encoder.encode(items, device)

    files = MediaFiles(folder, prepare, vectors, batch, embed.workers, encoder.identity, device)
    return FeatureStream(encoder.modality, encoder.identity, encoder.columns, files, frozenset({NO_SOUND, NO_FACE}))


def extract(
    clips: Path,
    out: Path,
    folder: Path,
    streams: Sequence[FeatureStream],
    embed: EmbedParams,
    layout: Layout,
    device: torch.device,
) -> Extracted:
    """Writes the corpus of the clips that a table names.

    Args:
        folder: what the table's paths are relative to; none may lead out of it.
        out: a ``.parquet`` file, which appears only when it is whole.

    Raises:
        InputError: the table is not as it should be, a clip would be written over, or of a larger share of the clips
            than ``embed.max_bad_share`` nothing can be read.
    """
    total, done, schema = check_clips(clips, folder, out), Extracted(), corpus_schema(streams)
    with ExitStack() as stack:
        stores = [stack.enter_context(open_store(of.identity, computation(device), layout)) for of in streams]
        aside = stack.enter_context(artifacts.replacing(out))
        writer = stack.enter_context(pq.ParquetWriter(aside, schema, compression="zstd"))
        advance = stack.enter_context(progress("extracting", total))
        for part in read_clips(clips, folder):
            digests = _digests(part, streams[0], folder)
            values = [None if isinstance(file, MediaError) else _relative(file, folder) for file in part.files]
            made: list[Made] = []
            for of, store in zip(streams, stores, strict=True):
                seen = advance if of is streams[-1] else _unseen
                encoded = encode_missing(values, digests, of.contents, store, seen)
                made.append([encoded[key] if isinstance(key, str) else key for key in digests])
            reasons = [_reason(streams, results) for results in zip(*made, strict=True)]
            _count(done, part, streams, made, reasons)
            _stop_if_too_many(done, total, embed.max_bad_share, clips)
            writer.write_table(_table(part, streams, made, reasons, schema))
    return done


def _unseen(steps: int) -> None:
    """Rows are counted when their last stream is done."""


def _relative(file: Path, folder: Path) -> str:
    return file.relative_to(folder.resolve()).as_posix()


def _digests(part: ClipRows, stream: FeatureStream, folder: Path) -> list[str | MediaError]:
    """What identifies the content of each row's clip, whatever stream reads it; or why there is none."""
    files = [_relative(file, folder) for file in part.files if isinstance(file, Path)]
    known = stream.contents.digests(files)
    return [next(known) if isinstance(file, Path) else file for file in part.files]


def _reason(streams: Sequence[FeatureStream], results: Sequence[np.ndarray | MediaError]) -> str | None:
    """Why a row lacks something of its clip; said once where all streams say the same."""
    said = [(of.modality, str(error)) for of, error in zip(streams, results, strict=True) if _no(error)]
    if len(said) == len(streams) and len({why for _, why in said}) == 1:
        return said[0][1]
    return "; ".join(dict.fromkeys(f"{modality}: {why}" for modality, why in said)) or None


def _no(result: np.ndarray | MediaError) -> bool:
    return isinstance(result, MediaError)


# --- counting --------------------------------------------------------------------------------------------------------


def _count(
    done: Extracted,
    part: ClipRows,
    streams: Sequence[FeatureStream],
    made: Sequence[Made],
    reasons: Sequence[str | None],
) -> None:
    for at, name in enumerate(part.rows["id"]):
        results = [results[at] for results in made]
        done.rows += 1
        done.present.update({of.modality for of, result in zip(streams, results, strict=True) if not _no(result)})
        reason = reasons[at]
        if reason is not None:
            done.reasons[reason] += 1
        faults = [_is_fault(of, result) for of, result in zip(streams, results, strict=True)]
        if all(map(_no, results)) and any(faults):
            done.unreadable += 1
            if len(done.examples) < EXAMPLES:
                done.examples.append(f"{name} ({reason})")


def _is_fault(stream: FeatureStream, result: np.ndarray | MediaError) -> bool:
    return isinstance(result, MediaError) and result.kind not in {NO_CLIP, *stream.lacking}


def _stop_if_too_many(done: Extracted, total: int, max_bad_share: float, clips: Path) -> None:
    if done.unreadable > max_bad_share * total:
        raise InputError(
            f"{clips}: of {done.unreadable} of {total} clips nothing can be read ({done.rows} were looked at), more "
            f"than embed.max_bad_share, {max_bad_share:.1%}; the first: {', '.join(done.examples)}"
        )


# --- the corpus ------------------------------------------------------------------------------------------------------


def _of(streams: Sequence[FeatureStream]) -> dict[Feature, list[int]]:
    """Modality → which of the streams are of it."""
    places: dict[Feature, list[int]] = {
        name: [at for at, of in enumerate(streams) if of.modality == name] for name in FEATURES
    }
    return {name: its for name, its in places.items() if its}


def corpus_schema(streams: Sequence[FeatureStream]) -> pa.Schema:
    """``id, group, score, split, text``, the numbers of each modality, why a row lacks some; and what made them."""
    fields = [pa.field("id", pa.string(), nullable=False), pa.field("group", pa.string())]
    fields += [pa.field("score", pa.float64()), pa.field("split", pa.string()), pa.field("text", pa.string())]
    made_by: dict[Feature, Extractor] = {}
    for name, places in _of(streams).items():
        columns = tuple(column for at in places for column in streams[at].columns)
        identities = [streams[at].identity for at in places]
        made_by[name] = Extractor(
            name="+".join(str(of["name"]) for of in identities),
            version="+".join(str(of.get("revision", of.get("version"))) for of in identities),
            digest=weights.digest({"streams": identities}),
            columns=columns,
        )
        fields += [pa.field(f"{name}.{column}", pa.float32()) for column in columns]
    return pa.schema([*fields, pa.field("reason", pa.string())], metadata=named_columns.metadata(made_by))


def _table(
    part: ClipRows,
    streams: Sequence[FeatureStream],
    made: Sequence[Made],
    reasons: Sequence[str | None],
    schema: pa.Schema,
) -> pa.Table:
    columns = [pa.array(part.rows[name], pa.string()) for name in ("id", "group")]
    columns.append(pa.array(part.rows["score"].to_numpy(), pa.float64(), from_pandas=True))
    columns += [pa.array(part.rows[name], pa.string()) for name in ("split", "text")]
    for places in _of(streams).values():
        for at in places:
            columns += _numbers(made[at], len(streams[at].columns))
    return pa.Table.from_arrays([*columns, pa.array(reasons, pa.string())], schema=schema)


def _numbers(results: Made, width: int) -> list[pa.Array]:
    """float32 [rows] for each number; null where the row has none."""
    values, missing = np.zeros((width, len(results)), dtype=np.float32), np.array([_no(result) for result in results])
    for at, result in enumerate(results):
        if not isinstance(result, MediaError):
            values[:, at] = result
    return [pa.array(row, mask=missing) for row in values]
