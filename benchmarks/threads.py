"""What waiting threads cost where the machine is busy: training steps of a transformer, alone and beside a process.

    python -m benchmarks.threads [--rounds 5]

Each way of waiting is measured in processes of its own, turn and turn about, since other work comes and goes: torch's
threads (libgomp) spin for a while when they wait for each other, or sleep at once (``OMP_WAIT_POLICY=passive``).
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

STEPS = 5
BESIDE = (0, 1)
"""Other processes that keep a core busy."""
WAYS: dict[str, dict[str, str]] = {
    "2 threads that spin, then sleep (the default)": {"OMP_NUM_THREADS": "2"},
    "2 threads that sleep": {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"},
    "1 thread": {"OMP_NUM_THREADS": "1"},
}
BUSY = "while True: pass"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.steps:
        train()
        return
    seconds: dict[tuple[str, int], list[float]] = {(way, others): [] for others in BESIDE for way in WAYS}
    for _ in range(arguments.rounds):
        for (way, others), of in seconds.items():
            of.append(measured(WAYS[way], others))
    for way in WAYS:
        cells = [f"{statistics.median(seconds[way, others]):.2f}" for others in BESIDE]
        print(f"{way:48}{'  '.join(cells)} s a step, alone and beside a busy process", flush=True)


def measured(way: dict[str, str], others: int) -> float:
    """Seconds a step, beside so many other processes that keep a core busy."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(others)]
    try:
        command = [sys.executable, "-m", "benchmarks.threads", "--steps"]
        return float(subprocess.run(command, env=environment | way, check=True, capture_output=True).stdout)
    finally:
        for process in busy:
            process.kill()


def train() -> None:
    """Prints the seconds of a step: layers of MiniLM's size, 16 texts of 32 tokens."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(384, 12, 1536, batch_first=True)
    net = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
    optimizer = torch.optim.AdamW(net.parameters())
    vectors = torch.randn(16, 32, 384)
    started = 0.0
    for step in range(STEPS + 2):
        if step == 2:
            started = time.perf_counter()
        net(vectors).square().mean().backward()
        optimizer.step()
    print((time.perf_counter() - started) / STEPS)


if __name__ == "__main__":
    main()
