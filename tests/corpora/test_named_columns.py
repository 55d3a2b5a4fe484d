"""What the names of a table's columns say of what made them."""

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.corpora import named_columns


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (["f0.mean", "f0.std"], True),
        (["mfcc_0", "mfcc_1", "energy"], True),
        (["loudness"], True),
        (["c0", "c1", "c2"], False),
        (["0", "1"], False),
        (["c0"], False),
    ],
)
def test_names_tell_unless_they_are_mere_numbers(columns: list[str], told: bool) -> None:
    schema = pa.schema([pa.field(f"audio.{column}", pa.float32()) for column in columns])
    found = named_columns.extractors(Path("source.parquet"), schema)
    assert ({name: of.columns for name, of in found.items()}) == ({"audio": tuple(columns)} if told else {})
