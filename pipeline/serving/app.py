"""The HTTP API: FastAPI around the predictors of the two tracks.

Not Gradio, which writes each upload to a cache folder before any limit of ours is asked and brings dozens of packages;
here a request stays in memory, is held to its limits while it comes in, and leaves nothing behind.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import torch
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from pipeline.core.errors import InputError
from pipeline.scoring.conformal import COVERAGE
from pipeline.serving import intake
from pipeline.serving.batching import Batcher
from pipeline.serving.examples import examples
from pipeline.serving.intake import MemoryBudget, PredictRequest, PreparedRequest, RequestLimits, ScoreRequest
from pipeline.serving.origins import LOOPBACK, Origins
from pipeline.serving.pages import SecurityHeaders, add_page
from pipeline.serving.posts import Explanation, Post
from pipeline.serving.predictor import Predictor
from pipeline.serving.score_predictor import Sample, ScorePredictor

DECODERS = 2
"""Threads that decode pictures and clips; a slow clip holds up one of them, and no text."""

CLIENT_CLOSED_REQUEST = 499
"""The status that is counted when a client left before it had its answer; nobody receives it."""

RETRY_HEADER = {"Retry-After": "1"}

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64)

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


SAMPLE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "text": {"description": "words, or a vector of text features, whichever the model reads"},
        "audio": {"type": "array", "description": "a vector of features, or a sequence of such vectors"},
        "visual": {"type": "array", "description": "a vector of features, or a sequence of such vectors"},
        "coverage": {"type": "number", "description": f"how often the interval holds the score; otherwise {COVERAGE}"},
    },
}
SCORE_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": {"application/json": {"schema": SAMPLE}}}}

Answer = dict[str, Any]


class Metrics:
    """What is measured, for Prometheus."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        common: Any = {"registry": self.registry}
        self.requests = Counter(
            "emocare_requests", "Requests to predict or score, by HTTP status.", ["status"], **common
        )
        self.seconds = Histogram(
            "emocare_request_seconds", "From a request to its answer.", buckets=LATENCY_BUCKETS, **common
        )
        self.batch = Histogram("emocare_batch_posts", "Posts predicted together.", buckets=BATCH_BUCKETS, **common)
        self.under_way = Gauge("emocare_requests_under_way", "Requests received and not yet answered.", **common)

    def observe(self, posts: int) -> None:
        """A batch of so many was answered."""
        self.batch.observe(posts)


class Service:
    """Answers requests with one predictor a track, each used from one thread of its own.

    Args:
        posts, scores: the predictors that are there; at least one.
        cores: predict batches of posts on so many; None leaves it to torch.
    """

    def __init__(
        self, posts: Predictor | None, scores: ScorePredictor | None, limits: RequestLimits, cores: int | None
    ) -> None:
        self.posts, self.scores, self.limits, self.cores = posts, scores, limits, cores
        self.metrics = Metrics()
        self._decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")
        self._predicting: Batcher[PreparedRequest, Answer] = Batcher(self._predict, limits.batch, self.metrics.observe)
        self._scoring: Batcher[ScoreRequest, Answer] = Batcher(self._score, limits.batch, self.metrics.observe)
        self._under_way = self._explaining = 0
        self._memory = MemoryBudget(limits.all_bytes)

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        async with self._predicting, self._scoring:
            yield
        self._decoders.shutdown(cancel_futures=True)

    def _predict(self, batch: Sequence[PreparedRequest]) -> list[Answer]:
        assert self.posts is not None
        if self.cores is not None:
            # For a lone post threads cost more than they give, and take the core that receives and decodes.
            torch.set_num_threads(1 if len(batch) == 1 else self.cores)
        return answer_posts(self.posts, batch)

    def _score(self, batch: Sequence[ScoreRequest]) -> list[Answer]:
        assert self.scores is not None
        return [answer_sample(self.scores, parsed) for parsed in batch]

    async def predict(self, request: Request) -> Answer:
        """One post. Raises HTTPException."""
        if self.posts is None:
            raise HTTPException(404, "there is no model of posts here")
        self._refuse_when_busy()
        with self._memory.reservation() as reserved:
            parsed = await intake.receive(request, self.limits, reserved)
            with self._slot(explain=parsed.explain):
                return await self._until_disconnect(request, self._predict_and_explain(self.posts, parsed))

    async def score(self, request: Request) -> Answer:
        """One sample of features or words. Raises HTTPException."""
        if self.scores is None:
            raise HTTPException(404, "there is no model of scores here")
        self._refuse_when_busy()
        with self._memory.reservation() as reserved:
            parsed = await intake.receive_sample(request, self.limits, reserved)
            with self._slot(explain=False):
                return await self._until_disconnect(request, self._scoring.answer(parsed))

    async def _predict_and_explain(self, predictor: Predictor, parsed: PredictRequest) -> Answer:
        deadline = time.monotonic() + self.limits.seconds
        ready = await asyncio.get_running_loop().run_in_executor(
            self._decoders, intake.prepare, predictor, parsed, self.limits.clip_seconds, deadline
        )
        answer = await self._predicting.answer(ready)
        if ready.pixels is None or "error" in answer:
            return answer
        # In steps, between which predictions go first: one explanation is hundreds of them.
        explanation: Explanation = await self._predicting.in_steps(predictor.explain_in_steps(ready.pixels))
        return answer | explanation.as_field()

    async def _until_disconnect(self, request: Request, work: Coroutine[Any, Any, Answer]) -> Answer:
        """What the work gives, which is cancelled when its time is over or whoever asked has left.

        Raises TimeoutError and ClientDisconnect.
        """
        working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(request))
        try:
            async with asyncio.timeout(self.limits.seconds):
                await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise ClientDisconnect
            return working.result()
        finally:
            working.cancel()
            leaving.cancel()

    async def respond(self, answer: Callable[[Request], Awaitable[Answer]], request: Request) -> JSONResponse:
        """The answer, as soon as there is one and within the limits; counted and timed."""
        start, status = time.perf_counter(), 500
        try:
            content = await self._within_limits(answer, request)
            if "error" in content:
                raise HTTPException(422, content["error"])
            response = JSONResponse(content)
            status = 200
            return response
        except HTTPException as error:
            status = error.status_code
            raise
        finally:
            self.metrics.requests.labels(status).inc()
            self.metrics.seconds.observe(time.perf_counter() - start)

    async def _within_limits(self, answer: Callable[[Request], Awaitable[Answer]], request: Request) -> Answer:
        """Raises HTTPException where it takes too long, or whoever asked has left."""
        try:
            return await answer(request)
        except TimeoutError:
            raise HTTPException(504, f"no answer within {self.limits.seconds:g} seconds") from None
        except ClientDisconnect:
            raise HTTPException(CLIENT_CLOSED_REQUEST, "the client left") from None

    def _refuse_when_busy(self) -> None:
        """Raises HTTPException where too many requests are under way."""
        if self._under_way >= self.limits.queue:
            raise HTTPException(503, "busy; try again in a second", RETRY_HEADER)

    @contextmanager
    def _slot(self, *, explain: bool) -> Iterator[None]:
        """A place among the requests that are under way, which have come in whole. Raises HTTPException."""
        self._refuse_when_busy()
        if explain and self._explaining >= self.limits.explanations:
            raise HTTPException(503, "busy explaining; try again in a few seconds, or without explain", RETRY_HEADER)
        self._count(1, explain)
        try:
            yield
        finally:
            self._count(-1, explain)

    def _count(self, change: int, explain: bool) -> None:
        self._under_way += change
        self._explaining += change * explain
        self.metrics.under_way.set(self._under_way)

    def health(self) -> dict[str, Any]:
        known = {
            "status": "ok",
            "model": None if self.posts is None else self.posts.model.identity,
            "labels": [] if self.posts is None else list(self.posts.labels),
            "modalities": [] if self.posts is None else list(self.posts.model.branches),
            "scores": None,
            "limits": vars(self.limits),
        }
        if self.scores is not None:
            model = self.scores.model
            scale = list(model.description.scores)
            known["scores"] = {
                "model": model.identity,
                "modalities": list(model.modalities),
                "scores_words": self.scores.scores_words,
                "scale": scale,
            }
        return known


async def _disconnected(request: Request) -> None:
    """Returns when whoever sent a request, whose body has come in, has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def build(
    posts: Predictor | None,
    scores: ScorePredictor | None,
    limits: RequestLimits,
    cores: int | None = None,
    *,
    listening: str = LOOPBACK[0],
    allowed: Sequence[str] = (),
) -> FastAPI:
    """The application; its arguments are those of ``Service`` and of ``Origins``."""
    service = Service(posts, scores, limits, cores)
    app = FastAPI(title="EmoCare", docs_url=None, redoc_url=None, lifespan=service.lifespan)
    app.add_middleware(Origins, listening=listening, allowed=allowed)
    app.add_middleware(SecurityHeaders)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Exception, _failed)

    @app.post("/api/predict", openapi_extra=BODY)
    async def predict(request: Request) -> JSONResponse:
        """Emotion, probabilities and what each modality did, for a post of any of text, picture and clip."""
        return await service.respond(service.predict, request)

    @app.post("/api/score", openapi_extra=SCORE_BODY)
    async def score(request: Request) -> JSONResponse:
        """A score with an interval, and what each modality did, for a sample of any of text, audio and visual."""
        return await service.respond(service.score, request)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Whether it is up, and what it answers with."""
        return service.health()

    @app.get("/metrics")
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    add_page(app, examples(posts.model.branches) if posts is not None else [])
    return app


def answer_posts(predictor: Predictor, batch: Sequence[PreparedRequest]) -> list[Answer]:
    """What `predict --json` says of each post, or an ``error`` where nothing of it can be used."""
    answered: list[Answer] = [{}] * len(batch)
    for coverage in {ready.coverage for ready in batch}:
        rows = [at for at, ready in enumerate(batch) if ready.coverage == coverage]
        for at, prediction in zip(rows, predictor.predict([batch[at].post for at in rows], coverage), strict=True):
            answered[at] = {"error": prediction.refusal} if prediction.refusal else prediction.as_json()
    for at, ready in enumerate(batch):
        if "error" not in answered[at] and ready.looked_at is not None:
            answered[at]["looked_at"] = ready.looked_at
    return answered


def answer_sample(predictor: ScorePredictor, parsed: ScoreRequest) -> Answer:
    """What `predict --track sentiment --json` says, or an ``error`` where nothing of the sample can be used."""
    try:
        (score,) = predictor.predict([parsed.sample], COVERAGE if parsed.coverage is None else parsed.coverage)
    except InputError as error:
        return {"error": str(error)}
    return score.as_json() if score.score is not None else {"error": f"nothing to score: {score.reason}"}


def warm(posts: Predictor | None, scores: ScorePredictor | None) -> None:
    """Predicts each modality once, since the first time is slow."""
    if posts is not None:
        posts.predict([Post("warm", examples()[1].image)])
    if scores is not None and scores.scores_words:
        scores.predict([Sample("warm")])


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _failed(_: Request, error: Exception) -> Response:
    """The server itself logs the traceback."""
    return JSONResponse({"error": "failed; the server's log says more"}, 500)
