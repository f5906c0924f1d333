"""A web server of this machine, with images and faults, and how the tests fetch from it."""

import collections
import contextlib
import http.server
import threading
import time

import numpy as np

from embed import image_bytes
from embed.sources.fetcher import Fetching


def picture(number: int) -> bytes:
    return image_bytes.png(np.full((4, 4, 3), number, np.uint8))


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by the first word of the path; counts what was asked."""

    def log_message(self, *_):
        pass

    def answer(self, status: int, body: bytes = b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), "Content-Type": "image/png", **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        server, path = self.server, self.path.strip("/")
        server.asked[path] += 1
        server.agents.add(self.headers["User-Agent"])
        server.times.append(time.monotonic())
        kind, _, number = path.partition("-")
        if path == "robots.txt":
            self.answer(*server.robots, **server.robots_headers)
        elif kind == "image":
            self.answer(200, picture(int(number)))
        elif kind == "html":
            self.answer(200, b"<html>no image</html>")
        elif kind == "missing":
            self.answer(404)
        elif kind == "busy":  # the first time
            self.answer(*((429, b"") if server.asked[path] == 1 else (200, picture(7))), Retry_After="0.2")
        elif kind == "broken":
            self.answer(500)
        elif kind == "huge":
            self.send_response(200)
            self.send_header("Content-Length", str(2 << 30))
            self.end_headers()
        elif kind == "endless":
            self.send_response(200)
            self.end_headers()
            chunk = b"\0" * 65536
            try:
                for _ in range(1000):
                    self.wfile.write(chunk)
                    server.sent += len(chunk)
            except OSError:
                pass
        elif kind == "short":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(picture(1))
        elif kind == "slow":
            self.send_response(200)
            self.end_headers()
            try:
                for _ in range(100):
                    self.wfile.write(b"\0")
                    time.sleep(0.05)
            except OSError:
                pass
        elif kind == "packed":
            self.answer(200, picture(1), Content_Encoding="gzip")
        elif kind == "to":
            self.answer(302, b"", Location=f"/{number}")
        elif kind == "private":
            self.answer(302, b"", Location="http://169.254.169.254/latest/meta-data")
        elif kind == "round":
            self.answer(302, b"", Location="/round-1")
        elif kind == "copy":
            self.answer(200, picture(3))


@contextlib.contextmanager
def running():
    """Yields the server while it runs.

    `asked` counts the paths of requests, `times` are their times, `robots` and `robots_headers` are the answer for robots.txt.
    """
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.agents, server.times, server.sent = collections.Counter(), set(), [], 0
    server.robots, server.robots_headers = (404,), {}
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    server.server_close()


QUICK = Fetching(
    "someone@example.org",
    min_interval=0,
    max_attempts=2,
    first_wait=0.01,
    timeout=1.0,
    max_bytes=1 << 20,
    allow_private=True,
)
