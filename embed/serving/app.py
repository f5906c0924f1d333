"""The HTTP interface: POST /v1/embeddings, GET /v1/models, /health and /metrics."""

import asyncio
import contextlib
import dataclasses
import hmac
import sys
import time
from collections.abc import Callable

import numpy as np
import prometheus_client as prometheus
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from embed.documents import first_line
from embed.errors import DataError, EmbedError
from embed.serving import requests
from embed.serving.batcher import Batcher, Full
from embed.serving.requests import BadRequest

_JSON = "application/json"
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """What /metrics shows, in Prometheus' form."""

    def __init__(self):
        self.registry = prometheus.CollectorRegistry()
        given = {"registry": self.registry}
        self.requests = prometheus.Counter(
            "embed_requests", "Requests for embeddings, by HTTP status", ["status"], **given
        )
        self.texts = prometheus.Counter("embed_texts", "Texts that were encoded", **given)
        self.tokens = prometheus.Counter("embed_tokens", "Tokens of texts that were encoded, without padding", **given)
        self.seconds = prometheus.Histogram(
            "embed_request_seconds", "From the whole request to its answer", buckets=_SECONDS, **given
        )
        self.batch = prometheus.Histogram(
            "embed_batch_requests", "Requests that were encoded together", buckets=(1, 2, 4, 8, 16, 32, 64), **given
        )

    def watch(self, waiting: Callable[[], int]) -> None:
        """Shows how many texts wait."""
        gauge = prometheus.Gauge("embed_waiting_texts", "Texts that wait for the model", registry=self.registry)
        gauge.set_function(waiting)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the server allows: bytes of a body, seconds to send it, bytes of answers that clients have not read, a key that clients
    must have, and whether texts are cut."""

    max_bytes: int = 4 << 20
    max_unread: int = 1 << 30
    body_seconds: float = 10.0
    key: str | None = None
    truncate: bool = False


@dataclasses.dataclass(frozen=True)
class Service:
    """What the interface answers with. `count(texts, prompt)` gives their tokens and which of them would be cut; `shorten` takes
    vectors to a smaller size; `max_length` is of a text in tokens; `unread()` are the bytes of answers that wait for clients."""

    limits: requests.Limits
    batcher: Batcher
    count: Callable[[list[str], str], tuple[int, list[bool]]]
    shorten: Callable[[np.ndarray, int], np.ndarray]
    max_length: int
    metrics: Metrics
    settings: Settings
    unread: Callable[[], int] = lambda: 0


def make(service: Service) -> Starlette:
    """Returns the ASGI application."""

    async def embeddings(http: HttpRequest) -> Response:
        started = time.perf_counter()
        response = await _answered(service, http)
        service.metrics.requests.labels(str(response.status_code)).inc()
        service.metrics.seconds.observe(time.perf_counter() - started)
        return response

    async def models(http: HttpRequest) -> Response:
        refused = _refused(service, http)
        model = {"id": service.limits.model, "object": "model", "created": 0, "owned_by": "embed"}
        return refused or JSONResponse({"object": "list", "data": [model]})

    async def health(http: HttpRequest) -> Response:
        return JSONResponse({"status": "ok", "model": service.limits.model, "waiting": service.batcher.waiting})

    async def metrics(http: HttpRequest) -> Response:
        content = prometheus.generate_latest(service.metrics.registry)
        return Response(content, media_type=prometheus.CONTENT_TYPE_PLAIN_0_0_4)

    @contextlib.asynccontextmanager
    async def lifespan(app):
        yield
        await asyncio.to_thread(service.batcher.close)

    service.metrics.watch(lambda: service.batcher.waiting)
    return Starlette(
        routes=[
            Route("/v1/embeddings", embeddings, methods=["POST"]),
            Route("/v1/models", models),
            Route("/health", health),
            Route("/metrics", metrics),
        ],
        exception_handlers={404: _unknown, 405: _unknown},
        lifespan=lifespan,
    )


async def _unknown(http: HttpRequest, error) -> Response:
    message = f"no {http.method} {http.url.path[:200]} here; embeddings are at POST /v1/embeddings"
    return _error(error.status_code, message, None, "invalid_request_error")


async def _answered(service: Service, http: HttpRequest) -> Response:
    refused = _refused(service, http)
    if refused is not None:
        return refused
    if service.unread() > service.settings.max_unread:
        return _error(503, "too many answers wait to be read; try again", None, "server_error", {"Retry-After": "1"})
    try:
        request = requests.parse(await _body(http, service.settings), service.limits)
        tokens, cut = await _counted(service, request)
        if any(cut) and not service.settings.truncate:
            raise BadRequest(
                f"input {cut.index(True)} has more than the {service.max_length} tokens that the model takes; shorten it, or start "
                "the server with --truncate",
                "input",
            )
        vectors = await _encoded(service, request, http)
        if request.dims is not None:
            vectors = service.shorten(vectors, request.dims)
        service.metrics.texts.inc(len(request.texts))
        service.metrics.tokens.inc(tokens)
        content = await asyncio.to_thread(requests.answer, vectors, tokens, service.limits.model, request.as_base64)
    except BadRequest as e:
        return _error(e.status, str(e), e.parameter, "invalid_request_error")
    except ClientDisconnect:
        return Response(status_code=499)
    except Full:
        return _error(503, "too many texts wait; try again", None, "server_error", {"Retry-After": "1"})
    except EmbedError as e:
        print(f"embed: a request failed: {e}", file=sys.stderr, flush=True)
        return _error(500, str(e), None, "server_error")
    except Exception as e:
        # A failure of the model or the runtime, such as a device without memory. The operator sees it in the log.
        print(f"embed: a request failed: {type(e).__name__}: {first_line(e)}", file=sys.stderr, flush=True)
        return _error(500, "the model failed; the server's log says why", None, "server_error")
    headers = {"X-Truncated-Texts": str(sum(cut))} if any(cut) else {}
    return Response(content, media_type=_JSON, headers=headers)


async def _encoded(service: Service, request: requests.Request, http: HttpRequest) -> np.ndarray:
    """Returns the vectors of a request. When the client disconnects the request is cancelled, with a ClientDisconnect."""
    vectors = asyncio.ensure_future(service.batcher(request.texts, request.prompt))
    gone = asyncio.ensure_future(http.receive())  # after the body, the only message is the disconnect
    try:
        await asyncio.wait({vectors, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not vectors.done():
            raise ClientDisconnect
        return vectors.result()
    finally:
        gone.cancel()
        vectors.cancel()


async def _counted(service: Service, request: requests.Request) -> tuple[int, list[bool]]:
    """Returns the tokens of the texts and which are cut. A text that the model cannot read is a BadRequest."""
    try:
        return await asyncio.to_thread(service.count, request.texts, request.prompt)
    except DataError as e:
        raise BadRequest(str(e), "input") from e


def _refused(service: Service, http: HttpRequest) -> Response | None:
    """Returns the answer to a client without the key, where the server has one."""
    key = service.settings.key
    given = http.headers.get("authorization", "").removeprefix("Bearer ")
    if key is None or hmac.compare_digest(given.encode(), key.encode()):
        return None
    message = "a key is needed: Authorization: Bearer KEY"
    return _error(401, message, None, "authentication_error", {"WWW-Authenticate": "Bearer"})


async def _body(http: HttpRequest, settings: Settings) -> bytes:
    """Returns the body; one that is too large, or takes too long, is a BadRequest."""
    content = bytearray()
    try:
        async with asyncio.timeout(settings.body_seconds):
            async for piece in http.stream():
                content += piece
                if len(content) > settings.max_bytes:
                    raise BadRequest(f"the body has more than {settings.max_bytes:,} bytes", status=413)
    except TimeoutError as e:
        raise BadRequest(f"the body did not come within {settings.body_seconds:g} seconds", status=408) from e
    return bytes(content)


def _error(status: int, message: str, parameter: str | None, kind: str, headers: dict | None = None) -> Response:
    return Response(requests.error(message, parameter, kind), status, headers, _JSON)
