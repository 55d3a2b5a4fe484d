"""Encodes texts, pictures and clips with frozen encoders, and cleans the features that corpora bring along.

Columns of such features are dropped, and their gaps filled with medians, by the features of all rows outside the test
part; no label is read. A cross-validated corpus has no test part, so there the features of all its rows choose and fill
the columns, also those of the rows that a fold is scored on.

Reads:  ``data/split/{posts,source,target}.parquet``, the media under params ``posts.media``, and the corpora that
        params ``source`` and ``target`` name.
Writes: ``data/embeddings/posts/{text,image,video}.parquet``,
        ``data/embeddings/{source,target}/{text,audio,visual}.parquet`` and ``metrics/embed.json``.
Keeps:  vectors by content and encoder in the user's cache folder, so that new posts cost only themselves.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pandas as pd
import torch

from pipeline import media
from pipeline.core import artifacts
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.core.prefetch import ahead
from pipeline.core.progress import progress
from pipeline.core.schemas import FEATURES, Feature, Modality
from pipeline.corpora.features import FeatureCorpus, average_groups, faulty_columns, filled, only_scored, read_corpus
from pipeline.encoders import image, text, video
from pipeline.encoders.image import ImageEncoder
from pipeline.encoders.store import Store
from pipeline.encoders.text import TextEncoder, length_batches
from pipeline.encoders.video import VideoEncoder
from pipeline.media import MediaError
from pipeline.params import Embed, Params
from pipeline.params import Source as SourceParams
from pipeline.params import Target as TargetParams
from pipeline.training.device import pick

Result = TypeVar("Result")

CHUNK = 1024
"""Rows handled together: memory depends on this, not on the number of posts."""

EXAMPLES = 3
"""Unreadable files that the message names."""

NONE, EMPTY = "none", "empty"
"""Why a row has nothing to encode: no value, or a text of blanks. Any other reason is a fault of the file."""

Encoded = Mapping[str, np.ndarray | MediaError]
"""Content digest → vector, or why there is none."""


def run(params: Params, layout: Layout) -> None:
    """Raises InputError when an encoder cannot be loaded, too many files of a modality are unreadable, or none of its
    columns is of use."""
    device = pick(params.device)
    embed = params.embed
    posts = artifacts.read_posts(layout.table("posts"))
    folder = layout.root / params.posts.media

    words = Texts(text.load(embed.text), device)
    report = {"text": _embed("text", posts, "text", words.encoder.identity, words, params, layout)}
    pictures = image.load(embed.image)
    source = _pictures(pictures, folder, device, embed)
    report["image"] = _embed("image", posts, "image_path", pictures.identity, source, params, layout)
    clips = video.load(embed.video)
    source = _clips(clips, folder, device, embed)
    report["video"] = _embed("video", posts, "video_path", clips.identity, source, params, layout)
    report["source"] = _embed_corpus(Rows.read("source", params.source, layout), FEATURES, words, embed, layout)
    wanted = params.target.modalities or FEATURES
    report["target"] = _embed_corpus(Rows.read("target", params.target, layout), wanted, words, embed, layout)
    artifacts.write_json(layout.metrics("embed"), report)


# --- what is encoded -----------------------------------------------------------------------------------------------


class Source(Protocol):
    """A modality's content: what identifies it, and how it becomes vectors."""

    def digests(self, values: Sequence[str]) -> Iterator[str | MediaError]:
        """What identifies the content of each value, or why there is none."""
        ...

    def encode(self, pending: Mapping[str, str]) -> Iterator[Encoded]:
        """Encodes values by their digest; yields after each batch."""
        ...


@dataclass(frozen=True)
class Texts:
    encoder: TextEncoder
    device: torch.device

    def digests(self, values: Sequence[str]) -> Iterator[str | MediaError]:
        for value in values:
            yield hashlib.sha256(value.encode()).hexdigest() if value.strip() else MediaError(EMPTY)

    def encode(self, pending: Mapping[str, str]) -> Iterator[Encoded]:
        keys, tokens = list(pending), self.encoder.tokenize(list(pending.values()))
        for batch in length_batches([len(row) for row in tokens], self.encoder.batch_tokens):
            vectors = self.encoder.encode_tokens([tokens[at] for at in batch], self.device)
            yield {keys[at]: vector for at, vector in zip(batch, vectors, strict=True)}


@dataclass(frozen=True)
class Files:
    """Media files, decoded by threads while the encoder works.

    Attributes:
        read: file → what the encoder takes for one row. Raises MediaError.
        vectors: a batch of those → float32 [n, width].
        batch: files in a batch.
    """

    folder: Path
    read: Callable[[Path], np.ndarray]
    vectors: Callable[[list[np.ndarray]], np.ndarray]
    batch: int
    workers: int

    def digests(self, values: Sequence[str]) -> Iterator[str | MediaError]:
        def digest(value: str) -> str | MediaError:
            return _or_error(lambda: media.content_digest(inside(self.folder, value)))

        return ahead(digest, values, workers=self.workers, depth=16 * self.workers)

    def encode(self, pending: Mapping[str, str]) -> Iterator[Encoded]:
        def read(value: str) -> np.ndarray | MediaError:
            return _or_error(lambda: self.read(inside(self.folder, value)))

        decoded = ahead(read, pending.values(), workers=self.workers, depth=2 * self.batch + self.workers)
        keyed = zip(pending, decoded, strict=True)
        while batch := dict(islice(keyed, self.batch)):
            good = {key: item for key, item in batch.items() if not isinstance(item, MediaError)}
            vectors = self.vectors(list(good.values())) if good else ()
            yield batch | dict(zip(good, vectors, strict=True))


def _or_error(function: Callable[[], Result]) -> Result | MediaError:
    try:
        return function()
    except MediaError as error:
        return error


def inside(folder: Path, value: str) -> Path:
    """The file that a path of the table names. Raises MediaError when it leads out of ``folder``, by links or dots."""
    try:
        root = folder.resolve()
        path = (root / value).resolve()
    except (OSError, ValueError, RuntimeError):  # a name that no file can have; links in a circle
        raise MediaError("file not found") from None
    if not path.is_relative_to(root):
        raise MediaError("path leads out of posts.media")
    return path


def _pictures(encoder: ImageEncoder, folder: Path, device: torch.device, embed: Embed) -> Files:
    def read(path: Path) -> np.ndarray:
        picture = media.read_picture(path, max_pixels=embed.max_pixels, at_least=encoder.at_least)
        return encoder.preprocess(picture)

    def vectors(batch: list[np.ndarray]) -> np.ndarray:
        return encoder.encode(np.stack(batch), device)

    return Files(folder, read, vectors, embed.image.batch, embed.workers)


def _clips(encoder: VideoEncoder, folder: Path, device: torch.device, embed: Embed) -> Files:
    def read(path: Path) -> np.ndarray:
        limits = {"max_pixels": embed.max_pixels, "at_least": encoder.at_least}
        frames = media.read_frames(path, frames=encoder.frames, **limits)
        return np.stack([encoder.preprocess(frame) for frame in frames])

    # Memory holds clips as their frames, so a batch is counted in frames.
    batch = max(embed.video.batch // encoder.frames, 1)
    return Files(folder, read, partial(encoder.encode, device=device), batch, embed.workers)


# --- rows ----------------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What became of the rows of a modality."""

    rows: int = 0
    present: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, values: Sequence[str | None], results: Sequence[np.ndarray | MediaError]) -> None:
        for value, result in zip(values, results, strict=True):
            self.rows += 1
            if not isinstance(result, MediaError):
                self.present += 1
                continue
            self.reasons[result.kind] += 1
            if result.kind not in (NONE, EMPTY) and len(self.examples) < EXAMPLES:
                self.examples.append(f"{value} ({result})")

    @property
    def absent(self) -> int:
        return self.reasons[NONE] + self.reasons[EMPTY]

    @property
    def unreadable(self) -> int:
        return self.rows - self.present - self.absent

    @property
    def bad_share(self) -> float:
        """Share of the rows that name a file; 0 without such rows."""
        return self.unreadable / max(self.present + self.unreadable, 1)

    def check(self, modality: Modality, max_bad_share: float) -> None:
        if self.bad_share > max_bad_share:
            files = self.present + self.unreadable
            raise InputError(
                f"{modality}: {self.unreadable} of {files} files ({self.bad_share:.1%}) cannot be read, more than "
                f"embed.max_bad_share, {max_bad_share:.1%}; the first: {', '.join(self.examples)}"
            )


def _embed(
    modality: Modality,
    posts: pd.DataFrame,
    column: str,
    identity: dict[str, Any],
    source: Source,
    params: Params,
    layout: Layout,
) -> dict[str, Any]:
    """Writes the embeddings of one modality; returns what became of its rows."""
    tally, width = Tally(), identity["width"]
    with (
        Store(layout.cache / "embeddings", identity) as store,
        artifacts.embeddings_writer(layout.embeddings("posts", modality), width, identity) as writer,
        progress(f"embedding {modality}", len(posts)) as advance,
    ):
        for at in range(0, len(posts), CHUNK):
            rows = posts.iloc[at : at + CHUNK]
            values = rows[column].tolist()
            digests = _digests(values, source)
            encoded = _encode(values, digests, source, store, advance)
            results = [encoded[digest] if isinstance(digest, str) else digest for digest in digests]
            _write(writer, rows["sample_id"].tolist(), results, digests, width)
            tally.add(values, results)
        tally.check(modality, params.embed.max_bad_share)
    return {
        "rows": tally.rows,
        "present": tally.present,
        "absent": tally.absent,
        "unreadable": tally.unreadable,
        "bad_share": tally.bad_share,
        "reasons": dict(sorted(tally.reasons.items())),
        "width": width,
        "encoder": identity["name"],
    }


def _write(
    writer: artifacts.EmbeddingsWriter,
    sample_ids: Sequence[str],
    results: Sequence[np.ndarray | MediaError],
    digests: Sequence[str | MediaError],
    width: int,
) -> None:
    vectors = np.zeros((len(results), width), dtype=np.float32)
    reasons: list[str | None] = [None] * len(results)
    content: list[str | None] = [None] * len(results)
    for at, (result, digest) in enumerate(zip(results, digests, strict=True)):
        if isinstance(result, MediaError):
            reasons[at] = str(result)
        else:
            vectors[at], content[at] = result, str(digest)
    writer.write(sample_ids, vectors, reasons, content)


def _digests(values: Sequence[str | None], source: Source) -> list[str | MediaError]:
    """What each row would encode, or why there is nothing."""
    found = source.digests([value for value in values if value is not None])
    return [MediaError(NONE) if value is None else next(found) for value in values]


def _encode(
    values: Sequence[str | None],
    digests: Sequence[str | MediaError],
    source: Source,
    store: Store,
    advance: Callable[[int], None],
) -> dict[str, np.ndarray | MediaError]:
    """The vector of every content in these rows: from the store, or encoded once and put there at once."""
    rows_of = Counter(digest for digest in digests if isinstance(digest, str))
    encoded: dict[str, np.ndarray | MediaError] = dict(store.get(list(rows_of)))
    pending: dict[str, str] = {}
    for digest, value in zip(digests, values, strict=True):
        if isinstance(digest, str) and value is not None and digest not in encoded:
            pending.setdefault(digest, value)
    advance(len(values) - sum(rows_of[digest] for digest in pending))
    for batch in source.encode(pending):
        store.put({digest: item for digest, item in batch.items() if not isinstance(item, MediaError)})
        encoded.update(batch)
        advance(sum(rows_of[digest] for digest in batch))
    return encoded


# --- corpora of features -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """A corpus beside its sample table: M rows of the corpus, N samples.

    Attributes:
        name: ``source`` or ``target``.
        corpus: the rows of the corpus that the samples are made of.
        at: int [M]: the sample of each.
        sample_ids: N strings.
        fit: bool [N]: samples that columns are judged and filled by, which are those outside the test part.
        grouped: whether a sample is the mean of several rows.
    """

    name: str
    corpus: FeatureCorpus
    at: np.ndarray
    sample_ids: np.ndarray
    fit: np.ndarray
    grouped: bool

    @classmethod
    def read(cls, name: str, params: SourceParams | TargetParams, layout: Layout) -> "Rows":
        """Raises InputError when the corpus has changed since it was split."""
        path = layout.root / params.corpus
        corpus = read_corpus(path, f"{name}.corpus")
        corpus = only_scored(corpus) if name == "source" else corpus
        table = artifacts.read_scored(layout.table(name))
        key = "group" if params.level == "group" else "id"
        at = pd.Index(table["sample_id"]).get_indexer(pd.Index(corpus.rows[key]))
        if len(set(at[at >= 0].tolist())) < len(table):
            raise InputError(f"{path}: does not have all rows of {layout.table(name)}; run `dvc repro split`")
        corpus = corpus.where(at >= 0)
        fit = (table["split"] != "test").to_numpy()
        return cls(name, corpus, at[at >= 0], table["sample_id"].to_numpy(), fit, params.level == "group")

    def samples(self, modality: Feature, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The modality's columns, float32 [N, columns], NaN where not finite, and bool [N]: where it is present."""
        values, present = self.corpus.features[modality][:, columns], self.corpus.present[modality]
        if self.grouped:
            means = average_groups(replace(self.corpus, features={modality: values}, present={modality: present}))
            order = pd.Index(means.rows["id"]).get_indexer(pd.Index(self.sample_ids))
            return means.features[modality][order], means.present[modality][order]
        order = np.argsort(self.at)
        return values[order], present[order]

    def texts(self) -> list[list[str]]:
        """The texts of the rows of each sample, in the order of the file."""
        found: list[list[str]] = [[] for _ in self.sample_ids]
        for at, value in zip(self.at, self.corpus.rows["text"], strict=True):
            if value is not None:
                found[at].append(value)
        return found


def _embed_corpus(rows: Rows, wanted: Sequence[Feature], words: Texts, params: Embed, layout: Layout) -> dict[str, Any]:
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
    vectors, gaps = filled(vectors, present, rows.fit)
    dropped = dict(sorted(Counter(faulty.values()).items()))
    encoder = {"name": "features", "width": len(columns), "dropped": dropped, "columns": columns.tolist()}
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


def _embed_words(path: Path, rows: Rows, words: Texts, layout: Layout) -> dict[str, Any]:
    """Encodes texts one by one; a sample of several texts has the mean of their vectors."""
    identity = words.encoder.identity | ({"level": "group"} if rows.grouped else {})
    texts, found = rows.texts(), 0
    with (
        Store(layout.cache / "embeddings", words.encoder.identity) as store,
        artifacts.embeddings_writer(path, words.encoder.width, identity) as writer,
        progress(f"embedding {rows.name} text", sum(len(some) for some in texts)) as advance,
    ):
        for at in range(0, len(texts), CHUNK):
            chunk = texts[at : at + CHUNK]
            flat = [value for some in chunk for value in some]
            digests = _digests(flat, words)
            encoded = _encode(flat, digests, words, store, advance)
            vectors = iter([(encoded[str(digest)], str(digest)) for digest in digests])
            pooled = [_mean(list(islice(vectors, len(some)))) for some in chunk]
            results = [result for result, _ in pooled]
            _write(
                writer,
                rows.sample_ids[at : at + CHUNK].tolist(),
                results,
                [key for _, key in pooled],
                words.encoder.width,
            )
            found += sum(not isinstance(result, MediaError) for result in results)
    return _summary(len(texts), found, words.encoder.identity)


def _mean(vectors: Sequence[tuple[np.ndarray | MediaError, str]]) -> tuple[np.ndarray | MediaError, str | MediaError]:
    """The mean of some vectors, and a digest of all that was encoded; one vector stays as it is."""
    known = [vector for vector, _ in vectors if not isinstance(vector, MediaError)]
    if not known:
        return MediaError(NONE), MediaError(NONE)
    if len(vectors) == 1:
        return vectors[0]
    return np.mean(known, axis=0), hashlib.sha256("\n".join(key for _, key in vectors).encode()).hexdigest()
