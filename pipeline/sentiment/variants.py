"""What a score was predicted with: columns of the tables of scores, and the key of what is scored."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.core.schemas import ScoreStep


class Variant(NamedTuple):
    """A step of the track as a table of scores names it; see ``schemas.SCORES_TABLE``.

    Attributes:
        step: what predicted.
        subset: the modalities that were not masked, by ``schemas.subset_name``.
        with_source: False for fine-tuning that does without the source.
        groups: for a point of the learning curve, how many labelled groups it had; 0: all there are.
    """

    step: ScoreStep
    subset: str
    with_source: bool = True
    groups: int = 0

    def of(self, predictions: pd.DataFrame) -> pd.DataFrame:
        """Its rows of a table of scores."""
        same = [(predictions[name] == value).to_numpy() for name, value in self._asdict().items()]
        return predictions[np.logical_and.reduce(same)]


def by_variant(predictions: pd.DataFrame) -> dict[Variant, pd.DataFrame]:
    """The rows of each variant, in the order in which variants appear."""
    fields = predictions[list(Variant._fields)]
    variants = [Variant(*key) for key in fields.drop_duplicates().itertuples(index=False, name=None)]
    numbers = fields.groupby(list(Variant._fields), sort=False).ngroup().to_numpy()
    return {variant: predictions[numbers == number] for number, variant in enumerate(variants)}
