"""The pair of feature corpora: the mission's shape, same seed same bytes, a story that leaves room for transfer."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.core.schemas import FEATURES, Feature
from pipeline.synthetic.pair import BROKEN_COLUMN, CONSTANT_COLUMN, render_pair

WIDTHS: dict[str, dict[Feature, int]] = {
    "source": {"text": 768, "audio": 74, "visual": 713},
    "target": {"text": 384, "audio": 33, "visual": 65},
}


def render(folder: Path, *, source: int = 900, target: int = 93, unlabelled: int = 279, seed: int = 42) -> Path:
    render_pair(
        folder / "source.parquet",
        folder / "target.parquet",
        source_rows=source,
        target_rows=target,
        unlabelled_rows=unlabelled,
        seed=seed,
    )
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def pair(folder: Path) -> dict[str, pa.Table]:
    return {name: pq.read_table(folder / f"{name}.parquet") for name in WIDTHS}


def matrix(table: pa.Table, modality: Feature) -> np.ndarray:
    """float64 [N, width]: a modality's features, all NaN in rows that lack it."""
    rows = table[modality].to_pylist()
    width = len(next(row for row in rows if row is not None))
    return np.array([row if row is not None else [np.nan] * width for row in rows], dtype=np.float64)


def usable(table: pa.Table, *modalities: Feature) -> np.ndarray:
    """float64 [N, kept columns]: without the planted columns, absent rows at the mean."""
    parts = []
    for modality in modalities or FEATURES:
        part = matrix(table, modality)
        if modality == "audio":
            part = np.delete(part, [CONSTANT_COLUMN, BROKEN_COLUMN], axis=1)
        parts.append(np.where(np.isnan(part), np.nanmean(part, axis=0), part))
    return np.hstack(parts)


def scores(table: pa.Table) -> np.ndarray:
    return np.array(table["score"].to_pylist(), dtype=np.float64)


def ridge() -> Pipeline:
    return make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 6, 13)))


def pearson(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(first, second)[0, 1])


def source_pearson(table: pa.Table, *modalities: Feature) -> float:
    split, truth, features = np.array(table["split"].to_pylist()), scores(table), usable(table, *modalities)
    model = ridge().fit(features[split == "train"], truth[split == "train"])
    return pearson(model.predict(features[split == "test"]), truth[split == "test"])


def target_pearson(table: pa.Table) -> float:
    """Ridge on the labelled rows alone: the mean over three partitions into five folds."""
    truth = scores(table)
    known = ~np.isnan(truth)
    features, truth = usable(table)[known], truth[known]
    folds = [KFold(5, shuffle=True, random_state=seed) for seed in range(3)]
    predicted = [np.asarray(cross_val_predict(ridge(), features, truth, cv=cv)) for cv in folds]
    return float(np.mean([pearson(scored, truth) for scored in predicted]))


def test_columns_and_widths_are_those_of_the_mission(pair: dict[str, pa.Table]) -> None:
    assert pair["source"].column_names == ["id", "group", "score", "split", *FEATURES]
    assert pair["target"].column_names == ["id", "group", "score", *FEATURES]
    for name, widths in WIDTHS.items():
        for modality, width in widths.items():
            column = pair[name][modality]
            assert column.type == pa.list_(pa.float32())
            assert {len(row) for row in column.to_pylist() if row is not None} == {width}


def test_rows_scores_and_unlabelled_rows(pair: dict[str, pa.Table]) -> None:
    assert (len(pair["source"]), len(pair["target"])) == (900, 93 + 279)
    assert (pair["source"]["score"].null_count, pair["target"]["score"].null_count) == (0, 279)
    for table in pair.values():
        known = scores(table)[~np.isnan(scores(table))]
        assert known.min() >= -3 and known.max() <= 3
        assert (known == 0).any()
    assert len(set(pair["source"]["id"].to_pylist() + pair["target"]["id"].to_pylist())) == 900 + 372


def test_the_target_is_lower_and_narrower(pair: dict[str, pa.Table]) -> None:
    source, target = scores(pair["source"]), scores(pair["target"])
    assert np.nanmean(target) < source.mean() - 0.3
    assert np.nanstd(target) < 0.8 * source.std()


@pytest.mark.parametrize("rows", [60, 61, 900])
def test_videos_keep_to_one_split_of_the_right_size(rows: int, tmp_path: Path) -> None:
    frame = pq.read_table(render(tmp_path, source=rows) / "source.parquet", columns=["group", "split"]).to_pandas()
    assert frame.groupby("group")["split"].nunique().max() == 1
    sizes = frame["group"].value_counts()
    assert sizes.max() <= 6 and sizes.median() >= 2
    shares = frame["split"].value_counts(normalize=True)
    for split, share in {"train": 0.7, "val": 0.15, "test": 0.15}.items():
        assert shares[split] == pytest.approx(share, abs=6 / rows)


def test_target_videos_have_one_row(pair: dict[str, pa.Table]) -> None:
    assert len(set(pair["target"]["group"].to_pylist())) == len(pair["target"])


def test_some_rows_lack_audio_or_visual(pair: dict[str, pa.Table]) -> None:
    for table in pair.values():
        absent = [table[modality].null_count for modality in FEATURES]
        assert absent == [0, round(0.05 * len(table)), round(0.08 * len(table))]


@pytest.mark.parametrize("corpus", WIDTHS)
def test_only_the_planted_columns_are_useless(pair: dict[str, pa.Table], corpus: str) -> None:
    for modality in FEATURES:
        features = matrix(pair[corpus], modality)
        features = features[~np.isnan(features).all(axis=1)]
        constant = np.flatnonzero(np.nanstd(features, axis=0) < 1e-6)
        missing = np.isnan(features).mean(axis=0)
        assert constant.tolist() == ([CONSTANT_COLUMN] if modality == "audio" else [])
        assert np.flatnonzero(missing).tolist() == ([BROKEN_COLUMN] if modality == "audio" else [])
        assert np.isfinite(features[:, missing == 0]).all()
    assert 0.5 < np.isnan(matrix(pair[corpus], "audio")[:, BROKEN_COLUMN]).mean() < 0.7


def test_same_seed_same_bytes(folder: Path, tmp_path: Path) -> None:
    again = render(tmp_path)
    for name in WIDTHS:
        assert (again / f"{name}.parquet").read_bytes() == (folder / f"{name}.parquet").read_bytes()


def test_other_seed_other_corpora(pair: dict[str, pa.Table], tmp_path: Path) -> None:
    other = render(tmp_path, seed=43)
    for name in WIDTHS:
        assert pq.read_table(other / f"{name}.parquet")["text"] != pair[name]["text"]
    assert not {path.name for path in other.iterdir()} - {"source.parquet", "target.parquet"}


def test_extractors_do_not_depend_on_the_number_of_rows(pair: dict[str, pa.Table], tmp_path: Path) -> None:
    # A column's unit and offset are drawn with its extractor, so they show whether that is the same.
    few = pq.read_table(render(tmp_path, target=300, unlabelled=0) / "target.parquet")
    assert pearson(*(matrix(table, "text").mean(axis=0) for table in (few, pair["target"]))) > 0.95


@pytest.mark.parametrize("seed", [42, 1])
def test_ridge_finds_the_sentiment_and_leaves_room_on_the_target(seed: int, tmp_path: Path) -> None:
    source, target = (pq.read_table(render(tmp_path, seed=seed) / f"{name}.parquet") for name in WIDTHS)
    assert 0.45 < source_pearson(source) < 0.8
    alone = target_pearson(target)
    assert 0.15 < alone < 0.62

    # Many labelled rows of the same extractors show what the features could tell.
    many = pq.read_table(render(tmp_path, source=60, target=2000, unlabelled=0, seed=seed) / "target.parquet")
    truth, features = scores(many), usable(many)
    possible = pearson(ridge().fit(features[:1500], truth[:1500]).predict(features[1500:]), truth[1500:])
    assert 0.62 < possible < 0.8
    assert possible > alone + 0.1


def test_text_tells_most_and_audio_least(pair: dict[str, pa.Table]) -> None:
    text, audio, visual = (source_pearson(pair["source"], modality) for modality in FEATURES)
    assert text > visual > audio > 0.1


def test_the_sentiment_is_no_main_direction_of_the_features(pair: dict[str, pa.Table]) -> None:
    # What varies most is nuisance: matching the loudest direction of two corpora does not match their sentiment.
    features = StandardScaler().fit_transform(usable(pair["source"], "text"))
    left, _, _ = np.linalg.svd(features, full_matrices=False)
    assert max(abs(pearson(left[:, k], scores(pair["source"]))) for k in range(3)) < 0.3
