"""What the source → target track has left behind, read once for `evaluate` and `diagnose`, and where it leaks.

Reads:  data/split/{source,source_texts,target,target_folds}.parquet, data/embeddings/{source,target}/*.parquet,
        models/{train_source,train_adapters,finetune_e2e}/.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline import artifacts, schemas
from pipeline.corpora import duplicates
from pipeline.errors import InputError
from pipeline.layout import Layout
from pipeline.schemas import FEATURES, FINAL, Feature
from pipeline.scoring import leaks
from pipeline.scoring.baselines import Block
from pipeline.scoring.leaks import Leak

ADAPTERS, FINETUNED = "train_adapters", "finetune_e2e"
SOURCE, SOURCE_TEXT = "train_source", "train_source/text"
CORPUS_OF = {SOURCE: "source", SOURCE_TEXT: "source_texts", ADAPTERS: "target", FINETUNED: "target"}


@dataclass(frozen=True)
class Stage:
    """A stage's ``model.json``, the rows it was fitted on and what it predicted; ``honest``: the digest agrees."""

    description: dict[str, Any]
    fitted: pd.DataFrame
    predictions: pd.DataFrame
    honest: bool


@dataclass(frozen=True)
class Track:
    """The track's tables.

    Attributes:
        tables: ``source``, ``source_texts`` and ``target`` → its sample table.
        blocks: ``source`` and ``target`` → modality → its features, in the order of the table; those that are there.
        folds: ``schemas.FOLDS_TABLE``.
        stages: every stage in the lineage of the fine-tuned model that has a model.
    """

    tables: Mapping[str, pd.DataFrame]
    blocks: Mapping[str, Mapping[Feature, Block]]
    folds: pd.DataFrame
    stages: Mapping[str, Stage]

    @property
    def target(self) -> pd.DataFrame:
        return self.tables["target"]

    @property
    def modalities(self) -> list[Feature]:
        """Those that the transferred models use."""
        return [name for name in FEATURES if name in self.stages[FINETUNED].description["modalities"]]

    @property
    def protocol(self) -> str:
        return "holdout" if set(self.scored["fold"]) == {FINAL} else "cross_validation"

    @property
    def scored(self) -> pd.DataFrame:
        """Which target rows each fold scores: columns ``fold, sample_id, group_id``."""
        rows = self.folds.loc[self.folds["role"] == "test", ["fold", "sample_id"]]
        return rows.merge(self.target[["sample_id", "group_id"]], on="sample_id")

    def positions(self, fold: str, *roles: str) -> np.ndarray:
        """Where the fold's rows of these roles stand in the target's table, int64."""
        ids = self.folds.loc[(self.folds["fold"] == fold) & self.folds["role"].isin(roles), "sample_id"]
        return np.flatnonzero(self.target["sample_id"].isin(ids))


def read(layout: Layout) -> Track:
    """Raises InputError when a file is missing, or tables, features and models are not of the same rows."""
    tables = {name: artifacts.read_scored(layout.table(name)) for name in ("source", "source_texts", "target")}
    folds = artifacts.read_parquet(layout.folds, schemas.FOLDS_TABLE).to_pandas()
    stages = {name: _stage(layout, name) for name in CORPUS_OF}
    if stages[SOURCE_TEXT].description["absent"]:
        del stages[SOURCE_TEXT]
    track = Track(tables, {name: _blocks(layout, name, tables[name]) for name in ("source", "target")}, folds, stages)
    unknown = set(folds["sample_id"]) - set(track.target["sample_id"])
    if unknown:
        raise InputError(f"{layout.folds}: row {min(unknown)!r} is not in the target's table; run `dvc repro`")
    if track.scored.empty:
        raise InputError(f"{layout.folds}: no fold has test rows, so there is nothing to evaluate")
    missing = [name for name in track.modalities if name not in track.blocks["target"]]
    if missing:
        raise InputError(f"{layout.embeddings('target', missing[0])}: has no row with features; run `dvc repro`")
    return track


def _stage(layout: Layout, name: str) -> Stage:
    description = artifacts.read_json(layout.model(name) / "model.json")
    fitted = artifacts.read_parquet(layout.fitted(name), schemas.FITTED_TABLE).to_pandas()
    honest = artifacts.fitted_digest(fitted) == description["fitted"]["digest"]
    return Stage(description, fitted, artifacts.read_scores(layout.predictions(name)), honest)


def _blocks(layout: Layout, corpus: str, table: pd.DataFrame) -> dict[Feature, Block]:
    found = {}
    for name in FEATURES:
        path: Path = layout.embeddings(corpus, name)
        embeddings = artifacts.read_embeddings(path)
        if not np.array_equal(embeddings.sample_ids, table["sample_id"].to_numpy()):
            raise InputError(f"{path}: rows differ from data/split; run `dvc repro`")
        if embeddings.present.any():
            found[name] = Block(embeddings.vectors, embeddings.present)
    return found


# --- leaks -----------------------------------------------------------------------------------------------------------


def find_leaks(track: Track) -> list[Leak]:
    """Every way in which a scored row of this track was seen by a model behind its score."""
    found = [
        Leak(f"models/{name}/fitted.parquet does not match the digest in models/{name}/model.json")
        for name, stage in track.stages.items()
        if not stage.honest
    ]
    for corpus in track.tables:
        scored, fitted = _scored(track, corpus), _fitted(track, corpus)
        found += leaks.fitted_in_fold(scored, fitted)
        found += leaks.copies_in_fold(_copies(track, corpus), scored, fitted, f"the {corpus} corpus")
    for name, corpus in CORPUS_OF.items():
        if name in track.stages:
            found += leaks.wrong_roles(track.stages[name].predictions, _roles(track, corpus), name)
            found += _unsaid(track, name)
    return found + _across(track)


def _roles(track: Track, corpus: str) -> pd.DataFrame:
    if corpus == "target":
        return track.folds
    return track.tables[corpus][["sample_id", "split"]].rename(columns={"split": "role"}).assign(fold=FINAL)


def _scored(track: Track, corpus: str) -> pd.DataFrame:
    if corpus == "target":
        return track.scored
    table = track.tables[corpus]
    return table.loc[table["split"] == "test", ["sample_id", "group_id"]].assign(fold=FINAL)


def _fitted(track: Track, corpus: str) -> pd.DataFrame:
    """What models of a corpus were fitted on, with the ``stage``."""
    parts = [stage.fitted.assign(stage=name) for name, stage in track.stages.items() if CORPUS_OF[name] == corpus]
    columns = [*schemas.FITTED_TABLE.names, "stage"]
    return pd.concat([pd.DataFrame(columns=columns, dtype=object), *parts], ignore_index=True)


def _unsaid(track: Track, name: str) -> list[Leak]:
    """Folds whose models do not say which rows they were fitted on."""
    silent = set(_scored(track, CORPUS_OF[name])["fold"]) - set(track.stages[name].fitted["fold"])
    what = f"models/{name}/fitted.parquet does not say which rows its models were fitted on"
    return [Leak(what, tuple(sorted(silent)))] if silent else []


def _copies(track: Track, corpus: str) -> list[tuple[str, str]]:
    """Near-duplicates within a corpus, as sample ids in both directions."""
    table, blocks = track.tables[corpus], track.blocks.get(corpus, {})
    vectors: dict[Feature, np.ndarray] = {name: block.vectors for name, block in blocks.items()}
    present: dict[Feature, np.ndarray] = {name: block.present for name, block in blocks.items()}
    ids = table["sample_id"].tolist()
    pairs = duplicates.near_rows(table["text"].tolist(), vectors, present)
    return [(ids[a], ids[b]) for left, right in pairs for a, b in ((left, right), (right, left))]


def _across(track: Track) -> list[Leak]:
    """Target rows to be scored that a model of the source has seen: by their text, their group or their id."""
    target = track.tables["target"]
    scored = target[target["sample_id"].isin(track.scored["sample_id"])]
    found = []
    for corpus in ("source", "source_texts"):
        fitted = _fitted(track, corpus)
        table = track.tables[corpus]
        seen = table[table["sample_id"].isin(fitted["sample_id"])]
        for key, what in (("sample_id", "rows"), ("group_id", "groups")):
            if shared := leaks.shared_names(scored[key], seen[key]):
                found.append(
                    Leak(f"{len(shared)} {what} of the target's test rows are in the {corpus} corpus", tuple(shared))
                )
        texts = [*scored["text"], *seen["text"]]
        pairs = [
            f"{scored['sample_id'].iloc[a]} = {seen['sample_id'].iloc[b - len(scored)]}"
            for a, b in (sorted(pair) for pair in duplicates.near_rows(texts, {}, {}))
            if a < len(scored) <= b
        ]
        if pairs:
            found.append(
                Leak(f"{len(pairs)} of the target's test rows say what rows of the {corpus} corpus say", tuple(pairs))
            )
    return found
