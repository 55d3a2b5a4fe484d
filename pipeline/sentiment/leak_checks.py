"""Every way in which a scored row of the source → target track may have been seen."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pipeline.core import schemas
from pipeline.core.schemas import FEATURES, FINAL, UNLABELLED, Feature
from pipeline.corpora import duplicates
from pipeline.corpora.shared_groups import shared_groups
from pipeline.scoring import leaks
from pipeline.scoring.leaks import Leak
from pipeline.sentiment.track import ADAPTERS, CORPUS_OF, FINETUNED, Track


def find_leaks(track: Track) -> list[Leak]:
    """Every way in which a scored row of this track was seen by a model behind its score."""
    all_leaks = [
        Leak(f"models/{name}/fitted.parquet does not match the digest in models/{name}/model.json")
        for name, stage in track.stages.items()
        if not stage.digest_matches
    ]
    for corpus in track.tables:
        scored, fitted = _scored(track, corpus), pd.concat([_fitted(track, corpus), _unlabelled(track, corpus)])
        all_leaks += leaks.fitted_in_fold(scored, fitted)
        all_leaks += leaks.copies_in_fold(_copies(track, corpus), scored, fitted, f"the {corpus} corpus")
    for name, corpus in CORPUS_OF.items():
        if name in track.stages:
            all_leaks += leaks.wrong_roles(track.stages[name].predictions, _roles(track, corpus), name)
            all_leaks += _missing_fitted_rows(track, name)
    return all_leaks + _across(track)


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


def _unlabelled(track: Track, corpus: str) -> pd.DataFrame:
    """The rows without a score, which adapters and probes of every fold learn from, as ``_fitted`` has the others."""
    table = track.tables[corpus]
    free = table.loc[table["split"] == UNLABELLED, ["sample_id", "group_id"]].assign(role=UNLABELLED)
    folds = track.scored[["fold"]].drop_duplicates()
    stages = pd.DataFrame({"stage": [ADAPTERS, FINETUNED]})
    return free.merge(folds, how="cross").merge(stages, how="cross")


def _missing_fitted_rows(track: Track, name: str) -> list[Leak]:
    """Folds without a list of the rows that their models were fitted on."""
    missing = set(_scored(track, CORPUS_OF[name])["fold"]) - set(track.stages[name].fitted["fold"])
    what = f"models/{name}/fitted.parquet does not say which rows its models were fitted on"
    return [Leak(what, tuple(sorted(missing)))] if missing else []


def _copies(track: Track, corpus: str) -> dict[str, str]:
    """Sample id → the name of its set of near-duplicates within the corpus; without rows that have none."""
    ids: list[str] = track.tables[corpus]["sample_id"].tolist()
    modalities: list[Feature] = [name for name in FEATURES if name in track.columns.get(corpus, {})]
    edges = _near(track, {corpus: np.arange(len(ids))}, modalities)
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
    target, target_columns = track.target, track.columns["target"]
    scored = np.flatnonzero(target["sample_id"].isin(track.scored["sample_id"]))
    crossing = []
    for corpus in ("source", "source_texts"):
        table, columns = track.tables[corpus], track.columns.get(corpus, {})
        seen = np.flatnonzero(table["sample_id"].isin(_fitted(track, corpus)["sample_id"]))
        if shared := shared_groups({"target": target.iloc[scored], corpus: table.iloc[seen]}, track.grouped):
            what = f"{len(shared)} groups of the target's test rows have the names of groups of the {corpus} corpus"
            crossing.append(Leak(f"{what}; rename those that are others", tuple(shared)))
        # Features compare where the same columns of what may be one extractor are left in both.
        both = target_columns.keys() & columns.keys()
        comparable: list[Feature] = [
            name for name in FEATURES if name in both and columns[name] == target_columns[name]
        ]
        edges = _near(track, {"target": scored, corpus: seen}, comparable)
        ids = [*target["sample_id"].iloc[scored], *table["sample_id"].iloc[seen]]
        pairs = sorted({f"{ids[a]} = {ids[b]}" for a, b in map(sorted, edges) if a < len(scored) <= b})
        if pairs:
            what = f"{len(pairs)} of the target's test rows are copies of rows that models of the {corpus} corpus saw"
            crossing.append(Leak(what, tuple(pairs)))
    return crossing
