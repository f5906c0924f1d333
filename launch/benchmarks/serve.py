"""`embed serve` against sentence-transformers behind the same ASGI library, under 1, 8 and 64 clients, in turns.

    python launch/benchmarks/serve.py SOURCE [--seconds=10] [--rounds=3] [--work=FOLDER] [--output=FOLDER]

SOURCE is a sentence-transformers folder. Each client asks for one text at a time, a question of 5 to 40 words, over a connection
that it keeps. sentence-transformers encodes each request in a thread of the server, as its users do.
"""

import argparse
import concurrent.futures
import http.client
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time

import numpy as np
from turns import Ratio, finish, median, table

CLIENTS = (1, 8, 64)
WORDS = [
    "how",
    "why",
    "can",
    "the",
    "a",
    "model",
    "train",
    "text",
    "image",
    "vector",
    "of",
    "in",
    "on",
    "with",
    "search",
]
PEER = """
import asyncio, sys, contextlib
import uvicorn
from sentence_transformers import SentenceTransformer
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
model = SentenceTransformer(sys.argv[1], device="cpu")
model.encode(["warm"] * 64)
async def embeddings(http):
    body = await http.json()
    vectors = await asyncio.to_thread(model.encode, body["input"])
    return JSONResponse({"data": [{"embedding": v.tolist()} for v in vectors]})
app = Starlette(routes=[Route("/v1/embeddings", embeddings, methods=["POST"])])
class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print("POST http://127.0.0.1:%d/v1/embeddings" % self.servers[0].sockets[0].getsockname()[1], flush=True)
Server(uvicorn.Config(app, port=0, log_level="critical", access_log=False)).run()
"""


def started(words: list[str]) -> tuple[subprocess.Popen, int]:
    """Returns a server that listens, and its port."""
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, env={**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    )
    for line in process.stdout:
        if match := re.search(r"POST http://127.0.0.1:(\d+)", line):
            return process, int(match[1])
    raise SystemExit(f"{words[0]}: the server did not start")


def question(draw: random.Random) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(5, 40)))


def client(port: int, seed: int, until: float) -> list[float]:
    """Returns the seconds of each request until a moment."""
    draw, times = random.Random(seed), []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while time.perf_counter() < until:
        began = time.perf_counter()
        body = json.dumps({"input": [question(draw)]})
        connection.request("POST", "/v1/embeddings", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status == 200, content[:300]
        times.append(time.perf_counter() - began)
    connection.close()
    return times


LOAD = """
import sys, json; sys.path.insert(0, sys.argv[4])
import serve
print(json.dumps(serve.load(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))))
"""


def load(port: int, clients: int, seconds: float) -> list[float]:
    """Returns the seconds of all requests of some clients at once."""
    until = time.perf_counter() + seconds
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        return [t for times in pool.map(lambda seed: client(port, seed, until), range(clients)) for t in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work")
    parser.add_argument("--output")
    arguments = parser.parse_args()
    model = pathlib.Path(arguments.work or tempfile.mkdtemp(prefix="embed-serve-")) / "model"
    if not model.exists():
        subprocess.run([sys.executable, "-m", "embed", "convert", arguments.source, str(model)], check=True)
    servers = {
        "embed": started([sys.executable, "-m", "embed", "serve", str(model), "--port=0"]),
        "sentence-transformers": started([sys.executable, "-c", PEER, arguments.source]),
    }
    rates = {(name, n): [] for name in servers for n in CLIENTS}
    waits = {key: [] for key in rates}
    try:
        for turn in range(arguments.rounds + 1):
            for n in CLIENTS:
                for name in sorted(servers, reverse=turn % 2 == 0):
                    words = [sys.executable, "-c", LOAD, str(servers[name][1]), str(n), str(arguments.seconds)]
                    words.append(str(pathlib.Path(__file__).parent))
                    times = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
                    if turn:  # the first warms up
                        rates[name, n].append(len(times) / arguments.seconds)
                        waits[name, n].append(float(np.quantile(times, 0.99)))
    finally:
        for process, _ in servers.values():
            process.terminate()
            process.wait()
    rows = [
        [f"{name}, {n} clients", f"{median(rates[name, n]):.0f}", f"{1000 * median(waits[name, n]):.0f}"]
        for name, n in rates
    ]
    ratios = [
        Ratio(
            f"requests a second, embed / sentence-transformers, {n}",
            median(rates["embed", n]) / median(rates["sentence-transformers", n]),
            1.0,
        )
        for n in CLIENTS
    ]
    text = "One text a request.\n\n" + table(["", "requests/s", "p99 ms"], rows)
    values = {
        "rates": {f"{k[0]}, {k[1]}": v for k, v in rates.items()},
        "p99": {f"{k[0]}, {k[1]}": v for k, v in waits.items()},
    }
    finish("serve", ratios, values, text, arguments.output)


if __name__ == "__main__":
    main()
