"""The frames of animated pictures, each of which is built on the one before, so that all are unpacked in order."""

from collections.abc import Iterator, Sequence
from io import BufferedReader

import numpy as np
from PIL import GifImagePlugin, Image, PngImagePlugin, WebPImagePlugin

from pipeline.media.limits import MediaLimits, check_size
from pipeline.media.pictures import opened, rgb
from pipeline.media.sampling import Frames, uniform

ANIMATED = (GifImagePlugin.GifImageFile, PngImagePlugin.PngImageFile, WebPImagePlugin.WebPImageFile)
"""Pillow's readers of pictures that may have several frames, and so be clips."""


HELD_BYTES = 64_000_000
"""Of the frames of an animated picture, which are all held while it is unpacked once, instead of twice."""


def animation_frames(
    handle: BufferedReader, requests: Sequence[Frames], limits: MediaLimits
) -> dict[Frames, list[np.ndarray]]:
    """These formats build each frame on the one before, so they are unpacked from the start: for the times, which say
    what frames are wanted, and, where all of them would be too many to hold, again for the pixels."""
    with opened(handle, limits.max_pixels) as image:
        held = getattr(image, "n_frames", 1) * image.width * image.height * 3 <= HELD_BYTES
        starts, end, pixels, size = [], 0.0, {}, 0
        for at in each_frame(image, limits):
            starts.append(end)
            end += max(float(image.info.get("duration", 0)), 1.0)
            limits.check_duration(end / 1000)
            size += image.width * image.height * 3  # a frame may be larger than those before
            held = held and size <= HELD_BYTES
            if held:
                pixels[at] = rgb(image)
        chosen = {request: uniform(np.array(starts), end, request[0]).tolist() for request in requests}
        if not held:
            needed = {at for those in chosen.values() for at in those}
            pixels = {at: rgb(image) for at in each_frame(image, limits) if at in needed}
        return {request: [pixels[at] for at in those] for request, those in chosen.items()}


def each_frame(image: Image.Image, limits: MediaLimits) -> Iterator[int]:
    for at in range(getattr(image, "n_frames", 1)):
        limits.check_time()
        image.seek(at)
        check_size(image.width, image.height, limits.max_pixels)  # a frame may enlarge the picture
        image.load()
        yield at
