"""What each stream of a clip says of unseen people: ``python -m benchmarks.clips FOLDER [SETTINGS]``.

SETTINGS are of the block ``embed.video``, as JSON: ``'{"speech": {"encoder": "whisper"}}'``. FOLDER holds
``manifest.parquet`` (``id video label group``) and its clips. Each group is left out in turn as the test part, another
one validates, and the video specialist learns from the rest; macro-F1 is that of all clips so predicted, its interval
is over groups. Then the seconds that reading and encoding take a clip, and by how much memory grows.
"""

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.core import artifacts
from pipeline.core.descriptions import read_description
from pipeline.core.layout import Layout
from pipeline.encoders import streams
from pipeline.media import read_clip
from pipeline.params import Params
from pipeline.posts.descriptions import SpecialistDescription
from pipeline.scoring import intervals
from pipeline.stages import embed, split, train_video
from pipeline.training.device import pick

ALL = ("faces", "frames", "sound", "speech")
SETS = (("frames",), ("sound",), ("frames", "sound"), ("speech",), ("faces",), ALL)


def project(
    folder: Path, media: Path, rows: pd.DataFrame, held: str, validated: str, video: dict
) -> tuple[Params, Layout]:
    """A project in ``folder`` whose test part is the group ``held``."""
    parts = rows["group"].map({held: "test", validated: "val"}).fillna("train")
    videos = [str(media.resolve() / video) for video in rows["video"]]
    rows.assign(split=parts, video=videos).to_csv(folder / "manifest.csv", index=False)
    settings = {
        "tracks": ["posts"],
        "posts": {"manifest": "manifest.csv", "media": str(media.resolve())},
        "embed": {"video": video},
        "specialist": {"candidates": ["majority", "stream_logreg", "logreg"]},
    }
    return Params.model_validate(settings), Layout(folder)


def left_out(rows: pd.DataFrame, media: Path, video: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class, prediction and group of every clip, predicted by a model that saw nothing of its group."""
    groups = sorted(rows["group"].unique())
    actual, predicted, of_group = [], [], []
    for at, held in enumerate(groups):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            params, layout = project(folder, media, rows, held, groups[at - 1], video)
            for stage in (split, embed, train_video):
                stage.run(params, layout)
            description = read_description(layout.model("train_video"), SpecialistDescription)
            found = artifacts.read_predictions(layout.predictions("train_video"), len(description.labels))
            found = found.where((found.rows["split"] == "test").to_numpy())
            codes = description.calibration.decide(description.calibration.calibrated(found.logits))
            labels = artifacts.read_posts(layout.table("posts")).set_index("sample_id")["label"]
            actual += [description.labels.index(labels[key]) for key in found.rows["sample_id"]]
            predicted += codes.tolist()
            of_group += [held] * len(codes)
    return np.array(actual), np.array(predicted), np.array(of_group)


def main(folder: Path, settings: dict) -> None:
    os.environ.setdefault("EMOCARE_CACHE", tempfile.mkdtemp())
    rows = pd.read_parquet(folder / "manifest.parquet")[["id", "video", "label", "group"]]
    for per_group in (False, True):
        for names in SETS:
            actual, predicted, groups = left_out(
                rows, folder, settings | {"streams": list(names), "per_group": per_group}
            )
            classes = int(actual.max()) + 1
            drawn = intervals.resampled_macro_f1(actual, predicted, groups, classes, 2000, 42)
            ends = intervals.ends(drawn, 0.95)
            regime = "standardised within its group" if per_group else "each clip by itself"
            shown = " ".join(f"{key} {value:.3f}" for key, value in ends.items())
            print(f"{'+'.join(names):26} {regime:30} macro-F1 {drawn.value:.3f} {shown}", flush=True)
    timing(folder, rows, settings)


def timing(folder: Path, rows: pd.DataFrame, settings: dict) -> None:
    """Seconds a clip, of twenty, by what is asked of it, and by how much the process grew meanwhile."""
    some, device = rows["video"].head(20), pick("cpu")
    for names in SETS:
        block = settings | {"streams": list(names)}
        encoder = streams.load(Params.model_validate({"embed": {"video": block}}).embed)
        before, start = most_memory(), time.perf_counter()
        for value in some:
            clip = read_clip(folder / value, max_pixels=50_000_000, **encoder.asks())
            encoder.encode([encoder.prepare(clip)], device)
        seconds = (time.perf_counter() - start) / len(some)
        print(f"{'+'.join(names):26} {seconds:.3f} s a clip, {most_memory() - before:.0f} MB more", flush=True)


def most_memory() -> float:
    """The most that this process has held so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]) if len(sys.argv) > 2 else {})
