"""What the fusion learns from: the vectors of every modality, and the held-out predictions of its specialist."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from pipeline.core import artifacts
from pipeline.core.descriptions import read_description
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.core.schemas import FINAL, MODALITIES, Modality
from pipeline.nets.modalities import ByModality
from pipeline.params import Params
from pipeline.posts.descriptions import SpecialistDescription
from pipeline.posts.folds import Grouping
from pipeline.posts.labels import codes_of, labels_of
from pipeline.posts.specialist_rows import settings_of
from pipeline.scoring import emotion
from pipeline.training.finished import Finished, finished

ModalitySubset = tuple[Modality, ...]


@dataclass(frozen=True)
class FusionRows:
    """All posts, N rows: the vectors and predictions of every modality.

    Attributes:
        modalities: those with a trained specialist.
        vectors: modality → float32 [N, width].
        expert_log_probs: modality → float32 [N, classes], centred log-probabilities of the calibrated specialist.
        present: modality → bool [N].
        codes: int64 [N].
        finished: keeps what was trained on them.
    """

    posts: pd.DataFrame
    labels: tuple[str, ...]
    modalities: ModalitySubset
    vectors: dict[str, torch.Tensor]
    expert_log_probs: dict[str, torch.Tensor]
    present: dict[str, torch.Tensor]
    codes: torch.Tensor
    grouping: Grouping
    finished: Finished

    def inputs(self, at: np.ndarray, subset: ModalitySubset) -> tuple[ByModality, ByModality, ByModality]:
        """What a net that knows ``subset`` takes of the rows ``at``: vectors, expert log-probabilities, presence."""
        index = torch.from_numpy(at)
        known = (self.vectors, self.expert_log_probs, self.present)
        return tuple({name: by_modality[name][index] for name in subset} for by_modality in known)  # pyright: ignore[reportReturnType]

    def masked(self, at: np.ndarray, subset: ModalitySubset) -> tuple[ByModality, ByModality, ByModality]:
        """The same for a net that knows all modalities; those outside ``subset`` are marked absent."""
        vectors, experts, present = self.inputs(at, self.modalities)
        return vectors, experts, {name: here & (name in subset) for name, here in present.items()}

    def widths(self, subset: Sequence[str]) -> dict[str, int]:
        return {name: self.vectors[name].shape[1] for name in subset}


def read_fusion_rows(params: Params, layout: Layout) -> FusionRows:
    posts = artifacts.read_posts(layout.table("posts"))
    labels = labels_of(posts, params.posts.labels)
    vectors: dict[str, torch.Tensor] = {}
    expert_log_probs: dict[str, torch.Tensor] = {}
    present: dict[str, torch.Tensor] = {}
    for name in MODALITIES:
        stage = f"train_{name}"
        description = read_description(layout.model(stage), SpecialistDescription)
        if description.absent:
            continue
        embeddings = artifacts.read_embeddings_of(posts, layout.embeddings("posts", name))
        vectors[name] = torch.from_numpy(np.asarray(embeddings.vectors))
        present[name] = torch.from_numpy(embeddings.present)
        log_probs = _expert_log_probs(layout, stage, posts, embeddings.present, description)
        expert_log_probs[name] = torch.from_numpy(log_probs)
    if not vectors:
        raise InputError(f"no modality has a trained specialist; {layout.details('train_text')} and its like say why")
    modalities: ModalitySubset = tuple(name for name in MODALITIES if name in vectors)
    codes = codes_of(posts, labels)
    grouping = Grouping.of(posts, codes, params.seed)
    inputs = [layout.table("posts"), *(layout.embeddings("posts", name) for name in MODALITIES)]
    inputs += [layout.model(f"train_{name}") for name in MODALITIES]
    kept = finished("fuse", settings_of(params, params.fuse), inputs, layout.cache)
    known = torch.from_numpy(codes)
    return FusionRows(posts, labels, modalities, vectors, expert_log_probs, present, known, grouping, kept)


def _expert_log_probs(
    layout: Layout, stage: str, posts: pd.DataFrame, present: np.ndarray, description: SpecialistDescription
) -> np.ndarray:
    """Centred log-probabilities of a specialist for every post that it predicted unseen, zeros for the others."""
    path, classes = layout.predictions(stage), len(description.labels)
    predictions = artifacts.read_predictions(path, classes)
    rows = predictions.rows
    if ((rows["fold"] == FINAL) & (rows["split"] == "train")).any():
        raise InputError(f"{path}: training rows are not out of fold; run `dvc repro {stage}`")
    at = pd.Index(posts["sample_id"]).get_indexer(pd.Index(rows["sample_id"]))
    missing = present & (posts["split"] != "train").to_numpy()
    missing[at] = False
    if (at < 0).any() or missing.any():
        raise InputError(f"{path}: rows differ from the embeddings; run `dvc repro {stage}`")
    expert_log_probs = np.zeros((len(posts), classes), dtype=np.float32)
    calibrated = description.calibration.calibrated(predictions.logits)
    expert_log_probs[at] = emotion.centred_log_probabilities(calibrated)
    return expert_log_probs
