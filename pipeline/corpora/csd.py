"""A folder of CMU SDK files → its raw rows and vectors."""

from pathlib import Path

import pandas as pd

from pipeline.core.schemas import Feature
from pipeline.corpora import sequences
from pipeline.corpora.raw_features import RawFeatures, RawVectors, concatenate_cells, stack_vectors
from pipeline.corpora.tabular import texts


def read_csd_folder(path: Path, where: str) -> RawFeatures:
    segments = sequences.read_folder(path, where)
    ids, groups = (texts(names, f"{path}: key") for names in (segments.ids, segments.groups))
    rows = pd.DataFrame({"id": ids, "group": groups, "split": None, "text": segments.words, "score": segments.scores})
    vectors: dict[Feature, RawVectors] = {
        name: stack_vectors(len(rows), [concatenate_cells(cells)]) for name, cells in segments.cells.items()
    }
    return RawFeatures(rows, vectors, ())
