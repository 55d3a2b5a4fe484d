"""The small target corpus as a user has it: rows of features or words, and a table of them."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.schemas import FEATURES
from pipeline.serving.score_predictor import Sample
from tests import tracks
from tests.stages.test_finetune_e2e import take
from tests.tracks import Track

STAGES = ("train_source", "train_adapters", "finetune_e2e")


def worded(root: Path) -> Track:
    """A trained track that reads words, with an encoder that was tuned on source and target and travels in the net."""
    text = {"text": "full", "tuned": {"epochs": 1, "least_steps": 0, "batch": 8}}
    with pytest.MonkeyPatch.context() as patch:
        take(patch, "all")
        return tracks.run(tracks.make(root, words=True), *STAGES, finetune_e2e=text, train_source=text)


def rows(track: Track) -> list[dict[str, Any]]:
    """The target's rows, in the order of its table."""
    made = []
    for at, row in enumerate(track.target.to_dict("records")):
        values: dict[str, Any] = {
            name: track.vectors["target"][name][at].tolist() if track.present["target"][name][at] else None
            for name in FEATURES
            if name in track.vectors["target"]
        }
        if track.encoder is not None:
            values["text"] = row["text"] if isinstance(row["text"], str) else None
        made.append({"id": row["sample_id"], "group": row["given_group"], **values})
    return made


def samples(track: Track) -> list[Sample]:
    return [Sample(**{name: row[name] for name in FEATURES}) for row in rows(track)]


def write(track: Track, path: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(rows(track)), path)
    return path
