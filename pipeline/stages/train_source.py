"""Trains the source model: a score from the source's features, and, where the source has words, from its texts.

The text model is a text encoder tuned on the source's own words. Target and source share it, so it needs no adapter.

Reads:  data/split/{source,source_texts,target}.parquet, data/embeddings/{source,target}/*.parquet.
Writes: models/train_source/ (with ``text/``: the text model, and the target's text vectors by it),
        metrics/train_source.json, plots/train_source/.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipeline import figures
from pipeline.core import artifacts
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.core.schemas import FEATURES, FINAL, Subset, subsets_of, variant
from pipeline.encoders import text
from pipeline.encoders.batches import TokenRows
from pipeline.nets.losses import mixed
from pipeline.nets.specialist import Specialist, TunedSpecialist
from pipeline.nets.transfer import ScoreNet
from pipeline.params import Params, TrainSource
from pipeline.scoring import sentiment
from pipeline.stages.specialist import lora, merged, precision
from pipeline.stages.transfer import Columns, lines_of, read_columns, shared
from pipeline.training.checkpoint import resume_state, write_model
from pipeline.training.device import pick
from pipeline.training.loop import HISTORY, Fit, Plan, fit, one_thread, predict
from pipeline.training.optim import adamw
from pipeline.training.rows import TensorRows

MSE, MAE, CORRELATION = 0.3, 1.0, 0.3
"""Weights of the loss: mostly the absolute error, as scores are noisy; a little of the others for spread and order."""

HEAD_DROPOUT = 0.1


def run(params: Params, layout: Layout) -> None:
    source = artifacts.read_scored(layout.table("source"))
    modalities = shared_modalities(source, layout)
    columns = read_columns(layout, "source", source, modalities)
    net, went, predictions = _fit_features(source, columns, params)
    texts = artifacts.read_scored(layout.table("source_texts"))
    with artifacts.replacing_folder(layout.model("train_source")) as folder:
        _write(folder, source, predictions, net, went, _description(columns, params))
        (folder / "text").mkdir()
        told = _train_text(texts, folder / "text", params, layout)
    _report(source, predictions, went, texts, told, layout)


def shared_modalities(source: pd.DataFrame, layout: Layout) -> Subset:
    """Modalities that the target and training rows of the source have. Raises InputError when there is none."""
    train = source.loc[source["split"] == "train", "sample_id"]
    here, there = [], []
    for name in FEATURES:
        found = artifacts.read_embeddings(layout.embeddings("source", name))
        here += [name] if found.present[np.isin(found.sample_ids, train)].any() else []
        there += [name] if artifacts.read_embeddings(layout.embeddings("target", name)).present.any() else []
    both = shared(tuple(here), tuple(there))
    if not both:
        raise InputError(
            f"training rows of the source have {', '.join(here) or 'nothing'}, the target has "
            f"{', '.join(there) or 'nothing'}: "
            "no modality to carry over; see source.corpus, target.corpus and target.modalities in params.yaml"
        )
    return both


# --- the source's features -------------------------------------------------------------------------------------------


def _fit_features(source: pd.DataFrame, columns: Columns, params: Params) -> tuple[ScoreNet, Fit, pd.DataFrame]:
    block = params.train_source
    split = source["split"].to_numpy()
    train, val = (np.flatnonzero(split == part) for part in ("train", "val"))
    scores = torch.from_numpy(source["score"].to_numpy(np.float32))
    torch.manual_seed(params.seed)
    net = ScoreNet(columns.widths, **score_net(block))
    net.standardise_like(*columns.at(train))
    device = pick(params.device)
    with one_thread():
        went = fit(
            net,
            TensorRows(columns.at(train), scores[train], block.batch),
            TensorRows(columns.at(val), scores[val], block.batch),
            objective=mixed(MSE, MAE, CORRELATION),
            score=concordance,
            optimizer=adamw([(net, block.learning_rate)], block.weight_decay),
            plan=Plan(block.epochs, block.patience, params.seed),
            device=device,
            what="train_source",
        )
        tables = []
        everything = np.arange(len(source))
        for subset in subsets_of(columns.modalities):
            found = predict(net, TensorRows(columns.at(everything, subset), scores, block.batch), device)[:, 0]
            tables.append(_predicted(source, found, variant("source", subset, columns.modalities)))
    return net, went, pd.concat(tables, ignore_index=True)


def concordance(found: np.ndarray, actual: np.ndarray) -> float:
    """The validation score: it falls with a wrong order, a wrong spread and a wrong mean."""
    return sentiment.ccc(actual, found[:, 0]) or 0.0


def score_net(block: TrainSource) -> dict[str, Any]:
    """The arguments of ``ScoreNet`` beside its widths."""
    return block.model_dump(include={"width", "heads", "hidden", "dropout", "modality_dropout"})


def _predicted(rows: pd.DataFrame, scores: np.ndarray, name: str) -> pd.DataFrame:
    return rows[["sample_id", "split"]].assign(fold=FINAL, variant=name, score=scores.astype(np.float64))


def _description(columns: Columns, params: Params) -> dict[str, Any]:
    return {
        "stage": "train_source",
        "modalities": list(columns.modalities),
        "absent": False,
        "net": {"widths": columns.widths, **score_net(params.train_source)},
        "seed": params.seed,
        "parents": [],
    }


def _write(
    folder: Path,
    rows: pd.DataFrame,
    predictions: pd.DataFrame,
    net: torch.nn.Module | None,
    went: Fit | None,
    description: dict[str, Any],
) -> None:
    seen = rows[rows["split"].isin(["train", "val"])] if net is not None else rows.iloc[:0]
    fitted = seen[["sample_id", "group_id"]].assign(fold=FINAL, role=seen["split"])
    digest = artifacts.write_fitted(folder / "fitted.parquet", fitted[["fold", "sample_id", "group_id", "role"]])
    artifacts.write_scores(folder / "predictions.parquet", predictions)
    best = went.best_epoch if went else None
    write_model(folder, net, {**description, "best_epoch": best, "fitted": {"rows": len(fitted), "digest": digest}})


# --- the source's words ----------------------------------------------------------------------------------------------


def _train_text(texts: pd.DataFrame, folder: Path, params: Params, layout: Layout) -> tuple[pd.DataFrame, Fit] | None:
    """Tunes the encoder on the source's words and encodes the target's; None where one of them has no words."""
    target = artifacts.read_scored(layout.table("target"))
    words = artifacts.read_embeddings(layout.embeddings("target", "text"))
    block = params.train_source
    if block.text == "none" or texts.empty or words.encoder.get("name") == "features" or not words.present.any():
        description = {"stage": "train_source/text", "absent": True, "parents": []}
        nothing = _predicted(texts.iloc[:0], np.empty(0), "source")
        _write(folder, texts.iloc[:0], nothing, None, None, description)
        return None
    encoder = text.load(params.embed.text)
    torch.manual_seed(params.seed)
    tuned = block.tuned
    learner = encoder.net if block.text == "full" else lora(encoder.net, encoder.lora_targets, tuned.lora_rank)
    net = TunedSpecialist(learner, Specialist(encoder.width, 1, dropout=HEAD_DROPOUT))
    split = texts["split"].to_numpy()
    scores = torch.from_numpy(texts["score"].to_numpy(np.float32))

    def rows(at: np.ndarray) -> TokenRows:
        return TokenRows(encoder, texts["text"].to_numpy()[at].tolist(), scores[at], tuned.batch)

    device = pick(params.device)
    identity = {
        "stage": "train_source/text",
        "params": block.model_dump(include={"text", "tuned"}),
        "encoder": encoder.identity,
        "seed": params.seed,
        "device": str(device),
        "rows": artifacts.digest(texts["sample_id"] + texts["split"] + texts["score"].astype(str) + texts["text"]),
    }
    went = fit(
        net,
        rows(np.flatnonzero(split == "train")),
        rows(np.flatnonzero(split == "val")),
        objective=mixed(MSE, MAE, 0.0),
        score=concordance,
        optimizer=adamw(
            [(net.encoder, tuned.encoder_learning_rate), (net.classifier, tuned.head_learning_rate)], tuned.weight_decay
        ),
        plan=Plan(
            tuned.epochs,
            tuned.patience,
            params.seed,
            accumulate=tuned.accumulate,
            warmup_share=tuned.warmup_share,
            decay=True,
            mixed_precision=precision(tuned.mixed_precision, device),
        ),
        device=device,
        what="train_source text",
        resume=resume_state(layout.cache, identity),
    )
    if block.text == "lora":
        net.encoder = merged(net.encoder)  # the low-rank updates become part of the weights
    predictions = _predicted(texts, predict(net, rows(np.arange(len(texts))), device)[:, 0], "source")
    description = {
        "stage": "train_source/text",
        "absent": False,
        "net": {"width": encoder.width, "dropout": HEAD_DROPOUT},
        "encoder": encoder.identity,
        "seed": params.seed,
        "parents": [],
    }
    _write(folder, texts, predictions, net, went, description)
    _encode_target(target, net, encoder, folder / "target.parquet", params)
    return predictions, went


def _encode_target(
    target: pd.DataFrame, net: TunedSpecialist, encoder: text.TextEncoder, path: Path, params: Params
) -> None:
    """Writes the target's text vectors by the tuned encoder; a group's lines are encoded one by one and averaged."""
    lines = lines_of(target, params.target.level)
    tuned = replace(encoder, net=net.encoder)
    vectors = tuned.encode([line for row in lines for line in row], pick(params.device))
    row_of = np.repeat(np.arange(len(target)), [len(row) for row in lines])
    sums = np.zeros((len(target), encoder.width), dtype=np.float64)
    np.add.at(sums, row_of, vectors)
    counts = np.array([len(row) for row in lines])
    reasons = [None if count else "none" for count in counts]
    identity = {**encoder.identity, "tuned_on": "source_texts"}
    with artifacts.embeddings_writer(path, encoder.width, identity) as writer:
        means = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
        writer.write(target["sample_id"].tolist(), means, reasons, [None] * len(target))


# --- report ----------------------------------------------------------------------------------------------------------


def _report(
    source: pd.DataFrame,
    predictions: pd.DataFrame,
    went: Fit,
    texts: pd.DataFrame,
    told: tuple[pd.DataFrame, Fit] | None,
    layout: Layout,
) -> None:
    """Scores validation rows; the test rows are left to `evaluate`."""
    whole = predictions[predictions["variant"] == "source"]
    metrics = {"features": {"best_epoch": went.best_epoch, "val": _score(whole, source)}}
    history = pd.DataFrame(went.history, columns=HISTORY)
    if told:
        metrics["text"] = {"best_epoch": told[1].best_epoch, "val": _score(told[0], texts)}
    artifacts.write_json(layout.metrics("train_source"), {"sentiment": metrics})
    with artifacts.replacing_folder(layout.plots("train_source")) as plots:
        artifacts.write_csv(plots / "history.csv", history)
        figures.history(plots / "history.png", history.assign(fold=FINAL), "source model, features", "concordance")
        if told:
            lines = pd.DataFrame(told[1].history, columns=HISTORY).assign(fold=FINAL)
            figures.history(plots / "history_text.png", lines, "source model, texts", "concordance")


def _score(predictions: pd.DataFrame, rows: pd.DataFrame) -> dict[str, Any]:
    val = predictions[predictions["split"] == "val"].merge(rows[["sample_id", "score"]], on="sample_id")
    return sentiment.report(val["score_y"].to_numpy(), val["score_x"].to_numpy())
