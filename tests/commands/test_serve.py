"""`embed serve` as a process: its vectors are the model's to the bit, bad clients do no harm, and signals end it."""

import concurrent.futures
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
from compiling import FAST

from embed.commands.main import main

TEXTS = ["red river", "green stone in winter", "quick paper engine", "a"]


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve") / "work"
    shutil.copytree(trained, folder)
    return folder


class Server:
    """A running server; `more` are options of the command."""

    def __init__(self, folder, *more, **environment):
        words = [sys.executable, "-m", "embed", "serve", "model", "--port=0", "--no_warm_up", *more]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        # One device, as in the process that is compared.
        self.process = subprocess.Popen(
            words, cwd=folder, env={**os.environ, "XLA_FLAGS": FAST, **environment}, **pipes
        )
        self.lines = []
        for line in self.process.stdout:
            self.lines.append(line)
            if match := re.search(r"POST http://127.0.0.1:(\d+)/v1/embeddings", line):
                self.port = int(match[1])
                return
        raise AssertionError(self.process.communicate()[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def ask(self, body, headers=(), method="POST", path="/v1/embeddings"):
        """Returns (status, answer) of one request over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, content, dict(headers))
        answer = connection.getresponse()
        status, text = answer.status, answer.read()
        connection.close()
        return status, json.loads(text) if text[:1] == b"{" else text.decode()

    def vectors(self, **body) -> np.ndarray:
        status, answer = self.ask(body)
        assert status == 200, answer
        return np.array([d["embedding"] for d in answer["data"]], np.float32)


def one_device_vectors(folder, *given) -> np.ndarray:
    """Returns `encode` of the model by a process with one device, as the server has."""
    code = """import sys, json, numpy, embed
texts, prompt, dims = json.loads(sys.argv[1])
numpy.save('v.npy', embed.load('model').encode(texts, prompt, dims))"""
    words = [sys.executable, "-c", code, json.dumps(given)]
    subprocess.run(words, cwd=folder, env={**os.environ, "XLA_FLAGS": FAST}, check=True, capture_output=True)
    return np.load(folder / "v.npy")


@pytest.mark.slow
def test_vectors_are_encodes_to_the_bit_and_signals_end_it(folder):
    expected = one_device_vectors(folder, TEXTS, "query", None)
    shorter = one_device_vectors(folder, TEXTS, "document", 4)
    with Server(folder, "--together=1") as server:
        np.testing.assert_array_equal(server.vectors(input=TEXTS, prompt_name="query"), expected)
        np.testing.assert_array_equal(server.vectors(input=TEXTS, dimensions=4), shorter)
        alone = {text: server.vectors(input=text) for text in TEXTS}
        with concurrent.futures.ThreadPoolExecutor(8) as pool:  # beside others, each is encoded alone
            for text, vectors in zip(TEXTS * 8, pool.map(lambda text: server.vectors(input=text), TEXTS * 8)):
                np.testing.assert_array_equal(vectors, alone[text])
        assert server.ask({"input": "long " * 5000})[0] == 400
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        assert not server.process.stderr.read()
    with Server(folder, EMBED_SERVER_KEY="k") as server:
        assert server.ask({"input": "a"})[0] == 401
        assert server.ask({"input": "a"}, {"Authorization": "Bearer k"})[0] == 200
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(60) == 0


@pytest.mark.slow
def test_bad_clients_do_no_harm(folder):
    """Malformed HTTP, malformed bodies, clients that leave and one that sends its head slowly: the next request is answered."""
    draw = random.Random(0)
    good = json.dumps({"input": "red river"}).encode()
    with Server(folder) as server:
        expected = server.vectors(input="red river")
        slow = socket.create_connection(("127.0.0.1", server.port))
        slow.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHo")
        for number in range(300):
            body = bytearray(good)
            for _ in range(draw.randint(1, 5)):
                body[draw.randrange(len(body))] = draw.randrange(256)
            if number % 3 == 0:
                with socket.create_connection(("127.0.0.1", server.port)) as raw:
                    raw.sendall(
                        draw.randbytes(draw.randint(1, 200))
                        if number % 2
                        else b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"
                    )
            elif number % 3 == 1:
                connection = http.client.HTTPConnection("127.0.0.1", server.port)
                connection.request("POST", "/v1/embeddings", good)
                connection.close()  # before the answer
            else:
                status, answer = server.ask(bytes(body))
                assert status in (200, 400, 404), answer
        np.testing.assert_allclose(server.vectors(input="red river"), expected, atol=1e-6)
        slow.settimeout(30)
        assert slow.recv(100) == b""  # it was closed
        slow.close()
        status, text = server.ask(b"", method="GET", path="/metrics")
        assert status == 200 and "embed_waiting_texts 0.0" in text


@pytest.mark.parametrize(
    "words, code, message",
    [
        (["--port=70000"], 64, "--port"),
        (["--together=0"], 64, "--together"),
        (["--gin.A=1"], 64, "takes no gin bindings"),
    ],
)
def test_options_that_are_wrong(capsys, words, code, message):
    with pytest.raises(SystemExit) as ended:
        main(["serve", "model", *words])
    error = capsys.readouterr().err
    assert ended.value.code == code and message in error and error.count("\n") == 1


def test_an_address_that_is_taken_a_prompt_there_is_not_and_a_package_that_is_missing(trained, capsys, monkeypatch):
    def refused(*words) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["serve", str(trained / "model"), *words])
        error = capsys.readouterr().err
        assert ended.value.code in (64, 74, 78) and error.count("\n") == 1
        return error

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}: cannot listen there (Address already in use)" in refused(f"--port={port}")
    assert "prompt" in refused("--prompt=none of them")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "embed serve needs starlette, uvicorn, prometheus_client; run: pip install 'embed[serve]'" in refused()
