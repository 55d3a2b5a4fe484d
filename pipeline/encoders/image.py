"""Pictures → vectors: EfficientNet-Lite0, or the vision tower of a CLIP with its projection.

``net`` is differentiable and is what the specialists tune. Preprocessing is ours, so that it is the same whichever
imaging library is installed; for a CLIP it equals transformers' CLIPImageProcessorPil.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pipeline.core.errors import InputError
from pipeline.encoders import weights
from pipeline.params import EmbedPixelsParams
from pipeline.training.checkpoint import not_finite
from pipeline.training.device import side_by_side

if TYPE_CHECKING:
    from transformers import CLIPImageProcessorPil, CLIPModel

PACKAGED_ENCODER = "efficientnet-lite0"

LITE0_POINTWISE = ["_expand_conv", "_project_conv"]
"""Layers of a block that hold nearly all of its parameters; there is no attention for LoRA to adapt."""


PREPROCESSING_VERSION = 1
"""Raised when reading or preprocessing changes its pixels, so that vectors kept from before are not used."""

AT_ONCE = 4
"""Pictures that go through the net together on a processor, whose caches hold no more: 32 take 1.6 times as long."""

LONGEST = 8
"""Beyond this many times its shortest side, a picture is cut before it is resized."""


class EfficientNetLite0(nn.Module):
    """The convolutional part of EfficientNet-Lite0 and the mean over the picture's area.

    It is full of batch normalisation: who tunes it keeps those layers in eval mode, because the statistics of ImageNet
    are better than those of small batches.
    """

    width = 1280

    def __init__(self, model: EfficientNet) -> None:
        super().__init__()
        del model._fc  # the classifier of ImageNet
        for block in model._blocks:
            for name in LITE0_POINTWISE:
                if hasattr(block, name):
                    setattr(block, name, _plain(getattr(block, name)))
        nn.Module.to(model, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """float32 [B, 3, 224, 224] → float32 [B, 1280]."""
        return self.model.extract_features(pixels.contiguous(memory_format=torch.channels_last)).mean((2, 3)).float()

    def folded(self) -> EfficientNetLite0:
        """The same function in fewer passes over memory, for who only predicts: three fifths of the time.

        Each batch normalisation becomes part of the convolution before it, and so do margins; activations are computed
        in place. Equal up to rounding.
        """
        net = copy.deepcopy(self).eval()
        _fold(net.model, "_conv_stem", "_bn0")
        _fold(net.model, "_conv_head", "_bn1")
        for block in net.model._blocks:
            if hasattr(block, "_expand_conv"):
                _fold(block, "_expand_conv", "_bn0")
            _fold(block, "_depthwise_conv", "_bn1")
            _fold(block, "_project_conv", "_bn2")
        for layer in net.modules():
            if isinstance(layer, nn.ReLU6):
                layer.inplace = True
        return net


def _fold(block: nn.Module, convolution: str, normalisation: str) -> None:
    """Makes normalisation and margin part of the convolution: an uneven margin by zeros before its weights."""
    folded = fuse_conv_bn_eval(getattr(block, convolution), getattr(block, normalisation))
    margin = getattr(folded, "static_padding", None)
    if isinstance(margin, nn.ZeroPad2d):
        left, right, top, bottom = margin.padding  # as in TensorFlow's SAME, never more before than after
        longer = nn.functional.pad(folded.weight.detach(), (right - left, 0, bottom - top, 0))
        folded.weight = nn.Parameter(longer.contiguous(memory_format=torch.channels_last))
        folded.padding, folded.static_padding = (bottom, right), nn.Identity()
    setattr(block, convolution, folded)
    setattr(block, normalisation, nn.Identity())


def _plain(pointwise: nn.Conv2d) -> nn.Conv2d:
    """The same layer as torch's own class: peft builds its low-rank layers with the class of the one it adapts."""
    plain = nn.Conv2d(pointwise.in_channels, pointwise.out_channels, kernel_size=1, bias=False)
    plain.weight = pointwise.weight
    return plain


class ClipVision(nn.Module):
    """What CLIPModel.get_image_features computes, without the text tower."""

    def __init__(self, model: CLIPModel) -> None:
        super().__init__()
        self.vision = model.vision_model
        self.projection = model.visual_projection

    def forward(self, pixels: Tensor) -> Tensor:
        """float32 [B, 3, S, S] → float32 [B, width]."""
        return self.projection(self.vision(pixel_values=pixels).pooler_output).float()


@dataclass(frozen=True)
class Preprocessing:
    """The shortest side is resized to ``shortest``, the middle cut out to ``size``; then (pixel - offset) / scale.

    Attributes:
        offset: per channel, in gray levels of 255.
        scale: per channel, in gray levels of 255.
        resample: Pillow's number of the filter.
    """

    size: int
    shortest: int
    offset: tuple[float, ...]
    scale: tuple[float, ...]
    resample: int = int(Image.Resampling.BICUBIC)

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] → float32 [3, size, size]."""
        image = Image.fromarray(_without_far_ends(picture))
        short = min(image.size)
        width, height = (self.shortest * side // short for side in image.size)
        resized = image.resize((width, height), Image.Resampling(self.resample))
        left, top = (width - self.size) // 2, (height - self.size) // 2
        cut = np.asarray(resized.crop((left, top, left + self.size, top + self.size)))
        pixels = (cut.astype(np.float32) - np.array(self.offset, np.float32)) / np.array(self.scale, np.float32)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _without_far_ends(picture: np.ndarray) -> np.ndarray:
    """The middle of a long strip, whose ends are cut off later anyway: 1 by 50,000 pixels would become gigabytes."""
    longest = LONGEST * min(picture.shape[:2])
    top, left = (max(side - longest, 0) // 2 for side in picture.shape[:2])
    return picture[top : top + longest, left : left + longest]


@dataclass(frozen=True)
class ImageEncoder:
    """A picture encoder.

    Attributes:
        identity: what tells its vectors from those of any other encoder.
        width: length of a vector.
        net: ``net(pixels)``, float32 [B, 3, size, size] → float32 [B, width]; it stays as it is once this has encoded.
        lora_targets: the layers that peft should adapt.
        preprocess: uint8 [H, W, 3] → float32 [3, size, size].
    """

    identity: dict[str, Any]
    width: int
    net: nn.Module
    lora_targets: list[str]
    preprocess: Preprocessing

    @property
    def size(self) -> int:
        """Side of the square that ``net`` sees, in pixels."""
        return self.preprocess.size

    @property
    def at_least(self) -> int:
        """The shortest side that a picture must keep when it is read, in pixels."""
        return self.preprocess.shortest

    def encode(self, pixels: np.ndarray, device: torch.device, *, fixed: bool = False) -> np.ndarray:
        """One batch of preprocessed pictures, float32 [B, 3, size, size] → float32 [B, width].

        Args:
            fixed: on a processor, whether each goes through the net as one of ``AT_ONCE``, filled up where there are
                fewer: then a vector is a function of its picture alone. Otherwise its last digits may follow B.
        """
        if device.type != "cpu":
            return self._forward(pixels, device)
        parts = [pixels[at : at + AT_ONCE] for at in range(0, len(pixels), AT_ONCE)]
        last = len(parts[-1])
        if fixed and last < AT_ONCE:
            parts[-1] = np.concatenate([parts[-1], np.repeat(parts[-1][-1:], AT_ONCE - last, axis=0)])
        vectors = np.concatenate(list(side_by_side(lambda part: self._forward(part, device), parts, device)))
        return vectors[: len(pixels)]

    @cached_property
    def _predicting(self) -> nn.Module:
        return self.net.folded() if isinstance(self.net, EfficientNetLite0) else self.net

    @torch.inference_mode()
    def _forward(self, pixels: np.ndarray, device: torch.device) -> np.ndarray:
        return self._predicting.to(device).eval()(torch.from_numpy(pixels).to(device)).cpu().numpy()


def load(params: EmbedPixelsParams, key: str = "embed.image") -> ImageEncoder:
    """Loads the encoder that a params block names, on the processor.

    Raises InputError when the model cannot be found, is damaged, or is not a CLIP.
    """
    resolved = weights.resolve(key, params.encoder, params.revision, PACKAGED_ENCODER)
    if params.encoder == PACKAGED_ENCODER:
        return efficientnet(resolved)
    return clip(resolved, f"params.yaml: {key}.encoder: {params.encoder}")


def efficientnet(resolved: weights.Weights) -> ImageEncoder:
    """The packaged encoder from its released file, or from a safetensors file with the same tensors.

    Raises InputError where the file holds others.
    """
    model = EfficientNet.from_name(PACKAGED_ENCODER)
    safe = resolved.path.suffix == ".safetensors"
    with weights.loading(str(resolved.path)):
        tensors = load_file(resolved.path) if safe else torch.load(resolved.path, map_location="cpu", weights_only=True)
        model.load_state_dict(tensors)
    if faulty := not_finite(tensors):
        raise InputError(f"{resolved.path}: {faulty} holds numbers that are not finite")
    preprocess = Preprocessing(size=224, shortest=224, offset=(127.0,) * 3, scale=(128.0,) * 3)
    net = EfficientNetLite0(model)
    return ImageEncoder(_identity(resolved, net.width, preprocess), net.width, net.eval(), LITE0_POINTWISE, preprocess)


def clip(resolved: weights.Weights, where: str) -> ImageEncoder:
    """The picture tower of a CLIP. Raises InputError, which begins with ``where``, when it is none, or damaged."""
    from transformers import AutoConfig, CLIPImageProcessorPil, CLIPModel

    with weights.loading(where):
        config = AutoConfig.from_pretrained(resolved.path, local_files_only=True, trust_remote_code=False)
        if config.model_type != "clip":
            raise InputError(f"{where}: a {config.model_type} is not a CLIP")
        model = weights.load_model(CLIPModel, resolved)
        processor = CLIPImageProcessorPil.from_pretrained(resolved.path, local_files_only=True)
        preprocess = _clip_preprocessing(where, processor, model.config.vision_config.image_size)
    net, width = ClipVision(model), model.config.projection_dim
    return ImageEncoder(_identity(resolved, width, preprocess), width, net.eval(), ["q_proj", "v_proj"], preprocess)


def _clip_preprocessing(where: str, processor: CLIPImageProcessorPil, size: int) -> Preprocessing:
    """The saved settings of the image processor; those that would make it another computation are refused."""
    shortest = processor.size.get("shortest_edge")
    crop = processor.crop_size["height"] if processor.do_center_crop else shortest
    usual = processor.do_resize and processor.do_rescale and processor.do_normalize and crop == size
    if shortest is None or shortest < size or not usual:
        raise InputError(f"{where}: preprocessor_config.json does not end in square pictures of {size} px, as a CLIP's")
    per_level = processor.rescale_factor
    offset = tuple(mean / per_level for mean in processor.image_mean)
    scale = tuple(std / per_level for std in processor.image_std)
    if not (len(offset) == len(scale) == 3 and all(map(math.isfinite, offset + scale)) and min(scale) > 0):
        raise InputError(f"{where}: preprocessor_config.json: image_mean and image_std are not those of three channels")
    if shortest > LONGEST * size:
        raise InputError(
            f"{where}: preprocessor_config.json: resizes pictures to {shortest} px for a model of {size} px"
        )
    return Preprocessing(size, shortest, offset, scale, int(Image.Resampling(processor.resample)))


def _identity(resolved: weights.Weights, width: int, preprocess: Preprocessing) -> dict[str, Any]:
    steps = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(preprocess).items()}
    return resolved.identity | {"width": width, "preprocessing": steps | {"version": PREPROCESSING_VERSION}}


def augment(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random view of a training picture, uint8 [H, W, 3] → uint8 [S, S, 3].

    A part with 50 to 100 % of the area and sides in the ratio 3:4 to 4:3, at random mirrored, with up to a fifth more
    or less brightness and contrast. Pictures of one size and generators of one seed give the same view.
    """
    height, width = picture.shape[:2]
    area = height * width * rng.uniform(0.5, 1.0)
    ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    across, down = min(np.sqrt(area * ratio), width), min(np.sqrt(area / ratio), height)
    left, top = rng.uniform(0, width - across), rng.uniform(0, height - down)
    side = max(round(np.sqrt(across * down)), 1)
    box = (left, top, left + across, top + down)
    part = np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR, box=box))
    if rng.random() < 0.5:
        part = part[:, ::-1]
    brightness, contrast = rng.uniform(0.8, 1.2, size=2)
    middle = part.mean()
    levels = ((np.arange(256) - middle) * contrast + middle) * brightness
    return np.clip(levels, 0, 255).astype(np.uint8)[part]
