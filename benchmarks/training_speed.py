"""Works of ``benchmarks.run``: an epoch of a net that learns, against a plain loop and transformers' Trainer.

Same texts, same batches in size, same net, same optimizer and schedule. What each loop adds is what differs.
"""

import multiprocessing
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.encoding import CPU
from benchmarks.measuring import OURS, Work, most_memory
from pipeline.encoders import text
from pipeline.encoders.text import TextEncoder
from pipeline.encoders.text_rows import BUCKET, TokenRows
from pipeline.nets.specialist import Specialist, TunedSpecialist
from pipeline.params import EmbedParams
from pipeline.training.loop import TrainingPlan, fit
from pipeline.training.optim import adamw
from pipeline.training.rows import TensorRows

BATCH, RATE, HEAD_RATE = 32, 1e-4, 1e-3
PLAN = TrainingPlan(1, None, 0, warmup_share=0.06, decay=True)
TRAINER, LOOP = "transformers' Trainer", "a plain loop, batches of like length"


def tuned(manifest: Path, count: int) -> Work:
    """One epoch of the packaged MiniLM with a linear classifier."""
    ways = {OURS: _ours, LOOP: _loop, TRAINER: _trainer}
    encoder, said, labels = _texts(manifest, count)
    calls = {way: (lambda run=run: run(encoder, said, labels)) for way, run in ways.items()}
    return Work("tune MiniLM, an epoch", "texts", len(said), calls, 1.0, lambda given: _peaks(ways, manifest, count))


def head(rows: int = 6250, width: int = 384, classes: int = 5) -> Work:
    """One epoch of a linear classifier on cached vectors."""
    torch.manual_seed(0)
    vectors, labels = torch.randn(rows, width), torch.randint(classes, (rows,))

    def ours() -> None:
        _fit(Specialist(width, classes), TensorRows((vectors,), labels, BATCH), lambda net: [(net, HEAD_RATE)])

    def loop() -> None:
        net = Specialist(width, classes)
        loader = DataLoader(TensorDataset(vectors, labels), batch_size=BATCH, shuffle=True)
        _plain(net, ((batch, given) for batch, given in loader), adamw([(net, HEAD_RATE)], 0.01))

    def trainer() -> None:
        net = Specialist(width, classes)
        given = [{"vectors": vector, "labels": label} for vector, label in zip(vectors, labels, strict=True)]
        _by_trainer(_ForTrainer(net, lambda of: of["vectors"]), given, None, adamw([(net, HEAD_RATE)], 0.01))

    ways = {OURS: ours, "a DataLoader loop": loop, TRAINER: trainer}
    return Work("a head on stored vectors, an epoch", "rows", rows, ways, 10.0)


def _texts(manifest: Path, count: int) -> tuple[TextEncoder, list[str], Tensor]:
    rows = pd.read_parquet(manifest, columns=["text", "label"]).dropna().head(count)
    return text.load(EmbedParams().text), rows["text"].tolist(), torch.tensor(pd.factorize(rows["label"])[0])


def _net(encoder: TextEncoder, labels: Tensor) -> TunedSpecialist:
    torch.manual_seed(0)
    return TunedSpecialist(encoder.net, Specialist(encoder.width, int(labels.max()) + 1))


def _rates(net: TunedSpecialist) -> list[tuple[nn.Module, float]]:
    return [(net.encoder, RATE), (net.classifier, HEAD_RATE)]


def _fit(net: Any, rows: Any, rates: Callable[[Any], list[tuple[nn.Module, float]]]) -> None:
    optimizer = adamw(rates(net), 0.01)
    fit(
        net,
        rows,
        None,
        objective=functional.cross_entropy,
        score=lambda logits, codes: 0.0,
        optimizer=optimizer,
        plan=PLAN,
        device=CPU,
        what="benchmark",
    )


def _ours(encoder: TextEncoder, said: Sequence[str], labels: Tensor) -> None:
    _fit(_net(encoder, labels), TokenRows(encoder, said, labels, BATCH), _rates)


def _loop(encoder: TextEncoder, said: Sequence[str], labels: Tensor) -> None:
    net, tokens, rng = _net(encoder, labels), encoder.tokenize(said), np.random.default_rng(0)
    order, lengths = rng.permutation(len(said)), np.array([len(row) for row in tokens])
    buckets = [order[at : at + BUCKET * BATCH] for at in range(0, len(order), BUCKET * BATCH)]
    buckets = [bucket[np.argsort(-lengths[bucket])] for bucket in buckets]
    batches = [bucket[at : at + BATCH] for bucket in buckets for at in range(0, len(bucket), BATCH)]
    rng.shuffle(batches)
    pairs = ((encoder.collate([tokens[at] for at in batch]), labels[torch.from_numpy(batch)]) for batch in batches)
    _plain(net, pairs, adamw(_rates(net), 0.01))


def _plain(net: nn.Module, pairs: Any, optimizer: torch.optim.Optimizer) -> None:
    net.train()
    for inputs, given in pairs:
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(net(inputs), given).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()


class _ForTrainer(nn.Module):
    """What Trainer calls: a dict with the loss."""

    def __init__(self, net: nn.Module, inputs: Callable[[dict[str, Tensor]], Any]) -> None:
        super().__init__()
        self.net, self.inputs = net, inputs

    def forward(self, labels: Tensor, **given: Tensor) -> dict[str, Tensor]:
        logits = self.net(self.inputs(given))
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


def _trainer(encoder: TextEncoder, said: Sequence[str], labels: Tensor) -> None:
    net, tokens = _net(encoder, labels), encoder.tokenize(said)
    rows = [{"input_ids": row, "labels": int(label)} for row, label in zip(tokens, labels, strict=True)]

    def collate(some: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = encoder.collate([row["input_ids"] for row in some])
        return batch | {"labels": torch.tensor([row["labels"] for row in some])}

    given = _ForTrainer(net, lambda of: {name: of[name] for name in ("input_ids", "attention_mask")})
    _by_trainer(given, rows, collate, adamw(_rates(net), 0.01), train_sampling_strategy="group_by_length")


def _by_trainer(net: _ForTrainer, rows: Any, collate: Any, optimizer: torch.optim.Optimizer, **settings: Any) -> None:
    """One epoch by transformers' Trainer with all that it logs and saves switched off."""
    from transformers import Trainer, TrainingArguments

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=BATCH,
            num_train_epochs=1,
            learning_rate=RATE,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            remove_unused_columns=False,
            logging_strategy="no",
            **settings,
        )
        Trainer(net, arguments, train_dataset=rows, data_collator=collate, optimizers=(optimizer, None)).train()


def _peaks(ways: Mapping[str, Callable[..., None]], manifest: Path, count: int) -> str:
    """The most memory that each way takes, in a process of its own."""
    peaks = []
    for way, run in ways.items():
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peaks.append(f"{way} {pool.apply(_peak, (run, manifest, count)):.0f} MB")
    return "peak memory of a process that does nothing else: " + ", ".join(peaks)


def _peak(run: Callable[..., None], manifest: Path, count: int) -> float:
    torch.set_num_threads(1)
    run(*_texts(manifest, count))
    return most_memory()
