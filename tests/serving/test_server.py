"""`serve` as a process: how it starts, takes slow and cut requests, and ends."""

import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from tests.imports import ROOT
from tests.serving.conftest import serving


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals that a process may answer")
@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_told_to_end_it_finishes_what_is_under_way(exported: Path, told: signal.Signals) -> None:
    with serving(exported) as (process, address):
        long = {"text": "so happy " * 800, "explain": "true"}
        answers: list[httpx2.Response] = []
        asking = threading.Thread(
            target=lambda: answers.append(httpx2.post(f"{address}api/predict", json=long, timeout=60))
        )
        asking.start()
        while "emocare_requests_under_way 1.0" not in httpx2.get(f"{address}metrics").text and not answers:
            pass
        process.send_signal(told)
        asking.join()
        assert process.wait(60) == 0
        assert process.stderr.read() == ""
    assert len(answers[0].json()["explanation"]["words"]) == 256


def test_an_address_that_is_taken_is_one_line(exported: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        result = CliRunner().invoke(app, ["serve", str(exported), "--port", port])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: cannot listen on 127.0.0.1, port {port}: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("option", ["--max-mb", "--clip-seconds", "--seconds", "--header-seconds", "--idle-seconds"])
@pytest.mark.parametrize("value", ["nan", "inf", "-1", "0"])
def test_a_limit_is_a_number(exported: Path, option: str, value: str) -> None:
    result = CliRunner().invoke(app, ["serve", str(exported), option, value])
    assert (result.exit_code, option in result.stderr) == (2, True)


def test_without_its_packages_it_says_what_to_install(exported: Path) -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None; sys.argv[1:] = ['serve', sys.argv[1]]; "
        "from pipeline.cli import app; app()"
    )
    result = subprocess.run([sys.executable, "-c", code, str(exported)], capture_output=True, text=True, cwd=ROOT)
    assert (result.returncode, result.stderr) == (
        1,
        'error: serve needs uvicorn: pip install "emocare-pipeline[serve]"\n',
    )


def test_who_sends_too_slowly_is_told_so_and_who_breaks_off_harms_nobody(exported: Path) -> None:
    with serving(exported, "--seconds", "1", "--queue", "16") as (_, address):
        host, port = address.removeprefix("http://").rstrip("/").split(":")
        head = (
            "POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            "Content-Length: {}\r\n\r\n"
        )
        with socket.create_connection((host, int(port)), timeout=20) as slow:
            slow.sendall(head.format(100).encode() + b'{"te')
            start = time.monotonic()
            answer = b"".join(iter(lambda: slow.recv(4096), b"")).decode()  # until it hangs up
        assert answer.startswith("HTTP/1.1 408")
        assert answer.endswith('{"error":"the request did not come in within 1 seconds"}')
        assert time.monotonic() - start < 10
        for _ in range(10):
            with socket.create_connection((host, int(port)), timeout=20) as gone:
                gone.sendall(head.format(10_000).encode() + b'{"text": ')
        with socket.create_connection((host, int(port)), timeout=20) as boasting:
            boasting.sendall(head.format(10**15).encode())
            assert boasting.recv(4096).startswith(b"HTTP/1.1 413")
        deadline = time.monotonic() + 20
        while "emocare_requests_under_way 0.0" not in httpx2.get(f"{address}metrics").text:
            assert time.monotonic() < deadline
        assert httpx2.post(f"{address}api/predict", json={"text": "so sad"}).status_code == 200
