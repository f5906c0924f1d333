"""Servers that stand for Google's and Amazon's buckets on this machine, behind a proxy that fails as asked.

python tests/bucket_servers.py s3|gs        prints the variables of the environment, and serves until it is ended
"""

import contextlib
import functools
import http.client
import http.server
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator

BUCKET = "embed-test"
_HOP = ("connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "proxy-authorization")


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Is silent: clients leave as they like."""


class Faults:
    """What goes wrong: a share of the requests, drawn with a seed, gets an error or a lost connection."""

    def __init__(self):
        self.share, self.kinds, self.counts = 0.0, ("429", "500", "503", "cut", "lost"), {}
        self.refused: str | None = None  # every request whose line holds this is answered with 403
        self._random, self._lock = random.Random(0), threading.Lock()

    def set(self, share: float, seed: int = 0, kinds: tuple[str, ...] = ("429", "500", "503", "cut", "lost")) -> None:
        """From now on this share of the requests fails in one of these ways."""
        with self._lock:
            self.share, self.kinds, self._random, self.counts = share, kinds, random.Random(seed), {}

    def draw(self, line: str) -> str | None:
        """Returns what goes wrong with a request."""
        with self._lock:
            if self.refused is not None and self.refused in line:
                return "403"
            if self._random.random() >= self.share:
                return None
            kind = self._random.choice(self.kinds)
            self.counts[kind] = self.counts.get(kind, 0) + 1
            return kind


class _Proxy(http.server.BaseHTTPRequestHandler):
    """Hands requests on. What the emulator of Google's buckets lacks is here: it creates objects only where there are none."""

    protocol_version = "HTTP/1.1"
    creating = threading.Lock()

    def __init__(self, *arguments, backend: int, faults: Faults, **named):
        self._backend, self._faults = backend, faults
        super().__init__(*arguments, **named)

    def log_message(self, *_):
        """Says nothing."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _ask(self, method: str, path: str, body: bytes) -> tuple[int, list, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._backend, timeout=60)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
        headers["Content-Length"] = str(len(body))
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, response.getheaders(), content

    def _answer(self, status: int, headers, content: bytes, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in (*_HOP, "content-length", "server", "date"):
                self.send_header(name, value)
        length = next((v for k, v in headers if k.lower() == "content-length"), len(content))
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    def _handle(self) -> None:
        if self.headers.get("Expect", "").lower() == "100-continue":
            pass  # http.server has answered
        body = self._body()
        fault = self._faults.draw(f"{self.command} {urllib.parse.unquote(self.path)}")
        if fault in ("403", "429", "500", "503"):
            self._answer(int(fault), [("Content-Type", "text/plain")], b"injected")
            return
        if fault == "lost":  # before anything was done
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        with self.creating if self.command in ("POST", "PUT") else contextlib.nullcontext():
            if self._exists_already(body):
                self._answer(412, [("Content-Type", "text/plain")], b"conditionNotMet")
                return
            status, headers, content = self._ask(self.command, self.path, body)
        self._answer(status, headers, content, cut=fault == "cut")

    def _exists_already(self, body: bytes) -> bool:
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        if query.get("ifGenerationMatch") != ["0"]:
            return False
        name = query.get("name", [None])[0] or json.loads(body[body.index(b"{") : body.index(b"}") + 1])["name"]
        path = f"/storage/v1/b/{BUCKET}/o/{urllib.parse.quote(name, safe='')}"
        connection = http.client.HTTPConnection("127.0.0.1", self._backend, timeout=60)
        connection.request("GET", path)
        exists = connection.getresponse().status == 200
        connection.close()
        return exists

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = _handle  # noqa: N815 - http.server's names


def _serve_gs(port: int) -> None:
    """Serves Google's buckets, each request in a thread of its own, one at a time."""
    from gcp_storage_emulator import server
    from gcp_storage_emulator.storage import Storage

    storage, one = Storage(use_memory_fs=True), threading.Lock()
    read_data = server._read_data

    def read(handler, query):
        """Reads uploads in two parts, of which the emulator's own parser, which is one of e-mail, changes the bytes."""
        kind = handler.headers.get("Content-Type") or ""
        if not kind.startswith("multipart/related"):
            return read_data(handler, query)
        boundary = b"--" + kind.partition("boundary=")[2].strip("'\"").encode()
        meta, content = server._read_raw_data(handler).removeprefix(boundary).split(b"\n" + boundary, 2)[:2]
        head, _, body = content.lstrip().partition(b"\r\n\r\n" if b"\r\n\r\n" in content[:200] else b"\n\n")
        return {
            "meta": json.loads(meta[meta.index(b"{") :]),
            "content": body,
            "content-type": head.decode().partition(":")[2].strip(),
        }

    server._read_data = read
    storage.create_bucket(BUCKET, {"name": BUCKET, "id": BUCKET, "kind": "storage#bucket"})

    class Handler(server.RequestHandler):
        def __init__(self, *arguments, **named):
            super().__init__(storage, *arguments, **named)

        def handle_one_request(self):
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline:
                self.close_connection = True
                return
            if self.parse_request():
                with one:
                    getattr(self, f"do_{self.command}")()
                self.wfile.flush()

    _Server(("127.0.0.1", port), Handler).serve_forever()


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _wait_for(port: int) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens at {port}")


@contextlib.contextmanager
def served(scheme: str) -> Iterator[tuple[dict[str, str], Faults]]:
    """Yields the environment that leads to an empty bucket BUCKET, and the faults of the way to it."""
    backend = _free_port()
    if scheme == "s3":
        command = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(backend)]
    else:
        command = [sys.executable, __file__, "--serve-gs", str(backend)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(backend)
        if scheme == "s3":
            connection = http.client.HTTPConnection("127.0.0.1", backend)
            connection.request("PUT", f"/{BUCKET}")
            assert connection.getresponse().status == 200
            connection.close()
        faults = Faults()
        proxy = _Server(("127.0.0.1", 0), functools.partial(_Proxy, backend=backend, faults=faults))
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{proxy.server_port}"
        keys = {"AWS_ACCESS_KEY_ID": "made-up", "AWS_SECRET_ACCESS_KEY": "made-up", "AWS_DEFAULT_REGION": "us-east-1"}
        yield {"AWS_ENDPOINT_URL": url, **keys} if scheme == "s3" else {"STORAGE_EMULATOR_HOST": url}, faults
        proxy.shutdown()
        proxy.server_close()
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    if sys.argv[1] == "--serve-gs":
        _serve_gs(int(sys.argv[2]))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with served(sys.argv[1]) as (environment, _):
        print("\n".join(f"export {name}={value}" for name, value in environment.items()), flush=True)
        signal.pause()
