"""Trains the fusion of the specialists; predicts with it whole, with modalities masked, and retrained without them.

The specialists are frozen. Training rows come with out-of-fold opinions; validation and test rows with those of the
final specialists, which saw neither. In a corpus of one modality there is nothing to fuse, and its specialist's
predictions are the fusion's.

Reads:  data/split/posts.parquet, data/embeddings/posts/*.parquet, models/train_{text,image,video}/.
Writes: models/fuse/, metrics/fuse.json, plots/fuse/.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipeline import figures
from pipeline.core import artifacts
from pipeline.core.artifacts import Predictions
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.core.schemas import FINAL, MODALITIES, Modality
from pipeline.corpora.posts import codes_of, labels_of
from pipeline.nets.fusion import Fusion
from pipeline.nets.losses import objective
from pipeline.params import Fuse, Params
from pipeline.scoring import calibration, emotion
from pipeline.training.checkpoint import read_description, write_model
from pipeline.training.device import pick
from pipeline.training.loop import HISTORY, Fit, Plan, fit, one_thread, predict
from pipeline.training.optim import adamw
from pipeline.training.rows import TensorRows

Subset = tuple[Modality, ...]


@dataclass(frozen=True)
class Corpus:
    """All posts, N rows: what every modality knows of them.

    Attributes:
        modalities: those with a trained specialist.
        vectors: modality → float32 [N, width].
        opinions: modality → float32 [N, classes], centred log-probabilities.
        present: modality → bool [N].
        codes: int64 [N].
    """

    posts: pd.DataFrame
    labels: tuple[str, ...]
    modalities: Subset
    vectors: dict[str, torch.Tensor]
    opinions: dict[str, torch.Tensor]
    present: dict[str, torch.Tensor]
    codes: torch.Tensor

    def rows(self, at: np.ndarray, batch: int, subset: Subset) -> TensorRows:
        """The rows ``at``, with the modalities outside ``subset`` marked absent."""
        index = torch.from_numpy(at)
        present = {name: self.present[name][index] & (name in subset) for name in self.modalities}
        inputs = (
            {name: self.vectors[name][index] for name in self.modalities},
            {name: self.opinions[name][index] for name in self.modalities},
            present,
        )
        return TensorRows(inputs, self.codes[index], batch)


def run(params: Params, layout: Layout) -> None:
    corpus = _read(params, layout)
    split = corpus.posts["split"].to_numpy()
    train, val, held_out = (np.flatnonzero(split == part) for part in ("train", "val", "test"))
    scored = np.concatenate([val, held_out])
    everything = corpus.modalities
    if len(everything) == 1:
        net: Fusion | None = None
        went: Fit | None = None
        alone = corpus.opinions[everything[0]].numpy()[scored]
        variants = ["fusion", f"masked:{everything[0]}", f"retrained:{everything[0]}"]
        logits: dict[str, np.ndarray] = dict.fromkeys(variants, alone)
    else:
        net, went, logits = _fit_all(corpus, train, val, scored, params)

    val_logits, val_codes = logits["fusion"][: len(val)], corpus.codes.numpy()[val]
    temperature = calibration.fit_temperature(val_logits, val_codes)
    keys = corpus.posts.loc[scored, ["sample_id", "split"]]
    tables = [keys.assign(fold=FINAL, variant=variant) for variant in logits]
    with artifacts.replacing_folder(layout.model("fuse")) as folder:
        digest = artifacts.write_fitted(folder / "fitted.parquet", _fitted(corpus.posts, train, val))
        predictions = Predictions(pd.concat(tables, ignore_index=True), np.concatenate(list(logits.values())))
        artifacts.write_predictions(folder / "predictions.parquet", predictions)
        description = {
            "stage": "fuse",
            "labels": list(corpus.labels),
            "modalities": list(everything),
            "net": net
            and {"widths": _widths(corpus, everything), "classes": len(corpus.labels), **_shape(params.fuse)},
            "seed": params.seed,
            "best_epoch": went.best_epoch if went else None,
            "temperature": temperature,
            "fitted": {"rows": len(train) + len(val), "digest": digest},
            "parents": [f"train_{name}" for name in everything],
        }
        write_model(folder, net, description)
    _report(corpus, logits, val, went, temperature, layout)


def _fit_all(
    corpus: Corpus, train: np.ndarray, val: np.ndarray, scored: np.ndarray, params: Params
) -> tuple[Fusion, Fit, dict[str, np.ndarray]]:
    """The fusion, how it went, and variant → logits for the scored rows."""
    device = pick(params.device)
    everything = corpus.modalities
    logits: dict[str, np.ndarray] = {}
    with one_thread():
        net, went = _fit(corpus, everything, train, val, params)
        for subset in subsets_of(everything):
            rows = corpus.rows(scored, params.fuse.batch, subset)
            logits[f"masked:{'_'.join(subset)}"] = predict(net, rows, device)
            part = net if subset == everything else _fit(corpus, subset, train, val, params)[0]
            logits[f"retrained:{'_'.join(subset)}"] = predict(part, rows, device)
    return net, went, {"fusion": logits[f"masked:{'_'.join(everything)}"], **logits}


def subsets_of(modalities: Subset) -> list[Subset]:
    """Every non-empty subset, small ones first, each in the order given."""
    return [subset for size in range(1, len(modalities) + 1) for subset in combinations(modalities, size)]


def _read(params: Params, layout: Layout) -> Corpus:
    posts = artifacts.read_posts(layout.table("posts"))
    labels = labels_of(posts, params.posts.labels)
    vectors: dict[str, torch.Tensor] = {}
    opinions: dict[str, torch.Tensor] = {}
    present: dict[str, torch.Tensor] = {}
    for name in MODALITIES:
        stage = f"train_{name}"
        if read_description(layout.model(stage))["absent"]:
            continue
        embeddings = artifacts.read_embeddings(layout.embeddings("posts", name))
        if not np.array_equal(embeddings.sample_ids, posts["sample_id"].to_numpy()):
            raise InputError(f"{layout.embeddings('posts', name)}: rows differ from data/split; run `dvc repro`")
        vectors[name] = torch.from_numpy(np.asarray(embeddings.vectors))
        present[name] = torch.from_numpy(embeddings.present)
        opinions[name] = torch.from_numpy(_opinions(layout, stage, posts, embeddings.present, len(labels)))
    if not vectors:
        raise InputError("no modality has a trained specialist: too few posts, or no readable text, picture or clip")
    modalities: Subset = tuple(name for name in MODALITIES if name in vectors)
    return Corpus(posts, labels, modalities, vectors, opinions, present, torch.from_numpy(codes_of(posts, labels)))


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
    opinions = np.zeros((len(posts), classes), dtype=np.float32)
    log_p = emotion.log_probabilities(predictions.logits)
    opinions[at] = log_p - log_p.mean(axis=1, keepdims=True)
    return opinions


def _widths(corpus: Corpus, subset: Subset) -> dict[str, int]:
    return {name: corpus.vectors[name].shape[1] for name in subset}


def _shape(block: Fuse) -> dict[str, Any]:
    return block.model_dump(include={"strategy", "width", "heads", "hidden", "dropout", "modality_dropout"})


def _fit(corpus: Corpus, subset: Subset, train: np.ndarray, val: np.ndarray, params: Params) -> tuple[Fusion, Fit]:
    """A fusion of these modalities; posts that have none of them are learned from as such, and so give the prior."""
    block = params.fuse
    torch.manual_seed(params.seed)
    net = Fusion(_widths(corpus, subset), len(corpus.labels), **_shape(block))
    rows = corpus.rows(train, block.batch, subset)
    net.standardise_like(rows.inputs[0], rows.inputs[2])
    counts = np.bincount(corpus.codes.numpy()[train], minlength=len(corpus.labels)).tolist()
    went = fit(
        net,
        rows,
        corpus.rows(val, block.batch, subset),
        objective=objective(block.imbalance, counts, power=block.imbalance_power, gamma=block.focal_gamma),
        score=lambda logits, codes: emotion.macro_f1(codes, logits.argmax(axis=1), logits.shape[1]),
        optimizer=adamw([(net, block.learning_rate)], block.weight_decay),
        plan=Plan(block.epochs, block.patience, params.seed),
        device=pick(params.device),
        what=f"fuse {'+'.join(subset)}",
    )
    return net, went


def _fitted(posts: pd.DataFrame, train: np.ndarray, val: np.ndarray) -> pd.DataFrame:
    keys = posts[["sample_id", "group_id"]]
    parts = [keys.iloc[train].assign(role="train"), keys.iloc[val].assign(role="val")]
    return pd.concat(parts).assign(fold=FINAL)[["fold", "sample_id", "group_id", "role"]]


def _report(
    corpus: Corpus, logits: dict[str, np.ndarray], val: np.ndarray, went: Fit | None, temperature: float, layout: Layout
) -> None:
    """Scores validation rows; the test rows are left to `evaluate`."""
    codes = corpus.codes.numpy()[val]
    of_val = {variant: values[: len(val)] for variant, values in logits.items()}
    subsets: dict[str, dict[str, float]] = {}
    for variant, values in of_val.items():
        kind, _, subset = variant.partition(":")
        if subset:
            score = emotion.macro_f1(codes, values.argmax(axis=1), len(corpus.labels))
            subsets.setdefault(subset, {})[kind] = score
    metrics = {
        "temperature": temperature,
        "val": {**emotion.report(of_val["fusion"], codes, corpus.labels, temperature), "subsets": subsets},
    }
    if went is not None:
        metrics["best_epoch"] = went.best_epoch
    artifacts.write_json(layout.metrics("fuse"), {"posts": metrics})

    predicted = of_val["fusion"].argmax(axis=1)
    names = np.array(corpus.labels, dtype=object)
    history = pd.DataFrame(went.history if went else [], columns=HISTORY)
    with artifacts.replacing_folder(layout.plots("fuse")) as plots:
        artifacts.write_csv(plots / "history.csv", history)
        artifacts.write_csv(
            plots / "confusion.csv", pd.DataFrame({"actual": names[codes], "predicted": names[predicted]})
        )
        if went is not None:
            figures.history(plots / "history.png", history.assign(fold=FINAL), "fusion")
        matrix = emotion.confusion(codes, predicted, len(corpus.labels))
        figures.confusion(plots / "confusion.png", matrix, corpus.labels, "fusion, validation")
