"""An embeddings endpoint that answers by rule, or fails as a script names: the faults of `fault_server`, with vectors."""

import hashlib
import json
import random

import numpy as np
from fault_server import BILLED, ESCAPE, FINAL, FREE, REFUSED, SLOW, FaultServer, failing

DIM = 5
USAGE = {"prompt_tokens": 10, "total_tokens": 10}


def vector(text: str, dim: int = DIM) -> list[float]:
    """Returns the vector of a text."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return [float(x) for x in np.random.default_rng(seed).normal(size=dim).astype(np.float32)]


def expected(texts) -> np.ndarray:
    """Returns the unit vectors of texts in float32."""
    rows = np.array([vector(text) for text in texts], np.float64)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def items(body: dict) -> list[dict]:
    assert body["encoding_format"] == "float" and body["model"] == "tiny"
    dim = body.get("dimensions", DIM)
    return [{"object": "embedding", "index": i, "embedding": vector(x, dim)} for i, x in enumerate(body["input"])]


def listed(data, usage=USAGE, **more) -> bytes:
    return json.dumps({"object": "list", "data": data, "usage": usage, **more}).encode()


def changed(change):
    """Returns the fault of a reply whose vectors are `change`d in place."""

    def fault(server, body):
        data = items(body)
        return failing(listed(change(data) or data))

    return fault


def last(value):
    return changed(lambda data: data[-1].update(embedding=value))


# Replies that were paid for, of which none is what was asked for: the texts are sent again.
WRONG = {
    "one less": changed(lambda data: data[:-1] or [{}]),
    "one more": changed(lambda data: [*data, data[0]]),
    "none": lambda s, b: failing(listed([])),
    "same index": changed(lambda data: [{**data[0], "index": 0}, {**data[0], "index": 0}]),
    "index too large": changed(lambda data: data[0].update(index=len(data))),
    "negative index": changed(lambda data: data[0].update(index=-1)),
    "nan": last([float("nan")] * DIM),
    "infinite": last([float("inf")] + [0.0] * (DIM - 1)),
    "too large": last([1e300] * DIM),
    "integer of many digits": last([10**400] * DIM),
    "zeros": last([0] * DIM),
    "null vector": last(None),
    "base64": last("AACAPwAAgD8="),
    "texts": last(["1"] * DIM),
    "nested": last([[1.0]] * DIM),
    # The size of the first vector of all is unknown before it comes.
    "a value less": changed(lambda data: data[-1].update(embedding=[1.0] * (DIM - 1) if len(data) > 1 else [])),
    "no data": lambda s, b: failing(b'{"object": "list"}'),
    "data of text": lambda s, b: failing(listed("text")),
    "data of lists": lambda s, b: failing(listed([[1.0] * DIM for _ in b["input"]])),
    "half vectors": lambda s, b: failing(listed(items(b)))[:-20],
    "key": lambda s, b: failing(listed(s.key)),
}  # fmt: skip
RIGHT = {
    "ok": lambda s, b: listed(items(b)),
    "shuffled": lambda s, b: listed(random.Random(0).sample(items(b), len(b["input"]))),
    "without index": lambda s, b: listed([{"embedding": item["embedding"]} for item in items(b)]),
    "zero index left out": lambda s, b: listed(
        [{k: x for k, x in item.items() if k != "index" or x} for item in items(b)]
    ),
    "no usage": lambda s, b: listed(items(b), None),
    "negative usage": lambda s, b: listed(items(b), {"prompt_tokens": -4, "total_tokens": -4}),
    "absurd usage": lambda s, b: listed(items(b), {"prompt_tokens": 10**30}),
    "key beside": lambda s, b: listed(items(b), note=f"{s.key} {ESCAPE}"),
}
BILLED_HERE = {name: fault for name, fault in BILLED.items() if name not in ("half body", "no choices")} | WRONG
ALL = {**FREE, **BILLED_HERE, **RIGHT, **FINAL, **REFUSED, **SLOW}


class EmbeddingServer(FaultServer):
    """`FaultServer`, for POST /embeddings."""

    faults, billed, answers = ALL, {*BILLED_HERE, *RIGHT}, {*RIGHT}
    cost = USAGE["total_tokens"]
