"""Features of a corpus cleaned, and its words encoded: one table a modality."""

import hashlib
from collections import Counter
from collections.abc import Sequence
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
from pipeline.encoders.embedding import CHUNK, NONE, TextContents, content_digests, encode_missing, write_results
from pipeline.encoders.store import Store
from pipeline.params import EmbedParams
from pipeline.sentiment.samples import Rows


def embed_corpus(
    rows: Rows, wanted: Sequence[Feature], words: TextContents, params: EmbedParams, layout: Layout
) -> dict[str, Any]:
    """Writes the tables of all three modalities, those that are not wanted as absent; returns what became of each."""
    report: dict[str, Any] = {}
    for modality in FEATURES:
        path = layout.embeddings(rows.name, modality)
        if modality not in wanted or modality not in rows.corpus.modalities:
            report[modality] = _write_absent(path, rows)
        elif modality == "text" and rows.corpus.words:
            report[modality] = _embed_words(path, rows, words, layout)
        else:
            report[modality] = _clean_features(path, rows, modality, params.max_nonfinite_share)
    return report


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


def _write_absent(path: Path, rows: Rows) -> dict[str, Any]:
    encoder, count = {"name": NONE, "width": 1}, len(rows.sample_ids)
    nothing = np.zeros((count, 1), dtype=np.float32)
    _write_vectors(path, rows.sample_ids, nothing, np.zeros(count, dtype=bool), [None] * count, encoder)
    return _summary(count, 0, encoder)


def _clean_features(path: Path, rows: Rows, modality: Feature, max_nonfinite_share: float) -> dict[str, Any]:
    """Drops columns that must not be learned from, by the rows of the corpus; fills the gaps of the others."""
    values, present = rows.corpus.features[modality], rows.corpus.present[modality]
    groups = rows.corpus.rows["group"].to_numpy()
    faulty = faulty_columns(values[present], groups[present], rows.fit[rows.at][present], max_nonfinite_share)
    names = "; ".join(f"{modality}[{at}]: {reason}" for at, reason in faulty.items())
    columns = np.array([at for at in range(values.shape[1]) if at not in faulty], dtype=int)
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
        "of": values.shape[1],
        "fill": fill.tolist(),
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


def _embed_words(path: Path, rows: Rows, words: TextContents, layout: Layout) -> dict[str, Any]:
    """Encodes texts one by one; a sample of several texts has the mean of their vectors."""
    identity = words.encoder.identity | ({"level": "group"} if rows.grouped else {})
    texts, present = rows.texts(), 0
    with (
        Store(layout.cache / "embeddings", words.encoder.identity) as store,
        artifacts.embeddings_writer(path, words.encoder.width, identity) as writer,
        progress(f"embedding {rows.name} text", sum(len(some) for some in texts)) as advance,
    ):
        for at in range(0, len(texts), CHUNK):
            chunk = texts[at : at + CHUNK]
            flat = [value for some in chunk for value in some]
            digests = content_digests(flat, words)
            encoded = encode_missing(flat, digests, words, store, advance)
            vectors = iter([(encoded[str(digest)], str(digest)) for digest in digests])
            pooled = [_mean(list(islice(vectors, len(some)))) for some in chunk]
            results = [result for result, _ in pooled]
            write_results(
                writer,
                rows.sample_ids[at : at + CHUNK].tolist(),
                results,
                [key for _, key in pooled],
                words.encoder.width,
            )
            present += sum(not isinstance(result, MediaError) for result in results)
    return _summary(len(texts), present, words.encoder.identity)


def _mean(vectors: Sequence[tuple[np.ndarray | MediaError, str]]) -> tuple[np.ndarray | MediaError, str | MediaError]:
    """The mean of some vectors, and a digest of all that was encoded; one vector stays as it is."""
    known = [vector for vector, _ in vectors if not isinstance(vector, MediaError)]
    if not known:
        return MediaError(NONE), MediaError(NONE)
    if len(vectors) == 1:
        return vectors[0]
    return np.mean(known, axis=0), hashlib.sha256("\n".join(key for _, key in vectors).encode()).hexdigest()
