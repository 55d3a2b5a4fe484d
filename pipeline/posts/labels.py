"""What stages after `split` ask of the posts' sample table."""

from collections.abc import Sequence

import numpy as np
import pandas as pd


def labels_of(posts: pd.DataFrame, configured: Sequence[str]) -> tuple[str, ...]:
    """The classes in the order of every logit: as given in params, or alphabetical."""
    return tuple(configured) or tuple(sorted(set(posts["label"])))


def codes_of(posts: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    """int64 [N]: each post's label as a position in ``labels``."""
    return pd.Categorical(posts["label"], categories=list(labels)).codes.astype(np.int64)
