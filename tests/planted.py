"""A source → target track as its stages would leave it, with honest numbers or with a fault planted in it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.core import artifacts, schemas
from pipeline.core.descriptions import FittedRows, ModelDescription, write_description
from pipeline.core.fitted import write_fitted
from pipeline.core.layout import Layout
from pipeline.core.schemas import FEATURES, FINAL, FeatureSubset, ScoreStep
from pipeline.sentiment.descriptions import (
    AdapterArguments,
    AdapterReport,
    AdaptersDescription,
    FinetunedDescription,
    ScoreNetArguments,
    SourceDescription,
    TextModelDescription,
    TransferNetArguments,
)
from pipeline.sentiment.variants import Variant

WIDTHS = {"text": 24, "audio": 12, "visual": 4}
USED: FeatureSubset = ("text", "audio")
SUBSETS = ("text", "audio", "text_audio")
WHOLE = SUBSETS[-1]
GAINS = {"text": 0.2, "audio": 0.12}
"""How strongly a modality's columns follow the sentiment, against noise of 1 and factors shared by columns."""

SKILLS = {"zero_shot": 0.35, "adapted": 0.5, "finetuned": 0.75}
"""Share of a step's predictions that is the true score, the rest being noise."""

ADAPTER = {
    "first_loss": 1.4,
    "last_loss": 0.6,
    "mean_distance_before": 0.4,
    "mean_distance_after": 0.2,
    "spread_distance_before": 0.5,
    "spread_distance_after": 0.3,
}


def table(rows: int, per_group: int, name: str, seed: int, words: bool = False) -> pd.DataFrame:
    """``rows`` with scores that rows of a group share in part, split 60 / 20 / 20 by group."""
    generator = np.random.default_rng(seed)
    group = np.arange(rows) // per_group
    share = (group + 0.5) / (group.max() + 1)
    scores = generator.normal(size=group.max() + 1)[group] + generator.normal(size=rows)
    vocabulary = np.array([f"{name}{number}" for number in range(400)])
    texts = [" ".join(generator.choice(vocabulary, size=12)) for _ in range(rows)]
    return pd.DataFrame(
        {
            "sample_id": [f"{name}-{number:04}" for number in range(rows)],
            "group_id": [f"{name} video {number}" for number in group],
            "split": np.select([share < 0.6, share < 0.8], ["train", "val"], "test"),
            "given_group": [f"{name} video {number}" for number in group],
            "given_split": pd.Series([None] * rows, dtype=object),
            "score": np.clip(1.1 * scores, -3, 3).round(1),
            "text": texts if words else pd.Series([None] * rows, dtype=object),
        }
    )


def features(scores: np.ndarray, name: str, seed: int) -> np.ndarray:
    """Columns of different means and scales that follow the score and a few factors: float32 [n, width]."""
    fixed, drawn = np.random.default_rng(len(name)), np.random.default_rng(seed)
    width = WIDTHS[name]
    factors = drawn.normal(size=(len(scores), 3)) @ fixed.normal(size=(3, width))
    told = np.outer(np.nan_to_num(scores), fixed.normal(size=width)) * GAINS.get(name, 0.0)
    values = factors + told + drawn.normal(size=(len(scores), width))
    return (fixed.uniform(0.1, 10, size=width) * (values + fixed.normal(scale=3, size=width))).astype(np.float32)


@dataclass
class Planted:
    """The tables in memory; change them, then ``write``."""

    layout: Layout
    tables: dict[str, pd.DataFrame]
    vectors: dict[str, dict[str, np.ndarray]]
    folds: pd.DataFrame
    predictions: dict[str, pd.DataFrame]
    fitted: dict[str, pd.DataFrame]
    adapters: dict[str, dict[str, float]]
    used: FeatureSubset = USED

    @property
    def target(self) -> pd.DataFrame:
        return self.tables["target"]

    def at(self, role: str) -> np.ndarray:
        """Where the target's rows of a role in the holdout stand."""
        return np.flatnonzero(self.target["split"] == role)

    def write(self) -> "Planted":
        for name, rows in self.tables.items():
            made = pa.Table.from_pandas(rows, schema=schemas.SCORED_TABLE, preserve_index=False)
            artifacts.write_parquet(self.layout.table(name), made)
        made = pa.Table.from_pandas(self.folds, schema=schemas.FOLDS_TABLE, preserve_index=False)
        artifacts.write_parquet(self.layout.folds, made)
        for corpus, vectors in self.vectors.items():
            ids = self.tables[corpus]["sample_id"].tolist()
            for name in FEATURES:
                reasons = [None if name in self.used else "not used"] * len(ids)
                here = vectors[name] if name in self.used else np.zeros((len(ids), 1), dtype=np.float32)
                encoder = whole(here)
                if corpus == "target" and name == "text" and not self.tables["source_texts"].empty:
                    encoder = {"name": "words"}
                with artifacts.embeddings_writer(
                    self.layout.embeddings(corpus, name), here.shape[1], encoder
                ) as writer:
                    writer.write(ids, here, reasons, reasons)
        for stage, rows in self.predictions.items():
            fitted = write_fitted(self.layout.model(stage), self.fitted[stage])
            artifacts.write_scores(self.layout.predictions(stage), rows)
            write_description(self.layout.model(stage), self.description(stage, fitted))
        return self

    def description(self, stage: str, fitted: FittedRows) -> ModelDescription:
        """What the stage says of its model; the nets are of no consequence here."""
        known: dict[str, Any] = {"stage": stage, "fitted": fitted}
        net = ScoreNetArguments(widths={"text": 1}, width=8, heads=2, hidden=8, dropout=0, modality_dropout=0)
        if stage == "train_source":
            return SourceDescription(modalities=self.used, net=net, **known)
        if stage == "train_source/text":
            return TextModelDescription(absent=self.tables["source_texts"].empty, **known)
        if stage == "train_adapters":
            losses = {name: AdapterReport(epochs=5.0, **of) for name, of in self.adapters.items()}
            adapter = AdapterArguments(width=1, hidden=(), out=1, components=0, dropout=0)
            nets = dict.fromkeys(losses, adapter)
            of_folds = {"folds": (FINAL,), "net": nets, "adapters": losses, "zero_shot_adapters": losses}
            return AdaptersDescription(modalities=self.used, **of_folds, **known)
        widths: dict[str, int] = dict.fromkeys(self.used, 1)
        carried = TransferNetArguments(adapters={}, source=None, widths=widths, text_head=False, columns=widths)
        choices = {fold: {"taken": "all"} for fold in (*self.folds["fold"].unique(), FINAL)}
        rest = {"folds": (FINAL,), "level": "row", "words": None, "scores": (-3.0, 3.0), "choices": choices}
        return FinetunedDescription(modalities=self.used, used=self.used, net=carried, **rest, **known)

    def change(self, stage: str, change: Any, *steps: str) -> None:
        """Replaces the scores of some steps, with all modalities and with fewer, by ``change(scores)``."""
        rows = self.predictions[stage]
        which = rows["step"].isin(steps) & (rows["groups"] == 0)
        rows.loc[which, "score"] = change(rows.loc[which, "score"].to_numpy())


def whole(vectors: np.ndarray) -> dict[str, Any]:
    """The encoder of features of which no column was left out."""
    width = vectors.shape[1]
    return {"name": "features", "columns": list(range(width)), "of": width, "fill": [0.0] * width}


def make(
    root: Path, protocol: str = "holdout", groups: int = 90, per_group: int = 2, words: bool = False, seed: int = 0
) -> Planted:
    """An honest track: every step better than the one before, nothing leaked."""
    generator = np.random.default_rng(seed)
    source = table(300, 2, "source", seed + 1)
    source_texts = table(200, 2, "said", seed + 2, words=True) if words else source.iloc[:0]
    target = table(groups * per_group, per_group, "target", seed + 3, words=words)
    folds = holdout(target)
    if protocol == "cross_validation":
        target["split"] = "train"
        folds = cross_validation(target, generator)
    predictions = {"train_source": predicted(source, holdout(source), with_subsets(source=0.6), generator)}
    text = {Variant("source", "text"): 0.6}
    predictions["train_source/text"] = predicted(source_texts, holdout(source_texts), text, generator)
    steps = with_subsets(zero_shot=SKILLS["zero_shot"], adapted=SKILLS["adapted"])
    steps |= {Variant("text_transfer", WHOLE): 0.6} if words else {}
    predictions["train_adapters"] = predicted(target, folds, steps, generator)
    tuned = with_subsets(finetuned=SKILLS["finetuned"]) | ({Variant("text_tuned", WHOLE): 0.7} if words else {})
    predictions["finetune_e2e"] = predicted(target, folds, tuned, generator)
    curve = {Variant("finetuned", WHOLE, with_source, size): skill for with_source, size, skill in CURVE}
    tested = predicted(target, folds[folds["role"] == "test"], curve, generator)
    predictions["finetune_e2e"] = pd.concat([predictions["finetune_e2e"], tested], ignore_index=True)
    return Planted(
        Layout(root),
        {"source": source, "source_texts": source_texts, "target": target},
        {name: vectors_of(rows, seed + at) for at, (name, rows) in enumerate((("source", source), ("target", target)))},
        folds,
        predictions,
        {
            "train_source": fitted(source, holdout(source)),
            "train_source/text": fitted(source_texts, holdout(source_texts)),
            "train_adapters": fitted(target, folds),
            "finetune_e2e": fitted(target, folds),
        },
        {name: dict(ADAPTER) for name in USED},
    )


CURVE = ((True, 10, 0.5), (True, 20, 0.6), (False, 10, 0.2), (False, 20, 0.5))
"""With the source or without, groups, skill."""


def with_subsets(**skills: float) -> dict[Variant, float]:
    """Each step with all modalities, and a little worse with fewer."""
    return {
        Variant(cast(ScoreStep, step), name): skill - (0.0 if name == WHOLE else 0.1)
        for step, skill in skills.items()
        for name in (WHOLE, *SUBSETS[:-1])
    }


def vectors_of(rows: pd.DataFrame, seed: int) -> dict[str, np.ndarray]:
    return {name: features(rows["score"].to_numpy(), name, 10 * seed + len(name)) for name in WIDTHS}


def holdout(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"fold": FINAL, "sample_id": rows["sample_id"], "role": rows["split"]})


def cross_validation(rows: pd.DataFrame, generator: np.random.Generator, repeats: int = 2) -> pd.DataFrame:
    names = rows["group_id"].unique()
    parts = [holdout(rows.assign(split="train"))]
    for repeat in range(repeats):
        place = dict(zip(generator.permutation(names), np.arange(len(names)) % 5, strict=True))
        at = rows["group_id"].map(place)
        for fold in range(5):
            role = np.select([at == fold, at == (fold + 1) % 5], ["test", "val"], "train")
            parts.append(holdout(rows.assign(split=role)).assign(fold=f"repeat-{repeat}.fold-{fold}"))
    return pd.concat(parts, ignore_index=True)


def predicted(
    rows: pd.DataFrame, folds: pd.DataFrame, skills: dict[Variant, float], generator: np.random.Generator
) -> pd.DataFrame:
    """Predictions of every row in every fold: training rows a little better than the others."""
    scores = rows.set_index("sample_id")["score"]
    tables = []
    for variant, skill in skills.items():
        seen = np.where(folds["role"] == "train", 0.1, 0.0)
        told = (skill + seen) * scores.loc[folds["sample_id"]].to_numpy()
        noise = 0.6 * scores.std() * generator.normal(size=len(folds)) if len(folds) else np.zeros(0)
        made = folds.rename(columns={"role": "split"}).assign(**variant._asdict(), score=told + noise)
        tables.append(made[schemas.SCORES_TABLE.names])
    return pd.concat(tables, ignore_index=True)


def fitted(rows: pd.DataFrame, folds: pd.DataFrame) -> pd.DataFrame:
    seen = folds[folds["role"] != "test"].merge(rows[["sample_id", "group_id"]], on="sample_id")
    return seen[schemas.FITTED_TABLE.names]
