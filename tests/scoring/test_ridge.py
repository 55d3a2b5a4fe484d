import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import GroupKFold

from pipeline.scoring import sentiment
from pipeline.scoring.ridge import ALPHAS, FeatureBlock, ridge


def corpus(rows: int, width: int, seed: int) -> tuple[FeatureBlock, np.ndarray, np.ndarray]:
    """A block whose columns follow the score by little, the scores, and groups of three rows."""
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=rows)
    values = 50 + 10 * (0.2 * scores[:, None] + generator.normal(size=(rows, width)))
    return FeatureBlock(values.astype(np.float32), np.ones(rows, dtype=bool)), scores, np.arange(rows) // 3


@pytest.mark.parametrize("width", [8, 200], ids=["tall", "wide"])
def test_ridge_equals_scikit_learn(width: int):
    block, scores, groups = corpus(120, width, seed=0)
    fitted = np.arange(90)
    found = ridge([block], scores, fitted, groups)
    values = block.vectors.astype(np.float64)
    values = np.clip((values - values[fitted].mean(axis=0)) / values[fitted].std(axis=0), -5, 5)
    folds = GroupKFold(5).split(values[fitted], groups=groups[fitted])
    known = RidgeCV(ALPHAS, cv=list(folds), scoring="neg_mean_squared_error")
    wanted = known.fit(values[fitted], scores[fitted])
    again = Ridge(vars(wanted)["alpha_"]).fit(values[fitted], scores[fitted])
    assert found == pytest.approx(again.predict(values), abs=1e-6)
    assert (sentiment.pearson(scores[90:], found[90:]) or 0) > 0.3


def test_ridge_never_looks_at_what_it_is_not_fitted_on():
    block, scores, groups = corpus(90, 10, seed=1)
    fitted = np.arange(60)
    first = ridge([block], scores, fitted, groups)
    others = np.where(np.arange(90) < 60, scores, np.nan)
    changed = FeatureBlock(np.where(np.arange(90)[:, None] < 89, block.vectors, 1e6), block.present)
    again = ridge([changed], others, fitted, groups)
    assert np.array_equal(first[:89], again[:89])
    # Five standard deviations out is as far as a row may lie.
    assert abs(again[89]) < 10


def test_an_absent_modality_counts_as_its_mean_and_a_constant_column_as_nothing():
    block, scores, groups = corpus(90, 10, seed=2)
    fitted = np.arange(60)
    constant = FeatureBlock(np.full((90, 3), 7.0, dtype=np.float32), np.ones(90, dtype=bool))
    found = ridge([block, constant], scores, fitted, groups)
    assert found == pytest.approx(ridge([block], scores, fitted, groups))
    gone = FeatureBlock(block.vectors, np.arange(90) < 75)
    found = ridge([gone], scores, fitted, groups)
    assert found[75:] == pytest.approx(np.full(15, scores[fitted].mean()), abs=1e-6)
    nowhere = FeatureBlock(block.vectors, np.zeros(90, dtype=bool))
    assert ridge([nowhere], scores, fitted, groups) == pytest.approx(np.full(90, scores[fitted].mean()))


def test_noise_and_a_single_group_get_the_strongest_penalty():
    generator = np.random.default_rng(0)
    noise = FeatureBlock(generator.normal(size=(60, 200)).astype(np.float32), np.ones(60, dtype=bool))
    found = ridge([noise], generator.normal(size=60), np.arange(60), np.zeros(60))
    assert found.std() < 0.02


def test_ridge_leaves_out_a_block_that_only_adds_noise():
    block, scores, groups = corpus(120, 8, seed=3)
    noise = FeatureBlock(np.random.default_rng(4).normal(size=(120, 200)).astype(np.float32), np.ones(120, dtype=bool))
    fitted = np.arange(90)
    found = ridge([block, noise], scores, fitted, groups, select=True)
    assert np.array_equal(found, ridge([block], scores, fitted, groups))
