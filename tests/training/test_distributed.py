"""Several processes that train one net, against one process that does."""

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.core.errors import InputError
from pipeline.nets.losses import Objective, mixed, objective
from pipeline.nets.specialist import Specialist, TunedSpecialist
from pipeline.params import TunedEncoderParams
from pipeline.scoring.sentiment import concordance
from pipeline.training import distributed, loop
from pipeline.training.batches import Batch
from pipeline.training.checkpoint import resume_state
from pipeline.training.distributed import ProcessGroup, launched
from pipeline.training.finished import finished
from pipeline.training.loop import FitResult
from pipeline.training.rows import TensorRows
from pipeline.training.tuning import TunedTraining
from tests import processes

TUNED = TunedEncoderParams(epochs=3, batch=7, encoder_learning_rate=0.02, head_learning_rate=0.05, patience=3)
LOSSES: dict[str, Objective] = {
    "classes": objective("focal", [20, 9], power=1.0, gamma=2.0),
    "scores": mixed(1.0, 1.0, 1.0),
}


class Encoder(nn.Module):
    """With a weight that is not used, and so never has a gradient."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Dropout(dropout))
        self.unused = nn.Parameter(torch.ones(3, 3))

    def forward(self, rows: Tensor) -> Tensor:
        return self.layers(rows)


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    return float((logits.argmax(axis=1) == labels).mean())


def training(loss: str, dropout: float, accumulate: int) -> TunedTraining:
    """29 rows in batches of 7: the last has one, and the 5 to stop on are one batch."""
    torch.manual_seed(0)
    net = TunedSpecialist(Encoder(dropout), Specialist(6, 2 if loss == "classes" else 1, dropout=0.0))
    inputs = torch.randn(34, 4)
    labels = inputs[:, 0] + 0.1 * torch.randn(34)
    labels = (labels > 0).long() if loss == "classes" else labels
    train, val = (TensorRows(({"rows": inputs[at]},), labels[at], 7) for at in (slice(0, 29), slice(29, 34)))
    tuned = TUNED.model_copy(update={"accumulate": accumulate})
    score = accuracy if loss == "classes" else concordance
    return TunedTraining(
        net, [net.classifier], train, val, LOSSES[loss], score, tuned, 3, torch.device("cpu"), "the net"
    )


def fitted(work: TunedTraining, folder: Path) -> FitResult:
    """Writes the weights."""
    result = work.fit(resume_state(folder, {}))
    save_file(work.net.state_dict(), folder / "net.safetensors")
    return result


def _member(work: TunedTraining, rank: int, size: int, port: int, folder: Path, kill_at: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    loop.SAVE_EVERY_S = 0.0
    original, steps = loop._Training._step, 0

    def step(self: loop._Training, batch: Batch, where: str) -> float:
        nonlocal steps
        steps += 1
        if steps == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, batch, where)

    loop._Training._step = step
    try:
        with launched("cpu") as first:
            if first:
                fitted(work, folder)
    except InputError as error:
        (folder / f"said by {rank}").write_text(str(error))
        raise SystemExit(1) from None


def divided(work: TunedTraining, size: int, folder: Path, killed: dict[int, int] | None = None) -> list[int]:
    """Trains in so many processes; the exit status of each. ``killed``: rank → the step at which it is ended."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    at = killed or {}
    members = [
        processes.CONTEXT.Process(target=_member, args=(work, rank, size, port, folder, at.get(rank, 0)))
        for rank in range(size)
    ]
    for member in members:
        member.start()
    for member in members:
        member.join(100)
    return [member.exitcode for member in members]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("loss", "size", "accumulate"), [("classes", 2, 1), ("scores", 2, 1), ("scores", 2, 2), ("scores", 3, 1)]
)
def test_processes_train_the_net_that_one_trains(tmp_path: Path, loss: str, size: int, accumulate: int) -> None:
    alone, start = training(loss, 0.0, 1), training(loss, 0.0, 1)
    fitted(alone, tmp_path)
    # A net that another process gets shares its memory with it, so that `start` stays here.
    assert divided(training(loss, 0.0, accumulate), size, tmp_path / "divided") == [0] * size
    weights = load_file(tmp_path / "divided" / "net.safetensors")
    for name, value in alone.net.state_dict().items():
        assert torch.allclose(weights[name], value, atol=1e-5), name
        moved = not torch.equal(value, start.net.state_dict()[name])
        assert moved == (name.startswith(("encoder.layers", "classifier.layers"))), name


def test_what_they_train_with_dropout_is_the_same_each_time_and_of_each_seed_another(tmp_path: Path) -> None:
    files = []
    for at, dropout in enumerate((0.3, 0.3, 0.0)):
        folder = tmp_path / str(at)
        assert divided(training("scores", dropout, 1), 2, folder) == [0, 0]
        files.append((folder / "net.safetensors").read_bytes())
    assert files[0] == files[1] != files[2]


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal there")
@pytest.mark.parametrize("rank", [0, 1])
def test_when_one_is_killed_the_others_end_and_the_next_run_goes_on(tmp_path: Path, rank: int) -> None:
    work = partial(training, "scores", 0.3, 1)
    assert divided(work(), 2, tmp_path / "whole") == [0, 0]
    status = divided(work(), 2, tmp_path / "cut", {rank: 9})
    assert status[rank] == -signal.SIGKILL and status[1 - rank] == 1
    assert "another process of the launcher has ended" in (tmp_path / "cut" / f"said by {1 - rank}").read_text()
    assert {path.name for path in (tmp_path / "cut").iterdir()} == {"training", f"said by {1 - rank}"}
    assert divided(work(), 2, tmp_path / "cut") == [0, 0]
    paths = [tmp_path / name / "net.safetensors" for name in ("whole", "cut")]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_state_of_one_process_is_not_that_of_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = resume_state(tmp_path, {}).path, finished("train_text", {}, [], tmp_path).folder
    monkeypatch.setattr(distributed, "_group", ProcessGroup(0, 2, None))
    divided = resume_state(tmp_path, {}).path, finished("train_text", {}, [], tmp_path).folder
    assert alone[0] != divided[0] and alone[1] != divided[1]


def test_without_cards_for_all_a_process_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert distributed._set_device("cuda") in ("nccl", "gloo") and taken == [1]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(InputError, match="process 2 of the launcher finds 2 cards"):
        distributed._set_device("auto")
    monkeypatch.delenv("LOCAL_RANK")
    with pytest.raises(InputError, match="without LOCAL_RANK"):
        distributed._set_device("cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(InputError, match="cannot share `mps`"):
        distributed._set_device("mps")


def test_a_loss_that_is_not_finite_ends_all(tmp_path: Path) -> None:
    work = training("scores", 0.0, 1)
    work.train.labels[:] = torch.nan
    assert divided(work, 2, tmp_path / "cut") == [1, 1]
    for rank in (0, 1):
        said = (tmp_path / "cut" / f"said by {rank}").read_text()
        assert said.startswith("the net: epoch 1, batch 1: the loss is nan")


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_shares_are_all_rows_once(rows: int) -> None:
    shares: list[Callable[[int], slice]] = [ProcessGroup(rank, 3, None).share for rank in range(3)]
    whole = np.concatenate([np.arange(rows)[share(rows)] for share in shares])
    assert whole.tolist() == list(range(rows))
