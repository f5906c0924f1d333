"""An OpenAI-compatible endpoint (vLLM, Gemini's, `transformers serve`): one request, its reply, and what is tried again."""

import asyncio
import dataclasses
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

from embed import files
from embed.errors import EndpointError, UsageError


@dataclasses.dataclass(frozen=True)
class Request:
    """One question to a model. `schema` is the JSON schema of the answer, `prompt` the name of the words that were filled in."""

    prompt: str
    system: str
    user: str
    schema: Mapping[str, Any]
    temperature: float = 0.7
    max_tokens: int = 512
    seed: int = 0

    def key(self, endpoint: "Endpoint") -> str:
        """Returns the digest of all that decides the reply, which it is kept by."""
        return files.digest_json([endpoint.model, endpoint.structured, dataclasses.asdict(self)])

    @property
    def size(self) -> int:
        """About how many tokens the question has; few scripts need more than one for three bytes."""
        return len((self.system + self.user).encode("utf-8", "surrogatepass")) // 3

    def send(self, client, endpoint: "Endpoint"):
        """Returns the call that asks `client`."""
        body = {
            "model": endpoint.model,
            "messages": [{"role": "system", "content": self.system}, {"role": "user", "content": self.user}],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
            # Servers that know it give the same reply, and bill it once, when a request comes again after a kill.
            "extra_headers": {"Idempotency-Key": self.key(endpoint)},
        }
        if endpoint.structured:
            schema = {"name": self.prompt.replace(" ", "_"), "schema": dict(self.schema), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return client.chat.completions.create(**body)

    def read(self, found) -> str:
        """Returns the text of a response; a message without text, where a model refuses, is a reply too: that of nothing."""
        return str(found.choices[0].message.content or "")


@dataclasses.dataclass(frozen=True)
class Continuation:
    """How likely a model finds `continuation` after `text`: asked of the completions endpoint, which must echo a given text
    with its log-probabilities (vLLM does; chat endpoints do not)."""

    prompt: str
    text: str
    continuation: str
    max_tokens: int = 1

    def key(self, endpoint: "Endpoint") -> str:
        """Returns the digest of all that decides the reply, which it is kept by."""
        return files.digest_json([endpoint.model, "continuation", dataclasses.asdict(self)])

    @property
    def size(self) -> int:
        """About how many tokens the question has."""
        return len((self.text + self.continuation).encode("utf-8", "surrogatepass")) // 3

    def send(self, client, endpoint: "Endpoint"):
        """Returns the call that asks `client`."""
        return client.completions.create(
            model=endpoint.model,
            prompt=self.text + self.continuation,
            max_tokens=self.max_tokens,
            temperature=0.0,
            echo=True,
            logprobs=1,
            extra_headers={"Idempotency-Key": self.key(endpoint)},
        )

    def read(self, found) -> str:
        """Returns the sum of the log-probabilities of the continuation's tokens, "" where the response has none.

        Places are taken from the tokens' own words: offsets that a server tells are moved by the words of a beginning token.
        """
        told = getattr(found.choices[0], "logprobs", None)
        tokens, values = getattr(told, "tokens", None), getattr(told, "token_logprobs", None)
        if not tokens or not values or len(tokens) != len(values):
            return ""
        # From the back: what was generated, then the continuation.
        generated = len(found.choices[0].text) - len(self.text) - len(self.continuation)
        own, end = [], -generated
        for word, value in zip(reversed(tokens), reversed(values)):
            if end >= len(self.continuation):
                break
            end += len(word)
            if end > 0 and value is not None:
                own.append(value)
        return repr(float(sum(own))) if own and end >= len(self.continuation) else ""


@dataclasses.dataclass(frozen=True)
class Reply:
    """What came back: the text, and what it cost in tokens."""

    text: str
    tokens_in: int
    tokens_out: int


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """Where a model is served. `key` is a secret: it is neither shown nor written anywhere.

    A request is tried `attempts` times, after waits that double from `first_wait` seconds or are what the server asks for;
    one that is not through after `deadline` seconds, however slowly it trickles, counts as failed. `structured` asks the
    server to hold the model to the schema; not every server can.
    """

    base_url: str
    model: str
    key: str = dataclasses.field(default="none", repr=False)
    key_variable: str = "EMBED_API_KEY"  # where the user keeps it, for advice
    attempts: int = 8
    deadline: float = 120.0
    first_wait: float = 1.0
    longest_wait: float = 60.0
    structured: bool = True

    def __post_init__(self):
        found = urllib.parse.urlsplit(self.base_url)
        try:
            usable = found.scheme in ("http", "https") and bool(found.hostname) and found.port != 0
        except ValueError:  # a port that is no number
            usable = False
        if not usable:
            raise UsageError(f"--endpoint={self.base_url}: not a base URL such as http://localhost:8000/v1")
        if not (self.key.isascii() and self.key.isprintable()):
            raise UsageError(f"{self.key_variable}: the key holds characters that no key has; set it again")

    def open(self, lost: Callable[[Reply], None]) -> "Connection":
        """Returns the connection that requests go through; `lost` is told what a reply of no use cost."""
        return Connection(self, lost)


class Connection:
    """Sends requests, and tries again what may work the next time."""

    def __init__(self, endpoint: Endpoint, lost: Callable[[Reply], None]):
        try:
            import openai
            import tenacity
        except ImportError as e:
            raise UsageError("language models need packages; run: pip install 'embed[curation]'") from e
        self._openai, self._tenacity, self._endpoint, self._lost = openai, tenacity, endpoint, lost
        self._client = openai.AsyncOpenAI(
            base_url=endpoint.base_url, api_key=endpoint.key, max_retries=0, timeout=endpoint.deadline
        )
        self.retried = 0

    async def close(self) -> None:
        """Closes the connection."""
        await self._client.close()

    async def send(self, request: Request | Continuation) -> Reply:
        """Returns the reply.

        What no second try can mend is an EndpointError at once, all else one after the last; a Refused where it is this
        request that the server does not take.
        """
        tries = self._tenacity.AsyncRetrying(
            retry=self._tenacity.retry_if_exception_type(_Again),
            stop=self._tenacity.stop_after_attempt(self._endpoint.attempts),
            wait=self._wait,
            before_sleep=self._note,
            reraise=True,
        )
        try:
            return await tries(self._once, request)
        except _Again as e:
            raise EndpointError(
                f"{self._endpoint.base_url}: gave no reply in {self._endpoint.attempts} tries ({e}); what came before is "
                "kept: run the same command again when it answers"
            ) from e

    def _note(self, state) -> None:
        self.retried += 1

    def _wait(self, state) -> float:
        asked = getattr(state.outcome.exception(), "after", None)
        backoff = self._tenacity.wait_random_exponential(self._endpoint.first_wait, self._endpoint.longest_wait)
        return min(asked, self._endpoint.longest_wait) if asked is not None else backoff(state)

    async def _once(self, request: Request) -> Reply:
        openai, url = self._openai, self._endpoint.base_url
        try:
            async with asyncio.timeout(self._endpoint.deadline):
                found = await request.send(self._client, self._endpoint)
        except (openai.AuthenticationError, openai.PermissionDeniedError) as e:
            raise EndpointError(
                f"{url}: refuses the key ({self._short(e)}); set the environment variable {self._endpoint.key_variable}"
            ) from e
        except openai.NotFoundError as e:
            raise EndpointError(
                f"{url}: has no model {self._endpoint.model!r}, or is no such address ({self._short(e)})"
            ) from e
        except openai.RateLimitError as e:
            raise _Again(f"too many requests: {self._short(e)}", _retry_after(e)) from e
        except openai.APIStatusError as e:
            if e.status_code >= 500 or e.status_code in (408, 409, 425):
                raise _Again(f"status {e.status_code}: {self._short(e)}", _retry_after(e)) from e
            structured = self._endpoint.structured and isinstance(request, Request)
            hint = "; --plain asks without a JSON schema" if structured else ""
            raise Refused(
                f"{url}: refuses the request, status {e.status_code}: {self._short(e)}{hint}", e.status_code
            ) from e
        except TimeoutError as e:
            raise _Again(f"no reply within {self._endpoint.deadline:g} s") from e
        except (openai.APIConnectionError, openai.APITimeoutError) as e:
            raise _Again(self._short(e)) from e
        except (openai.OpenAIError, ValueError) as e:  # half a body, or one that is no JSON
            self._lost(Reply("", request.size, 0))
            raise _Again(self._short(e)) from e
        try:
            return _reply(found, request)
        except _Again:
            self._lost(Reply("", request.size, 0))
            raise

    def _short(self, error: Exception) -> str:
        """Returns an error in a few words, with its cause when that says more, and never with the key."""
        cause = error.__cause__
        text = " ".join(str(error if cause is None or str(error) not in ("Connection error.", "") else cause).split())
        key = self._endpoint.key
        return (text.replace(key, "***") if len(key) > 4 else text)[:160] or type(error).__name__


class _Again(Exception):
    """A failure that the next try may not have; `after` is the wait in seconds that the server asked for."""

    def __init__(self, why: str, after: float | None = None):
        super().__init__(why)
        self.after = after


class Refused(EndpointError):
    """The server is there and takes requests, but not this one: it is too long, say. `status` is what it said."""

    def __init__(self, why: str, status: int):
        super().__init__(why)
        self.status = status


def _reply(found, request: Request | Continuation) -> Reply:
    """Returns the reply of a response that has one; anything else is worth another try."""
    try:
        text = request.read(found)
    except (AttributeError, IndexError, TypeError) as e:
        raise _Again("a reply without a message") from e
    usage = getattr(found, "usage", None)
    tokens_in = getattr(usage, "prompt_tokens", None) or request.size
    tokens_out = getattr(usage, "completion_tokens", None) or len(text.encode("utf-8", "surrogatepass")) // 3
    return Reply(text, int(tokens_in), int(tokens_out))


def _retry_after(error) -> float | None:
    try:
        return max(0.0, float(error.response.headers["retry-after"]))
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
