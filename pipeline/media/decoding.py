"""The frames of a clip at given times, decoded from the keyframes before them and from nowhere else."""

import math
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pipeline.core.files import MediaError
from pipeline.media.limits import MediaLimits, check_size
from pipeline.media.sampling import Frames, uniform
from pipeline.media.timeline import Timeline, start_of


def shown_frames(
    container: InputContainer, stream: VideoStream, timeline: Timeline, requests: Sequence[Frames], limits: MediaLimits
) -> dict[Frames, list[np.ndarray]]:
    """A frame that cannot be decoded is stood in for by the next one, which is taken once if it is wanted as well."""
    chosen = {request: timeline.starts[uniform(timeline.starts, timeline.end, request[0])] for request in requests}
    shown: dict[Frames, list[np.ndarray]] = {request: [] for request in requests}
    ticks = np.unique(np.concatenate([np.array([], dtype=timeline.starts.dtype), *chosen.values()]))
    before = -math.inf
    for frame in _shown_at(ticks, container, stream, timeline, limits):
        for request, starts in chosen.items():
            if ((starts > before) & (starts <= frame.pts)).any():
                shown[request].append(_frame_rgb(frame, request[1]))
        before = frame.pts or 0
    if not all(shown.values()):
        raise MediaError("corrupt")
    return shown


def _shown_at(
    ticks: np.ndarray, container: InputContainer, stream: VideoStream, timeline: Timeline, limits: MediaLimits
) -> Iterator[VideoFrame]:
    """The frames shown from the ``ticks`` on, ascending.

    Jumps only when a keyframe lies between here and the next wanted frame: a jump back to the keyframe that is being
    played from would decode the same frames again.
    """
    here, playing = -math.inf, iter(())
    for want in ticks.tolist():
        if want <= here:
            continue
        keyframes = timeline.keyframes[: np.searchsorted(timeline.keyframes, want, side="right")]
        if keyframes[-1] > here:
            playing = _jump(want, keyframes, container, stream, set(ticks.tolist()), limits)
        frame = next((frame for frame in playing if frame.pts is not None and frame.pts >= want), None)
        if frame is None:
            return
        check_size(frame.width, frame.height, limits.max_pixels)  # a stream may change its size on the way
        here = frame.pts
        yield frame


def _jump(
    want: int,
    keyframes: np.ndarray,
    container: InputContainer,
    stream: VideoStream,
    needed: set[int],
    limits: MediaLimits,
) -> Iterator[VideoFrame]:
    """Plays from the last of ``keyframes`` on, or from an earlier one if the container lands beyond ``want``.

    Containers are searched by decoding time, which runs ahead of presentation time by as much as the codec reorders;
    mp4, asked for a keyframe's own time, may go back to the one before, and asked for ``want`` does so only if it must.
    """
    for ticks in [want, *reversed(keyframes.tolist())]:
        container.seek(ticks, stream=stream)
        playing = _play(container, stream, needed, limits)
        first = next(playing, None)
        if first is not None and first.pts is not None and (first.pts <= want or ticks == keyframes[0]):
            return chain([first], playing)
    return iter(())


def _play(
    container: InputContainer, stream: VideoStream, needed: set[int], limits: MediaLimits
) -> Iterator[VideoFrame]:
    """Decodes on from where the container stands, except frames that nobody wants and no other frame refers to."""
    for packet in container.demux(stream):
        limits.check_time()
        stream.codec_context.skip_frame = "DEFAULT" if start_of(packet) in needed else "NONREF"
        yield from packet.decode()


def _frame_rgb(frame: VideoFrame, at_least: int | None) -> np.ndarray:
    factor = max(min(frame.width, frame.height) // at_least, 1) if at_least else 1
    small = frame.reformat(frame.width // factor, frame.height // factor, "rgb24", interpolation="AREA")
    picture = small.to_ndarray()
    turns = round(frame.rotation / 90) % 4  # the display matrix's angle, anticlockwise as numpy's
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture
