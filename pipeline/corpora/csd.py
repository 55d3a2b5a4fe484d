"""A folder of CMU SDK files → its raw rows and vectors."""

from pathlib import Path

import pandas as pd

from pipeline.core.schemas import Feature
from pipeline.corpora import sequences
from pipeline.corpora.raw_features import RawFeatures, RawVectors, gathered, strung


def read_csd_folder(path: Path, where: str) -> RawFeatures:
    found = sequences.read_folder(path, where)
    rows = pd.DataFrame(
        {"id": found.ids, "group": found.groups, "split": None, "text": found.words, "score": found.scores}
    )
    vectors: dict[Feature, RawVectors] = {
        name: gathered(len(rows), [strung(cells)]) for name, cells in found.cells.items()
    }
    return RawFeatures(rows, vectors, ())
