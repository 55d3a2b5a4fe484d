"""Where texts and pictures are encoded: in this process, or in those of a Ray cluster. Both make the same vectors."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from pipeline.core.layout import Layout
from pipeline.encoders import ray_engine
from pipeline.encoders.ray_engine import Divided, Pool, RaySource
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

    def source(self, modality: Divided, steps: Steps) -> ModalitySource:
        """The modality's content, encoded there; ``steps`` are what the params in force give."""
        return steps if self.pool is None else RaySource(modality, steps, self.pool)


@contextmanager
def opened(params: Params, layout: Layout) -> Iterator[Engine]:
    """The engine that params ``embed.engine`` name; processes that it started end with it.

    Raises InputError where Ray is not there, or its cluster cannot do the work.
    """
    if params.embed.engine == "local":
        yield Engine(pick(params.device))
    else:
        with ray_engine.started(params.embed, layout.root / params.posts.media) as pool:
            yield Engine(pool.device, pool)
