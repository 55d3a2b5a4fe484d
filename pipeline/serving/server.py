"""What ``python -m pipeline serve`` does: load, listen, answer, and end when told to, with nothing left open."""

import signal
import socket
import sys
from dataclasses import dataclass

import torch
import uvicorn

from pipeline.core.errors import InputError
from pipeline.serving.app import build, warm
from pipeline.serving.connections import ConnectionLimits, protocol
from pipeline.serving.intake import RequestLimits
from pipeline.serving.predictor import Predictor
from pipeline.serving.score_predictor import ScorePredictor

CONNECTIONS = 4
"""Open connections for each request that may be under way; beyond it, the one that waits longest makes room."""

OTHER_FILES = 64
"""Files that the process may have open beside its connections."""

BACKLOG = 2048


@dataclass(frozen=True)
class ListenSettings:
    """Where the server listens, which host names it allows, and its timeouts.

    Attributes:
        allowed: host names that are the server's, beside its address and those of this machine.
        header_seconds: for the header of a request to come in.
        idle_seconds: that a connection is kept open for a further request.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    allowed: tuple[str, ...] = ()
    header_seconds: float = 10.0
    idle_seconds: float = 5.0


def serve(
    posts: Predictor | None, scores: ScorePredictor | None, limits: RequestLimits, listen: ListenSettings
) -> None:
    """Answers until SIGINT or SIGTERM; requests under way are finished first, for ``limits.seconds`` at most.

    Raises InputError when the address cannot be had.
    """
    listening = _listen(listen.host, listen.port)
    warm(posts, scores)
    most = min(CONNECTIONS * limits.queue, _open_file_limit() - OTHER_FILES)
    config = uvicorn.Config(
        build(posts, scores, limits, cores=torch.get_num_threads(), listening=listen.host, allowed=listen.allowed),
        http=protocol(ConnectionLimits(most, listen.header_seconds, listen.idle_seconds, limits.seconds)),
        ws="none",
        # A warning is what anybody can have written for each thing that they send which is no HTTP.
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=round(listen.idle_seconds),
        timeout_graceful_shutdown=int(limits.seconds) + 1,
    )
    # uvicorn ends by raising the signal again that it was stopped by; being told to stop is no failure.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    shown = f"[{listen.host}]" if ":" in listen.host else listen.host
    print(f"http://{shown}:{listening.getsockname()[1]}/  (Ctrl+C ends it)", file=sys.stderr, flush=True)
    uvicorn.Server(config).run(sockets=[listening])


def _open_file_limit() -> int:
    """How many files this process may have open, each connection being one."""
    if sys.platform == "win32":
        return 2**16
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # The protocol is named because asyncio sends without delay (TCP_NODELAY) only then: else an answer waits 40 ms.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except (OSError, UnicodeError, OverflowError) as error:
        raise _cannot_listen(host, port, error) from None
    try:
        if sys.platform != "win32":  # there the option would let two servers share a port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise _cannot_listen(host, port, error) from None
    return listening


def _cannot_listen(host: str, port: int, error: Exception) -> InputError:
    why = getattr(error, "strerror", None) or error
    return InputError(f"cannot listen on {host}, port {port}: {why}; choose others by --host and --port")
