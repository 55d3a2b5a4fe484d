"""The server under those who are slow on purpose, and those who ask for much: others get their answers."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx2
import psutil
import pytest

from tests.serving.conftest import serving

HALF = b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nX-Half: "
POST = b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BODY = POST + b"Content-Length: 5000000\r\n\r\n"


def connect(address: str) -> socket.socket:
    host, port = address.removeprefix("http://").rstrip("/").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


@contextmanager
def crowd(address: str, count: int, sent: bytes) -> Iterator[list[socket.socket]]:
    """So many connections that send this and then nothing."""
    with ExitStack() as stack:
        found = [stack.enter_context(connect(address)) for _ in range(count)]
        for one in found:
            one.sendall(sent)
        yield found


def ask(address: str, **fields: object) -> httpx2.Response:
    return httpx2.post(f"{address}api/predict", json={"text": "so sad", **fields}, timeout=60)


def seconds_until_closed(one: socket.socket) -> float:
    start = time.monotonic()
    with suppress(ConnectionError):
        while one.recv(65536):
            pass
    return time.monotonic() - start


def under_way(address: str) -> float:
    lines = httpx2.get(f"{address}metrics", timeout=60).text.splitlines()
    return float(next(line for line in lines if line.startswith("emocare_requests_under_way ")).split()[1])


@pytest.mark.parametrize(("sent", "name"), [(HALF, "headers"), (b"", "silence"), (BODY + b'{"text": "', "bodies")])
def test_a_crowd_that_never_ends_its_requests_stands_in_nobodys_way(exported: Path, sent: bytes, name: str) -> None:
    with serving(exported, "--queue", "8") as (_, address), crowd(address, 100, sent):
        start = time.monotonic()
        assert [ask(address).status_code for _ in range(5)] == [200] * 5
        assert time.monotonic() - start < 5
        assert under_way(address) == 0


def test_each_state_of_a_connection_has_an_end(exported: Path) -> None:
    options = ("--header-seconds", "1", "--idle-seconds", "1", "--seconds", "2")
    with serving(exported, *options) as (_, address), ExitStack() as stack:
        silent, half, idle, drip = (stack.enter_context(connect(address)) for _ in range(4))
        half.sendall(HALF)
        idle.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        drip.sendall(HALF)
        start = time.monotonic()
        with pytest.raises(OSError):  # a byte now and then wins no time
            while time.monotonic() - start < 10:
                drip.sendall(b"x")
                time.sleep(0.1)
        assert time.monotonic() - start < 4
        for one in (silent, half, idle):
            assert seconds_until_closed(one) < 4


def test_blank_lines_after_an_answer_win_no_time(exported: Path) -> None:
    options = ("--header-seconds", "1", "--idle-seconds", "1", "--seconds", "1")
    with serving(exported, *options) as (_, address), connect(address) as one:
        one.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        start = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - start < 10:
                one.sendall(b"\r\n")
                time.sleep(0.1)
        assert time.monotonic() - start < 6


def test_who_does_not_read_the_answer_is_cut_off(exported: Path) -> None:
    options = ("--header-seconds", "1", "--idle-seconds", "1", "--seconds", "1")
    with serving(exported, *options) as (process, address), ExitStack() as stack:
        assert ask(address).status_code == 200  # now it has opened all that it needs itself
        time.sleep(0.5)
        server = psutil.Process(process.pid)
        before = server.num_fds()
        one = stack.enter_context(connect(address))
        while server.num_fds() == before:
            pass
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.settimeout(0.1)
        with suppress(OSError):  # of 70 MB the system keeps a few
            one.sendall(b"GET /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5000)
        deadline = time.monotonic() + 10
        while server.num_fds() > before:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert ask(address).status_code == 200


LONG = "so happy and sad " * 64
"""More words than are explained."""


def test_predictions_go_before_explanations_and_too_many_are_refused(exported: Path) -> None:
    with serving(exported, "--explanations", "2", "--seconds", "30") as (_, address):
        found: list[httpx2.Response] = []
        threads = [
            threading.Thread(target=lambda: found.append(ask(address, text=LONG, explain=True))) for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        waits = []
        while any(thread.is_alive() for thread in threads):
            start = time.monotonic()
            assert ask(address).status_code == 200
            waits.append(time.monotonic() - start)
        for thread in threads:
            thread.join()
        statuses = [one.status_code for one in found]
        assert set(statuses) <= {200, 503} and statuses.count(200) >= 2
        assert all(one.json()["error"].startswith("busy explaining") for one in found if one.status_code == 503)
        assert len(waits) > 3 and max(waits) < 2


def test_an_explanation_ends_with_its_request(exported: Path) -> None:
    with serving(exported, "--explanations", "1") as (_, address):
        body = json.dumps({"text": LONG, "explain": True}).encode()
        for _ in range(3):
            with connect(address) as one:
                one.sendall(POST + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
                while under_way(address) < 1:
                    pass
            deadline = time.monotonic() + 1
            while under_way(address):
                assert time.monotonic() < deadline
        assert ask(address, explain=True).status_code == 200
        assert 'emocare_requests_total{status="499"} 3.0' in httpx2.get(f"{address}metrics").text


def test_large_bodies_that_never_end_leave_room_for_texts(exported: Path) -> None:
    """Of a queue of 4, one body of 1 MB at a time fits into the memory for large ones."""
    part = BODY.replace(b"5000000", b"1000000") + b'{"text": "' + b"x" * 900_000
    with serving(exported, "--queue", "4", "--max-mb", "1") as (_, address), crowd(address, 6, part) as found:
        assert [ask(address).status_code for _ in range(3)] == [200] * 3
        refused = 0
        for one in found:
            one.settimeout(0.5)
            with suppress(TimeoutError):
                refused += one.recv(4096).startswith(b"HTTP/1.1 503")
        assert refused == 5


def test_noise_is_no_news_for_the_log(exported: Path) -> None:
    with serving(exported) as (process, address):
        for sent in (
            b"\x16\x03\x01\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        ):
            with connect(address) as one:
                one.sendall(sent)
                assert one.recv(4096).startswith(b"HTTP/1.1 ")
        process.terminate()
        assert process.stderr.read() == ""
