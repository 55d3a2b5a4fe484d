"""Posts to click on the page, drawn as the built-in corpus is: made up, so that nobody's post is shown."""

import io
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.core.schemas import MODALITIES, Modality
from pipeline.synthetic.drawing import CLIP_FPS, Mood, render_clip, render_picture

CLIP_SECONDS = 2


@dataclass(frozen=True)
class Example:
    """A post as a page gives it: ``media`` is the bytes of a JPEG picture or a GIF clip."""

    name: str
    text: str
    image: bytes | None = None
    video: bytes | None = None


def examples(modalities: Collection[Modality] = MODALITIES) -> list[Example]:
    """Those that have nothing but these modalities."""
    drawn = [
        Example("A text", "why would anyone do this, I am so mad right now"),
        Example("Text and picture", "my whole week in one picture", image=_picture("happy", "best week / ever")),
        Example("Words against picture", "great. just great.", image=_picture("angry", "monday / again")),
        Example("A clip", "", video=_clip("surprised", "wait for it")),
    ]
    return [example for example in drawn if all(name in modalities for name in MODALITIES if getattr(example, name))]


def _picture(mood: Mood, caption: str) -> bytes:
    file = io.BytesIO()
    render_picture(mood, caption, np.random.default_rng(3)).save(file, "JPEG", quality=85)
    return file.getvalue()


def _clip(mood: Mood, caption: str) -> bytes:
    frames = list(render_clip(mood, caption, np.random.default_rng(3)))[: CLIP_SECONDS * CLIP_FPS : 2]
    first, *rest = (frame.quantize(64, dither=Image.Dither.NONE) for frame in frames)
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=rest, duration=2000 // CLIP_FPS, loop=0)
    return file.getvalue()
