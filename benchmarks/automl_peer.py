"""AutoGluon MultiModal and Ludwig on a table of posts, by the encoder of texts and in the time of `train_text`.

Each needs versions of its own, so this runs in an environment of its own and imports nothing of the pipeline:

    pip install "autogluon.multimodal==1.6.3"    # or "ludwig==0.11.0"
    python -m benchmarks.automl_peer autogluon MANIFEST ENCODER --seconds 600 [--seeds 3]

Learns from the rows of split ``train`` and is scored on those of ``val``, by macro-F1. AutoGluon takes the seconds by
the clock and chooses all else; for Ludwig they are of the processor, and its rate, batch and stopping are set below.
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
    parser.add_argument("peer", choices=PEERS)
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
        said = PEERS[arguments.peer](train, test, arguments.encoder, arguments.seconds, seed)
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


def ludwig(train: pd.DataFrame, test: pd.DataFrame, encoder: Path, seconds: int, seed: int) -> pd.Series:
    api, callbacks = import_module("ludwig.api"), import_module("ludwig.callbacks")
    until = time.process_time() + seconds

    class InTime(callbacks.Callback):
        def should_early_stop(self, *given: object) -> bool:
            return time.process_time() > until

    reading = {"type": "auto_transformer", "pretrained_model_name_or_path": str(encoder), "trainable": True}
    shorter = {"max_sequence_length": 64}  # it pads every text to this; few posts are longer
    settings = {
        "input_features": [{"name": "text", "type": "text", "encoder": reading, "preprocessing": shorter}],
        "output_features": [{"name": "label", "type": "category"}],
        "preprocessing": {"split": {"type": "random", "probabilities": [0.9, 0.1, 0.0]}},
        "trainer": {
            "epochs": 100,
            "batch_size": 32,
            "learning_rate": 1e-4,
            "early_stop": 12,  # three epochs, as it looks four times in each
            "checkpoints_per_epoch": 4,
        },
        "backend": {"type": "local"},
    }
    model = api.LudwigModel(settings, callbacks=[InTime()])
    with tempfile.TemporaryDirectory() as folder:
        model.train(dataset=train, random_seed=seed, output_directory=folder, skip_save_processed_input=True)
        said, _ = model.predict(dataset=test, output_directory=folder)
    return said["label_predictions"].astype(str).to_numpy()


PEERS = {"autogluon": autogluon, "ludwig": ludwig}


if __name__ == "__main__":
    main()
