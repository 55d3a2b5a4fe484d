"""What the candidates of a specialist are chosen by."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.core.artifacts import Embeddings
from pipeline.posts import candidates
from pipeline.posts.candidates import try_linear
from pipeline.posts.folds import Grouping
from pipeline.posts.specialist_rows import SpecialistRows
from pipeline.scoring import calibration, emotion
from pipeline.training.finished import Finished


def rows_of(vectors: np.ndarray, codes: np.ndarray, scratch: Path) -> SpecialistRows:
    """Training rows, each a group of its own, of as many classes as there are codes."""
    ids = np.array([f"p{at:03d}" for at in range(len(codes))])
    posts = pd.DataFrame({"sample_id": ids, "group_id": ids, "split": "train", "text": "the"})
    labels = tuple("abcdefgh"[: codes.max() + 1])
    return SpecialistRows(
        "text",
        posts,
        Embeddings(ids, vectors, np.ones(len(ids), dtype=bool), ids, {}),
        vectors,
        torch.from_numpy(codes),
        labels,
        Grouping.of(posts, codes, 0),
        alone=True,
        finished=Finished(scratch),
    )


def test_a_strength_is_chosen_by_the_loss_once_calibrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many columns that each say a little: a weak penalty is too bold, which calibration mends, and else the best."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(5, 80))
    codes = generator.integers(0, 5, 250)
    vectors = 2 * centres[codes] / np.linalg.norm(centres, axis=1)[codes, None] + generator.normal(size=(250, 80))
    rows = rows_of(vectors.astype(np.float32), codes, tmp_path)
    folds = rows.grouping.inner(5, 250)
    raw, calibrated = {}, {}
    strengths = candidates.STRENGTHS
    for strength in strengths:
        monkeypatch.setattr(candidates, "STRENGTHS", (strength,))
        tried = try_linear("logreg", rows, folds)
        assert tried is not None
        raw[strength] = emotion.log_loss(tried.logits, codes)
        by = calibration.fit(tried.logits, codes, rows.grouping.groups)
        calibrated[strength] = emotion.log_loss(by.calibrated(tried.logits), codes)
    monkeypatch.setattr(candidates, "STRENGTHS", strengths)
    best = try_linear("logreg", rows, folds)
    assert best is not None
    assert best.settings == {"C": min(calibrated, key=lambda of: calibrated[of])}
    assert best.settings != {"C": min(raw, key=lambda of: raw[of])}
