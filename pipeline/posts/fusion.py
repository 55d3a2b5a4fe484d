"""What the fusion learns from, and how it is fitted: whole, masked and retrained on every subset."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pipeline.core import artifacts
from pipeline.core.descriptions import read_description
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.core.schemas import FINAL, MODALITIES, Modality, subset_name, subsets_of
from pipeline.nets.fusion import Fusion
from pipeline.nets.losses import objective
from pipeline.params import FuseParams, Params
from pipeline.posts.descriptions import FusionDescription, FusionNet, SpecialistDescription
from pipeline.posts.labels import codes_of, labels_of
from pipeline.scoring import emotion
from pipeline.training.checkpoint import load_weights
from pipeline.training.device import pick
from pipeline.training.loop import FitResult, TrainingPlan, fit, one_thread, predict
from pipeline.training.optim import adamw
from pipeline.training.rows import TensorRows

Subset = tuple[Modality, ...]

LogitsBySubset = dict[str, dict[str, np.ndarray]]
"""``fusion | masked | retrained`` → name of a subset → logits, float32 [rows, classes]."""


@dataclass(frozen=True)
class FusionRows:
    """All posts, N rows: what every modality knows of them.

    Attributes:
        modalities: those with a trained specialist.
        vectors: modality → float32 [N, width].
        expert_log_probs: modality → float32 [N, classes], centred log-probabilities.
        present: modality → bool [N].
        codes: int64 [N].
    """

    posts: pd.DataFrame
    labels: tuple[str, ...]
    modalities: Subset
    vectors: dict[str, torch.Tensor]
    expert_log_probs: dict[str, torch.Tensor]
    present: dict[str, torch.Tensor]
    codes: torch.Tensor

    def rows(self, at: np.ndarray, batch: int, subset: Subset) -> TensorRows:
        """The rows ``at``, with the modalities outside ``subset`` marked absent."""
        index = torch.from_numpy(at)
        present = {name: self.present[name][index] & (name in subset) for name in self.modalities}
        inputs = (
            {name: self.vectors[name][index] for name in self.modalities},
            {name: self.expert_log_probs[name][index] for name in self.modalities},
            present,
        )
        return TensorRows(inputs, self.codes[index], batch)


def fit_fusions(
    corpus: FusionRows, train: np.ndarray, val: np.ndarray, scored: np.ndarray, params: Params
) -> tuple[Fusion, FitResult, LogitsBySubset]:
    """The fusion, how the fit went, and kind → subset → logits for the scored rows."""
    device = pick(params.device)
    everything = corpus.modalities
    logits: LogitsBySubset = {"fusion": {}, "masked": {}, "retrained": {}}
    with one_thread():
        net, fit_result = _fit(corpus, everything, train, val, params)
        for subset in subsets_of(everything):
            rows = corpus.rows(scored, params.fuse.batch, subset)
            logits["masked"][subset_name(subset)] = predict(net, rows, device)
            part = net if subset == everything else _fit(corpus, subset, train, val, params)[0]
            logits["retrained"][subset_name(subset)] = predict(part, rows, device)
    whole = subset_name(everything)
    logits["fusion"][whole] = logits["masked"][whole]
    return net, fit_result, logits


def read_fusion_rows(params: Params, layout: Layout) -> FusionRows:
    posts = artifacts.read_posts(layout.table("posts"))
    labels = labels_of(posts, params.posts.labels)
    vectors: dict[str, torch.Tensor] = {}
    expert_log_probs: dict[str, torch.Tensor] = {}
    present: dict[str, torch.Tensor] = {}
    for name in MODALITIES:
        stage = f"train_{name}"
        if read_description(layout.model(stage), SpecialistDescription).absent:
            continue
        embeddings = artifacts.read_embeddings_of(posts, layout.embeddings("posts", name))
        vectors[name] = torch.from_numpy(np.asarray(embeddings.vectors))
        present[name] = torch.from_numpy(embeddings.present)
        expert_log_probs[name] = torch.from_numpy(_opinions(layout, stage, posts, embeddings.present, len(labels)))
    if not vectors:
        raise InputError("no modality has a trained specialist: too few posts, or no readable text, picture or clip")
    modalities: Subset = tuple(name for name in MODALITIES if name in vectors)
    return FusionRows(
        posts, labels, modalities, vectors, expert_log_probs, present, torch.from_numpy(codes_of(posts, labels))
    )


def _opinions(layout: Layout, stage: str, posts: pd.DataFrame, present: np.ndarray, classes: int) -> np.ndarray:
    """Centred log-probabilities of a specialist for every post that has its modality, zeros for the others."""
    predictions = artifacts.read_predictions(layout.predictions(stage), classes)
    rows = predictions.rows
    if not ((rows["fold"] == FINAL) == (rows["split"] != "train")).all():
        raise InputError(f"{layout.predictions(stage)}: training rows are not out of fold; run `dvc repro {stage}`")
    at = pd.Index(posts["sample_id"]).get_indexer(pd.Index(rows["sample_id"]))
    missing = present & (posts["split"] != "train").to_numpy()
    missing[at] = False
    if (at < 0).any() or missing.any():
        raise InputError(f"{layout.predictions(stage)}: rows differ from the embeddings; run `dvc repro {stage}`")
    expert_log_probs = np.zeros((len(posts), classes), dtype=np.float32)
    expert_log_probs[at] = emotion.centred_log_probabilities(predictions.logits)
    return expert_log_probs


def describe_fusion(corpus: FusionRows, subset: Subset, block: FuseParams) -> FusionNet:
    """The net of these modalities, as ``model.json`` describes it."""
    shape = block.model_dump(include={"strategy", "width", "heads", "hidden", "dropout", "modality_dropout"})
    widths = {name: corpus.vectors[name].shape[1] for name in subset}
    return FusionNet(widths=widths, classes=len(corpus.labels), **shape)


def load_fusion(folder: Path) -> Fusion | None:
    """The fusion in a folder, ready to predict; None where one modality has nothing to fuse."""
    description = read_description(folder, FusionDescription)
    if description.net is None:
        return None
    net = Fusion(**description.net.arguments())
    load_weights(folder, net)
    return net.eval()


def _fit(
    corpus: FusionRows, subset: Subset, train: np.ndarray, val: np.ndarray, params: Params
) -> tuple[Fusion, FitResult]:
    """A fusion of these modalities; posts that have none of them are learned from as such, and so give the prior."""
    block = params.fuse
    torch.manual_seed(params.seed)
    net = Fusion(**describe_fusion(corpus, subset, block).arguments())
    rows = corpus.rows(train, block.batch, subset)
    net.standardise_like(rows.inputs[0], rows.inputs[2])
    counts = np.bincount(corpus.codes.numpy()[train], minlength=len(corpus.labels)).tolist()
    fit_result = fit(
        net,
        rows,
        corpus.rows(val, block.batch, subset),
        objective=objective(block.imbalance, counts, power=block.imbalance_power, gamma=block.focal_gamma),
        score=lambda logits, codes: emotion.macro_f1(codes, logits.argmax(axis=1), logits.shape[1]),
        optimizer=adamw([(net, block.learning_rate)], block.weight_decay),
        plan=TrainingPlan(block.epochs, block.patience, params.seed),
        device=pick(params.device),
        what=f"fuse {'+'.join(subset)}",
    )
    return net, fit_result
