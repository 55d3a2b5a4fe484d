"""Works of ``benchmarks.run``: eight frames of a clip, against other readers, and whether they are the right ones.

Right is the frame on screen at the middle of each of eight equal intervals, by presentation time, as a full sequential
decode by PyAV finds it. Peers are told the numbers of these frames.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from benchmarks.measuring import OURS, Work, peers
from pipeline.media.clips import read_frames

FRAMES = 8
CLOSE = 6.0
"""Mean difference in gray levels up to which two pictures are one frame: readers round colours differently."""

Pictures = list[list[np.ndarray]]


@dataclass(frozen=True)
class Wanted:
    """One clip, and the numbers of its frames that are wanted."""

    path: Path
    numbers: Sequence[int]


def clips(paths: Sequence[Path], name: str) -> Work:
    wanted = [Wanted(path, _numbers(path)) for path in paths]
    here, missing = peers(["decord", "cv2"])
    readers: dict[str, Callable[[Wanted], list[np.ndarray]]] = {OURS: _ours, "PyAV in sequence": _sequence}
    if "decord" in here:
        readers["decord"] = _decord(here["decord"])
    if "cv2" in here:
        readers["OpenCV"] = _opencv(here["cv2"])
    truth = [_sequence(of) for of in wanted]
    ways: dict[str, Callable[[], Any]] = {}
    for way, read in readers.items():
        try:
            read(wanted[0])
        except Exception as error:  # a reader that cannot open this kind of clip is named, and left out
            missing[way] = f"cannot read it ({type(error).__name__}: {' '.join(str(error).split())[:120]})"
        else:
            ways[way] = lambda read=read: [read(of) for of in wanted]
    return Work(f"8 frames of {name}", "clips", len(wanted), ways, 1.0, lambda given: exact(given, truth), missing)


def _ours(of: Wanted) -> list[np.ndarray]:
    return read_frames(of.path, frames=FRAMES, max_pixels=50_000_000)


def _sequence(of: Wanted) -> list[np.ndarray]:
    with av.open(str(of.path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        frames = enumerate(container.decode(video=0))
        last = max(of.numbers)
        kept = {}
        for number, frame in frames:
            if number in of.numbers:
                kept[number] = frame.to_ndarray(format="rgb24")
            if number >= last:
                break
    return [kept[number] for number in of.numbers]


def _decord(package: Any) -> Callable[[Wanted], list[np.ndarray]]:
    def read(of: Wanted) -> list[np.ndarray]:
        reader = package.VideoReader(str(of.path), num_threads=1)
        return list(reader.get_batch(list(of.numbers)).asnumpy())

    return read


def _opencv(package: Any) -> Callable[[Wanted], list[np.ndarray]]:
    package.setNumThreads(1)

    def read(of: Wanted) -> list[np.ndarray]:
        capture = package.VideoCapture(str(of.path), package.CAP_FFMPEG, [package.CAP_PROP_N_THREADS, 1])
        pictures = []
        for number in of.numbers:
            capture.set(package.CAP_PROP_POS_FRAMES, number)
            good, picture = capture.read()
            if not good:
                raise ValueError(f"no frame {number}")
            pictures.append(package.cvtColor(picture, package.COLOR_BGR2RGB))
        capture.release()
        return pictures

    return read


def _numbers(path: Path) -> list[int]:
    """Numbers, in order of presentation, of the frames at the middles of eight equal intervals."""
    with av.open(str(path)) as container:
        shown = [(frame.pts, frame.duration) for frame in container.decode(video=0) if frame.pts is not None]
        stream = container.streams.video[0]
        starts = np.array([pts for pts, _ in shown])
        end = starts[-1] + (shown[-1][1] or int(np.median(np.diff(starts))))
        if stream.duration:
            end = max(min(end, starts[0] + stream.duration), starts[-1] + 1)
    middles = starts[0] + (np.arange(FRAMES) + 0.5) / FRAMES * (end - starts[0])
    return np.unique(np.searchsorted(starts, middles, side="right") - 1).tolist()


def exact(given: Mapping[str, Pictures], truth: Pictures) -> str:
    """How many of the frames of each way are the right ones."""
    said = []
    for way, clips_of in given.items():
        pairs = [pair for ours, right in zip(clips_of, truth, strict=True) for pair in _paired(ours, right)]
        said.append(f"{way} {sum(map(_alike, pairs))} of {len(pairs)} frames right")
    return ", ".join(said)


def _paired(given: list[np.ndarray], right: list[np.ndarray]) -> list[tuple[np.ndarray | None, np.ndarray]]:
    return [(given[at] if at < len(given) else None, picture) for at, picture in enumerate(right)]


def _alike(pair: tuple[np.ndarray | None, np.ndarray]) -> bool:
    given, right = pair
    if given is None or given.shape != right.shape:
        return False
    return float(np.abs(given.astype(np.int16) - right).mean()) < CLOSE


# --- made clips ------------------------------------------------------------------------------------------------------


def make_clips(folder: Path) -> dict[str, Path]:
    """What benchmarks ask for; each frame has its number as a pattern of large black and white squares."""
    folder.mkdir(parents=True, exist_ok=True)
    hd = [picture(at, 1280, 720) for at in range(600)]
    small = [picture(at, 640, 360) for at in range(240)]
    made = {
        "720p, 20 s, keyframe every 30": _encode(folder / "gop30.mp4", hd, "libx264", {"g": "30"}),
        "720p, 20 s, keyframe every 250": _encode(folder / "gop250.mp4", hd, "libx264", {"g": "250"}),
        "WebM (VP8, 360p, 8 s)": _encode(folder / "vp8.webm", small, "libvpx", {"deadline": "realtime"}),
        "variable frame rate (360p)": _encode(folder / "vfr.mp4", small, "libx264", {"g": "60"}, uneven=True),
    }
    gif = folder / "moving.gif"
    pages = [Image.fromarray(of[::2, ::2]).quantize(64) for of in small[:90]]
    pages[0].save(gif, save_all=True, append_images=pages[1:], duration=50)
    return made | {"GIF (180p, 90 frames)": gif}


def picture(number: int, width: int, height: int) -> np.ndarray:
    """uint8 [height, width, 3]: the number in ten squares above a moving slope of gray with grain."""
    across = (np.arange(width)[None, :] + 7 * number) % width * 160 // width
    grain = np.random.default_rng(number % 16).integers(0, 32, (height // 4, width // 4)).repeat(4, 0).repeat(4, 1)
    gray = np.broadcast_to(across, (height, width)) + grain
    side = width // 10
    for bit in range(10):
        gray[:side, bit * side : (bit + 1) * side] = 235 if number >> bit & 1 else 20
    return np.repeat(gray.astype(np.uint8)[:, :, None], 3, axis=2)


def _encode(
    path: Path, frames: Sequence[np.ndarray], codec: str, options: dict[str, str], *, uneven: bool = False
) -> Path:
    """At 30 frames a second; ``uneven``: every third frame stays four times as long."""
    base = Fraction(1, 90_000)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=30, options={"threads": "1", **options})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        stream.codec_context.time_base = base
        at = 0
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = at, base
            at += 3000 * (4 if uneven and number % 3 == 0 else 1)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
