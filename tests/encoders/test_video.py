from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.encoders import video
from pipeline.encoders.video import ClipNet, pool
from pipeline.params import EmbedVideoParams
from tests import tiny

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.clip(tmp_path_factory.mktemp("clip"))


def test_pool_by_hand() -> None:
    vectors = torch.tensor([[[1.0, 5.0], [3.0, 5.0], [100.0, 100.0]]])
    mask = torch.tensor([[True, True, False]])
    assert pool(vectors, mask, "mean").tolist() == [[2.0, 5.0]]
    # The population standard deviation of 1 and 3 is 1; of 5 and 5 it is 0.
    assert pool(vectors, mask, "mean_std").tolist() == [[2.0, 5.0, 1.0, 0.0]]


def test_pool_has_finite_gradients_where_nothing_moves() -> None:
    vectors = torch.tensor([[[2.0, 1.0], [2.0, 3.0]]], requires_grad=True)
    pool(vectors, torch.ones(1, 2, dtype=torch.bool), "mean_std")[:, 2:].sum().backward()
    assert vectors.grad is not None
    # d std / d x = (x - mean) / (n std): for 1 and 3, -1/2 and 1/2; for the still channel 0 by definition.
    assert vectors.grad.tolist() == [[[0.0, -0.5], [0.0, 0.5]]]


def test_encode_equals_frames_encoded_and_pooled(folder: Path) -> None:
    encoder = video.load(EmbedVideoParams(encoder=str(folder), frames=4, batch=3))
    rng = np.random.default_rng(0)
    clips = [rng.normal(size=(count, 3, 32, 32)).astype(np.float32) for count in (4, 1, 3)]
    found = encoder.encode(clips, CPU)
    frames = [encoder.image.encode(clip, CPU) for clip in clips]
    expected = np.stack([np.concatenate([clip.mean(0), clip.std(0)]) for clip in frames])
    assert encoder.width == 2 * tiny.CLIP_WIDTH
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_net_equals_encode_whatever_lies_in_the_padding(folder: Path) -> None:
    encoder = video.load(EmbedVideoParams(encoder=str(folder), frames=4, pool="mean"))
    rng = np.random.default_rng(1)
    pixels = torch.from_numpy(rng.normal(size=(2, 4, 3, 32, 32)).astype(np.float32))
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    pixels[1, 2:] = 1e4
    vectors = ClipNet(encoder)(pixels=pixels, mask=mask)
    expected = encoder.encode([pixels[0].numpy(), pixels[1, :2].numpy()], CPU)
    np.testing.assert_allclose(vectors.detach().numpy(), expected, atol=1e-5)
    vectors.sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.image.net.parameters() if parameter.requires_grad)


def test_identity_follows_frames_and_pooling(folder: Path) -> None:
    identities = [
        video.load(params.model_copy(update={"encoder": str(folder)})).identity
        for params in (
            EmbedVideoParams(pool="mean"),
            EmbedVideoParams(pool="mean", frames=4),
            EmbedVideoParams(pool="mean_std"),
        )
    ]
    assert len({str(identity) for identity in identities}) == 3
    assert [identity["width"] for identity in identities] == [12, 12, 24]
