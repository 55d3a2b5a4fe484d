"""The page and what it is made of: files without a framework, and headers that let it load nothing from elsewhere."""

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.reporting import TEMPLATES
from pipeline.serving.examples import Example

PAGE = Path(__file__).parent / "page"
FILES = {
    "/": (PAGE / "page.html", "text/html; charset=utf-8"),
    "/page.js": (PAGE / "page.js", "text/javascript; charset=utf-8"),
    "/record.js": (PAGE / "record.js", "text/javascript; charset=utf-8"),
    "/page.css": (PAGE / "page.css", "text/css; charset=utf-8"),
    "/style.css": (TEMPLATES / "style.css", "text/css; charset=utf-8"),
}

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; media-src blob:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


def add_page(app: FastAPI, shown: list[Example]) -> None:
    """Adds the page, its style and its examples to the application."""
    files = {path: (file.read_bytes(), kind) for path, (file, kind) in FILES.items()}
    listed = []
    for number, example in enumerate(shown):
        entry: dict[str, Any] = {"name": example.name, "text": example.text}
        for name, kind in (("image", "image/jpeg"), ("video", "image/gif")):
            content = getattr(example, name)
            entry[name] = content and f"/examples/{number}/{name}"
            if content:
                files[entry[name]] = (content, kind)
        listed.append(entry)

    def add(path: str, content: bytes, kind: str) -> None:
        @app.get(path, include_in_schema=False)
        async def file() -> Response:
            return Response(content, media_type=kind)

    for path, (content, kind) in files.items():
        add(path, content, kind)

    @app.get("/api/examples", include_in_schema=False)
    async def listing() -> list[dict[str, Any]]:
        return listed


class SecurityHeaders:
    """Adds ``HEADERS`` to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self.headers]
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)
