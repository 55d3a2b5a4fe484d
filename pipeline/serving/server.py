"""What ``python -m pipeline serve`` does: load, listen, answer, and end when told to, with nothing left open."""

import signal
import socket
import sys

import torch
import uvicorn

from pipeline.core.errors import InputError
from pipeline.serving.app import build, warm
from pipeline.serving.intake import RequestLimits
from pipeline.serving.predictor import Predictor
from pipeline.serving.score_predictor import ScorePredictor

CONNECTIONS = 4
"""Open connections for each request that may be under way; more are turned away at the door."""

BACKLOG = 2048


def serve(posts: Predictor | None, scores: ScorePredictor | None, limits: RequestLimits, host: str, port: int) -> None:
    """Answers until SIGINT or SIGTERM; requests under way are finished first, for ``limits.seconds`` at most.

    Raises InputError when the address cannot be had.
    """
    listening = _listen(host, port)
    warm(posts, scores)
    config = uvicorn.Config(
        build(posts, scores, limits, cores=torch.get_num_threads()),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(limits.seconds) + 1,
        limit_concurrency=CONNECTIONS * limits.queue,
    )
    # uvicorn ends by raising the signal again that it was stopped by; being told to stop is no failure.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{listening.getsockname()[1]}/  (Ctrl+C ends it)", file=sys.stderr, flush=True)
    uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # The protocol is named because asyncio sends without delay (TCP_NODELAY) only then: else an answer waits 40 ms.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except (OSError, UnicodeError, OverflowError) as error:
        raise _unheard(host, port, error) from None
    try:
        if sys.platform != "win32":  # there the option would let two servers share a port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise _unheard(host, port, error) from None
    return listening


def _unheard(host: str, port: int, error: Exception) -> InputError:
    why = getattr(error, "strerror", None) or error
    return InputError(f"cannot listen on {host}, port {port}: {why}; choose others by --host and --port")
