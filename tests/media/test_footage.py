from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.core.files import MediaError
from pipeline.media.footage import pictures_digest


def test_a_clip_in_another_container_is_the_same_clip(tmp_path: Path) -> None:
    made = {}
    for name, shift in (("one.mp4", 0), ("two.mp4", 40)):
        with av.open(str(tmp_path / name), "w") as file:
            stream = file.add_stream("mpeg4", rate=10)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for at in range(8):
                picture = np.full((48, 64, 3), 20 * at + shift, dtype=np.uint8)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            file.mux(stream.encode(None))
        made[name] = pictures_digest(tmp_path / name)
    with av.open(str(tmp_path / "one.mp4")) as before, av.open(str(tmp_path / "one.mkv"), "w") as after:
        copied = after.add_stream_from_template(before.streams.video[0])
        for packet in before.demux(before.streams.video[0]):
            if packet.dts is not None:
                packet.stream = copied
                after.mux(packet)
    assert pictures_digest(tmp_path / "one.mkv") == made["one.mp4"] != made["two.mp4"]
    (tmp_path / "none.mp4").write_bytes(b"no clip")
    with pytest.raises(MediaError, match="not a clip"):
        pictures_digest(tmp_path / "none.mp4")
