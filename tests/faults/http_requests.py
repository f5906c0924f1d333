"""Malformed requests against `embed serve` as a process: planned answers, no crash, and memory that does not grow."""

import contextlib
import http.client
import json
import pathlib
import random
import socket
import subprocess
import sys
import time

from reports import Report

TESTS = pathlib.Path(__file__).resolve().parent.parent
_EVERY = 250  # tries between two well-formed requests, whose answers must not change
_GROWTH = 1.10  # of the memory after the first fifth of the tries
_BODY = {"input": ["red river", "é"], "model": "model"}
_PLANNED = (400, 404, 405, 408, 411, 413, 414, 415, 422, 429, 431, 503)


def resident(pid: int) -> int:
    """Returns the bytes of a process that are in memory."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(next(line for line in text.splitlines() if line.startswith("VmRSS:")).split()[1])


def asked(port: int) -> bytes:
    """Returns the answer to the well-formed request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/v1/embeddings", json.dumps(_BODY), {"Content-Type": "application/json"})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    assert response.status == 200, content
    return content


def malformed(choose: random.Random) -> bytes:
    """Returns the bytes of a request that is wrong in one of many ways."""
    body = json.dumps(_BODY).encode()
    kind = choose.randrange(10)
    if kind == 0:  # of bytes that are no HTTP
        return choose.randbytes(choose.randint(1, 300))
    if kind == 1:
        return b"GET /" + b"x" * choose.choice([10, 70_000]) + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    if kind == 2:  # a length that is not that of the body
        length = choose.choice([b"-1", b"0", b"3", b"99999999999999", b"x", b"1e3"])
        return b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Length: " + length + b"\r\n\r\n" + body
    if kind == 3:  # chunks
        return b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + choose.choice(
            [b"zz\r\n", b"5\r\nab", b"ffffffffffffffff\r\nx", b"0\r\n\r\n"]
        )
    if kind == 4:
        body = b"[" * choose.choice([10, 10_000]) if choose.random() < 0.5 else b'{"input":' + b"[" * 5000
    elif kind == 5:
        body = bytes(b ^ (1 << choose.randrange(8)) if choose.random() < 0.05 else b for b in body)
    elif kind == 6:
        wrong = choose.choice(
            [{"input": []}, {"input": ""}, {"input": [1, 2]}, {"input": ["a"] * 5000}, {"input": "a", "dimensions": -1},
             {"input": "a", "model": "other"}, {"input": None}, {"input": "a", "encoding_format": "x"}, {"unknown": 1},
             {"input": ["\ud800"]}, {"input": {"a": 1}}, 3, "text", None, [], {"input": "a", "user": 5}]
        )  # fmt: skip
        body = json.dumps(wrong if not isinstance(wrong, dict) else {**_BODY, **wrong}).encode()
    elif kind == 7:
        body = b"x" * choose.choice([100, 5 << 20])
    path = choose.choice([b"/v1/embeddings", b"/", b"/v1/models/none", b"/../etc/passwd", b"/v1/embeddings?x=%ff"])
    method = choose.choice([b"POST", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"FOO"])
    headers = b"Host: a\r\nContent-Type: application/json\r\n" + choose.choice([b"", b"X: " + b"y" * 70_000 + b"\r\n"])
    cut = len(body) if kind != 8 else choose.randrange(len(body))  # a client that leaves
    head = method + b" " + path + b" HTTP/1.1\r\n" + headers + b"Content-Length: %d\r\n\r\n" % len(body)
    return head + body[:cut]


def sent(port: int, request: bytes) -> int | None:
    """Returns the status of the answer to some bytes; None where the server closed the connection."""
    with (
        socket.create_connection(("127.0.0.1", port), 30) as connection,
        contextlib.suppress(ConnectionError, TimeoutError),
    ):
        connection.settimeout(0.3)
        with contextlib.suppress(ConnectionError):
            connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        line = connection.recv(200).split(b"\r\n")[0].split()
        return int(line[1]) if len(line) > 1 and line[0].startswith(b"HTTP/") and line[1].isdigit() else None
    return None


def run(model: pathlib.Path, tries: int, seed: int, report: Report) -> None:
    """Sends the requests to a server of `model`."""
    command = [sys.executable, "-m", "embed", "serve", str(model), "--port=0", "--name=model"]
    with open(model.parent / "server.log", "w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=TESTS.parent)
    try:
        port, begun = None, time.time()
        while port is None and time.time() - begun < 120:
            time.sleep(0.2)
            text = (model.parent / "server.log").read_text()
            port = next(
                (int(w.rpartition(":")[2].split("/")[0]) for w in text.split() if w.startswith("http://127")), None
            )
        answer, choose, settled = asked(port), random.Random(seed), None
        for number in range(tries):
            request = malformed(choose)
            try:
                status = sent(port, request)
            except OSError as e:
                report.fail(f"the server is gone: {e}: {request[:100]!r}")
                break
            if status is None or status in _PLANNED or status == 200:
                report.survive("closed" if status is None else str(status))
            else:
                report.fail(f"status {status} to {request[:150]!r}")
            if number % _EVERY == 0 and asked(port) != answer:
                report.fail(f"another answer after {number} requests")
            if number == tries // 5:
                settled = resident(server.pid)
        grown = resident(server.pid) / settled if settled else 1.0
        if grown > _GROWTH:
            report.fail(f"memory has grown by a factor of {grown:.2f}")
        else:
            report.outcomes[f"memory x {grown:.2f}"] += 1
    finally:
        server.terminate()
        server.wait(60)
