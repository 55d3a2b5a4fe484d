"""Features of a corpus cleaned, and its words encoded: one table a modality."""

import hashlib
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core import artifacts
from pipeline.core.errors import InputError
from pipeline.core.files import MediaError
from pipeline.core.layout import Layout
from pipeline.core.progress import progress
from pipeline.core.schemas import FEATURES, Feature
from pipeline.corpora.feature_columns import faulty_columns, filled, medians
from pipeline.encoders.embedding import (
    CHUNK,
    NONE,
    content_digests,
    encode_missing,
    open_store,
    write_results,
)
from pipeline.encoders.sources import ModalitySource
from pipeline.params import EmbedParams
from pipeline.sentiment.samples import CorpusSamples


def extracted_alike(source: CorpusSamples, target: CorpusSamples, declared: Collection[Feature]) -> frozenset[Feature]:
    """The modalities whose columns mean the same in both corpora: by one extractor, words of both, or ``declared``.

    Says on standard error where that may be so and nothing tells. Raises InputError where what is declared cannot be.
    """
    of_source, of_target = source.corpus.extractors, target.corpus.extractors
    words = source.corpus.words and target.corpus.words
    there = set(source.corpus.modalities) & set(target.corpus.modalities)
    both: tuple[Feature, ...] = tuple(name for name in FEATURES if name in there)
    alike: set[Feature] = {
        name
        for name in both
        if (name == "text" and words) or (name in of_source and of_source[name] == of_target.get(name))
    }
    for name in declared:
        if name not in both:
            raise InputError(f"target.as_source: source and target do not both have {name}")
        widths = _width(source, name), _width(target, name)
        if name not in alike and widths[0] != widths[1]:
            have, have_too = (f"{width} columns" if width else "words" for width in widths)
            raise InputError(f"target.as_source: {name} is not the same in both: {have} and {have_too}")
    for name in both:
        untold = name not in {*alike, *declared} and name not in of_source and name not in of_target
        if untold and _width(source, name) == _width(target, name):
            columns = f"{_width(source, name)} columns in source and target"
            remedy = f"if one extractor made both with the same settings, say so: -S 'target.as_source=[{name}]'"
            print(f"embed: {name} has {columns}; {remedy}", file=sys.stderr)
    return frozenset(alike) | frozenset(declared)


def _width(rows: CorpusSamples, name: Feature) -> int:
    """Columns of a modality; 0 of words."""
    return rows.corpus.features[name].shape[1] if name in rows.corpus.features else 0


def embed_corpus(
    rows: CorpusSamples,
    requested: Sequence[Feature],
    words: ModalitySource,
    params: EmbedParams,
    layout: Layout,
    alike: Mapping[Feature, CorpusSamples],
) -> dict[str, Any]:
    """Writes the tables of all three modalities, those that are not wanted as absent; returns what became of each.

    ``alike``: modality → the other corpus, where that was extracted alike; both keep the same columns of it.
    """
    report: dict[str, Any] = {}
    for modality in FEATURES:
        path = layout.embeddings(rows.name, modality)
        if modality not in requested or modality not in rows.corpus.modalities:
            report[modality] = _write_absent(path, rows)
        elif modality == "text" and rows.corpus.words:
            report[modality] = _embed_words(path, rows, words, layout, _shared(rows, modality in alike))
        else:
            judged_by = [rows, alike[modality]] if modality in alike else [rows]
            report[modality] = _clean_features(path, rows, modality, params.max_nonfinite_share, judged_by)
    return report


def _shared(rows: CorpusSamples, alike: bool) -> dict[str, Any]:
    """What the target's table says where its columns are those of the source."""
    return {"as_source": True} if alike and rows.name == "target" else {}


def _summary(rows: int, present: int, encoder: dict[str, Any], columns: str = "", filled_in: int = 0) -> dict[str, Any]:
    return {
        "rows": rows,
        "present": present,
        "width": encoder["width"],
        "dropped": encoder.get("dropped", {}),
        "dropped_columns": columns,
        "filled": filled_in,
        "encoder": encoder["name"],
    }


def _write_absent(path: Path, rows: CorpusSamples) -> dict[str, Any]:
    encoder, count = {"name": NONE, "width": 1}, len(rows.sample_ids)
    nothing = np.zeros((count, 1), dtype=np.float32)
    _write_vectors(path, rows.sample_ids, nothing, np.zeros(count, dtype=bool), [None] * count, encoder)
    return _summary(count, 0, encoder)


def _faulty(rows: CorpusSamples, modality: Feature, max_nonfinite_share: float) -> dict[int, str]:
    values, present = rows.corpus.features[modality], rows.corpus.present[modality]
    groups = rows.corpus.rows["group"].to_numpy()
    return faulty_columns(values[present], groups[present], rows.fit[rows.at][present], max_nonfinite_share)


def _named(rows: CorpusSamples, modality: Feature, at: int) -> str:
    made_by = rows.corpus.extractors.get(modality)
    return f"{modality}[{at}]" if made_by is None else f"{modality}.{made_by.columns[at]}"


def _clean_features(
    path: Path, rows: CorpusSamples, modality: Feature, max_nonfinite_share: float, judged_by: Sequence[CorpusSamples]
) -> dict[str, Any]:
    """Drops columns that must not be learned from, by the rows of any of these corpora; fills the gaps of the others.

    Args:
        judged_by: this corpus, and the other one where both were extracted alike.
    """
    faulty: dict[int, str] = {}
    for judge in reversed(judged_by):
        faulty |= _faulty(judge, modality, max_nonfinite_share)
    faulty = dict(sorted(faulty.items()))
    names = "; ".join(f"{_named(rows, modality, at)}: {reason}" for at, reason in faulty.items())
    width = rows.corpus.features[modality].shape[1]
    columns = np.array([at for at in range(width) if at not in faulty], dtype=int)
    if not len(columns):
        raise InputError(
            f"{rows.name}.corpus: no column of {modality} is of use ({names}); leave {modality} out of the corpus"
        )
    vectors, present = rows.samples(modality, columns)
    content = [
        hashlib.sha256(row.tobytes()).hexdigest() if here else None for row, here in zip(vectors, present, strict=True)
    ]
    fill = medians(vectors, present, rows.fit)
    vectors, gaps = filled(vectors, present, fill)
    encoder = {
        "name": "features",
        "width": len(columns),
        "dropped": dict(sorted(Counter(faulty.values()).items())),
        "columns": columns.tolist(),
        "of": width,
        "fill": fill.tolist(),
        **_shared(rows, len(judged_by) > 1),
    }
    _write_vectors(path, rows.sample_ids, vectors, present, content, encoder)
    return _summary(len(vectors), int(present.sum()), encoder, names, gaps)


def _write_vectors(
    path: Path,
    sample_ids: np.ndarray,
    vectors: np.ndarray,
    present: np.ndarray,
    content: Sequence[str | None],
    encoder: dict[str, Any],
) -> None:
    with artifacts.embeddings_writer(path, vectors.shape[1], encoder) as writer:
        for at in range(0, len(vectors), CHUNK):
            part = slice(at, at + CHUNK)
            reasons = [None if here else NONE for here in present[part]]
            some = np.where(present[part, None], vectors[part], np.float32(0))
            writer.write(sample_ids[part].tolist(), some, reasons, content[part])


def _embed_words(
    path: Path, rows: CorpusSamples, words: ModalitySource, layout: Layout, shared: dict[str, Any]
) -> dict[str, Any]:
    """Encodes texts one by one; a sample of several texts has the mean of their vectors."""
    identity, width = words.identity, words.identity["width"]
    described = identity | ({"level": "group"} if rows.grouped else {}) | shared
    texts, present = rows.texts(), 0
    with (
        open_store(identity, words.computed, layout) as store,
        artifacts.embeddings_writer(path, width, described) as writer,
        progress(f"embedding {rows.name} text", sum(len(some) for some in texts)) as advance,
    ):
        for at in range(0, len(texts), CHUNK):
            chunk = texts[at : at + CHUNK]
            flat = [value for some in chunk for value in some]
            digests = content_digests(flat, words.digests)
            encoded = encode_missing(flat, digests, words, store, advance)
            vectors = iter([(encoded[str(digest)], str(digest)) for digest in digests])
            pooled = [_mean(list(islice(vectors, len(some)))) for some in chunk]
            results = [result for result, _ in pooled]
            write_results(
                writer,
                rows.sample_ids[at : at + CHUNK].tolist(),
                results,
                [key for _, key in pooled],
                width,
            )
            present += sum(not isinstance(result, MediaError) for result in results)
    return _summary(len(texts), present, identity)


def _mean(vectors: Sequence[tuple[np.ndarray | MediaError, str]]) -> tuple[np.ndarray | MediaError, str | MediaError]:
    """The mean of some vectors, and a digest of all that was encoded; one vector stays as it is."""
    known = [vector for vector, _ in vectors if not isinstance(vector, MediaError)]
    if not known:
        return MediaError(NONE), MediaError(NONE)
    if len(vectors) == 1:
        return vectors[0]
    return np.mean(known, axis=0), hashlib.sha256("\n".join(key for _, key in vectors).encode()).hexdigest()
