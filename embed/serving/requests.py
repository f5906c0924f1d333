"""The body of a request for embeddings, read strictly, and the body of the answer."""

import base64
import dataclasses
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from embed import ranges

_Text = Annotated[str, Meta(min_length=1)]


class BadRequest(Exception):
    """What a client must change: the message, the parameter that it is about, and the HTTP status."""

    def __init__(self, message: str, parameter: str | None = None, status: int = 400):
        super().__init__(message)
        self.parameter, self.status = parameter, status


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    """The fields of OpenAI's `POST /v1/embeddings`, and `prompt_name`, a prompt of the model."""

    input: Any
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: ranges.Count | None = None
    user: str | None = None  # whoever asks, in the words of the client; it changes nothing
    prompt_name: str | None = None


_DECODER = msgspec.json.Decoder(_Body)
_TEXTS = msgspec.json.Decoder(str | list[str])


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked for: texts, each with something in it, in a prompt of the model, at a size; base64 or numbers."""

    texts: list[str]
    prompt: str
    dims: int | None
    as_base64: bool


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a request may ask for. `dims` is the model's size, `prompts` the names that it has, `texts` the most of a request."""

    model: str
    dims: int
    prompts: frozenset[str]
    default_prompt: str
    texts: int = 2048


def parse(content: bytes, limits: Limits) -> Request:
    """Returns the request of a body. Whatever the server would not do as it was asked is a BadRequest."""
    try:
        body = _DECODER.decode(content)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as e:
        raise BadRequest(f"the body is not a request for embeddings: {_reason(e)}") from e
    if body.model not in (None, limits.model):
        raise BadRequest(f"no model {body.model[:100]!r} here; the model is {limits.model!r}", "model", 404)
    if body.dimensions is not None and body.dimensions > limits.dims:
        raise BadRequest(f"dimensions = {body.dimensions}; this model gives 1 to {limits.dims}", "dimensions")
    prompt = limits.default_prompt if body.prompt_name is None else body.prompt_name
    if prompt not in limits.prompts and body.prompt_name is not None:
        raise BadRequest(
            f"no prompt {prompt[:100]!r}; this model has {', '.join(sorted(limits.prompts)) or 'none'}", "prompt_name"
        )
    return Request(_texts(body.input, limits), prompt, body.dimensions, body.encoding_format == "base64")


def _texts(value: Any, limits: Limits) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts:
        raise BadRequest("input must be a text or a list of at least one text", "input")
    if len(texts) > limits.texts:
        raise BadRequest(f"input has {len(texts):,} texts; at most {limits.texts:,} go into one request", "input")
    for number, text in enumerate(texts):
        if isinstance(text, int | list):
            raise BadRequest("input holds token ids, which are another tokenizer's; send texts", "input")
        if not isinstance(text, str):
            raise BadRequest(f"input {number} is {type(text).__name__}, expected a text", "input")
        if not text.strip():
            raise BadRequest(f"input {number} is empty", "input")
    return texts


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())[:200]


def answer(vectors: np.ndarray, tokens: int, model: str, as_base64: bool) -> bytes:
    """Returns the body with the float32 vectors [n, E], as OpenAI's answers are; base64 holds them as little-endian float32."""
    rows = np.asarray(vectors, "<f4")
    embeddings = [base64.b64encode(row.tobytes()).decode() for row in rows] if as_base64 else _numbers(rows)
    data = [{"object": "embedding", "index": i, "embedding": e} for i, e in enumerate(embeddings)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return msgspec.json.encode({"object": "list", "data": data, "model": model, "usage": usage})


def _numbers(rows: np.ndarray) -> list[list[float]]:
    """Returns rows as numbers whose JSON gives the same float32 again."""
    return rows.astype(np.float64).tolist()


def error(message: str, parameter: str | None, kind: str) -> bytes:
    """Returns the body of an error, as OpenAI's are."""
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": parameter, "code": None}})
