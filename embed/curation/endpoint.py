"""An OpenAI-compatible endpoint (vLLM, Gemini's, `transformers serve`): where it is, and one HTTP request to it.

What a server sends is not trusted: redirects are not followed, bodies are read up to a size, compressed ones are not read, and
what an error says of them is freed of the key and of control characters.
"""

import asyncio
import dataclasses
import urllib.parse

from embed import retry_after
from embed.curation.requests import AnyRequest, Malformed, Reply, Request, parse
from embed.curation.secret import Secret, printable
from embed.errors import EndpointError, UsageError

MAX_REPLY_BYTES = 8 << 20
_MAX_ERROR_BYTES = 4096
_NO_WORK_DONE = 503  # besides all below 500: a server that answers so has not asked its model


class Again(Exception):
    """A failure that the next try may not have.

    `after` is the wait in seconds that the server asked for; `free` says that the model has surely not worked for it.
    """

    def __init__(self, reason: str, after: float | None = None, free: bool = False):
        super().__init__(reason)
        self.after, self.free = after, free


class Refused(EndpointError):
    """The server is there and takes requests, but not this one: it is too long, say. `status` is its status code."""

    def __init__(self, reason: str, status: int):
        super().__init__(reason)
        self.status = status


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """Where a model is served. `key` is a secret: it is neither shown nor written anywhere; empty where none is needed.

    A request is tried `attempts` times, after waits that double from `first_wait` seconds or are what the server asks for;
    one that is not through after `deadline` seconds, however slowly it trickles, counts as failed. `structured` asks the
    server to hold the model to the schema; not every server can.
    """

    base_url: str
    model: str
    key: str = dataclasses.field(default="", repr=False)
    key_variable: str = "EMBED_API_KEY"  # where the user keeps it, for advice
    attempts: int = 8
    deadline: float = 120.0
    first_wait: float = 1.0
    longest_wait: float = 60.0
    structured: bool = True
    secret: Secret = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self):
        _check_url(self.base_url, self.key_variable)
        object.__setattr__(self, "secret", Secret(self.key, self.key_variable))
        for option, value in (("--endpoint", self.base_url), ("--model", self.model)):
            if self.secret.is_in(value):
                raise UsageError(f"{option}: holds the key of {self.key_variable}; leave it out there")


def _check_url(url: str, key_variable: str) -> None:
    """Raises UsageError for what is no base URL. One that may hold a secret is not shown."""
    if any(mark in url for mark in "@?#"):
        raise UsageError(
            "--endpoint: takes a base URL such as http://localhost:8000/v1 without user, password, ? and #; set the key in "
            f"the environment variable {key_variable}"
        )
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or half an IPv6 address
        usable = False
    if not usable or not url.isprintable() or " " in url:
        raise UsageError(f"--endpoint={printable(url)}: not a base URL such as http://localhost:8000/v1")


class Connection:
    """Sends requests, each exactly once."""

    def __init__(self, endpoint: Endpoint):
        try:
            import httpx2
        except ImportError as e:
            raise UsageError("language models need packages; run: pip install 'embed[curation]'") from e
        self._httpx, self._endpoint = httpx2, endpoint
        headers = {"Accept-Encoding": "identity", "Content-Type": "application/json"}
        if endpoint.key:
            headers["Authorization"] = f"Bearer {endpoint.key}"
        try:
            # The deadline bounds the whole of a request, and the asker how many there are at once.
            self._client = httpx2.AsyncClient(
                headers=headers, timeout=None, limits=httpx2.Limits(), follow_redirects=False
            )
        except (ValueError, ImportError, OSError, httpx2.InvalidURL) as e:
            raise UsageError(
                f"the HTTP client cannot be set up ({type(e).__name__}); check the environment variables HTTP_PROXY, HTTPS_PROXY, "
                "ALL_PROXY and SSL_CERT_FILE"
            ) from None  # the error may show a proxy's password

    async def close(self) -> None:
        """Closes the connection."""
        await self._client.aclose()

    async def send(self, request: AnyRequest, body: bytes, key: str) -> Reply:
        """Returns the reply to `body`, which is the request's.

        Raises Again for what another try may mend, Refused where it is this request that the server does not take, and
        EndpointError for all else. No error is chained to one of the HTTP library, which holds the headers with the key.
        """
        url = f"{self._endpoint.base_url.rstrip('/')}/{request.path}"
        # Servers that know the header give the same reply, and bill it once, when a request comes again after a kill.
        sent = self._client.stream("POST", url, content=body, headers={"Idempotency-Key": key})
        try:
            async with asyncio.timeout(self._endpoint.deadline), sent as response:
                data = await self._body(response, max(MAX_REPLY_BYTES, request.max_reply_bytes))
        except TimeoutError:
            raise Again(f"no reply within {self._endpoint.deadline:g} s") from None
        except self._httpx.ConnectError as e:
            raise Again(self._clean(str(e) or "no connection"), free=True) from None
        except (self._httpx.HTTPError, self._httpx.InvalidURL, self._httpx.StreamError, ValueError) as e:
            raise Again(self._clean(str(e) or type(e).__name__)) from None
        self._check_status(response, data, request)
        try:
            reply = parse(data, request, request.max_tokens_in(body))
        except Malformed as e:
            raise Again(str(e)) from None
        return (
            dataclasses.replace(reply, text=self._endpoint.secret.remove(reply.text)) if request.holds_text else reply
        )

    async def _body(self, response, max_reply_bytes: int) -> bytes:
        """Returns the body of a response as it came over the wire."""
        answered = response.status_code == 200
        max_bytes = max_reply_bytes if answered else _MAX_ERROR_BYTES
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):  # a few bytes can stand for gigabytes
            if answered:
                raise Again("a compressed reply, which was not asked for")
            return b""
        data = bytearray()
        async for chunk in response.aiter_raw():
            data += chunk
            if len(data) > max_bytes:
                if answered:
                    raise Again(f"a reply of more than {max_bytes:,} bytes")
                break
        return bytes(data)

    def _check_status(self, response, data: bytes, request: AnyRequest) -> None:
        """Raises what a response of another status than 200 stands for."""
        url, status = self._endpoint.base_url, response.status_code
        if status == 200:
            return
        message = self._clean(data.decode("utf-8", "replace")) or self._clean(response.reason_phrase)
        if 300 <= status < 400:
            raise EndpointError(
                f"{url}: sends elsewhere{self._target(response)}, status {status}; a redirect is not "
                "followed: give the address that is meant as --endpoint"
            )
        if status in (401, 403):
            raise EndpointError(
                f"{url}: refuses the key (status {status}: {message}); set the environment variable "
                f"{self._endpoint.key_variable}"
            )
        if status == 404:
            raise EndpointError(f"{url}: has no model {self._endpoint.model!r}, or is no such address ({message})")
        if status == 429:
            raise Again(f"too many requests: {message}", retry_after.seconds(response.headers), free=True)
        if status >= 500 or status in (408, 409, 425) or status < 300:
            raise Again(f"status {status}: {message}", retry_after.seconds(response.headers), _is_free(status))
        hint = (
            "; --plain asks without a JSON schema" if self._endpoint.structured and isinstance(request, Request) else ""
        )
        raise Refused(f"{url}: refuses the request, status {status}: {message}{hint}", status)

    def _target(self, response) -> str:
        """Returns ' to SCHEME://HOST' of a redirect. The rest of the address may hold secrets, and is not needed."""
        try:
            target = urllib.parse.urlsplit(urllib.parse.urljoin(self._endpoint.base_url, response.headers["location"]))
            host = f"{target.scheme}://{target.netloc.rpartition('@')[2]}"
        except (KeyError, ValueError):
            return ""
        return f" to {self._clean(host)}"

    def _clean(self, text: str) -> str:
        """Returns the beginning of what a server or the HTTP library says, for a message."""
        return printable(self._endpoint.secret.remove(text))


def _is_free(status: int) -> bool:
    return 300 <= status < 500 or status == _NO_WORK_DONE
