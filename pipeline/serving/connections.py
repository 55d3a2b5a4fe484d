"""Connections that are slow on purpose cost nobody else an answer.

uvicorn counts connections and work together, waits for ever for the rest of a header, and lets who does not read an
answer hold on to it. Here every state of a connection has a deadline, and when there are too many, the one that has
kept us waiting longest makes room for the new one; one whose request is being answered never does.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


@dataclass(frozen=True)
class ConnectionLimits:
    """Attributes:
    most: connections that are open at a time.
    header_seconds: from the first byte of a request (or the connection) to the end of its header.
    idle_seconds: from an answer to the next request.
    seconds: for a body to come in, again for its answer to be made, and again for it to be read.
    """

    most: int
    header_seconds: float
    idle_seconds: float
    seconds: float


MOMENT = 1.0
"""Seconds in which whoever means well has sent a header."""

GRACE = 2.0
"""Seconds by which the server's own answer (408, 504) comes before a connection is cut."""


def protocol(limits: ConnectionLimits) -> type[H11Protocol]:
    """A class for uvicorn's ``http``: its own HTTP/1.1, with these limits."""

    class Limited(_LimitedProtocol):
        pass

    Limited.limits = limits
    return Limited


class _LimitedProtocol(H11Protocol):
    limits: ConnectionLimits
    _state: tuple[str, Any] = ("", None)
    _since = 0.0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self._watch()
        if len(self.connections) > self.limits.most:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Sets the deadline of the state that the connection is in; within a state, nothing moves it."""
        state = self._current()
        if state == self._state:
            return
        self._state, self._since = state, self.loop.time()
        if self._deadline is not None:
            self._deadline.cancel()
        limits = self.limits
        seconds = {
            "header": limits.header_seconds,
            "idle": limits.idle_seconds + limits.seconds,  # uvicorn closes it before; this is for who does not read
            "body": limits.seconds + GRACE,
            "answer": 2 * limits.seconds + GRACE,
        }[state[0]]
        self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _current(self) -> tuple[str, Any]:
        """The state, and the request that it belongs to."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            begun = cycle is None or bool(self.conn.trailing_data[0])
            return ("header" if begun else "idle", cycle)
        return ("body" if cycle.more_body else "answer", cycle)

    def _make_room(self) -> None:
        """Cuts the connection that keeps us waiting longest; those that have begun no body go first, after a moment."""
        others = [other for other in self.connections if isinstance(other, _LimitedProtocol) and other is not self]
        waiting = [other for other in others if other._state[0] != "answer" and not other.transport.is_closing()]
        late = self.loop.time() - MOMENT
        longest = min(
            waiting, key=lambda other: (other._state[0] == "body" or other._since > late, other._since), default=self
        )
        longest.transport.abort()
