"""What the source → target track has left behind, read once for `evaluate` and `diagnose`, and where it leaks.

Reads:  data/split/{source,source_texts,target,target_folds}.parquet, data/embeddings/{source,target}/*.parquet,
        models/{train_source,train_adapters,finetune_e2e}/.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core import artifacts, schemas
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.core.schemas import FEATURES, FINAL, UNLABELLED, Feature, Subset
from pipeline.corpora import duplicates
from pipeline.params import Params
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
        columns: ``source`` and ``target`` → modality → which of the corpus's own columns its features are; without a
            modality that was encoded from words.
        grouped: the corpora whose rows are groups.
        folds: ``schemas.FOLDS_TABLE``.
        stages: every stage in the lineage of the fine-tuned model that has a model.
    """

    tables: Mapping[str, pd.DataFrame]
    blocks: Mapping[str, Mapping[Feature, Block]]
    columns: Mapping[str, Mapping[Feature, Sequence[int]]]
    grouped: frozenset[str]
    folds: pd.DataFrame
    stages: Mapping[str, Stage]

    @property
    def target(self) -> pd.DataFrame:
        return self.tables["target"]

    @property
    def modalities(self) -> Subset:
        """Those that the transferred models use."""
        return tuple(name for name in FEATURES if name in self.stages[FINETUNED].description["modalities"])

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


def read(params: Params, layout: Layout) -> Track:
    """Raises InputError when a file is missing, or tables, features and models are not of the same rows."""
    tables = {name: artifacts.read_scored(layout.table(name)) for name in ("source", "source_texts", "target")}
    folds = artifacts.read_parquet(layout.folds, schemas.FOLDS_TABLE).to_pandas()
    stages = {name: _stage(layout, name) for name in CORPUS_OF}
    if stages[SOURCE_TEXT].description["absent"]:
        del stages[SOURCE_TEXT]
    found = {name: _features(layout, name, tables[name]) for name in ("source", "target")}
    blocks = {name: of for name, (of, _) in found.items()}
    columns = {name: of for name, (_, of) in found.items()}
    levels = {"source": params.source.level, "target": params.target.level}
    grouped = frozenset(name for name, level in levels.items() if level == "group")
    track = Track(tables, blocks, columns, grouped, folds, stages)
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


def _features(
    layout: Layout, corpus: str, table: pd.DataFrame
) -> tuple[dict[Feature, Block], dict[Feature, Sequence[int]]]:
    """The blocks and the columns of a corpus, as ``Track`` holds them."""
    blocks, columns = {}, {}
    for name in FEATURES:
        path: Path = layout.embeddings(corpus, name)
        embeddings = artifacts.read_embeddings(path)
        if not np.array_equal(embeddings.sample_ids, table["sample_id"].to_numpy()):
            raise InputError(f"{path}: rows differ from data/split; run `dvc repro`")
        if embeddings.present.any():
            blocks[name] = Block(embeddings.vectors, embeddings.present)
            if embeddings.encoder["name"] == "features":
                columns[name] = embeddings.encoder["columns"]
    return blocks, columns


# --- leaks -----------------------------------------------------------------------------------------------------------


def find_leaks(track: Track) -> list[Leak]:
    """Every way in which a scored row of this track was seen by a model behind its score."""
    found = [
        Leak(f"models/{name}/fitted.parquet does not match the digest in models/{name}/model.json")
        for name, stage in track.stages.items()
        if not stage.honest
    ]
    for corpus in track.tables:
        scored, fitted = _scored(track, corpus), pd.concat([_fitted(track, corpus), _met(track, corpus)])
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


def _met(track: Track, corpus: str) -> pd.DataFrame:
    """The rows without a score, which adapters and readings of every fold learn from, as ``_fitted`` has the others."""
    table = track.tables[corpus]
    free = table.loc[table["split"] == UNLABELLED, ["sample_id", "group_id"]].assign(role=UNLABELLED)
    folds = track.scored[["fold"]].drop_duplicates()
    stages = pd.DataFrame({"stage": [ADAPTERS, FINETUNED]})
    return free.merge(folds, how="cross").merge(stages, how="cross")


def _unsaid(track: Track, name: str) -> list[Leak]:
    """Folds whose models do not say which rows they were fitted on."""
    silent = set(_scored(track, CORPUS_OF[name])["fold"]) - set(track.stages[name].fitted["fold"])
    what = f"models/{name}/fitted.parquet does not say which rows its models were fitted on"
    return [Leak(what, tuple(sorted(silent)))] if silent else []


def _copies(track: Track, corpus: str) -> dict[str, str]:
    """Sample id → the name of its set of near-duplicates within the corpus; without rows that have none."""
    ids: list[str] = track.tables[corpus]["sample_id"].tolist()
    given: list[Feature] = [name for name in FEATURES if name in track.columns.get(corpus, {})]
    edges = _near(track, {corpus: np.arange(len(ids))}, given)
    sets = duplicates.merge_groups([None] * len(ids), ids, edges)
    names, rows = np.unique(sets.astype(str), return_counts=True)
    several = set(names[rows > 1])
    return {identity: name for identity, name in zip(ids, sets, strict=True) if name in several}


def _near(track: Track, rows: Mapping[str, np.ndarray], modalities: Sequence[Feature]) -> duplicates.Edges:
    """Copies among rows of one corpus, or of two, one under the other: by their words, and by their features.

    Vectors of words are not asked for: the words are compared, and short ones, which recur by chance, have equal ones.
    """
    texts = [text for corpus, at in rows.items() for text in track.tables[corpus]["text"].iloc[at]]
    words = duplicates.near_lines(texts) if track.grouped & rows.keys() else duplicates.near_rows(texts, {}, {})
    vectors: dict[Feature, np.ndarray] = {}
    present: dict[Feature, np.ndarray] = {}
    for name in modalities:
        blocks = [(track.blocks[corpus][name], at) for corpus, at in rows.items()]
        vectors[name] = np.concatenate([block.vectors[at] for block, at in blocks])
        present[name] = np.concatenate([block.present[at] for block, at in blocks])
    return words + duplicates.near_rows([None] * len(texts), vectors, present)


def _across(track: Track) -> list[Leak]:
    """Target rows to be scored that a model of the source has seen: by their group, their words or their features."""
    target, own = track.target, track.columns["target"]
    scored = np.flatnonzero(target["sample_id"].isin(track.scored["sample_id"]))
    found = []
    for corpus in ("source", "source_texts"):
        table, columns = track.tables[corpus], track.columns.get(corpus, {})
        seen = np.flatnonzero(table["sample_id"].isin(_fitted(track, corpus)["sample_id"]))
        if shared := _shared_groups(track, {"target": scored, corpus: seen}):
            what = f"{len(shared)} groups of the target's test rows have the names of groups of the {corpus} corpus"
            found.append(Leak(f"{what}; rename those that are others", tuple(shared)))
        # Features compare where the same columns of what may be one extractor are left in both.
        both = own.keys() & columns.keys()
        comparable: list[Feature] = [name for name in FEATURES if name in both and columns[name] == own[name]]
        edges = _near(track, {"target": scored, corpus: seen}, comparable)
        ids = [*target["sample_id"].iloc[scored], *table["sample_id"].iloc[seen]]
        pairs = sorted({f"{ids[a]} = {ids[b]}" for a, b in map(sorted, edges) if a < len(scored) <= b})
        if pairs:
            what = f"{len(pairs)} of the target's test rows are copies of rows that models of the {corpus} corpus saw"
            found.append(Leak(what, tuple(pairs)))
    return found


def _shared_groups(track: Track, rows: Mapping[str, np.ndarray]) -> list[str]:
    """Given groups that rows of two corpora have in common.

    A row without a group has its id for one. That two corpora count their rows alike says nothing of what the rows are,
    so a name has to be that of a group in one of them.
    """
    tables = [track.tables[corpus].iloc[at] for corpus, at in rows.items()]
    groups: set[str] = set()
    for corpus, table in zip(rows, tables, strict=True):
        named = table["given_group"] != table["sample_id"]
        groups |= set(table["given_group"] if corpus in track.grouped else table.loc[named, "given_group"])
    return [name for name in leaks.shared_names(*(table["given_group"] for table in tables)) if name in groups]
