"""Who may ask: no page of another site, by a form, a script, or a name of its own for this machine.

A browser sends what any page tells it to, to whatever it can reach. ``Origin`` says whose page it was (Fetch standard);
``Host`` says which name the browser took us for, and a name that is not ours was pointed at us by someone else (DNS
rebinding).
"""

from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = ("localhost", "127.0.0.1", "::1")
WILDCARDS = ("0.0.0.0", "::", "")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class Origins:
    """Answers 403 to requests for hosts that are not ours, and to those that a page of another site sent.

    Args:
        listening: the address that is listened on; where that is all of them, every IP address is ours.
        allowed: further host names that are ours, and whose pages may ask.
    """

    def __init__(self, app: ASGIApp, listening: str, allowed: Iterable[str]) -> None:
        self.app = app
        self.allowed = {name.lower() for name in allowed}
        self.own_hosts = {*LOOPBACK, *self.allowed, listening.lower()}
        self.any_address = listening in WILDCARDS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self.app(scope, receive, send)
        else:
            await JSONResponse({"error": refusal}, 403)(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host")
        if host is not None and not self._is_own_host(_name(host)):
            return f"this is not {_name(host)[:80]!r}; where it is, start the server with --allow-host"
        if scope["method"] in SAFE_METHODS:
            return None
        origin = headers.get(b"origin")
        if origin is None:
            # A browser that names no origin says at least whether the page was ours.
            if headers.get(b"sec-fetch-site", "none") not in ("same-origin", "none"):
                return "a page of another site may not ask; start the server with --allow-host to let it"
            return None
        place = _place(origin)
        if place is not None and (place == _place(f"//{host}") or place[0] in self.allowed):
            return None
        return f"a page of {origin[:80]!r} may not ask; start the server with --allow-host to let it"

    def _is_own_host(self, name: str) -> bool:
        if name in self.own_hosts:
            return True
        try:
            address = ip_address(name)
        except ValueError:
            return False
        return self.any_address or address.is_loopback


def _name(host: str) -> str:
    """The name in a ``Host``, without its port."""
    place = _place(f"//{host}")
    return host if place is None else place[0]


def _place(origin: str) -> tuple[str, int | None] | None:
    """Name and port of an origin; None where it has none."""
    try:
        parts = urlsplit(origin)
        name, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not name:
        return None
    default_port = {"http": 80, "https": 443}.get(parts.scheme)
    return name.rstrip("."), None if port == default_port else port
