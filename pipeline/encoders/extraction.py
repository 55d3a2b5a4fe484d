"""Raw clips → a corpus of features that the sentiment track reads: columns with names, and what made them.

What is made of a clip is kept by its content and by the stream that made it, so a run that was cut off goes on where it
was, and a clip is opened once for all streams. Memory holds ``clips.ROWS`` rows of numbers, and a few decoded clips.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core import artifacts
from pipeline.core.content_store import identity_digest
from pipeline.core.errors import InputError
from pipeline.core.files import NOT_FOUND, MediaError
from pipeline.core.layout import Layout
from pipeline.core.progress import progress
from pipeline.core.schemas import FEATURES, Feature, Stream
from pipeline.corpora import named_columns
from pipeline.corpora.clip_table import NO_CLIP, ClipTablePart, check_clips, read_clips
from pipeline.corpora.raw_features import Extractor
from pipeline.encoders import clip_streams, engine, streams, transcription
from pipeline.encoders.clip_streams import TRANSCRIPT, ClipContents, ClipSource, ClipStreams
from pipeline.encoders.embedding import EXAMPLES
from pipeline.encoders.streams import ClipEncoder
from pipeline.encoders.words import Words
from pipeline.media.kinds import NO_FACE, NO_SOUND
from pipeline.params import Params

LACKING = frozenset({NO_SOUND, NO_FACE, NO_CLIP})
"""Reasons that are no fault of the clip: one without sound is whole."""


@dataclass
class ExtractionReport:
    """What became of the rows.

    Attributes:
        present: modality → rows that have it.
        reasons: reason → rows, of those that lack something of their clip.
        transcribed: rows whose text is what was heard.
        unreadable: rows of whose clip no stream could read anything; ``examples`` names the first of them.
    """

    rows: int = 0
    present: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    transcribed: int = 0
    unreadable: int = 0
    examples: list[str] = field(default_factory=list)


StreamVectors = dict[Stream, list[np.ndarray | MediaError]]
"""What each stream made of each row."""

Transcripts = list[Words | MediaError | None]
"""The words of each row, or why there are none; None where they were not asked for."""


def run(params: Params, layout: Layout, clips: Path, out: Path, folder: Path, *, transcribe: bool = False) -> str:
    """Extracts as params say; returns what to print. Raises InputError as ``check_clips`` and ``extract``.

    Words are texts of the corpus, and no numbers of it: they fill its text where the table has none, if the clips are
    to be transcribed or ``transcript`` is among the streams.
    """
    video = params.embed.video
    requested = tuple(name for name in video.streams if name != "transcript")
    if not requested:
        raise InputError("params.yaml: embed.video.streams: transcript alone makes no features; name another as well")
    total = check_clips(clips, folder, out)  # before any weights are loaded, which takes a while
    embed = params.embed.model_copy(update={"video": video.model_copy(update={"streams": requested})})
    encoder, transcribe = streams.load(embed), transcribe or requested != video.streams
    recogniser = transcription.load(video.transcript) if transcribe else None
    with engine.opened(params.model_copy(update={"embed": embed}), folder, transcribe=transcribe) as here:
        contents = ClipContents.of(encoder, folder, here.device, embed, recogniser)
        done = extract(clips, total, out, contents, here.clips("video", contents), embed.max_bad_share, layout)
    columns = {
        name: sum(len(encoder.streams[stream].columns) for stream in its)
        for name, its in _streams_by_modality(encoder).items()
    }
    had = "; ".join(f"{name}: {done.present[name]} rows of {count} columns" for name, count in columns.items())
    if transcribe:
        had += f"; words of {done.transcribed} heard"
    lacking = "".join(f"\n  {rows} rows: {reason}" for reason, rows in sorted(done.reasons.items()))
    return f"{out}: {done.rows} rows; {had}" + (f"\nlacking, as the column reason says:{lacking}" if lacking else "")


def extract(
    clips: Path,
    total: int,
    out: Path,
    contents: ClipContents,
    source: ClipSource,
    max_bad_share: float,
    layout: Layout,
) -> ExtractionReport:
    """Writes the corpus of the clips that a table names, which ``check_clips`` has looked at.

    Args:
        total: rows of the table.
        out: a ``.parquet`` file, which appears only when it is whole.
        contents: the clips of the folder that the table's paths are relative to, and of which none may lead out; what
            transcribes clips without a text in the table is among its recognisers.
        source: where they are read and encoded.

    Raises:
        InputError: of a larger share of the clips than ``max_bad_share`` nothing can be read.
    """
    done, encoder, folder = ExtractionReport(), contents.encoder, contents.folder
    schema = corpus_schema(encoder, with_language=TRANSCRIPT in contents.recognisers)
    with ExitStack() as stack:
        kept = stack.enter_context(clip_streams.opened(contents, source, layout))
        aside = stack.enter_context(artifacts.replacing(out))
        writer = stack.enter_context(pq.ParquetWriter(aside, schema, compression="zstd"))
        advance = stack.enter_context(progress("extracting", total))
        for part in read_clips(clips, folder):
            vectors, words = _encoded(part, kept, advance)
            reasons = [_reason(encoder, vectors, words[at], at) for at in range(len(part.files))]
            _count(done, part, encoder, vectors, words, reasons)
            _stop_if_too_many(done, total, max_bad_share, clips, folder)
            writer.write_table(_table(part, encoder, vectors, words, reasons, schema))
    return done


def _encoded(
    part: ClipTablePart, clips: ClipStreams, advance: Callable[[int], None]
) -> tuple[StreamVectors, Transcripts]:
    """What each stream made of each row, and the words of those that have no text, where words are to be heard."""
    root = clips.contents.folder.resolve()
    values = [file.relative_to(root).as_posix() if isinstance(file, Path) else None for file in part.files]
    known = clips.source.digests([value for value in values if value is not None])
    digests = [next(known) if isinstance(file, Path) else file for file in part.files]
    to_hear = part.rows["text"].isna().tolist() if TRANSCRIPT in clips.word_stores else [False] * len(digests)
    heard_keys = {key for key, hear in zip(digests, to_hear, strict=True) if hear}
    encoded = clips.encode(values, digests, advance, {key for key in digests if isinstance(key, str)} - heard_keys)
    words: Transcripts = [
        (encoded.words[TRANSCRIPT][key] if isinstance(key, str) else key) if hear else None
        for key, hear in zip(digests, to_hear, strict=True)
    ]
    return {
        name: [results[key] if isinstance(key, str) else key for key in digests]
        for name, results in encoded.streams.items()
    }, words


def _reason(encoder: ClipEncoder, vectors: StreamVectors, words: Words | MediaError | None, at: int) -> str | None:
    """Why a row lacks something of its clip; said once where all streams say the same."""
    results: list[tuple[Feature, object]] = [
        (name, vectors[stream][at]) for name, its in _streams_by_modality(encoder).items() for stream in its
    ]
    if words is not None:
        results.append(("text", words))
    reasons = [(name, str(result)) for name, result in results if _no(result)]
    if len(reasons) == len(results) and len({why for _, why in reasons}) == 1:
        return reasons[0][1]
    return "; ".join(dict.fromkeys(f"{modality}: {why}" for modality, why in reasons)) or None


def _no(result: object) -> bool:
    return isinstance(result, MediaError)


# --- counting --------------------------------------------------------------------------------------------------------


def _count(
    done: ExtractionReport,
    part: ClipTablePart,
    encoder: ClipEncoder,
    vectors: StreamVectors,
    words: Transcripts,
    reasons: Sequence[str | None],
) -> None:
    done.transcribed += sum(isinstance(heard, Words) for heard in words)
    for at, name in enumerate(part.rows["id"]):
        results: dict[Stream, np.ndarray | MediaError] = {stream: column[at] for stream, column in vectors.items()}
        done.rows += 1
        done.present.update({encoder.streams[stream].modality for stream, result in results.items() if not _no(result)})
        reason = reasons[at]
        if reason is not None:
            done.reasons[reason] += 1
        errors = [result for result in results.values() if isinstance(result, MediaError)]
        if len(errors) == len(results) and any(error.kind not in LACKING for error in errors):
            done.unreadable += 1
            if len(done.examples) < EXAMPLES:
                done.examples.append(f"id {name} ({reason})")


def _stop_if_too_many(done: ExtractionReport, total: int, max_bad_share: float, clips: Path, folder: Path) -> None:
    if done.unreadable > max_bad_share * total:
        where = f"; none lies in {folder}: --media names the folder" * (done.reasons[NOT_FOUND] == done.rows)
        raise InputError(
            f"{clips}: {done.unreadable} of {total} clips cannot be read ({done.rows} were looked at), more than "
            f"embed.max_bad_share {max_bad_share:g}: mend the table, or raise it; the first: {', '.join(done.examples)}"
            f"{where}"
        )


# --- the corpus ------------------------------------------------------------------------------------------------------


def _streams_by_modality(encoder: ClipEncoder) -> dict[Feature, list[Stream]]:
    """Modality → which of the streams are of it, in the order of their columns."""
    by_modality: dict[Feature, list[Stream]] = {
        name: [key for key in sorted(encoder.streams) if encoder.streams[key].modality == name] for name in FEATURES
    }
    return {name: its for name, its in by_modality.items() if its}


def corpus_schema(encoder: ClipEncoder, *, with_language: bool = False) -> pa.Schema:
    """``id, group, score, split, text``, the ``language`` of texts that were heard where any are, the numbers of each
    modality, why a row lacks some; and what made them."""
    fields = [pa.field("id", pa.string(), nullable=False), pa.field("group", pa.string())]
    fields += [pa.field("score", pa.float64()), pa.field("split", pa.string()), pa.field("text", pa.string())]
    fields += [pa.field("language", pa.string())] if with_language else []
    made_by: dict[Feature, Extractor] = {}
    for name, its in _streams_by_modality(encoder).items():
        columns = tuple(column for key in its for column in encoder.streams[key].columns)
        identities = [encoder.streams[key].identity for key in its]
        made_by[name] = Extractor(
            name="+".join(str(identity["name"]) for identity in identities),
            version="+".join(str(identity.get("revision", identity.get("version"))) for identity in identities),
            digest=identity_digest({"streams": identities}),
            columns=columns,
        )
        fields += [pa.field(f"{name}.{column}", pa.float32()) for column in columns]
    return pa.schema([*fields, pa.field("reason", pa.string())], metadata=named_columns.metadata(made_by))


def _table(
    part: ClipTablePart,
    encoder: ClipEncoder,
    vectors: StreamVectors,
    words: Transcripts,
    reasons: Sequence[str | None],
    schema: pa.Schema,
) -> pa.Table:
    columns = [pa.array(part.rows[name], pa.string()) for name in ("id", "group")]
    columns.append(pa.array(part.rows["score"].to_numpy(), pa.float64(), from_pandas=True))
    transcribed = [heard if isinstance(heard, Words) else None for heard in words]
    texts = [text if heard is None else heard.text for text, heard in zip(part.rows["text"], transcribed, strict=True)]
    columns += [pa.array(part.rows["split"], pa.string()), pa.array(texts, pa.string(), from_pandas=True)]
    if "language" in schema.names:
        columns.append(pa.array([None if heard is None else heard.language for heard in transcribed], pa.string()))
    for its in _streams_by_modality(encoder).values():
        for name in its:
            columns += _numbers(vectors[name], len(encoder.streams[name].columns))
    return pa.Table.from_arrays([*columns, pa.array(reasons, pa.string())], schema=schema)


def _numbers(results: Sequence[np.ndarray | MediaError], width: int) -> list[pa.Array]:
    """float32 [rows] for each number; null where the row has none."""
    values, missing = np.zeros((width, len(results)), dtype=np.float32), np.array([_no(result) for result in results])
    for at, result in enumerate(results):
        if not isinstance(result, MediaError):
            values[:, at] = result
    return [pa.array(row, mask=missing) for row in values]
