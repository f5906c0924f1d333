"""A server on this machine that speaks the protocol of chat completions, answers by rule, and fails as it is told."""

import collections
import contextlib
import hashlib
import http.server
import json
import re
import threading
import time


def texts_of(message: str) -> list[str]:
    """Returns the texts between marks in a message."""
    return [text for _, text in re.findall(r"<text ([0-9a-f]+)>\n(.*?)\n</text \1>", message, re.DOTALL)]


def number(*parts) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def answer(body: dict) -> dict:
    """Returns what a sensible model would: by the name of the schema, and the texts."""
    system, user = (m["content"] for m in body["messages"])
    pictures = (
        [part["image_url"]["url"] for part in user if part["type"] == "image_url"] if isinstance(user, list) else []
    )
    user = user[-1]["text"] if isinstance(user, list) else user
    kind, texts = (
        body["response_format"]["json_schema"]["name"] if "response_format" in body else "query",
        texts_of(user),
    )
    if kind == "query":
        return {
            "task": "search result",
            "query": f"about {' '.join(reversed(texts[0].split()[:4]))} {body['seed'] % 7}",
        }
    if kind == "caption":
        return {"caption": f"a picture of {len(pictures[0])} letters, found with: {texts[0]}"}
    if kind == "rate_query":
        return {"rating": 5 - (number(texts[1]) % 4 == 0) * 3}
    if kind == "grade":
        return {"grade": 3 if set(texts[0].split()) & set(texts[1].split()) else number(*texts) % 3}
    if kind in ("people", "subjects"):
        return {"items": [f"{kind} {i} of {body['seed']}" for i in range(40)]}
    return {"text": f"a text by {texts[0]} on {texts[1]}, seed {body['seed']}"}


class Server:
    """`answered` counts replies by the request's key; `faults` is a list of functions (handler, body) -> whether it failed, of
    which each request takes one until none is left."""

    def __init__(self, reply=answer, key="secret"):
        self.reply, self.key, self.faults, self.delay = reply, key, [], 0.0
        self.answered: collections.Counter = collections.Counter()
        self.received, self.bodies, self.most_at_once, self._now = 0, [], 0, 0
        self.likely = likelihood
        self._lock = threading.Lock()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else each body waits for the client to acknowledge the headers

            def log_message(self, *arguments):
                pass

            def do_POST(self):
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    outer._post(self)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True)
        self._thread.start()

    def _post(self, handler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        with self._lock:
            self.received += 1
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            self.bodies.append(body)
            fault = self.faults.pop(0) if self.faults else None
        try:
            time.sleep(self.delay)
            given = (handler.headers["authorization"] or "").removeprefix("Bearer ")
            if given != self.key:
                send(handler, 401, {"error": {"message": f"wrong key: {given}"}})
            elif handler.path == "/v1/completions" and body["model"] == "tiny":
                with self._lock:
                    self.answered[handler.headers["idempotency-key"]] += 1
                send(handler, 200, echoed(body, self.likely))
            elif handler.path != "/v1/chat/completions" or body["model"] != "tiny":
                send(handler, 404, {"error": {"message": "no such model"}})
            elif fault is None or not fault(handler, body):
                self._answer(handler, body)
        finally:
            with self._lock:
                self._now -= 1

    def _answer(self, handler, body) -> None:
        found = self.reply(body)
        text = found if isinstance(found, str) else json.dumps(found)
        with self._lock:
            self.answered[handler.headers["idempotency-key"]] += 1
        send(handler, 200, completion(text))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def likelihood(before: str, word: str) -> float | None:
    """Returns the log-probability of a word: high where it was said before."""
    return -0.5 if word.strip() in before.split() else -4.0


def echoed(body: dict, likely) -> dict:
    """Returns the words of a prompt with their log-probabilities, and one that was generated, as vLLM does."""
    assert body["echo"] and body["max_tokens"] == 1
    words = [*re.finditer(r"\s*\S+", body["prompt"])]
    tokens = [w[0] for w in words]
    values = [None, *(likely("".join(tokens[:i]), tokens[i]) for i in range(1, len(tokens)))]
    tokens, values = ["<bos>", *tokens, " more"], [None, -7.0, *values[1:], -9.0]
    offsets = [sum(map(len, tokens[:i])) for i in range(len(tokens))]  # which the beginning token moves
    told = {"tokens": tokens, "token_logprobs": values, "text_offset": offsets, "top_logprobs": None}
    choice = {"index": 0, "text": body["prompt"] + " more", "finish_reason": "length"}
    choice["logprobs"] = None if likely is mute else told
    usage = {"prompt_tokens": len(words), "completion_tokens": 1, "total_tokens": len(words) + 1}
    return {"id": "x", "object": "text_completion", "created": 0, "model": "tiny", "choices": [choice], "usage": usage}


def mute(before: str, word: str) -> None:
    """Stands for a server that tells no log-probabilities."""


def completion(text: str) -> dict:
    message = {"role": "assistant", "content": text}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "tiny",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    }


def send(handler, status: int, content, headers=()) -> None:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    handler.send_response(status)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", str(len(data)))
    for name, value in headers:
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(data)


def too_many(handler, body) -> bool:
    send(handler, 429, {"error": {"message": "slow down"}}, [("retry-after", "0.01")])
    return True


def broken(handler, body) -> bool:
    send(handler, 500, {"error": {"message": "oops"}})
    return True


def not_json(handler, body) -> bool:
    send(handler, 200, b"{'choices': [")
    return True


def no_message(handler, body) -> bool:
    send(handler, 200, {"id": "x", "choices": []})
    return True


def promise(handler) -> None:
    """Says that a thousand bytes follow."""
    handler.send_response(200)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", "1000")
    handler.end_headers()


def half_sent(handler, body) -> bool:
    promise(handler)
    handler.wfile.write(b'{"choices": [{"index"')
    handler.close_connection = True
    return True


def hung_up(handler, body) -> bool:
    handler.close_connection = True
    handler.connection.close()
    return True


def silent(handler, body) -> bool:
    time.sleep(2.0)
    return True


def trickling(handler, body) -> bool:
    """Sends a byte now and then, so that no single read times out."""
    promise(handler)
    for _ in range(40):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.1)
    return True


FAULTS = [too_many, broken, not_json, no_message, half_sent, hung_up, silent, trickling]
