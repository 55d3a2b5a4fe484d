"""AutoGluon MultiModal on a table of posts, by the same encoder of texts and in the same time as `train_text`.

It needs versions of its own, so this runs in an environment of its own and imports nothing of the pipeline:

    pip install "autogluon.multimodal==1.6.3"
    python benchmarks/automl_peer.py MANIFEST ENCODER --seconds 600 [--seeds 3]

Learns from the rows of split ``train`` and is scored on those of ``val``, by macro-F1; all else is its own choice.
``ENCODER`` is a local folder. Texts alone: its nets for pictures come from a hub.
"""

import argparse
import shutil
import tempfile
import time
from importlib import import_module
from pathlib import Path

import pandas as pd
import torch
from sklearn.metrics import accuracy_score, f1_score

OPERATORS = ("nms", "qnms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d")
"""Of torchvision, whose package from the index does not fit a torch for processors; texts need none of them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("encoder", type=Path)
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = pd.read_parquet(arguments.manifest, columns=["text", "label", "split"]).dropna()
    train, test = (rows[rows["split"] == part][["text", "label"]] for part in ("train", "val"))
    for seed in range(arguments.seeds):
        began, used = time.perf_counter(), time.process_time()
        said = autogluon(train, test, arguments.encoder, arguments.seconds, seed)
        macro, accuracy = f1_score(test["label"], said, average="macro"), accuracy_score(test["label"], said)
        seconds = f"{time.perf_counter() - began:.0f} s, {time.process_time() - used:.0f} of the processor"
        print(f"seed {seed}: macro-F1 {macro:.3f}, accuracy {accuracy:.3f}, {len(test)} rows, {seconds}", flush=True)


def autogluon(train: pd.DataFrame, test: pd.DataFrame, encoder: Path, seconds: int, seed: int) -> pd.Series:
    lacking = torch.library.Library("torchvision", "FRAGMENT")
    if not hasattr(torch.ops.torchvision, OPERATORS[0]):
        for name in OPERATORS:
            lacking.define(f"{name}(Tensor given) -> Tensor")
    multimodal = import_module("autogluon.multimodal")
    folder = Path(tempfile.mkdtemp())
    shutil.rmtree(folder)  # it wants one that is not there
    predictor = multimodal.MultiModalPredictor(
        label="label", problem_type="multiclass", eval_metric="f1_macro", path=str(folder), verbosity=0
    )
    settings = {
        "model.names": ["hf_text"],
        "model.hf_text.checkpoint_name": str(encoder),
        "env.num_gpus": 0,
        "env.num_workers": 0,
        "env.num_workers_inference": 0,
        "env.precision": "32",
    }
    predictor.fit(train, time_limit=seconds, hyperparameters=settings, seed=seed)
    said = predictor.predict(test.drop(columns="label"))
    shutil.rmtree(folder, ignore_errors=True)
    return said


if __name__ == "__main__":
    main()
