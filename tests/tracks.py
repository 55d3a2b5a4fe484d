"""Small source → target corpora, split and embedded, on which the stages of that track run in seconds."""

import copy
import importlib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.core import artifacts, schemas
from pipeline.core.layout import Layout
from pipeline.core.schemas import FEATURES
from pipeline.corpora.splits import target_folds
from pipeline.params import EmbedTextParams, Params
from pipeline.sentiment.variants import Variant, by_variant
from tests import planted

WIDTHS = {"source": {"text": 9, "audio": 8}, "target": {"text": 6, "audio": 5, "visual": 4}}
"""The source has nothing visual."""
LACKS_TEXT = 20
"""The target row that has no words where the others have."""

SMALL: dict[str, dict[str, Any]] = {
    "train_source": {"width": 8, "heads": 2, "hidden": 8, "epochs": 6, "learning_rate": 0.01, "text": "none"},
    "adapter": {"components": 3, "epochs": 4},
    "finetune_e2e": {"first_epochs": 2, "epochs": 2, "first_learning_rate": 0.01, "learning_rate": 0.01, "curve": ()},
}


Covered = tuple[str, str, str, Variant]
"""``fold, sample_id, role`` of a prediction, and what it was made with."""


def covered(predictions: pd.DataFrame) -> set[Covered]:
    """Of a table of scores; every row must stand there once."""
    parts = by_variant(predictions)
    rows = [
        (*row, variant)
        for variant, part in parts.items()
        for row in part[["fold", "sample_id", "split"]].itertuples(index=False, name=None)
    ]
    assert len(set(rows)) == len(rows) == len(predictions)
    return set(rows)


def params(track: "Track", *, processes: int = 1, **blocks: dict[str, Any]) -> Params:
    """Few epochs and small nets, with some settings of some blocks changed."""
    settings = {name: SMALL.get(name, {}) | blocks.get(name, {}) for name in SMALL | blocks}
    if track.encoder is not None:
        settings["embed"] = {"text": {"encoder": str(track.encoder)}}
    return Params.model_validate({"device": "cpu", "processes": processes, **settings})


def run(track: "Track", *stages: str, processes: int = 1, **blocks: dict[str, Any]) -> "Track":
    """Writes the track as it is in memory and runs stages on it."""
    settings, layout = params(track, processes=processes, **blocks), track.write().layout
    for stage in stages:
        importlib.import_module(f"pipeline.stages.{stage}").run(settings, layout)
    return track


@dataclass
class Track:
    """The tables in memory; change them, then ``write``.

    Attributes:
        vectors: corpus → modality → float32 [N, width].
        present: corpus → modality → bool [N].
        encoder: the folder of the encoder of the words, where texts are words.
    """

    layout: Layout
    tables: dict[str, pd.DataFrame]
    vectors: dict[str, dict[str, np.ndarray]]
    present: dict[str, dict[str, np.ndarray]]
    folds: pd.DataFrame
    encoder: Path | None

    @property
    def target(self) -> pd.DataFrame:
        return self.tables["target"]

    def write(self) -> "Track":
        for name, rows in self.tables.items():
            made = pa.Table.from_pandas(rows, schema=schemas.SCORED_TABLE, preserve_index=False)
            artifacts.write_parquet(self.layout.table(name), made)
        made = pa.Table.from_pandas(self.folds, schema=schemas.FOLDS_TABLE, preserve_index=False)
        artifacts.write_parquet(self.layout.folds, made)
        for corpus in WIDTHS:
            for name in FEATURES:
                self._write_embeddings(corpus, name)
        return self

    def _write_embeddings(self, corpus: str, name: str) -> None:
        ids = self.tables[corpus]["sample_id"].tolist()
        vectors = self.vectors[corpus].get(name, np.zeros((len(ids), 1), dtype=np.float32))
        present = self.present[corpus].get(name, np.zeros(len(ids), dtype=bool))
        words = name == "text" and corpus == "target" and self.encoder is not None
        encoder = {"name": "tiny"} if words else planted.whole(vectors)
        reasons = [None if here else "none" for here in present]
        path = self.layout.embeddings(corpus, name)
        with artifacts.embeddings_writer(path, vectors.shape[1], encoder) as writer:
            writer.write(ids, vectors * present[:, None], reasons, [None] * len(ids))

    def rows(self, fold: str, role: str) -> list[str]:
        return self.folds.loc[(self.folds["fold"] == fold) & (self.folds["role"] == role), "sample_id"].tolist()

    def expected(self, variants: list[Variant], roles: tuple[str, ...] = schemas.SPLITS) -> set[Covered]:
        """What predictions must cover."""
        folds = self.folds[self.folds["role"].isin(roles)]
        rows = set(folds.itertuples(index=False, name=None))
        if roles == schemas.SPLITS:  # the final models also predict the rows without a score
            free = self.target.loc[self.target["split"] == schemas.UNLABELLED, "sample_id"]
            rows |= {(schemas.FINAL, name, schemas.UNLABELLED) for name in free}
        return {(*row, variant) for row in rows for variant in variants}


def make(
    root: Path, *, folds: int = 0, words: bool = False, free: int = 10, per_group: int = 1, noise: float = 0.0
) -> Track:
    """160 source rows, 48 labelled target rows, ``per_group`` a group, and ``free`` without a score; some lack audio.

    The target's features are of its scores with ``noise`` of this standard deviation. ``folds`` 0 is a holdout. With
    ``words`` the target's texts are sentences, and the source has sentences of its own.
    """
    target = pd.concat([planted.table(48, per_group, "target", 2), planted.table(10, 1, "free", 4).iloc[:free]])
    target = target.sort_values("sample_id", ignore_index=True)
    tables = {"source": planted.table(160, 2, "source", 1), "target": target}
    tables["source_texts"] = planted.table(60, 1, "said", 3) if words else tables["source"].iloc[:0]
    blurred = target["score"].to_numpy() + noise * np.random.default_rng(5).normal(size=len(target))
    told = {"source": tables["source"]["score"].to_numpy(), "target": blurred}
    unlabelled = target["sample_id"].str.startswith("free").to_numpy()
    target["score"] = np.where(unlabelled, np.nan, target["score"])
    target["split"] = np.where(unlabelled, schemas.UNLABELLED, "train" if folds else target["split"])
    protocol = "cross_validation" if folds else "holdout"
    vectors = {corpus: {name: features(told[corpus], corpus, name) for name in WIDTHS[corpus]} for corpus in WIDTHS}
    present = {corpus: {name: np.ones(len(told[corpus]), dtype=bool) for name in WIDTHS[corpus]} for corpus in WIDTHS}
    for corpus in WIDTHS:
        present[corpus]["audio"][::7] = False
    encoder = None
    if words:
        import torch

        from pipeline.encoders import text
        from tests import tiny

        encoder = tiny.distilbert(root / "bert")
        tables["source_texts"]["text"] = sentences(tables["source_texts"]["score"].to_numpy())
        target["text"] = sentences(told["target"])
        target.loc[LACKS_TEXT, "text"], present["target"]["text"][LACKS_TEXT] = None, False
        made = text.load(EmbedTextParams(encoder=str(encoder))).encode(
            target["text"].fillna("").tolist(), torch.device("cpu")
        )
        vectors["target"]["text"] = made
    made = target_folds(target, protocol, max(folds, 2), 1, 0.25, seed=0)
    return Track(Layout(root), tables, vectors, present, made, encoder)


def features(scores: np.ndarray, corpus: str, name: str) -> np.ndarray:
    """float32 [N, width]: the score and two lopsided factors, mixed and in units of their own."""
    width = WIDTHS[corpus][name]
    seed = [len(corpus), len(name), width]
    fixed, drawn = np.random.default_rng(seed), np.random.default_rng([*seed, 1])
    factors = np.column_stack([scores, drawn.exponential(size=(len(scores), 2))])
    values = factors @ fixed.normal(size=(3, width)) + 0.3 * drawn.normal(size=(len(scores), width))
    return (fixed.uniform(0.1, 10, size=width) * values + fixed.normal(scale=9, size=width)).astype(np.float32)


def sentences(scores: np.ndarray) -> list[str]:
    """One word tells the sign of the score."""
    rng = np.random.default_rng(0)
    filler = ["i", "am", "so", "today", "the", "cat", "dog"]
    return [" ".join(rng.permutation([*rng.choice(filler, 4), "happy" if score > 0 else "sad"])) for score in scores]


def copied(track: Track, root: Path) -> Track:
    """The track as its stages left it, in another place and free to change."""
    shutil.copytree(track.layout.root, root, dirs_exist_ok=True)
    return replace(copy.deepcopy(track), layout=Layout(root))


def everything(folder: Path) -> dict[str, bytes]:
    """Each file under a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
