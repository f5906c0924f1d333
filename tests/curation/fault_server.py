"""A server on 127.0.0.1 that answers by rule or fails in the way that a script names, and counts every request that reaches it."""

import asyncio
import collections
import email.utils
import gzip
import json
import re
import socket
import struct
import threading
import time
import zlib

from language_model import number, texts_of

USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
TOKENS = 110  # what a request for which the model worked costs
ESCAPE = "\x1b[31mred\x07\u202e"
BOMB = gzip.compress(b" " * 50_000_000, 9)


def right_answer(body: dict) -> dict:
    """Returns the answer to a question, which does not depend on the seed: another try gives the same row."""
    texts = texts_of(body["messages"][1]["content"])
    kind = body["response_format"]["json_schema"]["name"]
    if kind == "query":
        return {"task": "search result", "query": f"about {' '.join(reversed(texts[0].split()[:4]))}"}
    return {"rating": 5 - (number(texts[1]) % 4 == 0) * 3} if kind == "rate_query" else {"grade": number(*texts) % 4}


def completion(text, usage=USAGE) -> bytes:
    message = {"role": "assistant", "content": text}
    value = {"id": "x", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
    return json.dumps(value).encode()


def escaped(text: str) -> str:
    return "".join(f"\\u{ord(c):04X}" for c in text)


def response(status: int, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Something", "content-type: application/json", f"content-length: {len(body)}"]
    lines += ["connection: close"] * (status != 200)
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def failing(body: bytes, **headers: str) -> bytes:
    return response(200, body, connection="close", **headers)


def _deflated(data: bytes) -> bytes:
    return zlib.compress(data, 9)


def _date(seconds: float) -> str:
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


# Of these the model has not worked: nothing is billed.
FREE = {
    "429": lambda s, b: response(429, b'{"error": "slow down"}'),
    "429 now": lambda s, b: response(429, b"{}", retry_after="0"),
    "429 later": lambda s, b: response(429, b"{}", retry_after="0.01"),
    "429 negative": lambda s, b: response(429, b"{}", retry_after="-7"),
    "429 nan": lambda s, b: response(429, b"{}", retry_after="nan"),
    "429 inf": lambda s, b: response(429, b"{}", retry_after="inf"),
    "429 absurd": lambda s, b: response(429, b"{}", retry_after="1e300"),
    "429 date": lambda s, b: response(429, b"{}", retry_after=_date(20)),
    "429 past": lambda s, b: response(429, b"{}", retry_after=_date(-9e8)),
    "429 words": lambda s, b: response(429, b"{}", retry_after="soon, \x85"),
    "503": lambda s, b: response(503, b"busy " + ESCAPE.encode()),
    "503 bomb": lambda s, b: response(503, BOMB, content_encoding="gzip"),
    "408": lambda s, b: response(408),
    "500": lambda s, b: response(500, json.dumps({"error": f"oops with {s.key} {ESCAPE}"}).encode()),
    "502": lambda s, b: response(502, b"<html>" + b"x" * 100_000),
    "reset": lambda s, b: None,
    "no headers": lambda s, b: b"",
    "no http": lambda s, b: b"\x00\xff garbage\r\n\r\n",
    "headers without end": lambda s, b: b"HTTP/1.1 200 OK\r\n" + b"x-long: " + b"y" * 300_000,
    "204": lambda s, b: b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n",
}
# Of these it may have, and the client cannot know: they are billed.
BILLED = {
    "half headers": lambda s, b: b"HTTP/1.1 200 OK\r\ncontent-le",
    "half body": lambda s, b: failing(completion(json.dumps(right_answer(b))))[:-20],
    "not json": lambda s, b: failing(b"{'choices': ["),
    "not utf-8": lambda s, b: failing(b'{"choices": "\xff\xfe"}'),
    "deep": lambda s, b: failing(b'{"choices":' * 100_000),
    "deep list": lambda s, b: failing(b"[" * 60_000),
    "huge number": lambda s, b: failing(b'{"choices": ' + b"9" * 60_000 + b"}"),
    "no object": lambda s, b: failing(b'["choices"]'),
    "null": lambda s, b: failing(b"null"),
    "empty": lambda s, b: failing(b""),
    "no choices": lambda s, b: failing(b'{"choices": []}'),
    "null choices": lambda s, b: failing(b'{"choices": null, "usage": {"prompt_tokens": -5}}'),
    "choices of text": lambda s, b: failing(b'{"choices": ["text"]}'),
    "no message": lambda s, b: failing(b'{"choices": [{"index": 0}]}'),
    "message of text": lambda s, b: failing(b'{"choices": [{"message": "hello"}]}'),
    "content of parts": lambda s, b: failing(completion([{"type": "text", "text": "{}"}])),
    "content of numbers": lambda s, b: failing(completion(3)),
    "oversize": lambda s, b: failing(completion("x" * 200_000)),
    "oversize without length": lambda s, b: b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 500_000,
    "gzip bomb": lambda s, b: failing(BOMB, content_encoding="gzip"),
    "deflate": lambda s, b: failing(_deflated(completion("{}")), content_encoding="deflate"),
    "brotli": lambda s, b: failing(b"\x1b\x00", content_encoding="br"),
    "bombs in each other": lambda s, b: failing(gzip.compress(BOMB), content_encoding="gzip, gzip"),
}
# These are replies, kept and billed, of which none is what was asked for.
WRONG = {
    "wrong schema": lambda s, b: completion('{"task": "x"}'),
    "no answer": lambda s, b: completion(None),
    "words": lambda s, b: completion("I would rather not. " + ESCAPE),
    "braces": lambda s, b: completion("{" * 30_000),
    "deep answer": lambda s, b: completion('{"task":' * 8_000),
    "not a number": lambda s, b: completion('{"rating": NaN, "grade": Infinity}'),
    "surrogate": lambda s, b: completion('{"task": "search result", "query": "half \\ud83d", "rating": 5}'),
    "raw surrogate": lambda s, b: completion('{"task": "search result", "query": "half \ud83d", "rating": 5}'),
    "key": lambda s, b: completion(json.dumps({"task": "search result", "query": f"the key is {s.key}"})),
    "escaped key": lambda s, b: completion(escaped(s.key).join(['{"task": "search result", "query": "', '"}'])),
    "key in words": lambda s, b: completion(f"Authorization: Bearer {s.key}"),
}
# These are right answers, with what a server may say beside them.
RIGHT = {
    "ok": lambda s, b: completion(json.dumps(right_answer(b))),
    "negative usage": lambda s, b: completion(
        json.dumps(right_answer(b)), {"prompt_tokens": -10_000, "completion_tokens": -1}
    ),
    "no usage": lambda s, b: completion(json.dumps(right_answer(b)), None),
    "zero usage": lambda s, b: completion(json.dumps(right_answer(b)), {"prompt_tokens": 0, "completion_tokens": 0}),
    "usage of text": lambda s, b: completion(
        json.dumps(right_answer(b)), {"prompt_tokens": "1", "completion_tokens": "2"}
    ),
    "usage nan": lambda s, b: completion(
        json.dumps(right_answer(b)), {"prompt_tokens": float("nan"), "completion_tokens": float("-inf")}
    ),
    "absurd usage": lambda s, b: completion(
        json.dumps(right_answer(b)), {"prompt_tokens": 10**30, "completion_tokens": 1}
    ),
    "usage of lists": lambda s, b: completion(json.dumps(right_answer(b)), [1, 2]),
    "in fences": lambda s, b: completion(f"```json\n{json.dumps(right_answer(b))}\n```"),
}
# These end a job.
FINAL = {
    "401": lambda s, b: response(401, json.dumps({"error": f"wrong key {s.key}"}).encode()),
    "403": lambda s, b: response(403, ESCAPE.encode()),
    "404": lambda s, b: response(404),
    "redirect on this host": lambda s, b: response(307, location=f"{s.url}/other/completions"),
    "redirect to another port": lambda s, b: response(308, location=f"http://127.0.0.1:{s.other_port}/v1/{s.key}"),
    "redirect to another host": lambda s, b: response(302, location=f"http://localhost:{s.other_port}/?key={s.key}"),
    "redirect to nowhere": lambda s, b: response(301, location="http://[half"),
}
REFUSED = {"400": lambda s, b: response(400, json.dumps({"error": f"too long {s.key} {ESCAPE}"}).encode())}
SLOW = {"trickle": None, "silence": None}
FAULTS = {**FREE, **BILLED, **WRONG, **RIGHT, **FINAL, **REFUSED, **SLOW}


class FaultServer:
    """`begin(script, key)` forgets what was; then each request takes the next fault of the script, and "ok" after its end.

    `received` counts requests, `log` lists (Idempotency-Key, fault) in the order of their arrival, `tokens` is what was worked
    for. Whoever follows a redirect to `other_port` raises `strayed`. Of its `faults` the `billed` ones are worked for, and after
    `answers` the connection stays open. `cost` is that of a request that was worked for, in tokens.
    """

    faults, billed, answers = FAULTS, {*BILLED, *WRONG, *RIGHT}, {*WRONG, *RIGHT}
    cost = TOKENS

    def __init__(self):
        self.strayed = 0
        self.begin([], "none")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._servers = [self._listen(self._serve), self._listen(self._stray)]
        port, self.other_port = (server.sockets[0].getsockname()[1] for server in self._servers)
        self.url = f"http://127.0.0.1:{port}/v1"

    def _listen(self, serve):
        starting = asyncio.start_server(serve, "127.0.0.1", 0)
        return asyncio.run_coroutine_threadsafe(starting, self._loop).result(10)

    def begin(self, script, key: str) -> None:
        self.script, self.key = collections.deque(script), key
        self.received = self.tokens = 0
        self.log: list[tuple[str, str]] = []
        self.on_request = None

    async def _stray(self, reader, writer) -> None:
        self.strayed += 1
        writer.close()

    async def _serve(self, reader, writer) -> None:
        try:
            while await self._answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader, writer) -> bool:
        """Answers one request; returns whether the connection is still of use."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = {name.lower(): value for name, value in re.findall(r"^([\w-]+): (.*)\r$", head, re.MULTILINE)}
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        self.received += 1
        fault = self.script.popleft() if self.script else "ok"
        self.log.append((headers["idempotency-key"], fault))
        assert headers["authorization"] == f"Bearer {self.key}"
        if self.on_request is not None:
            self.on_request(self.received)
        if fault in SLOW:
            await self._be_slow(writer, fault)
            return False
        data = self.faults[fault](self, body)
        if fault in self.billed:
            self.tokens += self.cost
        if data is None:
            linger = struct.pack("ii", 1, 0)  # closes with a reset
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return False
        kept_open = fault in self.answers
        writer.write(response(200, data) if kept_open else data)
        await writer.drain()
        return kept_open

    async def _be_slow(self, writer, fault: str) -> None:
        if fault == "trickle":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        for _ in range(100):
            if writer.is_closing():
                return
            if fault == "trickle":
                writer.write(b" ")
                await writer.drain()
            await asyncio.sleep(0.05)

    def close(self) -> None:
        async def end():
            for server in self._servers:
                server.close()
            tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
