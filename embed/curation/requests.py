"""What is asked of a language model, as it goes over the wire, and how the text and the cost of a reply are read.

Texts to embed are in `embedding_requests`.
"""

import base64
import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any, Protocol

from embed import documents

_PICTURE_TOKENS = 4096  # of one picture of a few hundred pixels; models count from 250 to some 1,500
_MAX_USAGE = 10_000_000  # tokens; no model reads or writes more at once


class Malformed(Exception):
    """A reply that is not what the protocol promises."""


@dataclasses.dataclass(frozen=True)
class Reply:
    """What came back: the text, and what it cost in tokens. `estimated` where the server told no cost that can be right, so
    that the most it can have been is counted."""

    text: str
    tokens_in: int
    tokens_out: int
    estimated: bool = False


class AnyRequest(Protocol):
    """What can be sent: to which path below the base URL, and how its reply is read.

    `max_tokens` is how many the model may write at most, `max_reply_bytes` the size that a reply may have beyond the usual one.
    `holds_text` says that a reply may repeat what it was sent, so that it is freed of the key.
    """

    path: str
    max_tokens: int
    max_reply_bytes: int
    holds_text: bool

    def max_tokens_in(self, body: bytes) -> int:
        """Returns the most tokens that the model can have read of the JSON that is sent."""
        ...

    def key(self, model: str, structured: bool) -> str:
        """Returns the digest of all that decides the reply, which it is kept by."""
        ...

    def body(self, model: str, structured: bool) -> bytes:
        """Returns the JSON that is sent."""
        ...

    def reply_text(self, value: Any) -> str:
        """Returns what is kept of the JSON of a reply. Raises Malformed for one that the protocol does not promise."""
        ...


class _OfChoices:
    """Base of requests whose reply is a list of choices, of which the first is read."""

    max_reply_bytes = 0
    holds_text = True

    def max_tokens_in(self, body: bytes) -> int:
        """Returns the most tokens that the model can have read: no token is less than a byte."""
        return len(body)

    def reply_text(self, value: Any) -> str:
        """Returns the text of the first choice in the JSON of a reply."""
        choices = value.get("choices") if isinstance(value, dict) else None
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise Malformed("a reply without choices")
        return self.read(choices[0])


@dataclasses.dataclass(frozen=True)
class Request(_OfChoices):
    """One question to a model. `schema` is the JSON schema of the answer, `prompt` the name of the words that were filled in."""

    prompt: str
    system: str
    user: str
    schema: Mapping[str, Any]
    temperature: float = 0.7
    max_tokens: int = 512
    seed: int = 0

    path = "chat/completions"

    def key(self, model: str, structured: bool) -> str:
        """Returns the digest of all that decides the reply, which it is kept by.

        Raises UnicodeEncodeError for a text that UTF-8 cannot hold, which could not be sent either.
        """
        documents.json_bytes(dataclasses.asdict(self))
        return documents.digest_json([model, structured, dataclasses.asdict(self)])

    def body(self, model: str, structured: bool) -> bytes:
        """Returns the JSON that is sent."""
        body = {
            "model": model,
            "messages": [{"role": "system", "content": self.system}, {"role": "user", "content": self.user}],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
        }
        if structured:
            schema = {"name": self.prompt.replace(" ", "_"), "schema": dict(self.schema), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return json.dumps(body, ensure_ascii=False).encode()

    def read(self, choice: Mapping[str, Any]) -> str:
        """Returns the text of a choice; a message without text, where a model refuses, is a reply too: that of nothing."""
        message = choice.get("message")
        if not isinstance(message, dict):
            raise Malformed("a reply without a message")
        content = message.get("content")
        if content is not None and not isinstance(content, str):
            raise Malformed(f"a message whose content is a JSON {type(content).__name__}")
        return content or ""


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image that goes with a question: the bytes of a JPEG, and the digest of the file that it was made from."""

    jpeg: bytes = dataclasses.field(repr=False)
    digest: str = ""


@dataclasses.dataclass(frozen=True)
class ImageRequest(Request):
    """One question about a picture, which comes before the user's part, as the protocol of OpenAI has it."""

    picture: Picture = Picture(b"")

    def max_tokens_in(self, body: bytes) -> int:
        """Returns the most tokens that the model can have read: those of the text, and what a picture counts at most."""
        return max(0, len(body) - len(self._encoded())) + _PICTURE_TOKENS

    def _encoded(self) -> str:
        return base64.b64encode(self.picture.jpeg).decode()

    def key(self, model: str, structured: bool) -> str:
        """Returns the digest of all that decides the reply, the picture by its digest."""
        identity = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "picture"}
        documents.json_bytes(identity)
        return documents.digest_json([model, structured, identity, self.picture.digest])

    def body(self, model: str, structured: bool) -> bytes:
        """Returns the JSON that is sent."""
        body = json.loads(super().body(model, structured))
        url = f"data:image/jpeg;base64,{self._encoded()}"
        text = {"type": "text", "text": self.user}
        body["messages"][1]["content"] = [{"type": "image_url", "image_url": {"url": url}}, text]
        return json.dumps(body, ensure_ascii=False).encode()


@dataclasses.dataclass(frozen=True)
class Continuation(_OfChoices):
    """How likely a model finds `continuation` after `text`: asked of the completions endpoint, which must echo a given text
    with its log-probabilities (vLLM does; chat endpoints do not)."""

    prompt: str
    text: str
    continuation: str
    max_tokens: int = 1

    path = "completions"

    def key(self, model: str, structured: bool) -> str:
        """Returns the digest of all that decides the reply, which it is kept by.

        Raises UnicodeEncodeError for a text that UTF-8 cannot hold, which could not be sent either.
        """
        documents.json_bytes(dataclasses.asdict(self))
        return documents.digest_json([model, "continuation", dataclasses.asdict(self)])

    def body(self, model: str, structured: bool) -> bytes:
        """Returns the JSON that is sent."""
        body = {
            "model": model,
            "prompt": self.text + self.continuation,
            "max_tokens": self.max_tokens,
            "temperature": 0.0,
            "echo": True,
            "logprobs": 1,
        }
        return json.dumps(body, ensure_ascii=False).encode()

    def read(self, choice: Mapping[str, Any]) -> str:
        """Returns the sum of the log-probabilities of the continuation's tokens, "" where the choice has none.

        Tokens are located by their own texts: the offsets that a server reports are shifted by the text of a beginning token.
        """
        logprobs, text = choice.get("logprobs"), choice.get("text")
        if not isinstance(logprobs, dict):
            return ""
        tokens, values = logprobs.get("tokens"), logprobs.get("token_logprobs")
        if not tokens or not values:
            return ""
        if not (isinstance(text, str) and _are_tokens(tokens) and _are_logprobs(values) and len(tokens) == len(values)):
            raise Malformed("log-probabilities that do not belong to tokens")
        # From the back: what was generated, then the continuation.
        end = len(self.text) + len(self.continuation) - len(text)
        summed = []
        for token, value in zip(reversed(tokens), reversed(values)):
            if end >= len(self.continuation):
                break
            end += len(token)
            if end > 0 and value is not None:
                summed.append(value)
        return repr(float(sum(summed))) if summed and end >= len(self.continuation) else ""


def parse(data: bytes, request: AnyRequest, max_tokens_in: int) -> Reply:
    """Returns the reply in the body of a response. Raises Malformed for a body that holds none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as e:
        raise Malformed("a reply that is not JSON") from e
    text = request.reply_text(value)
    usage = value["usage"] if isinstance(value.get("usage"), dict) else {}
    writes = request.max_tokens > 0
    tokens_in, tokens_out = usage.get("prompt_tokens"), usage.get("completion_tokens") if writes else 0
    # A cost that cannot be right must not leave room in the budget for more.
    if _is_count(tokens_in, 1) and _is_count(tokens_out, 1 if text and writes else 0):
        return Reply(text, tokens_in, tokens_out)
    return Reply(text, max_tokens_in, request.max_tokens, estimated=True)


def _is_count(value: Any, minimum: int) -> bool:
    return type(value) is int and minimum <= value <= _MAX_USAGE


def _are_tokens(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _are_logprobs(values: Any) -> bool:
    """Returns whether `values` are finite numbers of no more than rounding above 0, or None, as for the first token."""
    if not isinstance(values, list):
        return False
    return all(
        value is None or (type(value) in (int, float) and -1e6 < value < 1e-3 and math.isfinite(value))
        for value in values
    )
