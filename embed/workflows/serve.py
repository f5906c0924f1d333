"""A MODEL behind HTTP."""

import os
import pathlib
import socket
import time

from embed import console
from embed.errors import StorageError, UsageError
from embed.inference import model as inference
from embed.inference.model import EmbeddingModel
from embed.serving import app, server
from embed.serving.batcher import Batcher
from embed.serving.requests import Limits
from embed.text import template
from embed.vectors import truncate_numpy

KEY_VARIABLE = "EMBED_SERVER_KEY"
_LOCAL = ("127.0.0.1", "::1", "localhost")


def run(
    model,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str | None = None,
    prompt: str = "document",
    max_length: int | None = None,
    dtype: str | None = None,
    weights: str = "float32",
    truncate: bool = False,
    together: int = 64,
    waiting: int = 4096,
    connections: int = 256,
    max_bytes: int = 4 << 20,
    warm_up: bool = True,
) -> None:
    """Serves the texts of a MODEL until SIGTERM or Ctrl-C, in the form of OpenAI's `POST /v1/embeddings`.

    Vectors are `EmbeddingModel.encode`'s of the texts that are encoded together. `prompt` is used where a request names none.
    `together` is how many texts of several requests are encoded at once; with 1 each request is encoded alone, and its vectors are
    those of `encode` to the bit. Texts of more than `max_length` tokens are refused, or with `truncate` cut. Clients need the key
    of the environment variable EMBED_SERVER_KEY, where it is set.
    """
    opened = inference.open_model(model, max_length=max_length, dtype=dtype, weights=weights)
    if opened.encoder.texts is None:
        raise UsageError(f"{opened.folder}: embeds images only, and requests hold texts; take a model of texts")
    template(prompt, opened.prompts)
    name = name or pathlib.Path(model).resolve().name
    key = os.environ.get(KEY_VARIABLE) or None
    _check_address(host, port)
    if warm_up:
        _warm_up(opened, prompt, together)
    metrics = app.Metrics()

    def seen(texts: int, requests: int, seconds: float) -> None:
        metrics.batch.observe(requests)

    def count(texts: list[str], prompt: str) -> tuple[int, list[bool]]:
        rows, cut = opened.encoder.texts.tokens_and_cuts(texts, prompt)
        return sum(map(len, rows)), cut

    service = app.Service(
        Limits(name, opened.embedding_dim, frozenset(opened.prompts), prompt),
        Batcher(opened.encode, together, waiting, seen),
        count,
        truncate_numpy,
        opened.max_length,
        metrics,
        app.Settings(max_bytes, key=key, truncate=truncate),
        server.unread,
    )

    def listening(host: str, port: int) -> None:
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        console.say(f"{name}: {opened.embedding_dim} values, texts up to {opened.max_length} tokens, prompt {prompt!r}")
        console.say(f"POST {url}/v1/embeddings, GET {url}/v1/models, /health, /metrics; Ctrl-C ends it")
        if host not in _LOCAL:
            guarded = f"with the key of {KEY_VARIABLE}" if key else f"WITHOUT A KEY; set {KEY_VARIABLE} to ask for one"
            console.say(f"every machine that reaches {host} can use it, {guarded}")

    server.serve(app.make(service), host, port, connections, listening)


def _check_address(host: str, port: int) -> None:
    """Raises StorageError where the address cannot be had, before anything is compiled."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except OSError as e:
        raise StorageError(
            f"{host}:{port}: cannot listen there ({e.strerror or e}); choose another --host or --port"
        ) from e


def _warm_up(opened: EmbeddingModel, prompt: str, together: int) -> None:
    """Compiles the programs of short and long texts, alone and together, so that the first clients need not wait for them."""
    started, length, lengths = time.perf_counter(), opened.max_length, []
    while length >= 8 and len(lengths) < 6:
        lengths.append(length)
        length //= 2
    counts = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= together]
    for length in reversed(lengths):
        text = " ".join(["a"] * max(1, length - 12))
        for count in counts:
            opened.encode([text] * count, prompt)
    seconds = time.perf_counter() - started
    console.say(
        f"compiled for texts of {lengths[-1]} to {lengths[0]} tokens, 1 to {counts[-1]} at once, in {seconds:.0f} s"
    )
