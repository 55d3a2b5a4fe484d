"""Features as columns of a table, one for each number: ``audio.mfcc_03.mean``; and which extractor made them.

A name begins with its modality and a dot. Parquet's metadata says of each modality what extracted it, so that two
corpora which were extracted alike are known to be; of other tables, the names of the columns say so.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from pipeline.core.errors import InputError
from pipeline.core.schemas import FEATURES, Feature
from pipeline.corpora.raw_features import Extractor, RawVectors

KEY = b"extractors"
"""Of the metadata: modality → ``Extractor``, as JSON."""


STORED = TypeAdapter(dict[Feature, Extractor])


def blocks(columns: Sequence[str]) -> dict[Feature, list[str]]:
    """Modality → those of the columns that are its numbers, in their order; only those that have any."""
    by_modality: dict[Feature, list[str]] = {
        name: [column for column in columns if column.startswith(f"{name}.")] for name in FEATURES
    }
    return {name: its for name, its in by_modality.items() if its}


def metadata(extractors: Mapping[Feature, Extractor]) -> dict[bytes, bytes]:
    return {
        KEY: json.dumps({name: asdict(extractor) for name, extractor in extractors.items()}, sort_keys=True).encode()
    }


def extractors(path: Path, schema: pa.Schema) -> dict[Feature, Extractor]:
    """What a table says of its extractors: by its metadata, or else by the names of its columns.

    Nothing where the columns are no longer those of the metadata, or are merely numbered.
    Raises InputError where the metadata is not ours.
    """
    stored = (schema.metadata or {}).get(KEY)
    try:
        known = {} if stored is None else STORED.validate_json(stored)
    except ValidationError as error:
        raise InputError(f"{path}: its metadata `extractors` says {error.errors()[0]['msg']}; extract again") from None
    extractors: dict[Feature, Extractor] = {}
    for name, columns in blocks(schema.names).items():
        short_names = tuple(column.removeprefix(f"{name}.") for column in columns)
        extractor = known.get(name, Extractor("named columns", "", "", short_names))
        if extractor.columns == short_names and (name in known or not _numbered(short_names)):
            extractors[name] = extractor
    return extractors


def _numbered(columns: Sequence[str]) -> bool:
    """Whether the names are one word with numbers, which say nothing of what the columns are."""
    return len({re.sub(r"\d+", "", column) for column in columns}) == 1 and any(map(re.compile(r"\d").search, columns))


def read_block(path: Path, file: pq.ParquetFile, columns: Sequence[str], rows: int) -> RawVectors:
    """A modality whose numbers are these columns, rows at a time. Raises InputError for a column of anything else."""
    for column in columns:
        kind = file.schema_arrow.field(column).type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
            raise InputError(f"{path}: column {column} holds {kind}, where numbers are needed")
    values, at = np.empty((file.metadata.num_rows, len(columns)), dtype=np.float32), 0
    for batch in file.iter_batches(rows, columns=list(columns)):
        for place, column in enumerate(columns):
            numbers = batch.column(column).cast(pa.float32(), safe=False)
            values[at : at + len(batch), place] = numbers.to_numpy(zero_copy_only=False)
        at += len(batch)
    return _raw(values)


def _raw(values: np.ndarray) -> RawVectors:
    """A row without any number lacks the modality; what is not finite in another is NaN."""
    values[~np.isfinite(values)] = np.nan
    present = ~np.isnan(values).all(axis=1)
    values[~present] = 0.0
    return RawVectors(values, np.where(present, values.shape[1], 0))
