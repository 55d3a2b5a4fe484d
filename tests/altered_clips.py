"""Drawn clips, and what people do to a clip before they post it again."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.stream import VideoStream
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from scipy.ndimage import gaussian_filter1d

from tests.altered import scene

RATE = 16_000
"""Samples a second of the sound of a drawn clip."""
FPS = 25


def drawn_clip(target: Path, place: int, take: int, seconds: float = 4.0) -> None:
    """A clip of a scene before which some discs move, and some tones sound, otherwise in each take; 160 by 120."""
    rng = np.random.default_rng([place, take])
    ground, count = scene(place).resize((160, 120)), round(seconds * FPS)
    paths = gaussian_filter1d(rng.normal(size=(count, 5, 2)), 5, axis=0)
    paths = [80, 60] + 40 * (paths - paths.mean(axis=0)) / paths.std(axis=0)
    shown = []
    for at in range(count):
        picture = ground.copy()
        draw = ImageDraw.Draw(picture)
        for disc, (x, y) in enumerate(paths[at].tolist()):
            shade = (50 * disc, 255 - 50 * disc, 128)
            draw.ellipse((x - 8, y - 8, x + 8, y + 8), fill=shade)
        shown.append((at / FPS, picture))
    loudness = np.repeat(rng.uniform(0, 0.1, size=(round(10 * seconds), 20)), RATE // 10, axis=0)
    phase = 2 * np.pi * np.geomspace(160, 5500, 20) * np.arange(len(loudness))[:, None] / RATE
    write_clip(target, shown, (loudness * np.sin(phase)).sum(axis=1).astype(np.float32), crf=20)


@dataclass(frozen=True)
class Alteration:
    """How a clip is encoded anew.

    Attributes:
        picture: what is done to each frame.
        crf: the quality of the pictures, lower is better; 23 is what x264 takes by itself.
        late: seconds that are cut off the beginning.
        early: seconds that are cut off the end.
        every: of so many frames one is kept.
        sound: whether the sound is kept.
        codec: of the pictures.
    """

    picture: Callable[[Image.Image], Image.Image] = lambda picture: picture
    crf: int = 26
    late: float = 0.0
    early: float = 0.0
    every: int = 1
    sound: bool = True
    codec: str = "libx264"


def _scaled(factor: float) -> Callable[[Image.Image], Image.Image]:
    return lambda picture: picture.resize((_even(picture.width * factor), _even(picture.height * factor)))


def _even(size: float) -> int:
    return 2 * round(size / 2)


def _side(picture: Image.Image) -> Image.Image:
    """Without a twentieth of either side, at the left and the bottom."""
    width, height = picture.size
    return picture.crop((width // 20, 0, width, height - height // 20))


def _edges(picture: Image.Image) -> Image.Image:
    """Without a twentieth at each of the four edges."""
    return ImageOps.crop(picture, (picture.width // 20, picture.height // 20) * 2)


ALTERED_CLIPS: dict[str, Alteration] = {
    "encoded anew": Alteration(),
    "encoded badly": Alteration(crf=38),
    "encoded as VP9": Alteration(codec="libvpx-vp9", crf=40),
    "half the size": Alteration(_scaled(0.5)),
    "twice the size": Alteration(_scaled(2)),
    "cropped by 5 % of each side": Alteration(_side),
    "cropped by 5 % at each edge": Alteration(_edges),
    "without the first second": Alteration(late=1.0),
    "without the last second": Alteration(early=1.0),
    "mirrored": Alteration(ImageOps.mirror),
    "half the frames": Alteration(every=2),
    "without sound": Alteration(sound=False),
    "brightened by 40 %": Alteration(lambda picture: ImageEnhance.Brightness(picture).enhance(1.4)),
    "greyed": Alteration(lambda picture: ImageOps.grayscale(picture).convert("RGB")),
    "mirrored, cropped, half the size, no first second": Alteration(
        lambda picture: ImageOps.mirror(_scaled(0.5)(_edges(picture))), late=1.0, crf=30
    ),
}
"""Kind → how it is done."""


def alter_clip(source: Path, target: Path, how: Alteration) -> None:
    """Writes ``target``, mp4 or mkv by its name."""
    frames = frames_of(source)
    start, end = frames[0][0] + how.late, frames[-1][0] - how.early
    shown = [(at - start, how.picture(picture)) for at, picture in frames if start <= at <= end][:: how.every]
    heard = _sound(source, how.late, end - start + 1 / FPS) if how.sound else np.zeros(0, dtype=np.float32)
    write_clip(target, shown, heard, codec=how.codec, crf=how.crf)


def frames_of(source: Path) -> list[tuple[float, Image.Image]]:
    """All frames, and when they are shown, in seconds."""
    with av.open(str(source)) as file:
        return [(frame.time, frame.to_image()) for frame in file.decode(file.streams.video[0])]


def _sound(source: Path, start: float, seconds: float) -> np.ndarray:
    with av.open(str(source)) as before:
        if not before.streams.audio:
            return np.zeros(0, dtype=np.float32)
        resampler = av.AudioResampler("fltp", "mono", RATE)
        parts = [part for frame in before.decode(before.streams.audio[0]) for part in resampler.resample(frame)]
        samples = np.concatenate([part.to_ndarray()[0] for part in [*parts, *resampler.resample(None)]])
    return samples[round(start * RATE) : round((start + seconds) * RATE)]


def write_clip(
    target: Path,
    shown: list[tuple[float, Image.Image]],
    heard: np.ndarray,
    *,
    codec: str = "libx264",
    crf: int = 26,
) -> None:
    """Frames with the second at which each is shown, and samples of sound, float32, ``RATE`` a second."""
    options = {"crf": str(crf)} | ({"preset": "veryfast"} if codec == "libx264" else {"b": "0", "cpu-used": "8"})
    with av.open(str(target), "w") as file:
        video = file.add_stream(codec, rate=FPS, options=options)
        assert isinstance(video, VideoStream)
        video.width, video.height = (_even(side - 0.5) for side in shown[0][1].size)
        video.pix_fmt, video.codec_context.time_base = "yuv420p", Fraction(1, 1000)
        video.codec_context.thread_count = 1
        audio = file.add_stream("aac", rate=RATE, layout="mono") if len(heard) else None
        assert audio is None or isinstance(audio, AudioStream)
        for at, picture in shown:
            frame = av.VideoFrame.from_image(picture.resize((video.width, video.height)))
            frame.pts, frame.time_base = round(1000 * at), Fraction(1, 1000)
            file.mux(video.encode(frame))
        file.mux(video.encode())
        if audio is not None:
            sound = av.AudioFrame.from_ndarray(heard[None], format="fltp", layout="mono")
            sound.sample_rate, sound.pts, sound.time_base = RATE, 0, Fraction(1, RATE)
            file.mux(audio.encode(sound))
            file.mux(audio.encode())
