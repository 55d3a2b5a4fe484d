"""What very many posts cost, from measured rates: hours, machines, storage, money, and which step holds up the others.

    python -m benchmarks.scale [--posts 1000000 100000000 10000000000] [--hours 24]

A line of steps, simulated chunk by chunk: each step has so many workers, a chunk goes on when a step is done with it,
and no step runs further ahead than ``AHEAD`` chunks. First the simulation must give the processor seconds and the
seconds of the measured runs of ``MEASURED`` from the rates of their steps, which were measured apart, within
``TOLERANCE``; otherwise it ends with exit status 1. Then it extrapolates. Every assumption stands at the top of this
file.
"""

import argparse
import heapq
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CHUNK, AHEAD = 32, 2
"""Posts in a chunk, as params ``embed.image.batch``; chunks that a step may be ahead of the next."""

STEADY = 20_000
"""Chunks simulated; of more, the time grows by the rate of the second half."""

TOLERANCE = 0.15

CPU_SECONDS: Mapping[str, float] = {
    "digest": 7.3e-5,
    "decode 256 px": 0.0039,
    "decode 2,000 px": 0.0171,
    "encode picture": 0.0408,
    "encode text": 0.0050,
    "split": 7.9e-5,
}
"""Processor seconds a post on one core, measured: pictures of 13 and of 644 KB, texts of GoEmotions, ``split`` from the
difference between 10 and 100 thousand posts of ``benchmarks/many_posts.py``."""

SPLIT_START, SPLIT_BYTES = 2.8, 257
"""Processor seconds before the first post; bytes of memory a post, all of 2,566 MB divided by ten million."""

GPU_SECONDS = {"encode picture": 1 / 2500, "encode text": 1 / 5000}
"""Assumed, not measured here: about what clip-retrieval's authors report of ViT-B/32 on an A100."""

MACHINES = {"16 cores": (16, 0, 0.70), "16 cores and a GPU": (16, 1, 2.50)}
"""Assumed: name → cores, accelerators, dollars an hour."""

BYTES = {"picture": 300_000, "text": 150, "vectors": 4 * (384 + 1280)}
"""Of a post, assumed; the vectors are those of the two packaged encoders, float32."""

DOLLARS_GB_MONTH, PICTURES = 0.023, "decode 2,000 px"
REQUEST_DOLLARS = 4e-7
"""Assumed: an object store's prices for a month of a gigabyte and for a read."""

STORE_READS, STORE_WRITES = 5500.0, 8100.0
"""Assumed: reads a second of one prefix of an object store. Measured: vectors of 1280 a second into one SQLite file."""


@dataclass(frozen=True)
class Step:
    """A step of the line: seconds a post takes of one of its workers."""

    name: str
    seconds: float
    workers: int


@dataclass(frozen=True)
class Run:
    """A measured run: its steps, processor seconds in all, and those before the first post."""

    name: str
    steps: tuple[str, ...]
    posts: int
    cpu: float
    start: float = 0.0


MEASURED = (
    Run("pictures of 256 px", ("decode 256 px", "encode picture"), 160, 6.35),
    Run("pictures of 2,000 px", ("decode 2,000 px", "encode picture"), 40, 2.23),
    Run("`split` of a million texts", ("split",), 1_000_000, 94.0, SPLIT_START),
)
"""Of the table in ``benchmarks/README.md``; no rate above was taken from them."""


def simulate(steps: Sequence[Step], posts: int) -> tuple[float, dict[str, float]]:
    """Seconds until the last post is done, and the share of its time that each step works.

    A chunk waits for a free worker; who is done with it keeps it while ``AHEAD`` chunks wait for the next step already.
    """
    chunks = math.ceil(posts / CHUNK)
    simulated = min(chunks, STEADY)
    free = [[0.0] * step.workers for step in steps]
    left: list[list[float]] = [[] for _ in steps]
    for chunk in range(simulated):
        ready, size = 0.0, min(CHUNK, posts - chunk * CHUNK)
        for at, step in enumerate(steps):
            ready = max(ready, heapq.heappop(free[at])) + size * step.seconds
            if at + 1 < len(steps):
                room = AHEAD + steps[at + 1].workers
                ready = max(ready, left[at + 1][-room]) if len(left[at + 1]) >= room else ready
            heapq.heappush(free[at], ready)
            left[at].append(ready)
    ends = left[-1]
    seconds = ends[-1]
    if chunks > simulated:
        half = simulated // 2
        seconds += (chunks - simulated) * (ends[-1] - ends[half - 1]) / (simulated - half)
    return seconds, {step.name: step.seconds * posts / step.workers / seconds for step in steps}


def check() -> bool:
    """Whether the measured runs come out; prints both."""
    good = True
    print("| measured run | posts | processor seconds, measured | simulated on one core |\n|---|---|---|---|")
    for run in MEASURED:
        steps = [Step("all", sum(CPU_SECONDS[name] for name in run.steps), 1)]
        seconds = run.start + simulate(steps, run.posts)[0]
        good = good and abs(seconds / run.cpu - 1) <= TOLERANCE
        print(f"| {run.name} | {run.posts} | {run.cpu:.2f} | {seconds:.2f} ({seconds / run.cpu - 1:+.0%}) |")
    return good


def line(cores: int, gpus: int, machines: int) -> list[Step]:
    """The steps of `embed` on so many machines: with a GPU all cores decode, without one they share both."""
    prepare = CPU_SECONDS["digest"] + CPU_SECONDS[PICTURES]
    encode = ("encode picture", "encode text")
    reading = Step("read from the store", 1 / STORE_READS, machines)
    writing = Step("write vectors (one file a machine)", 1 / STORE_WRITES, machines)
    if gpus:
        on_gpu = sum(GPU_SECONDS[name] for name in encode)
        return [reading, Step("decode", prepare, cores * machines), Step("encode", on_gpu, gpus * machines), writing]
    here = prepare + sum(CPU_SECONDS[name] for name in encode)
    return [reading, Step("decode and encode", here, cores * machines), writing]


def row(posts: int, kind: str, hours: float) -> str:
    """One line of the table: as many machines as finish within ``hours``."""
    cores, gpus, price = MACHINES[kind]
    alone, _ = simulate(line(cores, gpus, 1), min(posts, 10**6))
    machines = max(math.ceil(alone * max(posts / 10**6, 1) / (3600 * hours)), 1)
    # All machines are alike, so one of them with its share of the posts takes as long as all.
    seconds, busy = simulate(line(cores, gpus, 1), math.ceil(posts / machines))
    bound = max(busy, key=lambda name: busy[name])
    money = machines * max(seconds / 3600, 0.1) * price + posts * REQUEST_DOLLARS
    gigabytes = posts * (BYTES["picture"] + BYTES["text"]) / 1e9
    vectors = posts * BYTES["vectors"] / 1e9
    month = (gigabytes + vectors) * DOLLARS_GB_MONTH
    split = (SPLIT_START + posts * CPU_SECONDS["split"]) / 3600
    memory = posts * SPLIT_BYTES / 1e9
    return (
        f"| {posts:,} | {kind} | {machines:,} | {seconds / 3600:.3g} | {bound} ({busy[bound]:.0%}) | {money:,.0f} | "
        f"{gigabytes:,.0f} + {vectors:,.0f} | {month:,.0f} | {split:,.3g} | {memory:,.0f} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=int, nargs="+", default=[10**6, 10**8, 10**10])
    parser.add_argument("--hours", type=float, default=24.0, help="how long embed may take")
    arguments = parser.parse_args()
    if not check():
        print("error: the rates do not give the measured runs; measure again", file=sys.stderr)
        return 1
    print(
        "\n| posts | machines of | machines | hours of `embed` | busiest step | dollars | GB: media + vectors | "
        "dollars a month for them | hours of `split`, one core | its GB of memory |\n" + "|---" * 10 + "|"
    )
    for posts in arguments.posts:
        for kind in MACHINES:
            print(row(posts, kind, arguments.hours))
    return 0


if __name__ == "__main__":
    sys.exit(main())
