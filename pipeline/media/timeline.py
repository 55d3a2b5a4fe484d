"""When the frames of a clip are shown, read from its packets without decoding pictures."""

from dataclasses import dataclass

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from pipeline.core.files import MediaError
from pipeline.media.limits import MediaLimits, check_size
from pipeline.media.sound import SoundReader


@dataclass(frozen=True)
class Timeline:
    """When the frames of a clip are shown, in ticks of its stream: ascending ``starts``, those of its keyframes."""

    starts: np.ndarray
    keyframes: np.ndarray
    end: int


def read_timeline(
    container: InputContainer, stream: VideoStream, sound_reader: SoundReader, limits: MediaLimits
) -> Timeline:
    """Reads all packets without decoding pictures, which finds every frame's time, and the keyframes, in any container.

    What is heard on the way is decoded at once, so that the file is read and its sound decoded once.
    """
    check_size(stream.codec_context.width, stream.codec_context.height, limits.max_pixels)
    read, shown, cut = 0, [], False
    for packet in container.demux(stream, *sound_reader.streams):
        limits.check_time()
        if packet.stream is not stream:
            sound_reader.take(packet)
            continue
        start = start_of(packet)
        if start is None:
            continue  # the empty packet that ends the stream
        read += 1
        cut = cut or packet.is_corrupt
        if not packet.is_discard:
            shown.append((start, packet.is_keyframe, packet.duration or 0))
    if cut or read < len(stream.index_entries):
        raise MediaError("truncated")
    if not shown:
        raise MediaError("no frames")
    starts = np.unique([start for start, _, _ in shown])
    keyframes = np.unique([start for start, is_keyframe, _ in shown if is_keyframe or start == starts[0]])
    timeline = Timeline(starts, keyframes, _end(starts, max(shown)[2], stream))
    if _ends_early(timeline, stream):
        raise MediaError("truncated")
    limits.check_duration(float((timeline.end - starts[0]) * (stream.time_base or 0)))
    return timeline


def _end(starts: np.ndarray, duration: int, stream: VideoStream) -> int:
    """When the last frame leaves the screen; its ``duration`` may be wrong, for mp4 measures it by decoding time."""
    end = int(starts[-1]) + (duration or int(np.median(np.diff(starts, prepend=starts[0] - 1))))
    declared = int(starts[0]) + stream.duration if stream.duration else end
    return max(min(end, declared), int(starts[-1]) + 1)


def _ends_early(timeline: Timeline, stream: VideoStream) -> bool:
    """Whether Matroska or WebM, which have no index to compare with, hold less than the stream says that it lasts."""
    longest = int(np.diff(timeline.starts).max(initial=0))
    last = float((timeline.end + longest) * (stream.time_base or 0))
    return last + 0.1 < 0.99 * _declared(stream)


def start_of(packet: Packet) -> int | None:
    """When a packet's frame is shown; AVI knows only when it is decoded, which is within a frame or two of it."""
    return packet.pts if packet.pts is not None else packet.dts


def _declared(stream: VideoStream) -> float:
    """When a Matroska or WebM stream says that it ends, in seconds; 0 when it does not say."""
    hours, _, rest = stream.metadata.get("DURATION", "0:0:0").partition(":")
    minutes, _, seconds = rest.partition(":")
    try:
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        return 0.0
