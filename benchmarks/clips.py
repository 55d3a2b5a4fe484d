"""What each stream of a clip says of unseen people, and what it costs.

    python -m benchmarks.clips FOLDER [SETTINGS]            macro-F1
    python -m benchmarks.clips FOLDER [SETTINGS] --cost [--clips 20]    seconds and memory

SETTINGS are of the block ``embed.video``, as JSON: ``'{"speech": {"encoder": "whisper"}}'``. FOLDER holds
``manifest.parquet`` (``id video label group``) and its clips. Each group is left out in turn as the test part, another
one validates, and the video specialist learns from the rest; macro-F1 is that of all clips so predicted, its interval
is over groups. The cost is that of reading and encoding so many clips one by one, as ``predict --video`` does, in a
fresh process for each set of streams: seconds a clip by the clock and of the processor, and the most memory that the
process held when its encoders were loaded, and when all was done.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.measuring import most_memory
from pipeline.core import artifacts
from pipeline.core.descriptions import read_description
from pipeline.core.layout import Layout
from pipeline.encoders import streams
from pipeline.media.clips import read_clip
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
            ends = intervals.interval_metrics(drawn, 0.95)
            regime = "standardised within its group" if per_group else "each clip by itself"
            shown = " ".join(f"{key} {value:.3f}" for key, value in ends.items())
            print(f"{'+'.join(names):26} {regime:30} macro-F1 {drawn.value:.3f} {shown}", flush=True)


# --- the cost --------------------------------------------------------------------------------------------------------


def costs(folder: Path, settings: dict, clips: int) -> None:
    """A line of Markdown for each set of streams; those whose weights are not at hand are left out, with the reason."""
    print("| streams | s a clip | processor s a clip | MB loaded | MB at most |\n|---|---|---|---|---|")
    for names in (*SETS[:-1], ("transcript",), ("words",), ALL):
        command = [sys.executable, "-m", "benchmarks.clips", str(folder), json.dumps(settings), "--clips", str(clips)]
        done = subprocess.run([*command, "--streams", ",".join(names)], capture_output=True, text=True, check=False)
        cells = done.stdout.strip() if done.returncode == 0 else done.stderr.strip().splitlines()[-1]
        print(f"| {', '.join(names)} | {cells} |", flush=True)


def cost(folder: Path, settings: dict, clips: int) -> str:
    """The cells of one set of streams, measured in this process."""
    rows = pd.read_parquet(folder / "manifest.parquet")
    some, device = rows["video"].head(clips), pick("cpu")
    encoder = streams.load(Params.model_validate({"embed": {"video": settings}}).embed)
    loaded, wall, processor = most_memory(), time.perf_counter(), time.process_time()
    for value in some:
        clip = read_clip(folder / value, max_pixels=50_000_000, **encoder.read_request())
        encoder.encode([encoder.prepare(clip)], device)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    each = f"{wall / len(some):.2f} | {processor / len(some):.2f}"
    return f"{each} | {loaded:.0f} | {most_memory():.0f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("settings", type=json.loads, nargs="?", default={})
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--clips", type=int, default=20, help="how many the cost is measured on")
    parser.add_argument("--streams", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.streams:
        print(cost(given.folder, given.settings | {"streams": given.streams.split(",")}, given.clips))
    elif given.cost:
        costs(given.folder, given.settings, given.clips)
    else:
        main(given.folder, given.settings)
