"""The sound of a clip, mono and at one rate, as its packets pass by."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet

from pipeline.core.files import MediaError
from pipeline.media.kinds import NO_SOUND, UNDECODED, UNKNOWN_CODEC
from pipeline.media.limits import MediaLimits

SOUND_RATE = 16_000
"""Samples of sound a second, as encoders of speech have it: what carries a voice lies below half of that."""


@dataclass
class SoundReader:
    """The beginning of a clip's sound as its packets pass by: at most so many ``seconds``, whatever the clip's length.

    Channels are averaged here and not by FFmpeg, which for floats adds them, so that stereo would be louder than mono.

    Attributes:
        stream: the one that players take; None where there is no audio track to decode.
        silence: why there is no sound.
    """

    stream: AudioStream | None
    seconds: float
    silence: str
    parts: list[np.ndarray] = field(default_factory=list)
    samples: int = 0
    resampler: AudioResampler | None = None

    @property
    def streams(self) -> list[AudioStream]:
        return [] if self.stream is None else [self.stream]

    def take(self, packet: Packet) -> None:
        """A packet that is damaged is left out, as players do: MP3's first one often refers to sound cut away."""
        if self.samples >= self.seconds * SOUND_RATE:
            return
        try:
            frames = packet.decode()
        except FFmpegError:
            return
        for frame in frames:
            assert isinstance(frame, AudioFrame)
            self._add(frame)
        if packet.size == 0:
            self._add(None)

    def _add(self, frame: AudioFrame | None) -> None:
        """``None`` ends the sound; a stream that changes its rate or its channels on the way gets a new resampler."""
        if self.resampler is None:
            if frame is None:
                return None
            # Channels side by side in one plane: of more planes than eight PyAV reads memory that is not theirs.
            self.resampler = AudioResampler("flt", frame.layout, SOUND_RATE)
        try:
            resampled = self.resampler.resample(frame)
        except ValueError:
            resampled, self.resampler = self.resampler.resample(None), None
            self._keep(resampled)
            return self._add(frame)
        return self._keep(resampled)

    def _keep(self, frames: Sequence[AudioFrame]) -> None:
        for frame in frames:
            part = frame.to_ndarray().reshape(-1, frame.layout.nb_channels).mean(axis=1, dtype=np.float32)
            self.parts.append(part)
            self.samples += len(part)

    def decoded_sound(self) -> np.ndarray | MediaError:
        """float32 [samples], or why there is no sound."""
        if not self.samples:
            return MediaError(f"{NO_SOUND}: {self.silence}")
        return np.nan_to_num(np.concatenate(self.parts)[: int(self.seconds * SOUND_RATE)])


def open_sound(container: InputContainer, seconds: float) -> SoundReader:
    stream = container.streams.best("audio") if seconds > 0 else None
    if not isinstance(stream, AudioStream):
        return SoundReader(None, seconds, "no audio track")
    if stream.codec_context is None:
        return SoundReader(None, seconds, UNKNOWN_CODEC)
    stream.codec_context.thread_count = 1
    return SoundReader(stream, seconds, UNDECODED)


def read_sound(container: InputContainer, sound_reader: SoundReader, limits: MediaLimits) -> None:
    """Takes in the sound of a clip without pictures."""
    if sound_reader.stream is None:
        return
    read = 0
    for packet in container.demux(sound_reader.stream):
        limits.check_time()
        read += packet.size > 0
        if packet.pts is not None:
            limits.check_duration(float(packet.pts * (sound_reader.stream.time_base or 0)))
        sound_reader.take(packet)
    if read < len(sound_reader.stream.index_entries):
        raise MediaError("truncated")
