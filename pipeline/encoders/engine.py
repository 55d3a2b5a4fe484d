"""Where texts, pictures and clips are encoded: in this process, or in those of a Ray cluster; both make the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.core.schemas import Modality
from pipeline.encoders import ray_engine
from pipeline.encoders.clip_streams import ClipContents, ClipSource
from pipeline.encoders.ray_engine import Pool, RaySource
from pipeline.encoders.sources import ModalitySource, Steps
from pipeline.params import Params
from pipeline.training.device import pick


@dataclass(frozen=True)
class Engine:
    """Attributes:
    device: where encoders compute.
    pool: the processes of a cluster; None: this one.
    """

    device: torch.device
    pool: Pool | None = None

    def source(self, modality: Modality, steps: Steps) -> ModalitySource:
        """The modality's content, encoded there; ``steps`` are what the params in force give."""
        return steps if self.pool is None else RaySource(modality, steps, self.pool)

    def clips(self, modality: Modality, contents: ClipContents) -> ClipSource:
        """The same of clips, and of pictures that are read by streams."""
        return contents if self.pool is None else RaySource(modality, contents, self.pool)


@contextmanager
def opened(params: Params, folder: Path, *, transcribe: bool = False) -> Iterator[Engine]:
    """The engine that params ``embed.engine`` name; processes that it started end with it.

    Args:
        folder: of the media.
        transcribe: whether what is said in clips is asked for, though it is no stream.

    Raises InputError where Ray is not there, or its cluster cannot do the work.
    """
    if params.embed.engine == "local":
        yield Engine(pick(params.device))
    else:
        with ray_engine.started(params.embed, folder, transcribe=transcribe) as pool:
            yield Engine(pool.device, pool)
