"""Linear fusion and the word of one modality, worked out by hand."""

import numpy as np
import pytest
import torch

from pipeline.nets.fusion import AveragedFusion, FirstPresent, LinearFusion

WIDTHS = {"b": 2, "a": 1}
VECTORS = {"a": torch.tensor([[1.0], [2.0], [3.0]]), "b": torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]])}
EXPERTS = {"a": torch.tensor([[0.5, -0.5]] * 3), "b": torch.tensor([[-1.0, 1.0]] * 3)}
PRESENT = {"a": torch.tensor([True, True, False]), "b": torch.tensor([True, False, False])}


@pytest.mark.parametrize(
    ("vectors", "experts", "expected"),
    [
        (True, False, [[1, 1, 1, 0, 1], [2, 1, 0, 0, 0], [0, 0, 0, 0, 0]]),
        (False, True, [[0.5, -0.5, 1, -1, 1, 1], [0.5, -0.5, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]]),
    ],
)
def test_what_is_read_is_zero_where_a_modality_is_absent(vectors: bool, experts: bool, expected: list[list[float]]):
    net = LinearFusion(WIDTHS, 2, vectors=vectors, experts=experts)
    features = net.features(VECTORS, EXPERTS, PRESENT)
    np.testing.assert_allclose(features.numpy(), expected)
    logits = net(VECTORS, EXPERTS, PRESENT)
    np.testing.assert_allclose(logits.detach().numpy(), net.classify(features).detach().numpy())


def test_vectors_are_standardised_by_the_rows_that_have_them_and_shrunk():
    net = LinearFusion(WIDTHS, 2, vectors=True, experts=False)
    net.standardise_like(VECTORS, PRESENT, shrink=2.0)
    features = net.features(VECTORS, EXPERTS, PRESENT).numpy()
    # Modality a is there with 1 and 2: mean 1.5, deviation .5. Of b there is one row, whose columns are constant.
    np.testing.assert_allclose(features[:, 0], [-0.5, 0.5, 0.0])
    np.testing.assert_allclose(features[:, 2:4], 0.0)


def test_the_first_modality_in_order_that_is_there_speaks():
    net = FirstPresent(WIDTHS, 2, order=("b", "a"))
    with torch.no_grad():
        net.nothing.copy_(torch.tensor([7.0, 8.0]))
    np.testing.assert_allclose(net(VECTORS, EXPERTS, PRESENT).numpy(), [[-1, 1], [0.5, -0.5], [7, 8]])


def test_the_average_is_that_of_log_probabilities_and_no_scale_of_logits_outweighs_another():
    first, second = FirstPresent(WIDTHS, 2, order=("b", "a")), FirstPresent(WIDTHS, 2, order=("a", "b"))
    with torch.no_grad():
        first.nothing.copy_(torch.tensor([7.0, 8.0]))
        second.nothing.copy_(torch.tensor([107.0, 107.0]))
    said = AveragedFusion(WIDTHS, [first, second])(VECTORS, EXPERTS, PRESENT).numpy()
    # Row 0: logits (-1, 1) and (.5, -.5); row 2: (7, 8) and (107, 107), whose log-probabilities are log(1/2) each.
    expected = [
        (np.log([1 / (1 + np.e**2), 1 / (1 + np.e**-2)]) + np.log([1 / (1 + 1 / np.e), 1 / (1 + np.e)])) / 2,
        np.log([1 / (1 + 1 / np.e), 1 / (1 + np.e)]),
        (np.log([1 / (1 + np.e), 1 / (1 + 1 / np.e)]) + np.log([0.5, 0.5])) / 2,
    ]
    np.testing.assert_allclose(said, expected, rtol=1e-6)
