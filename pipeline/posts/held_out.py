"""The posts that are scored, what was predicted for them, and the refusal of rows that a model has seen."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core import artifacts
from pipeline.core.artifacts import Predictions
from pipeline.core.descriptions import read_description
from pipeline.core.errors import InputError
from pipeline.core.fitted import read_fitted
from pipeline.core.layout import Layout
from pipeline.core.schemas import FINAL, Modality
from pipeline.params import EvaluateParams, Params
from pipeline.posts.descriptions import FusionDescription, PostsDescription, SpecialistDescription
from pipeline.posts.labels import codes_of
from pipeline.scoring import intervals, leaks
from pipeline.scoring.calibration import Calibration


@dataclass(frozen=True)
class HeldOut:
    """What is scored, n rows: ``posts``, their classes ``codes``, int64 [n], as positions in ``labels``.

    ``groups``, int64 [n], numbers their groups.
    """

    posts: pd.DataFrame
    codes: np.ndarray
    groups: np.ndarray
    labels: tuple[str, ...]
    block: EvaluateParams
    seed: int

    def macro_f1(self, predicted: np.ndarray, at: np.ndarray | slice = slice(None)) -> dict[str, float]:
        """Macro-F1 with its interval, where there is one, of the classes ``predicted`` for the rows ``at``."""
        drawn = intervals.resampled_macro_f1(
            self.codes[at], predicted, self.groups[at], len(self.labels), self.block.bootstrap, self.seed
        )
        return {"macro_f1": drawn.value, **intervals.interval_metrics(drawn, self.block.confidence, "macro_f1_")}

    def accuracy(self, predicted: np.ndarray, at: np.ndarray | slice = slice(None)) -> float:
        return float((predicted == self.codes[at]).mean())


KINDS: dict[str, type[PostsDescription]] = {"fuse": FusionDescription}
"""The description of each stage; the others are specialists."""


def held_out_posts(posts: pd.DataFrame, labels: tuple[str, ...], params: Params) -> HeldOut:
    rows = posts[posts["split"] == "test"].reset_index(drop=True)
    if rows.empty:
        raise InputError("data/split/posts.parquet: no row has the split `test`, so there is nothing to evaluate")
    unknown = sorted(set(posts["label"]) - set(labels))
    if unknown:
        raise InputError(f"models/fuse/model.json: does not know the label {unknown[0]!r}; run `dvc repro`")
    groups = pd.factorize(rows["group_id"])[0].astype(np.int64)
    return HeldOut(rows, codes_of(rows, labels), groups, labels, params.evaluate, params.seed)


def refuse_seen(test: HeldOut, modalities: list[Modality], layout: Layout) -> None:
    """Raises InputError when any model that a scored prediction rests on has seen a test row or its group."""
    leaks.refuse_fitted_rows(test.posts, _fitted(test, modalities, layout))


def _fitted(test: HeldOut, modalities: list[Modality], layout: Layout) -> Iterator[pd.DataFrame]:
    """Which rows each stage was fitted on that a scored prediction rests on."""
    stages = ["fuse", *(f"train_{name}" for name in modalities)]
    for stage in stages:
        description = read_description(layout.model(stage), KINDS.get(stage, SpecialistDescription))
        if description.labels != test.labels:
            raise InputError(f"models/{stage}/model.json: its labels differ from those of fuse; run `dvc repro`")
        rows = read_fitted(layout.model(stage), description.fitted)
        if rows.empty:
            raise InputError(f"{layout.fitted(stage)}: does not say which rows it was fitted on; run `dvc repro`")
        stages += [parent for parent in description.parents if parent not in stages]
        yield rows.assign(stage=stage)


@dataclass(frozen=True)
class FusionLogits:
    """Predictions of the fusion for all test rows, in their order.

    Attributes:
        raw: float32 [n, K], with all modalities.
        subsets: (``masked | retrained``, name of the subset) → float64 [n, K], calibrated.
    """

    raw: np.ndarray
    subsets: Mapping[tuple[str, str], np.ndarray]
    calibration: Calibration

    @property
    def whole(self) -> np.ndarray:
        """With all modalities, calibrated: float64 [n, K]."""
        return self.calibration.calibrated(self.raw)

    @property
    def predicted(self) -> np.ndarray:
        """The class decided for with all modalities, int64 [n]."""
        return self.decide(self.whole)

    def decide(self, calibrated: np.ndarray) -> np.ndarray:
        return self.calibration.decide(calibrated)


def fusion_logits(layout: Layout, test: HeldOut, calibration: Calibration) -> FusionLogits:
    """Raises InputError when predictions of the whole fusion are missing, or any are not those of the test rows."""
    path = layout.predictions("fuse")
    predictions = _final_test_predictions(path, test)
    subsets: dict[tuple[str, str], np.ndarray] = {}
    made_with = predictions.rows[["kind", "subset"]]
    for kind, subset in made_with.drop_duplicates().itertuples(index=False, name=None):
        part = predictions.where(((made_with["kind"] == kind) & (made_with["subset"] == subset)).to_numpy())
        subsets[kind, subset] = part.logits[_positions(part, test.posts["sample_id"], path)]
    whole = [key for key in subsets if key[0] == "fusion"]
    if len(whole) != 1:
        raise InputError(f"{path}: does not have predictions of one fusion; run `dvc repro`")
    raw = subsets.pop(whole[0])
    return FusionLogits(
        raw, {key: calibration.calibrated(subset_logits) for key, subset_logits in subsets.items()}, calibration
    )


def specialist_predicted(layout: Layout, modality: Modality, test: HeldOut, present: np.ndarray) -> np.ndarray:
    """The classes predicted, int64 [m], for those m test rows for which ``present``, bool [n], is true."""
    calibration = read_description(layout.model(f"train_{modality}"), SpecialistDescription).calibration
    path = layout.predictions(f"train_{modality}")
    predictions = _final_test_predictions(path, test)
    at = _positions(predictions, test.posts.loc[present, "sample_id"], path)
    return calibration.decide(calibration.calibrated(predictions.logits[at]))


def _final_test_predictions(path: Path, test: HeldOut) -> Predictions:
    predictions = artifacts.read_predictions(path, len(test.labels))
    predictions = predictions.where((predictions.rows["split"] == "test").to_numpy())
    if (predictions.rows["fold"] != FINAL).any():
        raise InputError(f"{path}: test rows were predicted by a cross-fitted model; run `dvc repro`")
    return predictions


def _positions(predictions: Predictions, ids: pd.Series, path: Path) -> np.ndarray:
    """Where each id stands among the predictions; these and no others must be there, once each."""
    at = pd.Index(predictions.rows["sample_id"])
    if len(at) != len(ids) or not at.is_unique or not ids.isin(at).all():
        raise InputError(f"{path}: its test rows are not those of data/split/posts.parquet; run `dvc repro`")
    return at.get_indexer(pd.Index(ids))
