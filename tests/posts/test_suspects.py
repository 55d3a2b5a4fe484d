"""Confident learning against a slow version, and against labels that were spoilt on purpose."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipeline.core import artifacts, schemas
from pipeline.core.artifacts import Predictions
from pipeline.core.descriptions import FittedRows, write_description
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.core.schemas import MODALITIES
from pipeline.posts import suspects
from pipeline.posts.descriptions import SpecialistDescription
from pipeline.scoring.calibration import Calibration
from pipeline.scoring.emotion import softmax

LABELS = ("anger", "joy", "sadness")
CALIBRATION = Calibration(scale=(1 / 1.5,) * 3, bias=(0.0,) * 3, offset=(0.0,) * 3)
SPOILT = {4: 2, 11: 0, 30: 1}
"""Row → its true class, where the label says another."""


def slow(probabilities: np.ndarray, codes: np.ndarray) -> list[int]:
    """The rule as it is told: the label below its class's mean, the likeliest other class at or above its own."""
    asked = [at for at in range(len(codes)) if not np.isnan(probabilities[at, 0])]
    found = []
    for at in range(len(codes)):
        if at not in asked:
            found.append(-2)
            continue
        usual = {k: np.mean([probabilities[row, k] for row in asked if codes[row] == k]) for k in set(codes[asked])}
        others = [k for k in usual if k != codes[at] and probabilities[at, k] >= usual[k]]
        below = probabilities[at, codes[at]] < usual[codes[at]]
        found.append(max(others, key=lambda k: probabilities[at, k]) if below and others else -1)
    return found


def test_contradictions_are_those_of_the_slow_version() -> None:
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 4, 200)  # the fifth class has no row
    probabilities = softmax(2.0 * np.eye(5)[codes] + 2.0 * generator.normal(size=(200, 5)))
    probabilities[::7] = np.nan
    found = suspects.contradictions(probabilities, codes).tolist()
    assert found == slow(probabilities, codes)
    assert {-2, -1, 0, 1, 2, 3} == set(found)


def test_all_that_were_asked_must_agree() -> None:
    predictions = [np.array([1, 1, 1, -2, -2]), np.array([1, 2, -1, 0, -2]), np.array([-2, 1, 1, -2, -2])]
    assert suspects.agreed(predictions).tolist() == [1, -1, -1, 0, -1]


def write(layout: Layout, fold: str = "fold-0") -> None:
    """Specialists that know the true class of 60 training posts, of which three bear another label."""
    generator = np.random.default_rng(0)
    labelled = np.arange(60) % 3
    true = labelled.copy()
    true[list(SPOILT)] = list(SPOILT.values())
    posts = pd.DataFrame(
        {
            "sample_id": [f"p{at:02}" for at in range(60)],
            "group_id": [f"g{at}" for at in range(60)],
            "split": "train",
            "label": [LABELS[code] for code in labelled],
            "text": "x",
            "image_path": None,
            "video_path": None,
        }
    )
    artifacts.write_parquet(
        layout.table("posts"), pa.Table.from_pandas(posts, schema=schemas.POSTS_TABLE, preserve_index=False)
    )
    for name in MODALITIES:
        at = np.arange(60) if name == "text" else generator.permutation(60)[:50] if name == "image" else np.arange(0)
        rows = pd.DataFrame({"sample_id": posts["sample_id"].to_numpy()[at], "split": "train", "fold": fold})
        logits = (4.0 * np.eye(3)[true[at]] + generator.normal(size=(len(at), 3)) / 2).astype(np.float32)
        table = Predictions(rows.assign(kind="specialist", subset=name), logits)
        artifacts.write_predictions(layout.predictions(f"train_{name}"), table)
        fitted = FittedRows(rows=len(at), digest="")
        description = SpecialistDescription(
            stage=f"train_{name}", labels=tuple(LABELS), modalities=(name,), calibration=CALIBRATION, fitted=fitted
        )
        write_description(layout.model(f"train_{name}"), description)


def test_spoilt_labels_are_found_and_no_others(tmp_path: Path) -> None:
    write(Layout(tmp_path))
    found = suspects.likely_mistakes(Layout(tmp_path), LABELS)
    assert dict(zip(found["id"], found["suggestion"], strict=True)) == {
        f"p{at:02}": LABELS[true] for at, true in SPOILT.items()
    }
    assert found["evidence"].is_monotonic_decreasing and (found["evidence"] > 0).all()
    assert all(reasons[0].startswith("text ") for reasons in found["reasons"])


def test_predictions_of_the_final_model_are_refused(tmp_path: Path) -> None:
    write(Layout(tmp_path), fold=schemas.FINAL)
    with pytest.raises(InputError, match="not out of fold"):
        suspects.likely_mistakes(Layout(tmp_path), LABELS)
