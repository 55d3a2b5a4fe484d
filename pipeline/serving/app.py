"""The HTTP API and the page: FastAPI, and a page without a framework.

Not Gradio, which writes each upload to a cache folder before any limit of ours is asked and brings dozens of packages;
here a request stays in memory, is held to its limits while it comes in, and leaves nothing behind.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import torch
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.reporting.page import TEMPLATES
from pipeline.serving import intake
from pipeline.serving.batching import Batcher
from pipeline.serving.examples import Example, examples
from pipeline.serving.intake import PreparedRequest, RequestLimits
from pipeline.serving.posts import Post
from pipeline.serving.predictor import Predictor

PAGE = Path(__file__).parent / "page"
FILES = {
    "/": (PAGE / "page.html", "text/html; charset=utf-8"),
    "/page.js": (PAGE / "page.js", "text/javascript; charset=utf-8"),
    "/page.css": (PAGE / "page.css", "text/css; charset=utf-8"),
    "/style.css": (TEMPLATES / "style.css", "text/css; charset=utf-8"),
}

DECODERS = 2
"""Threads that decode pictures and clips; a slow clip holds up one of them, and no text."""

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; media-src blob:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}

GONE = 499
"""The status that is counted when a client left before it had its answer; nobody receives it."""

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
POSTS = (1, 2, 4, 8, 16, 32, 64)

REQUEST: dict[str, Any] = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "image": {"type": "string", "format": "binary", "description": "a file; base64 in JSON"},
        "video": {"type": "string", "format": "binary", "description": "a file; base64 in JSON"},
        "coverage": {"type": "number", "description": "also give the labels that hold the truth so often"},
        "explain": {"type": "boolean", "description": "also say what each word, patch and frame did"},
        "looked_at": {"type": "boolean", "description": "also give what was looked at, as small pictures"},
    },
}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": REQUEST} for kind in ("multipart/form-data", "application/json")},
    }
}


class Meters:
    """What is measured, for Prometheus."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        given: Any = {"registry": self.registry}
        self.requests = Counter("emocare_requests", "Requests to predict, by HTTP status.", ["status"], **given)
        self.seconds = Histogram("emocare_request_seconds", "From a request to its answer.", buckets=SECONDS, **given)
        self.batch = Histogram("emocare_batch_posts", "Posts predicted together.", buckets=POSTS, **given)
        self.under_way = Gauge("emocare_requests_under_way", "Requests received and not yet answered.", **given)


def build(predictor: Predictor, limits: RequestLimits, cores: int | None = None) -> FastAPI:
    """The application around a predictor, which is used from one thread of its own.

    Args:
        cores: predict batches on so many; None leaves it to torch.
    """
    meters = Meters()
    decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")

    def work(batch: Sequence[PreparedRequest]) -> list[dict[str, Any]]:
        if cores is not None:
            # For a lone post threads cost more than they give, and take the core that receives and decodes.
            torch.set_num_threads(1 if len(batch) == 1 else cores)
        return answers(predictor, batch)

    batcher: Batcher[PreparedRequest, dict[str, Any]] = Batcher(work, limits.batch, meters.batch.observe)
    under_way: set[int] = set()
    numbers = count()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with batcher:
            yield
        decoders.shutdown(cancel_futures=True)

    app = FastAPI(title="EmoCare", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(Guarded)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Exception, _failed)

    async def predict(request: Request) -> dict[str, Any]:
        if len(under_way) >= limits.queue:
            raise HTTPException(503, "busy; try again in a second", {"Retry-After": "1"})
        number = next(numbers)
        under_way.add(number)
        meters.under_way.set(len(under_way))
        try:
            asked = await intake.receive(request, limits)
            async with asyncio.timeout(limits.seconds):
                deadline = time.monotonic() + limits.seconds
                ready = await asyncio.get_running_loop().run_in_executor(
                    decoders, intake.prepare, predictor, asked, limits.clip_seconds, deadline
                )
                return await batcher.answer(ready)
        except TimeoutError:
            raise HTTPException(504, f"no answer within {limits.seconds:g} seconds") from None
        except ClientDisconnect:
            raise HTTPException(GONE, "the client left") from None
        finally:
            under_way.discard(number)
            meters.under_way.set(len(under_way))

    @app.post("/api/predict", openapi_extra=BODY)
    async def measured(request: Request) -> JSONResponse:
        """Emotion, probabilities and what each modality did, for a post of any of text, picture and clip."""
        start, status = time.perf_counter(), 500
        try:
            answer = await predict(request)
            if "error" in answer:
                raise HTTPException(422, answer["error"])
            status = 200
            return JSONResponse(answer)
        except HTTPException as error:
            status = error.status_code
            raise
        finally:
            meters.requests.labels(status).inc()
            meters.seconds.observe(time.perf_counter() - start)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Whether it is up, and what it answers with."""
        return {
            "status": "ok",
            "model": predictor.model.identity,
            "labels": list(predictor.labels),
            "modalities": list(predictor.model.branches),
            "limits": vars(limits),
        }

    @app.get("/metrics")
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(generate_latest(meters.registry), media_type=CONTENT_TYPE_LATEST)

    _add_page(app, examples())
    return app


def answers(predictor: Predictor, batch: Sequence[PreparedRequest]) -> list[dict[str, Any]]:
    """What `predict --json` says of each post, or an ``error`` where nothing of it can be used."""
    found: list[dict[str, Any]] = [{}] * len(batch)
    for coverage in {ready.coverage for ready in batch}:
        rows = [at for at, ready in enumerate(batch) if ready.coverage == coverage]
        for at, prediction in zip(rows, predictor.predict([batch[at].post for at in rows], coverage), strict=True):
            found[at] = prediction.as_json()
            if all(part.state != "present" for part in prediction.parts.values()):
                found[at] = {"error": f"nothing to predict from: {prediction.reasons}"}
    for at, ready in enumerate(batch):
        if "error" in found[at]:
            continue
        if ready.pixels is not None:
            found[at] |= predictor.explain(ready.pixels).as_field()
        if ready.looked_at is not None:
            found[at]["looked_at"] = ready.looked_at
    return found


def warm(predictor: Predictor) -> None:
    """Predicts each modality once, since the first time is slow."""
    picture = examples()[1].image
    predictor.predict([Post("warm", picture)])


def _add_page(app: FastAPI, shown: list[Example]) -> None:
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


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _failed(_: Request, error: Exception) -> Response:
    """The server itself logs the traceback."""
    return JSONResponse({"error": "failed; the server's log says more"}, 500)


class Guarded:
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
