"""The source's text model: a text encoder tuned on the source's words, which target and source share."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from pipeline.core import artifacts
from pipeline.core.descriptions import read_description
from pipeline.core.errors import InputError
from pipeline.core.fitted import write_fitted
from pipeline.core.layout import Layout
from pipeline.encoders import text
from pipeline.encoders.text_rows import TokenRows
from pipeline.nets.losses import mixed
from pipeline.nets.specialist import Specialist, TunedSpecialist
from pipeline.params import Params
from pipeline.scoring.sentiment import concordance
from pipeline.scoring.units import score_unit
from pipeline.sentiment.data import Target, lines_of
from pipeline.sentiment.descriptions import TextModelDescription, TextModelNet
from pipeline.sentiment.source_candidates import MAE, MSE
from pipeline.sentiment.source_model import predicted_scores, source_fitted
from pipeline.training.averaging import average_trainings
from pipeline.training.checkpoint import load_weights, resume_state, write_model
from pipeline.training.device import pick
from pipeline.training.finished import Finished, finished
from pipeline.training.loop import FitResult, predict
from pipeline.training.tuning import TunedTraining, for_few


def text_encoder(target: Target, params: Params, layout: Layout) -> text.TextEncoder:
    """The encoder of the target's words: the source's text model where there is one."""
    encoder = text.load(params.embed.text)
    if target.by_source_text:
        load_weights(text_model_folder(layout), encoder.net, "encoder")
    return encoder


def text_model_folder(layout: Layout) -> Path:
    """Where `train_source` leaves the source's text model."""
    return layout.model("train_source") / "text"


def source_text_scores(layout: Layout, target: Target) -> np.ndarray:
    """float32 [N]: the source's text model's scores of the target's texts; its head's bias where a row has none."""
    head = source_text_head(layout)
    with torch.inference_mode():
        scores = head(target.columns.vectors["text"])[:, 0]
        return torch.where(target.columns.present["text"], scores, head.bias).numpy()


def source_text_head(layout: Layout) -> nn.Linear:
    """The head of the source's text model: text vectors → scores."""
    folder = text_model_folder(layout)
    description = read_description(folder, TextModelDescription)
    if description.net is None:
        raise InputError(f"{folder}: holds no text model; run `dvc repro train_source`")
    classifier = Specialist(classes=1, **description.net.arguments())
    load_weights(folder, classifier, "classifier")
    return classifier.head


@torch.no_grad()
def in_units_(head: nn.Linear, unit: float) -> nn.Linear:
    """The head itself, changed in place so that it gives its scores in this unit."""
    head.weight.div_(unit)
    head.bias.div_(unit)
    return head


HEAD_DROPOUT = 0.1


@dataclass(frozen=True)
class TextFit:
    """The history of the source's text model, of the first training; and how many rows it learned from."""

    history: list[dict[str, float]]
    rows: int


def train_text_model(texts: pd.DataFrame, folder: Path, params: Params, layout: Layout) -> TextFit | None:
    """Tunes the encoder on the source's words and encodes the target's; None where one of them has no words.

    It learns from training and validation rows alike, for all epochs.
    """
    target = artifacts.read_scored(layout.table("target"))
    words = artifacts.read_embeddings(layout.embeddings("target", "text"))
    block = params.train_source
    if block.text == "none" or texts.empty or words.encoder.get("name") == "features" or not words.present.any():
        _write_absent(texts, folder)
        return None
    encoder, learn = text.load(params.embed.text), texts[texts["split"].isin(["train", "val"])]
    net = TunedSpecialist(encoder.net, Specialist(encoder.width, 1, dropout=HEAD_DROPOUT))
    unit = score_unit(learn["score"].to_numpy())
    with torch.no_grad():
        net.classifier.head.weight.zero_()
        net.classifier.head.bias.fill_(learn["score"].mean() / unit)
    kept = finished("train_source", _identity(encoder, learn, params), [], layout.cache)
    history = _tune(net, encoder, learn.assign(score=learn["score"] / unit), params, layout, kept)
    in_units_(net.classifier.head, 1 / unit)  # the model on disk gives scores of the corpus
    predictions = predicted_scores(
        texts, predict(net, _token_rows(encoder, texts, block.tuned.batch), pick(params.device))[:, 0], ("text",)
    )
    description = TextModelDescription(
        stage="train_source/text",
        absent=False,
        net=TextModelNet(width=encoder.width, dropout=HEAD_DROPOUT),
        encoder=encoder.identity,
        seed=params.seed,
        best_epoch=len(history),
        fitted=write_fitted(folder, source_fitted(texts)),
    )
    artifacts.write_scores(folder / "predictions.parquet", predictions)
    write_model(folder, net, description)
    _encode_target(target, net, encoder, folder / "target.parquet", params)
    kept.clear()
    return TextFit(history, len(learn))


def _write_absent(texts: pd.DataFrame, folder: Path) -> None:
    artifacts.write_scores(folder / "predictions.parquet", predicted_scores(texts.iloc[:0], np.empty(0), ("text",)))
    fitted = write_fitted(folder, source_fitted(texts.iloc[:0]))
    write_model(folder, None, TextModelDescription(stage="train_source/text", absent=True, fitted=fitted))


def _token_rows(encoder: text.TextEncoder, texts: pd.DataFrame, batch: int) -> TokenRows:
    scores = torch.from_numpy(texts["score"].to_numpy(np.float32))
    return TokenRows(encoder, texts["text"].tolist(), scores, batch)


def _identity(encoder: text.TextEncoder, learn: pd.DataFrame, params: Params) -> dict[str, Any]:
    """What a run that was cut off must have in common with this one to be its beginning."""
    return {
        "stage": "train_source/text",
        "params": params.train_source.model_dump(include={"text", "tuned"}),
        "encoder": encoder.identity,
        "device": str(pick(params.device)),
        "rows": artifacts.digest(learn["sample_id"] + "\0" + learn["score"].astype(str) + "\0" + learn["text"]),
    }


def _tune(
    net: TunedSpecialist,
    encoder: text.TextEncoder,
    learn: pd.DataFrame,
    params: Params,
    layout: Layout,
    kept: Finished,
) -> list[dict[str, float]]:
    """Gives the net the mean of several trainings; returns the history of the first. A killed run is taken up."""
    block, identity = params.train_source, _identity(encoder, learn, params)

    def train(copied: TunedSpecialist, seed: int) -> FitResult:
        resume = resume_state(layout.cache, identity | {"seed": seed})
        return _training(copied, encoder, learn, params, seed).fit(resume)

    return average_trainings(
        net,
        train,
        range(params.seed, params.seed + block.tuned.runs),
        how=block.text,
        targets=encoder.lora_targets,
        rank=block.tuned.lora_rank,
        finished=kept,
        name="text",
    ).history


def _training(
    net: TunedSpecialist, encoder: text.TextEncoder, learn: pd.DataFrame, params: Params, seed: int
) -> TunedTraining:
    """One training, with this seed, that nothing stops."""
    tuned = for_few(params.train_source.tuned, len(learn))
    return TunedTraining(
        net,
        [net.classifier],
        _token_rows(encoder, learn, tuned.batch),
        None,
        objective=mixed(MSE, MAE, 0.0),
        score=concordance,
        tuned=tuned,
        seed=seed,
        device=pick(params.device),
        what="train_source text" + f", run {seed - params.seed + 1}" * (seed > params.seed),
    )


def _encode_target(
    target: pd.DataFrame, net: TunedSpecialist, encoder: text.TextEncoder, path: Path, params: Params
) -> None:
    """Writes the target's text vectors by the tuned encoder; a group's lines are encoded one by one and averaged."""
    lines = lines_of(target, params.target.level)
    means = encode_lines(replace(encoder, net=net.encoder), lines, pick(params.device))
    reasons = [None if row else "none" for row in lines]
    identity = {**encoder.identity, "tuned_on": "source_texts"}
    with artifacts.embeddings_writer(path, encoder.width, identity) as writer:
        writer.write(target["sample_id"].tolist(), means, reasons, [None] * len(target))


def encode_lines(encoder: text.TextEncoder, lines: Sequence[Sequence[str]], device: torch.device) -> np.ndarray:
    """float32 [N, width]: the mean of the vectors of each row's lines, which are encoded one by one; zeros for none."""
    sums = np.zeros((len(lines), encoder.width), dtype=np.float64)
    counts = np.array([len(row) for row in lines], dtype=int)
    if counts.any():
        vectors = encoder.encode([line for row in lines for line in row], device)
        np.add.at(sums, np.repeat(np.arange(len(lines)), counts), vectors)
    return (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
