"""The closed form against sklearn's ridge on every row with every set of modalities hidden, weighed by its chance."""

from itertools import product

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from pipeline.scoring.dropout_ridge import dropout_ridge


def corpus(rows: int) -> tuple[list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    blocks = [rng.normal(size=(rows, width)).astype(np.float32) for width in (3, 5, 12)]
    blocks[1] += blocks[0][:, :1]  # modalities that say the same in part
    blocks[2][rows // 2 :] = 0.0  # and one that half of the rows lack
    y = blocks[0][:, 0] - 2.0 * blocks[1][:, 1] + blocks[2][:, 4] + rng.normal(size=rows) + 3.0
    return blocks, y


def by_every_mask(blocks: list[np.ndarray], y: np.ndarray, penalty: float, dropout: float) -> tuple[np.ndarray, float]:
    """Hidden is what is at the mean of its column, so columns are centred first."""
    x, mean = np.concatenate(blocks, axis=1).astype(np.float64), np.concatenate(blocks, axis=1).mean(axis=0)
    of_block = np.repeat(np.arange(len(blocks)), [block.shape[1] for block in blocks])
    rows, weights = [], []
    for given in product([0.0, 1.0], repeat=len(blocks)):
        rows.append((x - mean) * np.array(given)[of_block])
        chance = np.prod([1.0 - dropout if here else dropout for here in given])
        weights.append(np.full(len(x), chance))
    model = Ridge(penalty * (1.0 - dropout), fit_intercept=False)
    model.fit(np.concatenate(rows), np.tile(y - y.mean(), 2 ** len(blocks)), np.concatenate(weights))
    return model.coef_, float(y.mean() - mean @ model.coef_)


@pytest.mark.parametrize("rows", [40, 8])
@pytest.mark.parametrize("dropout", [0.0, 0.3, 0.8])
def test_it_is_the_ridge_of_rows_with_modalities_hidden_in_every_way(rows: int, dropout: float) -> None:
    blocks, y = corpus(rows)
    for penalty, found in zip((0.5, 20.0), dropout_ridge(blocks, y, (0.5, 20.0), dropout), strict=True):
        weights, offset = by_every_mask(blocks, y, penalty, dropout)
        np.testing.assert_allclose(found.weights, weights, atol=1e-5)
        assert found.offset == pytest.approx(offset, abs=1e-5)
        expected = np.concatenate(blocks, axis=1) @ weights + offset
        np.testing.assert_allclose(found.scores(blocks), expected, atol=1e-4)


def test_without_dropout_it_is_ridge_regression() -> None:
    blocks, y = corpus(40)
    (found,) = dropout_ridge(blocks, y, [3.0], 0.0)
    x = np.concatenate(blocks, axis=1).astype(np.float64)
    expected = Ridge(3.0).fit(x, y)
    np.testing.assert_allclose(found.weights, expected.coef_, atol=1e-6)
    np.testing.assert_allclose(found.scores(blocks), expected.predict(x), atol=1e-5)


def test_rows_in_several_chunks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks, y = corpus(40)
    (whole,) = dropout_ridge(blocks, y, [1.0], 0.3)
    monkeypatch.setattr("pipeline.scoring.dropout_ridge.CHUNK", 7)
    (parts,) = dropout_ridge(blocks, y, [1.0], 0.3)
    np.testing.assert_allclose(parts.weights, whole.weights, atol=1e-10)
