"""Where contents are encoded: in this process, or in those of a Ray cluster. Either writes the same vectors."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.core.layout import Layout
from pipeline.core.schemas import Modality
from pipeline.encoders import ray_engine
from pipeline.encoders.contents import load_steps
from pipeline.encoders.sources import ModalitySource
from pipeline.params import Params
from pipeline.training.device import pick


@contextmanager
def opened(params: Params, layout: Layout) -> Iterator[Callable[[Modality], ModalitySource]]:
    """What loads a modality's content as params ``embed.engine`` say; processes that it started end with it.

    Raises InputError where Ray is not there, or its cluster cannot do the work.
    """
    embed, folder = params.embed, layout.root / params.posts.media
    if embed.engine == "ray":
        with ray_engine.started(embed, folder) as pool:
            yield lambda modality: pool.source(modality, load_steps(modality, embed, folder, pool.device))
    else:
        device = pick(params.device)
        yield lambda modality: load_steps(modality, embed, folder, device)
