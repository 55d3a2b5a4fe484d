"""Measures `serve` on a bundle: latency, throughput under load, and ten thousand bad requests.

``python -m benchmarks.serving bundle/`` starts the server as a process of its own, asks it from this one, and prints
tables for ``benchmarks/README.md``. Client and server share the machine's cores. Needs the extra ``test``.
"""

import argparse
import asyncio
import contextlib
import io
import os
import platform
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import psutil

from pipeline.synthetic.drawing import render_clip, render_picture

WORDS = ("so", "why", "would", "anyone", "do", "this", "to", "me", "I", "am", "happy", "mad", "sad", "just", "great")
MOODS: Any = ("happy", "angry", "calm", "surprised", "sad")
SIDE = 1080
"""Of a picture, in pixels, as networks serve them."""

ASIDE = 32
"""Bad requests under way at a time."""

SECONDS = 2
"""The server's time limit while it is sent bad requests, so that slow ones end soon."""

Fields = dict[str, Any]


def text(rng: np.random.Generator) -> str:
    return " ".join(rng.choice(WORDS, rng.integers(5, 25)))


def pictures(rng: np.random.Generator) -> list[bytes]:
    found = []
    for mood in MOODS * 4:
        file = io.BytesIO()
        render_picture(mood, "a / caption", rng).resize((SIDE, SIDE)).save(file, "JPEG", quality=85)
        found.append(file.getvalue())
    return found


@contextlib.contextmanager
def server(bundle: Path, *options: str) -> Iterator[tuple[str, psutil.Process, Path]]:
    """The address, the process, and the folder that is its working and its temporary one."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "TMPDIR": folder, "PYTHONPATH": str(Path.cwd())}
        command = [sys.executable, "-m", "pipeline", "serve", str(bundle.resolve()), "--port", "0", *options]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=folder, env=environment) as process:
            assert process.stderr is not None
            address = process.stderr.readline().split()[0]
            try:
                yield address, psutil.Process(process.pid), Path(folder)
            finally:
                process.terminate()


def megabytes(process: psutil.Process) -> float:
    return process.memory_info().rss / 2**20


# --- latency and throughput ------------------------------------------------------------------------------------------


async def ask(client: httpx2.AsyncClient, said: str, picture: bytes | None) -> tuple[int, float]:
    """Status and milliseconds."""
    what: Fields = {"json": {"text": said}}
    if picture is not None:
        what = {"files": {"text": (None, said), "image": ("a.jpg", picture)}}
    start = time.perf_counter()
    answer = await client.post("api/predict", **what)
    return answer.status_code, 1000 * (time.perf_counter() - start)


async def many(address: str, shown: list[bytes | None], clients: int, seconds: float) -> list[tuple[int, float]]:
    """What so many clients, each asking again as soon as it is answered, get in so many seconds."""
    found: list[tuple[int, float]] = []
    end = time.perf_counter() + seconds
    limits = httpx2.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx2.AsyncClient(base_url=address, timeout=60, limits=limits) as client:

        async def one(number: int) -> None:
            rng = np.random.default_rng(number)
            while time.perf_counter() < end:
                found.append(await ask(client, text(rng), shown[rng.integers(len(shown))]))

        await asyncio.gather(*map(one, range(clients)))
    return found


def measure(bundle: Path, clients: int, seconds: float) -> None:
    shown = pictures(np.random.default_rng(0))
    kinds: dict[str, list[bytes | None]] = {"text": [None], "text + picture": [*shown]}
    rates: dict[str, float] = {}
    print("| post | clients | requests | errors | a second | p50 ms | p95 ms | server MB before → after |")
    print("|---|---|---|---|---|---|---|---|")
    with server(bundle) as (address, process, _):
        for kind, posts in kinds.items():
            asyncio.run(many(address, posts, clients, 5))  # so that memory is what it is at work
            for count in (1, clients):
                time.sleep(1)
                before = megabytes(process)
                lasting = seconds if count > 1 else min(seconds, 20)
                found = asyncio.run(many(address, posts, count, lasting))
                milliseconds = [one for status, one in found if status == 200]
                p50, p95 = np.percentile(milliseconds, [50, 95])
                rate = len(milliseconds) / lasting
                faster = f" ({rate / rates[kind]:.1f} x)" if count > 1 else ""
                rates.setdefault(kind, rate)
                print(
                    f"| {kind} | {count} | {len(found)} | {len(found) - len(milliseconds)} | {rate:.1f}{faster} "
                    f"| {p50:.1f} | {p95:.1f} | {before:.0f} → {megabytes(process):.0f} |",
                    flush=True,
                )


# --- bad requests ----------------------------------------------------------------------------------------------------


def png(width: int, height: int, unpacked: int) -> bytes:
    """A PNG that claims to be so large and holds so many zeros, packed to a thousandth."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(unpacked), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def gif() -> bytes:
    file = io.BytesIO()
    first, *rest = list(render_clip("happy", "a clip", np.random.default_rng(0)))[::4]
    first.save(file, "GIF", save_all=True, append_images=rest, duration=200)
    return file.getvalue()


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    found = bytearray(content)
    for place in rng.integers(0, len(found), 8):
        found[place] = rng.integers(256)
    return bytes(found)


def bad_kinds() -> dict[str, Callable[[np.random.Generator], Fields]]:
    """Kind → what httpx is given for one such request."""
    picture, clip = pictures(np.random.default_rng(0))[0], gif()
    large, wide, bomb = png(25_000, 25_000, 10**8), png(1, 2**31 - 1, 10**6), png(4_900, 4_900, 4_900 * 14_701)
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    zipped = b"PK\x03\x04" + zlib.compress(bytes(10**7))
    json = {"content-type": "application/json"}
    form = {"content-type": "multipart/form-data; boundary=x"}
    wrong: list[Any] = [7, [], {}, True, None, "../../etc/passwd", 1e308, {"a": [1] * 99}]

    def file(name: str, content: bytes, said: str = "a.jpg") -> Fields:
        return {"files": {name: (said, content)}}

    def endless(rng: np.random.Generator) -> Fields:
        async def body() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield bytes(2**20)

        return {"content": body(), "headers": json}

    return {
        "random bytes as JSON": lambda rng: {"content": rng.bytes(int(rng.integers(1, 2000))), "headers": json},
        "random bytes as a form": lambda rng: {"content": rng.bytes(int(rng.integers(1, 2000))), "headers": form},
        "random bytes as a picture": lambda rng: file("image", rng.bytes(int(rng.integers(1, 5000)))),
        "wrong types": lambda rng: {
            "json": {str(name): wrong[rng.integers(8)] for name in ("text", "image", "coverage")}
        },
        "unknown fields and types": lambda rng: {"data": {text(rng): text(rng)}},
        "deep JSON": lambda rng: {"content": b'{"text":' + b"[" * 50_000, "headers": json},
        "cut picture": lambda rng: file("image", picture[: rng.integers(1, len(picture))]),
        "cut clip": lambda rng: file("video", clip[: rng.integers(1, len(clip))]),
        "damaged picture": lambda rng: file("image", damaged(picture, rng)),
        "damaged clip": lambda rng: file("video", damaged(clip, rng)),
        "path-like names": lambda rng: file("image", svg, "../../../../etc/passwd\x00.png"),
        "SVG": lambda rng: file("image", svg, "a.svg"),
        "a zip file": lambda rng: file("video", zipped),
        "packed zeros": lambda rng: file("image", bomb),
        "absurd dimensions": lambda rng: file("image", (large, wide)[rng.integers(2)]),
        "a text beyond the limit": lambda rng: {"json": {"text": "a" * 100_000}},
        "larger than allowed": endless,
    }


async def slow(address: str) -> int:
    """A request whose body stops halfway."""
    host, port = address.removeprefix("http://").rstrip("/").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = (
        "POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    )
    writer.write(head.encode())
    answer = await asyncio.wait_for(reader.read(), 10 * SECONDS)
    writer.close()
    return int(answer.split()[1])


async def garbage(address: str, rng: np.random.Generator) -> int:
    """What is no HTTP at all."""
    host, port = address.removeprefix("http://").rstrip("/").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(rng.bytes(200) + b"\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 10 * SECONDS)
    writer.close()
    return int(answer.split()[1])


async def offend(address: str, count: int) -> tuple[dict[str, Counter[str]], float]:
    """Kind → how often which status came (or a connection closed early); and the longest wait, in seconds."""
    kinds = bad_kinds()
    names = [*kinds, "half a request, then silence", "no HTTP"]
    statuses: dict[str, Counter[str]] = {name: Counter() for name in names}
    longest, numbers = 0.0, iter(range(count))
    limits = httpx2.Limits(max_connections=ASIDE)
    async with httpx2.AsyncClient(base_url=address, timeout=60, limits=limits) as client:

        async def one() -> None:
            nonlocal longest
            for number in numbers:
                name, rng = names[number % len(names)], np.random.default_rng(number)
                start = time.perf_counter()
                try:
                    if name in kinds:
                        status = (await client.post("api/predict", **kinds[name](rng))).status_code
                    else:
                        status = await (slow(address) if name.startswith("half") else garbage(address, rng))
                    statuses[name][str(status)] += 1
                except (httpx2.WriteError, httpx2.ReadError, httpx2.RemoteProtocolError):
                    statuses[name]["hung up on"] += 1  # refused while it was still sending
                longest = max(longest, time.perf_counter() - start)

        await asyncio.gather(*(one() for _ in range(ASIDE)))
    return statuses, longest


def misbehave(bundle: Path, count: int) -> None:
    with server(bundle, "--seconds", str(SECONDS)) as (address, process, folder):
        asyncio.run(offend(address, min(count, 500)))  # so that memory is what it is at work
        before, files = megabytes(process), set(folder.rglob("*"))
        start = time.perf_counter()
        statuses, longest = asyncio.run(offend(address, count))
        took = time.perf_counter() - start
        good, _ = asyncio.run(ask_once(address))
        left = [str(path.relative_to(folder)) for path in sorted(set(folder.rglob("*")) - files)]
        print(f"\n{count} bad requests in {took:.0f} s, {ASIDE} at a time; longest wait {longest:.1f} s; ", end="")
        print(f"server {before:.0f} → {megabytes(process):.0f} MB; files left: {', '.join(left) or 'none'}; ", end="")
        print(f"a good one then gets {good}\n")
    print("| kind | answers |\n|---|---|")
    for name, found in statuses.items():
        print(f"| {name} | {', '.join(f'{status}: {times}' for status, times in sorted(found.items()))} |")


async def ask_once(address: str) -> tuple[int, float]:
    async with httpx2.AsyncClient(base_url=address, timeout=60) as client:
        return await ask(client, "so happy", None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0, help="of load")
    parser.add_argument("--bad", type=int, default=10_000, help="bad requests")
    given = parser.parse_args()
    print(f"{platform.system()}, {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    if given.seconds:
        measure(given.bundle, given.clients, given.seconds)
    if given.bad:
        misbehave(given.bundle, given.bad)


if __name__ == "__main__":
    main()
