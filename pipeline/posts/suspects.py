"""Training rows whose label is likely a mistake: all their specialists, which never saw them, confidently disagree.

The rule is that of confident learning (Northcutt, Jiang and Chuang 2021, Journal of Artificial Intelligence Research
70): a class counts as confidently predicted where its probability reaches what it is on average among the rows that
bear its label. Here the specialist of every modality of a post must contradict the label, in favour of one class.

Reads:  data/split/posts.parquet, models/{train_text,train_image,train_video}/.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.core import artifacts
from pipeline.core.descriptions import read_description
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.core.schemas import FINAL, MODALITIES, Modality
from pipeline.posts.descriptions import SpecialistDescription
from pipeline.posts.labels import codes_of
from pipeline.scoring import emotion


def likely_mistakes(layout: Layout, labels: Sequence[str]) -> pd.DataFrame:
    """Suspects, most evidence first: columns ``id, label, suggestion, evidence, reasons``.

    ``evidence`` is the sum over specialists of the log of how much likelier they find the suggestion than the label;
    ``reasons`` is a tuple with each one's probability of the suggestion, and that of the label.
    """
    posts = artifacts.read_posts(layout.table("posts"))
    train = posts[posts["split"] == "train"].reset_index(drop=True)
    codes = codes_of(train, labels)
    out_of_fold = {name: _out_of_fold(layout, name, train, labels) for name in MODALITIES}
    predictions = {name: probabilities for name, probabilities in out_of_fold.items() if probabilities is not None}
    if not predictions:
        raise InputError("models/: no specialist has predicted training rows out of fold; run `dvc repro`")
    suggested = agreed([contradictions(probabilities, codes) for probabilities in predictions.values()])
    rows = [
        _suspect(train.iloc[at], predictions, at, codes[at], suggested[at], labels)
        for at in np.flatnonzero(suggested >= 0).tolist()
    ]
    mistakes = pd.DataFrame(rows, columns=["id", "label", "suggestion", "evidence", "reasons"])
    return mistakes.sort_values(["evidence", "id"], ascending=[False, True], ignore_index=True)


def contradictions(probabilities: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The class that confidently contradicts each label: int64 [N], -1 where none does, -2 without a prediction.

    ``probabilities``, float64 [N, K], are out of fold, NaN where there are none; ``codes``, int64 [N], are the labels.
    """
    rows = np.arange(len(codes))
    has_prediction = np.isfinite(probabilities[:, 0])
    of_label = probabilities[rows, codes]
    thresholds = np.full(probabilities.shape[1], np.inf)
    for label in np.unique(codes[has_prediction]):
        thresholds[label] = of_label[has_prediction & (codes == label)].mean()
    confident = np.where(probabilities >= thresholds, probabilities, 0.0)
    confident[rows, codes] = 0.0
    best = confident.argmax(axis=1)
    contradicted = (of_label < thresholds[codes]) & (confident[rows, best] > 0)
    return np.where(contradicted, best, np.where(has_prediction, -1, -2)).astype(np.int64)


def agreed(predictions: Sequence[np.ndarray]) -> np.ndarray:
    """The class for which all predictions of a row contradict its label, int64 [N]; otherwise -1."""
    stacked = np.stack(predictions)
    highest = stacked.max(axis=0)
    same = ((stacked == highest) | (stacked == -2)).all(axis=0)
    return np.where(same & (highest >= 0), highest, -1)


def _out_of_fold(layout: Layout, modality: Modality, train: pd.DataFrame, labels: Sequence[str]) -> np.ndarray | None:
    """Probabilities of the training rows, float64 [N, K], NaN where a row lacks the modality; None if all do."""
    stage = f"train_{modality}"
    description = read_description(layout.model(stage), SpecialistDescription)
    path = layout.predictions(stage)
    predictions = artifacts.read_predictions(path, len(labels))
    predictions = predictions.where((predictions.rows["split"] == "train").to_numpy())
    if predictions.rows.empty:
        return None
    at = pd.Index(train["sample_id"]).get_indexer(pd.Index(predictions.rows["sample_id"]))
    if (predictions.rows["fold"] == FINAL).any() or (at < 0).any():
        raise InputError(f"{path}: its training rows are not out of fold, or not those of the split; run `dvc repro`")
    probabilities = np.full((len(train), len(labels)), np.nan)
    probabilities[at] = emotion.softmax(description.calibration.calibrated(predictions.logits))
    return probabilities


def _suspect(
    post: pd.Series, predictions: dict[str, np.ndarray], at: int, code: int, other: int, labels: Sequence[str]
) -> dict[str, object]:
    available = {
        name: probabilities[at] for name, probabilities in predictions.items() if np.isfinite(probabilities[at, 0])
    }
    return {
        "id": post["sample_id"],
        "label": post["label"],
        "suggestion": labels[other],
        "evidence": float(
            sum(np.log(probabilities[other]) - np.log(probabilities[code]) for probabilities in available.values())
        ),
        "reasons": tuple(
            f"{name} {probabilities[other]:.2f} : {probabilities[code]:.2f}"
            for name, probabilities in available.items()
        ),
    }
