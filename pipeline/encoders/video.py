"""Clips → vectors: the picture encoder on each frame, then a mean, or mean and standard deviation, over the frames."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.core.files import MediaError
from pipeline.core.schemas import Feature
from pipeline.encoders import image
from pipeline.encoders.image import ImageEncoder, Preprocessing
from pipeline.media.clips import Clip
from pipeline.media.sampling import Frames
from pipeline.params import EmbedVideoParams

Pooling = Literal["mean", "mean_std"]


def pool(vectors: Tensor, mask: Tensor, how: Pooling) -> Tensor:
    """Frames' vectors → one for each clip.

    Args:
        vectors: float32 [B, F, width].
        mask: bool [B, F], true where there is a frame; at least one a clip.

    Returns:
        float32 [B, width], or [B, 2 * width] for ``mean_std``: the mean, then the population standard deviation.
    """
    present = mask.unsqueeze(-1).to(vectors.dtype)
    count = present.sum(1)
    mean = (vectors * present).sum(1) / count
    if how == "mean":
        return mean
    variance = ((vectors - mean.unsqueeze(1)).square() * present).sum(1) / count
    # The square root has no finite slope at zero, where a still clip is; there both value and slope are zero.
    positive = variance > 0
    spread = torch.where(positive, variance, 1.0).sqrt() * positive
    return torch.cat([mean, spread], dim=1)


@dataclass(frozen=True)
class VideoEncoder:
    """A clip encoder.

    Attributes:
        identity: what tells its vectors from those of any other encoder.
        width: length of a clip's vector.
        image: what encodes the frames.
        frames: how many are taken from a clip.
        batch: how many are encoded at once.
    """

    identity: dict[str, Any]
    width: int
    image: ImageEncoder
    frames: int
    batch: int
    pool: Pooling

    @property
    def preprocess(self) -> Preprocessing:
        """Of one frame."""
        return self.image.preprocess

    @property
    def at_least(self) -> int:
        """The shortest side that a frame must keep when it is read, in pixels."""
        return self.image.at_least

    @property
    def frame_request(self) -> Frames:
        """The frames that are looked at."""
        return self.frames, self.at_least

    @property
    def columns(self) -> tuple[str, ...]:
        """Each number of the picture encoder, as its mean and its deviation over the frames."""
        statistics = ("mean",) if self.pool == "mean" else ("mean", "std")
        return tuple(f"frame_{at:04d}.{statistic}" for statistic in statistics for at in range(self.image.width))

    sound_seconds = 0.0
    modality: Feature = "visual"

    def prepare(self, clip: Clip) -> np.ndarray:
        """float32 [at most ``frames``, 3, S, S]. Raises MediaError when the clip has no frames."""
        frames = [self.preprocess(frame) for frame in clip.frames(*self.frame_request)]
        if not frames:
            raise MediaError("no frames")
        return np.stack(frames)

    def encode(self, clips: Sequence[np.ndarray], device: torch.device) -> np.ndarray:
        """Clips of preprocessed frames, each float32 [at most ``frames``, 3, S, S] → float32 [N, width]."""
        pixels = np.concatenate(clips)
        starts = range(0, len(pixels), self.batch)
        parts = [self.image.encode(pixels[at : at + self.batch], device, fixed=True) for at in starts]
        lengths = torch.tensor([len(clip) for clip in clips])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        vectors = torch.zeros(*mask.shape, self.image.width)
        vectors[mask] = torch.from_numpy(np.concatenate(parts))
        return pool(vectors, mask, self.pool).numpy()


class ClipNet(nn.Module):
    """The picture encoder on every frame and the pooling after it, as one net that can be tuned."""

    def __init__(self, encoder: VideoEncoder) -> None:
        super().__init__()
        self.frame = encoder.image.net
        self.how: Pooling = encoder.pool

    def forward(self, pixels: Tensor, mask: Tensor) -> Tensor:
        """float32 [B, F, 3, S, S] and bool [B, F], true where there is a frame → float32 [B, width of the clip]."""
        frame_vectors = self.frame(pixels[mask])
        vectors = frame_vectors.new_zeros(*mask.shape, frame_vectors.shape[1])
        return pool(vectors.masked_scatter(mask.unsqueeze(-1), frame_vectors), mask, self.how)


def load(params: EmbedVideoParams) -> VideoEncoder:
    """Loads the encoder that params ``embed.video`` names, on the processor. Raises InputError as ``image.load``."""
    return on_frames(image.load(params, "embed.video"), params)


def on_frames(encoder: ImageEncoder, params: EmbedVideoParams) -> VideoEncoder:
    """The clip encoder that encodes each frame by ``encoder``."""
    width = encoder.width if params.pool == "mean" else 2 * encoder.width
    identity = encoder.identity | {"width": width, "frames": params.frames, "pooling": params.pool}
    return VideoEncoder(identity, width, encoder, params.frames, params.batch, params.pool)
