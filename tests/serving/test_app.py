"""The HTTP interface, called as an ASGI application: what is answered to good, bad and unknown requests."""

import asyncio
import dataclasses
import json
import threading

import numpy as np
import pytest

from embed.errors import DataError, NumericError
from embed.serving import app
from embed.serving.batcher import Batcher, Full
from embed.serving.requests import Limits


def encode(texts, prompt):
    if "broken" in texts:
        raise NumericError("the vector of text 0 is not finite")
    if "explode" in texts:
        raise MemoryError("no room on the device")
    rows = [[len(text), len(prompt), 1.0] for text in texts]
    return np.array(rows, np.float32)


def service(**settings):
    def count(texts, prompt):
        if "unreadable" in texts:
            raise DataError("text 0 of 1 gives no token")
        return sum(map(len, texts)), [len(text) > 20 for text in texts]

    limits = Limits("m", 3, frozenset({"query", "document"}), "document")
    shorten = lambda vectors, dims: vectors[:, :dims]  # noqa: E731
    return app.Service(limits, Batcher(encode, 8, 100), count, shorten, 20, app.Metrics(), app.Settings(**settings))


@pytest.fixture
def served():
    services = []

    def make(**settings):
        services.append(service(**settings))
        return app.make(services[-1])

    yield make
    for one in services:
        one.batcher.close()


async def answered(one, method="POST", path="/v1/embeddings", body=b"", headers=(), pieces=None, pause=0.0, stays=True):
    """Returns (status, headers, body) of one request, of a client that goes where it does not stay."""
    sent = [body] if pieces is None else list(pieces)
    waiting = [{"type": "http.request", "body": b, "more_body": i + 1 < len(sent)} for i, b in enumerate(sent)]
    answer = []

    async def receive():
        if not waiting and stays:
            await asyncio.Event().wait()
        if not waiting:
            return {"type": "http.disconnect"}
        await asyncio.sleep(pause)
        return waiting.pop(0)

    async def send(message):
        answer.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(k.encode(), v.encode()) for k, v in headers],
        "scheme": "http",
        "server": ("127.0.0.1", 80),
    }
    await one(scope, receive, send)
    start = next(m for m in answer if m["type"] == "http.response.start")
    content = b"".join(m.get("body", b"") for m in answer if m["type"] == "http.response.body")
    return start["status"], {k.decode(): v.decode() for k, v in start["headers"]}, content


def call(one, *given, **named):
    """`answered`, in a loop of its own."""
    return asyncio.run(answered(one, *given, **named))


def ask(one, headers=(), **body):
    status, _, content = call(one, body=json.dumps(body).encode(), headers=headers)
    return status, json.loads(content)


def test_vectors_are_those_of_the_model(served):
    status, answer = ask(served(), input=["abc", "d"], prompt_name="query", dimensions=2)
    assert status == 200 and answer["model"] == "m" and answer["usage"]["prompt_tokens"] == 4
    assert [d["embedding"] for d in answer["data"]] == [[3, 5], [1, 5]]


@pytest.mark.parametrize(
    "body, status, message",
    [
        (
            {"input": "a" * 30},
            400,
            "input 0 has more than the 20 tokens that the model takes; shorten it, or start the server with",
        ),
        ({"input": "broken"}, 500, "the vector of text 0 is not finite"),
        ({"input": "a", "model": "other"}, 404, "no model 'other'"),
        ({"input": "unreadable"}, 400, "text 0 of 1 gives no token"),
        ({"input": 3}, 400, "input must be a text or a list"),
    ],
)
def test_an_error_is_openais_with_its_status(served, body, status, message):
    answered, answer = ask(served(), **body)
    assert answered == status and message in answer["error"]["message"]


def test_a_text_is_cut_where_the_server_was_told_to_and_it_says_so(served):
    body = json.dumps({"input": ["a" * 30, "b"]}).encode()
    status, headers, _ = call(served(truncate=True), body=body)
    assert status == 200 and headers["x-truncated-texts"] == "1"


def test_a_body_that_is_too_large_or_too_slow_is_refused(served):
    status, _, content = call(served(max_bytes=10), body=b"x" * 11)
    assert status == 413 and b"more than 10 bytes" in content
    status, _, content = call(served(body_seconds=0.05), pieces=[b"a"] * 20, pause=0.02)
    assert status == 408 and b"did not come within 0.05 seconds" in content


def test_a_key_is_asked_for(served):
    one = served(key="k")
    assert ask(one, input="a")[0] == 401
    assert ask(one, (("authorization", "Bearer other"),), input="a")[0] == 401
    assert ask(one, (("authorization", "Bearer k"),), input="a")[0] == 200
    assert call(one, "GET", "/v1/models")[0] == 401
    assert call(one, "GET", "/health")[0] == 200


def test_a_full_server_says_when_to_come_again(served, monkeypatch):
    one = served()

    async def full(self, texts, prompt):
        raise Full

    monkeypatch.setattr(Batcher, "__call__", full)
    status, headers, _ = call(one, body=b'{"input": "a"}')
    assert status == 503 and headers["retry-after"] == "1"


def test_other_addresses_and_methods(served):
    one = served()
    assert call(one, "GET", "/")[0] == 404
    status, _, content = call(one, "GET", "/v1/embeddings")
    assert status == 405 and b"embeddings are at POST /v1/embeddings" in content
    status, _, content = call(one, "GET", "/v1/models")
    assert json.loads(content)["data"][0]["id"] == "m"
    assert json.loads(call(one, "GET", "/health")[2]) == {"status": "ok", "model": "m", "waiting": 0}


def test_metrics_count_what_was_answered(served):
    one = served()
    ask(one, input=["abc", "d"])
    ask(one, input=3)
    text = call(one, "GET", "/metrics")[2].decode()
    assert 'embed_requests_total{status="200"} 1.0' in text and 'embed_requests_total{status="400"} 1.0' in text
    assert "embed_texts_total 2.0" in text and "embed_tokens_total 4.0" in text and "embed_waiting_texts 0.0" in text


def test_a_failure_of_the_model_is_answered_and_printed(served, capsys):
    one = served()
    status, answer = ask(one, input="explode")
    assert status == 500 and answer["error"]["message"] == "the model failed; the server's log says why"
    assert capsys.readouterr().err == "embed: a request failed: MemoryError: no room on the device\n"
    assert ask(one, input="broken")[0] == 500
    assert capsys.readouterr().err == "embed: a request failed: the vector of text 0 is not finite\n"
    status, _, shown = call(one, "GET", "/metrics")
    assert b'embed_requests_total{status="500"} 2.0' in shown and ask(one, input="a")[0] == 200


def test_what_a_client_that_has_gone_asked_for_is_not_encoded():
    """The first request keeps the model busy; the client of the second goes while it waits."""
    encoded, is_busy, may_go_on = [], threading.Event(), threading.Event()

    def slow(texts, prompt):
        encoded.extend(texts)
        is_busy.set()
        assert may_go_on.wait(10)
        return encode(texts, prompt)

    one = dataclasses.replace(service(), batcher=Batcher(slow, 8, 100))
    made = app.make(one)

    async def run():
        first = asyncio.ensure_future(answered(made, body=b'{"input": "first", "model": "m"}'))
        while not is_busy.is_set():
            await asyncio.sleep(0.001)
        assert (await answered(made, body=b'{"input": "second", "model": "m"}', stays=False))[0] == 499
        may_go_on.set()
        assert (await first)[0] == 200
        assert (await answered(made, body=b'{"input": "third", "model": "m"}'))[0] == 200

    asyncio.run(run())
    assert encoded == ["first", "third"]
    one.batcher.close()


def test_no_more_is_answered_while_too_much_is_unread(served):
    one = dataclasses.replace(service(max_unread=1000), unread=lambda: 1001)
    status, headers, content = call(app.make(one), body=b'{"input": "a"}')
    assert status == 503 and headers["retry-after"] == "1" and b"too many answers wait to be read" in content
    one.batcher.close()
