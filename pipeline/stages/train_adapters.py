"""Trains, for each modality, an adapter from the target's columns to the source's.

Twice: without the target's labels (``zero_shot``), and with those of its training rows (``adapted``), which is what
settles the orientation of the space. Under cross-validation each fold has adapters of its own, which meet neither the
labels nor the features of the rows that the fold is scored on. Only `embed` met these features before: under
cross-validation the features of all labelled rows choose and fill the columns of every fold; it reads no label.

Reads:  data/split/{source,target,target_folds}.parquet, data/embeddings/{source,target}/*.parquet,
        models/train_source/.
Writes: models/train_adapters/, metrics/train_adapters.json, plots/train_adapters/.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline import figures
from pipeline.core import artifacts
from pipeline.core.layout import Layout
from pipeline.core.schemas import FINAL, Feature, Subset, subsets_of, variant
from pipeline.corpora.matching import Cloud, meeting_places
from pipeline.nets.adapter import Adapter
from pipeline.nets.losses import Objective, coral, meeting
from pipeline.nets.transfer import ScoreNet
from pipeline.params import Params
from pipeline.stages.transfer import Columns, Target, fold_names, in_processes, read_columns, read_target
from pipeline.training.checkpoint import load_weights, read_description, write_model
from pipeline.training.device import pick
from pipeline.training.loop import Fit, Plan, fit, one_thread, predict
from pipeline.training.optim import adamw
from pipeline.training.rows import TensorRows

STEPS = ("zero_shot", "adapted")
BATCH = 4096
HISTORY_COLUMNS = ["modality", "step", "epoch", "train_loss", "val_loss"]


@dataclass(frozen=True)
class Job:
    params: Params
    layout: Layout
    fold: str


@dataclass(frozen=True)
class Source:
    """The source model, and what the adapters are to meet: its training rows.

    Attributes:
        rows: modality → float32 [n, columns], the training rows that have it.
        scores: modality → float32 [n].
    """

    net: ScoreNet
    modalities: tuple[Feature, ...]
    rows: Mapping[str, Tensor]
    scores: Mapping[str, Tensor]


@dataclass(frozen=True)
class Outcome:
    """What a fold leaves: ``weights`` by adapter and tensor name, of the adapted step."""

    predictions: pd.DataFrame
    weights: dict[str, Tensor]
    report: dict[str, dict[str, dict[str, float]]]
    history: pd.DataFrame


def run(params: Params, layout: Layout) -> None:
    target = read_target(layout)
    folds = fold_names(target.folds)
    processes = params.target.processes if pick(params.device).type == "cpu" else 1
    jobs = [Job(params, layout, fold) for fold in folds]
    outcomes = dict(zip(folds, in_processes(adapt, jobs, processes, "train_adapters"), strict=True))
    final = outcomes[FINAL]
    source = read_source(layout)
    with artifacts.replacing_folder(layout.model("train_adapters")) as folder:
        fitted = pd.concat([target.fitted(fold) for fold in folds])
        digest = artifacts.write_fitted(folder / "fitted.parquet", fitted)
        artifacts.write_scores(
            folder / "predictions.parquet", pd.concat([outcomes[fold].predictions for fold in folds])
        )
        weights = {f"{fold}|{name}": value for fold in folds for name, value in outcomes[fold].weights.items()}
        description = {
            "stage": "train_adapters",
            "modalities": list(source.modalities),
            "folds": folds,
            "net": {name: adapter_shape(target, source, name, params) for name in source.modalities},
            "adapters": final.report["adapted"],
            "zero_shot_adapters": final.report["zero_shot"],
            "seed": params.seed,
            "fitted": {"rows": len(fitted), "digest": digest},
            "parents": ["train_source"],
        }
        write_model(folder, weights, description)
    _report(final, layout)


def read_source(layout: Layout) -> Source:
    """Rebuilds the source model from ``models/train_source``."""
    folder = layout.model("train_source")
    description = read_description(folder)
    net = ScoreNet(**description["net"])
    load_weights(folder, net)
    net.requires_grad_(False).eval()
    modalities = tuple(description["modalities"])
    table = artifacts.read_scored(layout.table("source"))
    columns = read_columns(layout, "source", table, modalities)
    train = torch.from_numpy(np.array(table["split"] == "train"))
    scores = torch.from_numpy(table["score"].to_numpy(np.float32))
    kept = {name: train & columns.present[name] for name in modalities}
    return Source(
        net,
        modalities,
        {name: columns.vectors[name][kept[name]] for name in modalities},
        {name: scores[kept[name]] for name in modalities},
    )


def read_adapters(layout: Layout, fold: str) -> dict[str, Adapter]:
    """The adapted step's adapters of a fold, by modality."""
    folder = layout.model("train_adapters")
    description = read_description(folder)
    weights = load_file(folder / "model.safetensors")
    adapters = {}
    for name, shape in description["net"].items():
        adapters[name] = Adapter(**shape)
        start = f"{fold}|{name}."
        found = {key.removeprefix(start): value for key, value in weights.items() if key.startswith(start)}
        adapters[name].load_state_dict(found)
    return adapters


def adapter_shape(target: Target, source: Source, name: Feature, params: Params) -> dict[str, Any]:
    return {
        "width": target.columns.widths[name],
        "hidden": list(params.adapter.hidden),
        "out": source.rows[name].shape[1],
        "components": params.adapter.components,
        "dropout": params.adapter.dropout,
    }


# --- one fold --------------------------------------------------------------------------------------------------------


def adapt(job: Job) -> Outcome:
    """Trains a fold's adapters, both times, and predicts the fold's rows with them."""
    target, source = read_target(job.layout), read_source(job.layout)
    own = target.columns.modalities
    report: dict[str, dict[str, dict[str, float]]] = {}
    predictions, histories = [], []
    adapters: dict[str, Adapter] = {}
    with one_thread():
        for step in STEPS:
            report[step] = {}
            for name in source.modalities:
                adapters[name], went, report[step][name] = train_adapter(
                    name, target, source, job.fold, job.params, labelled=step == "adapted"
                )
                histories.append(pd.DataFrame(went.history).assign(modality=name, step=step))
            carried = carried_columns(adapters, target.columns)
            for subset in subsets_of(own):
                scores = score(source.net, carried, subset)
                predictions.append(target.predicted(job.fold, variant(step, subset, own), scores))
    if target.told:
        predictions.append(target.predicted(job.fold, "text_transfer", told_scores(job.layout, target)))
    weights = {f"{name}.{key}": value for name, net in adapters.items() for key, value in net.state_dict().items()}
    history = pd.concat([pd.DataFrame(columns=HISTORY_COLUMNS), *histories])
    return Outcome(pd.concat(predictions), weights, report, history)


def carried_columns(adapters: Mapping[str, Adapter], columns: Columns) -> Columns:
    """The target's features in the source's space."""
    with torch.inference_mode():
        vectors = {name: adapter.eval()(columns.vectors[name]) for name, adapter in adapters.items()}
    return Columns(vectors, {name: columns.present[name] for name in adapters})


def score(net: ScoreNet, columns: Columns, subset: Subset) -> np.ndarray:
    """float32 [N]: what the source model says of rows in its own space; a modality that it lacks tells it nothing."""
    rows = len(next(iter(columns.present.values())))
    inputs = columns.at(np.arange(rows), subset)
    return predict(net, TensorRows(inputs, torch.zeros(rows), BATCH), torch.device("cpu"))[:, 0]


def told_scores(layout: Layout, target: Target) -> np.ndarray:
    """float32 [N]: what the source's text model says of the target's texts; its mean where a row has none."""
    head = teller(layout)
    with torch.inference_mode():
        scores = head(target.columns.vectors["text"])[:, 0]
        return torch.where(target.columns.present["text"], scores, head.bias).numpy()


def teller(layout: Layout) -> nn.Linear:
    """The head of the source's text model: text vectors → scores."""
    tensors = load_file(layout.model("train_source") / "text" / "model.safetensors")
    weight, bias = (tensors[f"classifier.layers.1.{name}"] for name in ("weight", "bias"))
    head = nn.Linear(weight.shape[1], 1)
    head.load_state_dict({"weight": weight, "bias": bias})
    return head


# --- one adapter -----------------------------------------------------------------------------------------------------


class Judged(nn.Module):
    """An adapter, and what the frozen source model, if it is asked, says of its output when it has nothing else."""

    def __init__(self, adapter: Adapter, source: ScoreNet | None, name: str) -> None:
        super().__init__()
        self.adapter = adapter
        self.source = source
        self.name = name

    def train(self, mode: bool = True) -> "Judged":
        super().train(mode)
        if self.source is not None:
            self.source.eval()
        return self

    def forward(self, vectors: Tensor) -> Tensor:
        """float32 [batch, width] → float32 [batch, source columns + 1]; the last column is the score, or zero."""
        made = self.adapter(vectors)
        rows = len(made)
        if self.source is None:
            return torch.cat([made, made.new_zeros(rows, 1)], dim=1)
        others = {name: size for name, size in self.source.widths.items() if name != self.name}
        columns = {self.name: made, **{name: made.new_zeros(rows, size) for name, size in others.items()}}
        present = {name: torch.full((rows,), name == self.name, device=made.device) for name in columns}
        return torch.cat([made, self.source(columns, present)], dim=1)


def train_adapter(
    name: Feature, target: Target, source: Source, fold: str, params: Params, *, labelled: bool
) -> tuple[Adapter, Fit, dict[str, float]]:
    """The adapter of one modality, how it went, and how far from the source its output was before and after.

    It meets the features of the fold's training and validation rows and of the rows without a score. Their scores it
    knows only where ``labelled``; ``label_weight`` 0 makes both the same. It stays as it is initialised where the fold
    has no training or no validation row with the modality, or the source fewer than two.
    """
    block, seed = params.adapter, params.seed
    own = getattr(block, name)
    labelled = labelled and block.label_weight > 0
    present = target.columns.present[name].numpy()
    train = np.concatenate([target.rows(fold, "train"), target.unlabelled])
    train, val = (rows[present[rows]] for rows in (train, target.rows(fold, "val")))
    both = np.concatenate([train, val])
    scores = target.scores[torch.from_numpy(both)] if labelled else torch.full((len(both),), torch.nan)
    vectors, home = target.columns.vectors[name], source.rows[name]

    torch.manual_seed(seed)
    adapter = Adapter(**adapter_shape(target, source, name, params))
    adapter.standardise_like(vectors[torch.from_numpy(train)], home)
    before = _apart(adapter, vectors[torch.from_numpy(both)], home)
    epochs = block.epochs if own.epochs is None else own.epochs
    went = Fit(0, 0.0, [])
    if epochs and len(train) and len(val) and len(home) > 1:
        weight = block.label_weight if labelled else 0.0
        places = np.zeros((len(both), home.shape[1]), dtype=np.float32)
        objective: Objective = coral(home, adapter.out_scale, weight)
        if block.match != "coral":
            objective = meeting(home.shape[1], adapter.out_scale, block.distance, weight)
            places = meeting_places(
                Cloud(vectors.numpy()[both], scores.numpy() if labelled else None),
                Cloud(home.numpy(), source.scores[name].numpy() if labelled else None),
                block.match,
                clusters=block.clusters,
                rng=np.random.default_rng(seed),
            )
        labels = torch.cat([torch.from_numpy(places), scores[:, None]], dim=1)

        def rows(at: slice) -> TensorRows:
            return TensorRows((vectors[torch.from_numpy(both[at])],), labels[at], block.batch)

        went = fit(
            Judged(adapter, source.net if labelled else None, name),
            rows(slice(0, len(train))),
            rows(slice(len(train), None)),
            objective=objective,
            score=lambda made, wanted: -objective(torch.from_numpy(made), torch.from_numpy(wanted)).item(),
            optimizer=adamw([(adapter, own.learning_rate or block.learning_rate)], block.weight_decay),
            plan=Plan(epochs, epochs, seed, plateau=(block.plateau_factor, block.plateau_patience)),
            device=torch.device("cpu"),
            what=f"train_adapters {name}",
        )
    after = _apart(adapter, vectors[torch.from_numpy(both)], home)
    losses = [line["train_loss"] for line in went.history] or [0.0]
    report = {"first_loss": losses[0], "last_loss": losses[-1], "epochs": float(len(went.history))}
    for key, (start, end) in {"mean": (before[0], after[0]), "spread": (before[1], after[1])}.items():
        report |= {f"{key}_distance_before": start, f"{key}_distance_after": end}
    return adapter, went, report


@torch.inference_mode()
def _apart(adapter: Adapter, vectors: Tensor, home: Tensor) -> tuple[float, float]:
    """Root mean square, over the source's columns, of the difference of means and of spreads, in source spreads.

    Zeros where fewer than two rows of either side leave a spread undefined.
    """
    if min(len(vectors), len(home)) < 2:
        return 0.0, 0.0
    made = adapter.eval()(vectors)
    means = (made.mean(dim=0) - home.mean(dim=0)) / adapter.out_scale
    spreads = (made.std(dim=0) - home.std(dim=0)) / adapter.out_scale
    return means.square().mean().sqrt().item(), spreads.square().mean().sqrt().item()


# --- report ----------------------------------------------------------------------------------------------------------


def _report(final: Outcome, layout: Layout) -> None:
    """Losses and distances of the fold ``final``; scores are left to `evaluate`."""
    artifacts.write_json(layout.metrics("train_adapters"), {"sentiment": final.report})
    with artifacts.replacing_folder(layout.plots("train_adapters")) as plots:
        artifacts.write_csv(plots / "history.csv", final.history[HISTORY_COLUMNS])
        figures.adapters(
            plots / "adapters.png", final.history, final.report, "adapters: losses, and distance to the source"
        )
