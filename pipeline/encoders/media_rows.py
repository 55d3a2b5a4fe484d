"""Rows of raw pictures or clips for training an encoder: batched, decoded and augmented as the loop asks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.core.errors import InputError
from pipeline.core.files import MediaError
from pipeline.encoders.image import ImageEncoder, augment
from pipeline.media.clips import read_frames
from pipeline.media.pictures import read_picture
from pipeline.training.rows import split_rows


class MediaRows:
    """Pictures, or clips as frames, decoded by ``workers`` threads while the net computes.

    Args:
        paths: N files that `embed` could read.
        labels: int64 [N].
        batch: rows in a batch.
        frames: frames of each clip, or None for pictures.
        augmented: whether training rows are cropped, mirrored and relit at random.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        paths: Sequence[Path],
        labels: Tensor,
        batch: int,
        *,
        frames: int | None,
        augmented: bool,
        max_pixels: int,
        workers: int,
    ) -> None:
        self.encoder = encoder
        self.paths = paths
        self.labels = labels
        self.batch = batch
        self.frames = frames
        self.augmented = augmented
        self.max_pixels = max_pixels
        self.workers = workers

    def batches(self, rng: np.random.Generator | None) -> list[np.ndarray]:
        return split_rows(np.arange(len(self.paths)) if rng is None else rng.permutation(len(self.paths)), self.batch)

    def load(self, rows: np.ndarray, rng: np.random.Generator | None) -> tuple[Any, ...]:
        if self.frames is None:
            pixels = [self._pixels([self._picture(self.paths[row])], rng)[0] for row in rows]
            return ({"pixels": torch.from_numpy(np.stack(pixels))},)
        clips = [self._pixels(self._frames(self.paths[row], self.frames), rng) for row in rows]
        longest = max(len(clip) for clip in clips)
        padded = np.zeros((len(clips), longest, *clips[0].shape[1:]), dtype=np.float32)
        mask = np.zeros((len(clips), longest), dtype=bool)
        for at, clip in enumerate(clips):
            padded[at, : len(clip)] = clip
            mask[at, : len(clip)] = True
        return ({"pixels": torch.from_numpy(padded), "mask": torch.from_numpy(mask)},)

    def _pixels(self, pictures: list[np.ndarray], rng: np.random.Generator | None) -> np.ndarray:
        """float32 [n, 3, size, size]; all the frames of a clip are augmented alike, or its movement would be noise."""
        if rng is not None and self.augmented:
            seed = int(rng.integers(2**32))
            pictures = [augment(picture, np.random.default_rng(seed)) for picture in pictures]
        return np.stack([self.encoder.preprocess(picture) for picture in pictures])

    def _picture(self, path: Path) -> np.ndarray:
        with _readable_before(path):
            return read_picture(path, max_pixels=self.max_pixels, at_least=self.encoder.at_least)

    def _frames(self, path: Path, frames: int) -> list[np.ndarray]:
        limits = {"max_pixels": self.max_pixels, "at_least": self.encoder.at_least}
        with _readable_before(path):
            return read_frames(path, frames=frames, **limits)


@contextmanager
def _readable_before(path: Path) -> Iterator[None]:
    """Raises InputError where a file that `embed` could read has been damaged or removed since."""
    try:
        yield
    except MediaError as error:
        raise InputError(f"{path}: {error}; `embed` could read it: restore it, or run `dvc repro embed`") from None
