"""The one implementation behind `train_text`, `train_image` and `train_video`.

A specialist sees only the posts that have its modality. It is fitted once on all their training rows (fold ``final``,
which predicts validation and test rows) and once for each fold with that fold left out (which predicts the fold), so
that `fuse` never learns from a prediction that a model made for a row of its own training.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from pipeline import params as parameters
from pipeline.core import artifacts
from pipeline.core.artifacts import Embeddings, Predictions
from pipeline.core.fitted import fitted_rows, write_fitted
from pipeline.core.layout import Layout
from pipeline.core.metrics import write_metrics
from pipeline.core.schemas import FINAL, Modality
from pipeline.corpora.splits import grouped_folds
from pipeline.encoders import image, text, video
from pipeline.encoders.media_rows import MediaRows
from pipeline.encoders.text_rows import TokenRows
from pipeline.nets.losses import objective
from pipeline.nets.specialist import Specialist, TunedSpecialist
from pipeline.params import Params
from pipeline.posts.descriptions import SpecialistDescription, SpecialistNet, Tune
from pipeline.posts.labels import codes_of, labels_of
from pipeline.scoring import calibration, emotion
from pipeline.training.checkpoint import resume_state, write_model
from pipeline.training.device import pick
from pipeline.training.loop import HISTORY, FitResult, TrainingPlan, fit, one_thread, predict
from pipeline.training.optim import adamw
from pipeline.training.rows import Rows, TensorRows
from pipeline.training.tuning import fit_tuned, learner

MEDIA_COLUMN: dict[Modality, str] = {"text": "text", "image": "image_path", "video": "video_path"}


@dataclass(frozen=True)
class SpecialistRows:
    """The posts that have the modality: N rows, their vectors [N, width] and their classes [N].

    ``alone`` says that no post of the corpus has another modality.
    """

    modality: Modality
    posts: pd.DataFrame
    embeddings: Embeddings
    vectors: np.ndarray
    codes: torch.Tensor
    labels: tuple[str, ...]
    alone: bool

    def part(self, split: str) -> np.ndarray:
        return np.flatnonzero(self.posts["split"] == split)


@dataclass(frozen=True)
class Fold:
    """One model to fit: on the rows ``train``, stopped by ``val``, to predict ``unseen`` (positions in the corpus)."""

    name: str
    train: np.ndarray
    val: np.ndarray
    unseen: np.ndarray


def train(modality: Modality, params: Params, layout: Layout) -> None:
    """Trains, cross-fits and writes the specialist of one modality."""
    stage = f"train_{modality}"
    block = params.of_specialist(modality)
    corpus = _read(modality, params, layout)
    rows, val = corpus.part("train"), corpus.part("val")
    if too_few := _too_few(corpus, rows, val):
        _write_absent(stage, corpus, too_few, layout)
        return

    tune = _mode(block, modality, len(rows), params.device)
    unseen = np.flatnonzero(corpus.posts["split"] != "train")
    folds = [*_folds(corpus, rows, val, tune, params), Fold(FINAL, rows, val, unseen)]
    net, outcome, logits = _fit_folds(corpus, params, folds, layout, tune)
    made_by = np.full(len(corpus.posts), FINAL, dtype=object)
    for fold in folds:
        made_by[fold.unseen] = fold.name
    fitted = pd.concat([fitted_rows(corpus.posts, fold.name, fold.train, fold.val) for fold in folds])

    predicted = np.arange(len(corpus.posts)) if len(outcome) > 1 else unseen
    keys = corpus.posts[["sample_id", "split"]].assign(fold=made_by, kind="specialist", subset=modality)
    with artifacts.replacing_folder(layout.model(stage)) as folder:
        artifacts.write_predictions(
            folder / "predictions.parquet", Predictions(keys.iloc[predicted], logits[predicted])
        )
        description = SpecialistDescription(
            stage=stage,
            tune=tune,
            labels=corpus.labels,
            modalities=(modality,),
            net=SpecialistNet(width=corpus.vectors.shape[1], hidden=block.hidden, dropout=block.dropout),
            lora_rank=block.tuned.lora_rank if tune == "lora" else None,
            encoder=corpus.embeddings.encoder,
            seed=params.seed,
            best_epoch=outcome[FINAL].best_epoch,
            temperature=calibration.fit_temperature(logits[val], corpus.codes.numpy()[val]),
            fitted=write_fitted(folder, fitted),
        )
        write_model(folder, net, description)
    _report(stage, corpus, logits, tune, outcome, layout)


def _read(modality: Modality, params: Params, layout: Layout) -> SpecialistRows:
    posts = artifacts.read_posts(layout.table("posts"))
    embeddings = artifacts.read_embeddings_of(posts, layout.embeddings("posts", modality))
    labels = labels_of(posts, params.posts.labels)
    present = embeddings.present
    codes = torch.from_numpy(codes_of(posts, labels)[present])
    others = [column for name, column in MEDIA_COLUMN.items() if name != modality]
    return SpecialistRows(
        modality,
        posts.loc[present].reset_index(drop=True),
        embeddings,
        embeddings.vectors[present],
        codes,
        labels,
        alone=not posts[others].notna().to_numpy().any(),
    )


def _too_few(corpus: SpecialistRows, rows: np.ndarray, val: np.ndarray) -> str | None:
    """Why no specialist can be trained, or None."""
    if not len(corpus.posts):
        return f"no post has {corpus.modality}"
    train = corpus.posts.iloc[rows]
    if train["label"].nunique() < 2 or train["group_id"].nunique() < 2 or not len(val):
        return f"too few posts have {corpus.modality}: {len(rows)} for training, {len(val)} for validation"
    return None


def _mode(block: parameters.ClassifierParams, modality: Modality, rows: int, device: str) -> Tune:
    """``head``, ``lora`` or ``full``; ``auto`` tunes pictures and clips only where an accelerator makes it bearable."""
    if block.tune != "auto":
        return block.tune
    bearable = modality == "text" or pick(device).type != "cpu"
    return "full" if rows >= block.auto_rows and bearable else "head"


def _folds(corpus: SpecialistRows, rows: np.ndarray, val: np.ndarray, tune: str, params: Params) -> list[Fold]:
    """The cross-fitted models of the training rows.

    None where no other modality is there: nothing will be fused, so out-of-fold features would be trained for nobody.
    """
    if corpus.alone:
        return []
    block = params.of_specialist(corpus.modality)
    groups, labels = corpus.posts["group_id"].iloc[rows].tolist(), corpus.codes.numpy()[rows].tolist()
    wanted = block.folds if tune == "head" else block.tuned.folds
    fold_of = grouped_folds(groups, labels, wanted, np.random.default_rng(params.seed))
    numbers = range(int(fold_of.max()) + 1)
    return [Fold(f"fold-{number}", rows[fold_of != number], val, rows[fold_of == number]) for number in numbers]


def _fit_folds(
    corpus: SpecialistRows, params: Params, folds: list[Fold], layout: Layout, tune: Tune
) -> tuple[nn.Module | None, dict[str, FitResult], np.ndarray]:
    """The last fold's net, how each fit went, and logits [N, classes] of each row by the fold that did not see it."""
    outcome: dict[str, FitResult] = {}
    logits = np.zeros((len(corpus.posts), len(corpus.labels)), dtype=np.float32)
    net: nn.Module | None = None
    for fold in folds:
        net, outcome[fold.name], logits[fold.unseen] = (
            _fit_head(corpus, params, fold) if tune == "head" else _fit_tuned(corpus, params, fold, layout, tune)
        )
    return net, outcome, logits


def _score(logits: np.ndarray, codes: np.ndarray) -> float:
    return emotion.macro_f1(codes, logits.argmax(axis=1), logits.shape[1])


def _objective(corpus: SpecialistRows, block: parameters.ClassifierParams, train: np.ndarray):
    counts = np.bincount(corpus.codes.numpy()[train], minlength=len(corpus.labels))
    return objective(block.imbalance, counts.tolist(), power=block.imbalance_power, gamma=block.focal_gamma)


def _fit_head(corpus: SpecialistRows, params: Params, fold: Fold) -> tuple[nn.Module, FitResult, np.ndarray]:
    """Fits a classifier on cached vectors; returns it, how the fit went, and its logits for the unseen rows."""
    block = params.of_specialist(corpus.modality)
    torch.manual_seed(params.seed)
    net = Specialist(corpus.vectors.shape[1], len(corpus.labels), hidden=block.hidden, dropout=block.dropout)
    net.standardise_like(torch.from_numpy(corpus.vectors[fold.train]))

    def rows(at: np.ndarray) -> TensorRows:
        return TensorRows((torch.from_numpy(corpus.vectors[at]),), corpus.codes[at], block.head.batch)

    device = pick(params.device)
    with one_thread():
        fit_result = fit(
            net,
            rows(fold.train),
            rows(fold.val),
            objective=_objective(corpus, block, fold.train),
            score=_score,
            optimizer=adamw([(net, block.head.learning_rate)], block.head.weight_decay),
            plan=TrainingPlan(block.head.epochs, block.head.patience, params.seed),
            device=device,
            what=f"train_{corpus.modality} {fold.name}",
        )
        return net, fit_result, predict(net, rows(fold.unseen), device)


def _fit_tuned(
    corpus: SpecialistRows, params: Params, fold: Fold, layout: Layout, tune: str
) -> tuple[nn.Module, FitResult, np.ndarray]:
    """As `_fit_head`, with the encoder learning too: all its weights, or low-rank updates of its attention."""
    block = params.of_specialist(corpus.modality)
    tuned = block.tuned
    torch.manual_seed(params.seed)
    encoder, targets, make_rows = _raw(corpus, params, layout)
    classifier = Specialist(corpus.vectors.shape[1], len(corpus.labels), hidden=block.hidden, dropout=block.dropout)
    net = TunedSpecialist(learner(encoder, targets, tune, tuned.lora_rank), classifier)
    device = pick(params.device)
    identity = {
        "stage": f"train_{corpus.modality}",
        "params": block.model_dump(),
        "encoder": corpus.embeddings.encoder,
        "seed": params.seed,
        "device": str(device),
        "rows": artifacts.digest(corpus.posts["sample_id"].iloc[fold.train] + corpus.posts["label"].iloc[fold.train]),
        "content": artifacts.digest(corpus.embeddings.content[corpus.embeddings.present].tolist()),
    }
    fit_result = fit_tuned(
        net,
        [classifier],
        make_rows(fold.train),
        make_rows(fold.val),
        objective=_objective(corpus, block, fold.train),
        score=_score,
        tuned=tuned,
        seed=params.seed,
        device=device,
        what=f"train_{corpus.modality} {fold.name}",
        resume=resume_state(layout.cache, identity),
    )
    return net, fit_result, predict(net, make_rows(fold.unseen), device)


def _raw(
    corpus: SpecialistRows, params: Params, layout: Layout
) -> tuple[nn.Module, list[str], Callable[[np.ndarray], Rows]]:
    """A fresh encoder that can learn, its targets for LoRA, and a function from row numbers to raw inputs for it."""
    block = params.of_specialist(corpus.modality)
    inputs = corpus.posts[MEDIA_COLUMN[corpus.modality]].to_numpy()
    if corpus.modality == "text":
        texts = text.load(params.embed.text)
        return (
            texts.net,
            texts.lora_targets,
            lambda at: TokenRows(texts, inputs[at].tolist(), corpus.codes[at], block.tuned.batch),
        )

    folder = layout.root / params.posts.media
    if corpus.modality == "image":
        pictures, frames = image.load(params.embed.image), None
        net = pictures.net
    else:
        clips, frames = video.load(params.embed.video), params.embed.video.frames
        pictures, net = clips.image, video.ClipNet(clips)

    def media(at: np.ndarray) -> Rows:
        return MediaRows(
            pictures,
            [folder / path for path in inputs[at]],
            corpus.codes[at],
            block.tuned.batch,
            frames=frames,
            augmented=isinstance(block, parameters.SpecialistParams) and block.tuned.augment,
            max_pixels=params.embed.max_pixels,
            workers=params.embed.workers,
        )

    return net, pictures.lora_targets, media


def _report(
    stage: str, corpus: SpecialistRows, logits: np.ndarray, tune: str, outcome: dict[str, FitResult], layout: Layout
) -> None:
    """Scores out-of-fold and validation rows; the test rows are left to `evaluate`."""
    codes = corpus.codes.numpy()
    scored = {"val": corpus.part("val")}
    if len(outcome) > 1:
        scored["out_of_fold"] = corpus.part("train")
    metrics: dict[str, Any] = {
        "tune": tune,
        "train_rows": len(corpus.part("train")),
        "best_epoch": outcome[FINAL].best_epoch,
        "folds": len(outcome) - 1,
    }
    for name, at in scored.items():
        metrics[name] = emotion.report(logits[at], codes[at], corpus.labels)
    write_metrics(layout, stage, {"posts": metrics})

    val = corpus.part("val")
    predicted = logits[val].argmax(axis=1)
    names = np.array(corpus.labels, dtype=object)
    history = pd.DataFrame(
        [{"fold": fold, **line} for fold, fit_result in outcome.items() for line in fit_result.history]
    )
    with artifacts.replacing_folder(layout.plots(stage)) as plots:
        artifacts.write_csv(plots / "folds.csv", history)
        artifacts.write_csv(plots / "history.csv", history.loc[history["fold"] == FINAL].drop(columns="fold"))
        artifacts.write_csv(
            plots / "confusion.csv", pd.DataFrame({"actual": names[codes[val]], "predicted": names[predicted]})
        )


def _write_absent(stage: str, corpus: SpecialistRows, why: str, layout: Layout) -> None:
    """A modality that cannot be trained leaves empty tables behind, so that the graph goes on without it."""
    none = pd.DataFrame({name: pd.Series(dtype=object) for name in ("sample_id", "split", "fold", "kind", "subset")})
    with artifacts.replacing_folder(layout.model(stage)) as folder:
        nothing = np.array([], dtype=int)
        artifacts.write_predictions(
            folder / "predictions.parquet", Predictions(none, np.empty((0, len(corpus.labels)), dtype=np.float32))
        )
        description = SpecialistDescription(
            stage=stage,
            labels=corpus.labels,
            modalities=(corpus.modality,),
            absent=True,
            fitted=write_fitted(folder, fitted_rows(corpus.posts, FINAL, nothing, nothing)),
        )
        write_model(folder, None, description)
    write_metrics(layout, stage, {"posts": {"train_rows": 0, "warnings": why}})
    with artifacts.replacing_folder(layout.plots(stage)) as plots:
        artifacts.write_csv(plots / "folds.csv", pd.DataFrame(columns=["fold", *HISTORY]))
        artifacts.write_csv(plots / "history.csv", pd.DataFrame(columns=HISTORY))
        artifacts.write_csv(plots / "confusion.csv", pd.DataFrame(columns=["actual", "predicted"]))
