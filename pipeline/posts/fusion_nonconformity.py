"""What prediction sets are calibrated by: how the fusion did on rows out of fold. See ``scoring.conformal``."""

import numpy as np
import pandas as pd

from pipeline.core import artifacts
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.posts.descriptions import FusionDescription
from pipeline.posts.labels import codes_of
from pipeline.scoring import conformal, emotion


def fusion_class_scores(posts: pd.DataFrame, fuse: FusionDescription, layout: Layout) -> list[np.ndarray]:
    """Nonconformity of the fusion on the rows that it predicted out of fold, by class and ascending: K arrays float64.

    Raises InputError when the predictions are missing, or of other rows than those of ``posts``.
    """
    path = layout.predictions("fuse")
    predictions = artifacts.read_predictions(path, len(fuse.labels))
    rows = predictions.rows
    unseen = predictions.where(((rows["split"] != "test") & (rows["kind"] == "fusion")).to_numpy())
    by_id = posts.set_index("sample_id")
    if not unseen.rows["sample_id"].isin(by_id.index).all():
        raise InputError(f"{path}: rows differ from data/split; run `dvc repro fuse`")
    actual = codes_of(by_id.loc[unseen.rows["sample_id"]], fuse.labels)
    return conformal.class_scores(emotion.softmax(fuse.calibration.calibrated(unseen.logits)), actual)
