"""Downloads images by URL within a limit of requests per host, the host's robots.txt and its Retry-After headers.

What a server sends is not trusted: redirects are followed to public addresses alone, bodies are read up to a size, and what is no
image that Pillow opens is refused.
"""

import asyncio
import dataclasses
import random
import time
import urllib.parse
import urllib.robotparser
from collections.abc import Callable, Iterable
from typing import Any

import embed
from embed import image_bytes, ranges, retry_after
from embed.errors import ConfigError, DataError, UsageError
from embed.ranges import Count, Positive
from embed.sources.addresses import host_of, resolve
from embed.sources.image_shards import ImageShards

_REDIRECTS = 5
_MOVED = (301, 302, 303, 307, 308)  # the statuses of redirects
_ROBOTS_BYTES = 512 << 10  # RFC 9309 asks for 500 KiB
_EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "GIF": "gif", "WEBP": "webp", "BMP": "bmp", "TIFF": "tif", "AVIF": "avif"}


@dataclasses.dataclass(frozen=True)
class Fetching:
    """Limits and identity for downloads.

    `contact`, your e-mail address or web page, is part of the user agent, as large hosts require. At most `max_requests` run at a
    time, `max_requests_per_host` of them on one host, and a host's requests start at least `min_interval` seconds apart. A request
    fails after `timeout` seconds. A request with a temporary error, such as status 429, is sent `max_attempts` times. The wait is
    the server's Retry-After, or about `first_wait` seconds, doubled after each attempt; at most `max_wait` seconds. Images have at
    most `max_bytes` bytes and `max_pixels` pixels. `allow_private` also asks hosts of this machine and of private networks.
    """

    contact: str
    max_requests: Count = 32
    max_requests_per_host: Count = 2
    min_interval: ranges.NonNegative = 0.1
    timeout: Positive = 60.0
    max_attempts: Count = 4
    first_wait: Positive = 1.0
    max_wait: Positive = 300.0
    max_bytes: Count = 32 << 20
    max_pixels: image_bytes.Pixels = image_bytes.MAX_PIXELS
    allow_private: bool = False

    def __post_init__(self):
        ranges.check_fields(self)
        if not self.contact.strip() or not self.contact.isprintable():
            raise ConfigError(
                "Fetching.contact is empty; give an e-mail address or a web page of yours, which hosts ask for"
            )

    @property
    def user_agent(self) -> str:
        """What hosts see."""
        return f"embed/{embed.__version__} ({self.contact.strip()})"


class _Failed(Exception):
    """A URL without an image.

    `retriable` marks an error that another request may not have; `after` is the server's Retry-After in seconds. With `next_run`
    only another run requests the URL again: its limits may be others.
    """

    def __init__(self, reason: str, retriable: bool = False, after: float | None = None, next_run: bool = False):
        super().__init__(reason)
        self.retriable, self.after, self.next_run = retriable or next_run, after, next_run


@dataclasses.dataclass
class _Host:
    """What is known of a host: when it may be asked again, how many requests run, and its robots.txt."""

    slots: asyncio.Semaphore
    order: asyncio.Lock
    free_at: float = 0.0
    between: float = 0.0
    robots: urllib.robotparser.RobotFileParser | None = None
    failure: _Failed | None = None  # why robots.txt could not be read; no URL of the host is requested then


def fetch(
    urls: Iterable[str], shards: ImageShards, options: Fetching, say: Callable[[str], None] = print, every: float = 10.0
) -> None:
    """Fetches the images of URLs that are not in `shards`, or that failed there with a temporary error.

    `say` is called with a progress line every `every` seconds and at the end.
    """
    wanted = [url for url in dict.fromkeys(urls) if url not in shards.entries or shards.entries[url].retriable]
    if not wanted:
        return
    try:
        import httpx2
    except ImportError as e:
        raise UsageError("fetching images needs a package; run: pip install 'embed[images]'") from e
    asyncio.run(_Fetcher(httpx2, shards, options, say, every).run(wanted))


class _Fetcher:
    """Fetches for the time of an event loop."""

    def __init__(self, httpx, shards: ImageShards, options: Fetching, say, every: float):
        self._httpx, self._shards, self._options, self._say, self._every = httpx, shards, options, say, every
        self._hosts: dict[tuple[str, int], _Host] = {}
        self._all = asyncio.Semaphore(options.max_requests)
        self._got = self._bytes = self._failed = 0

    async def run(self, urls: list[str]) -> None:
        """Fetches all URLs. Each host has a queue and tasks of its own, so a slow host does not delay the others."""
        headers = {"User-Agent": self._options.user_agent, "Accept": "image/*", "Accept-Encoding": "identity"}
        limits = self._httpx.Limits(
            max_connections=self._options.max_requests, max_keepalive_connections=self._options.max_requests
        )
        self._client = self._httpx.AsyncClient(headers=headers, timeout=None, limits=limits, follow_redirects=False)
        self._begin, self._total = time.monotonic(), len(urls)
        waiting = _by_host(urls)
        reporter = asyncio.create_task(self._report())
        try:
            async with asyncio.TaskGroup() as group:
                for of_host in waiting.values():
                    for _ in range(min(self._options.max_requests_per_host, len(of_host))):
                        group.create_task(self._work(of_host))
        except BaseExceptionGroup as e:
            raise e.exceptions[0] from None  # such as a disk that is full
        finally:
            reporter.cancel()
            await self._client.aclose()
            self._shards.close()
        self._say(self._line())

    async def _work(self, urls: list[str]) -> None:
        """Fetches URLs of one host until none is left."""
        while urls:
            url = urls.pop()
            try:
                content, extension = await self._image(url)
            except _Failed as e:
                self._shards.refuse(url, str(e), e.retriable)
                self._failed += 1
            else:
                self._shards.add(url, content, extension)
                self._got += 1
                self._bytes += len(content)

    async def _image(self, url: str) -> tuple[bytes, str]:
        """Returns the bytes of an image and the extension of its kind, after several tries where another may help."""
        for attempt in range(1, self._options.max_attempts + 1):
            try:
                content, kind = await self._follow_redirects(url)
                break
            except _Failed as e:
                if not e.retriable or e.next_run or attempt == self._options.max_attempts:
                    raise
                await self._back_off(attempt, e.after)
        try:
            await asyncio.to_thread(image_bytes.open_image, content, "the answer", self._options.max_pixels)
        except DataError as e:
            has_limit = isinstance(e, image_bytes.TooManyPixels)
            raise _Failed(f"{e} (content type {kind or 'unknown'})", next_run=has_limit) from e
        return content, _extension(content)

    async def _follow_redirects(self, url: str) -> tuple[bytes, str]:
        """Returns the body and content type of what a URL leads to."""
        for _ in range(_REDIRECTS + 1):
            status, headers, body = await self._get_allowed(url)
            if status in _MOVED:
                url = _target(url, status, headers)
                continue
            return body, headers.get("content-type", "").partition(";")[0].strip().lower()
        raise _Failed(f"more than {_REDIRECTS} redirects")

    async def _get_allowed(self, url: str) -> tuple[int, Any, bytes]:
        """Returns what one request gives, if the host's robots.txt allows it, in the host's turn."""
        try:
            scheme, name, port = host_of(url)
        except DataError as e:
            raise _Failed(str(e)) from e
        host = self._hosts.setdefault((name, port), self._new_host())
        async with host.slots:
            await self._read_robots(host, f"{scheme}://{_netloc(name, port, scheme)}/robots.txt")
            if host.robots is not None and not host.robots.can_fetch(self._options.user_agent, url):
                raise _Failed("its host's robots.txt forbids it")
            await self._wait_for_turn(host)
            status, headers, body = await self._request(url, self._options.max_bytes)
        if status == 429 or status >= 500 or status == 408:
            after = retry_after.seconds(headers)
            if after is not None:
                host.free_at = max(host.free_at, time.monotonic() + min(after, self._options.max_wait))
            raise _Failed(f"status {status}", True, after)
        if not (200 <= status < 400):
            raise _Failed(f"status {status}")
        return status, headers, body

    def _new_host(self) -> _Host:
        return _Host(
            asyncio.Semaphore(self._options.max_requests_per_host), asyncio.Lock(), between=self._options.min_interval
        )

    async def _wait_for_turn(self, host: _Host) -> None:
        """Waits until the host may be asked again."""
        async with host.order:
            wait = host.free_at - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            host.free_at = max(host.free_at, time.monotonic()) + host.between

    async def _read_robots(self, host: _Host, url: str) -> None:
        """Reads robots.txt once (RFC 9309).

        Status 400 to 499, except 429, allows all URLs. If robots.txt cannot be read, no URL of the host is requested.
        """
        async with host.order:
            if host.failure is not None:
                raise host.failure
            if host.robots is not None:
                return
            try:
                status, body = await self._robots_of(url)
                parser = _parsed(body if status == 200 else b"")
            except _Failed as e:
                host.failure = _Failed(f"robots.txt: {e}", next_run=True)
                raise host.failure from e
            delay = parser.crawl_delay(self._options.user_agent) or 0  # an integer of any size
            host.between = max(host.between, min(delay, self._options.max_wait))
            host.robots = parser

    async def _robots_of(self, url: str) -> tuple[int, bytes]:
        """Returns the status and the body of a host's robots.txt, after retries."""
        for attempt in range(1, self._options.max_attempts + 1):
            try:
                address = url
                for _ in range(_REDIRECTS + 1):
                    status, headers, body = await self._request(address, _ROBOTS_BYTES, cut=True)
                    if status not in _MOVED:
                        break
                    address = _target(address, status, headers)
                if status < 500 and status != 429:
                    return status, body
                raise _Failed(f"status {status}", True, retry_after.seconds(headers))
            except _Failed as e:
                if not e.retriable or e.next_run or attempt == self._options.max_attempts:
                    raise
                await self._back_off(attempt, e.after)
        raise AssertionError("the last attempt returns or raises")

    async def _back_off(self, attempt: int, after: float | None) -> None:
        """Waits as long as a server asks, or else twice as long after each attempt."""
        backoff = self._options.first_wait * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)
        await asyncio.sleep(min(backoff if after is None else after, self._options.max_wait))

    async def _request(self, url: str, max_bytes: int, cut: bool = False) -> tuple[int, Any, bytes]:
        """Returns status, headers and body of one request. A body that is too large fails, or is cut."""
        try:
            scheme, name, port = host_of(url)
        except DataError as e:
            raise _Failed(str(e)) from e
        try:
            async with self._all, asyncio.timeout(self._options.timeout):
                address = await resolve(name, port, self._options.allow_private)
                target = self._httpx.URL(url).copy_with(host=address)
                request = self._client.build_request(
                    "GET", target, headers={"Host": _netloc(name, port, scheme)}, extensions={"sni_hostname": name}
                )
                response = await self._client.send(request, stream=True)
                try:
                    return response.status_code, response.headers, await _body(response, max_bytes, cut)
                finally:
                    await response.aclose()
        except DataError as e:  # a private address
            raise _Failed(str(e), next_run=True) from e
        except TimeoutError:
            raise _Failed(f"no answer within {self._options.timeout:g} s", True) from None
        except (OSError, UnicodeError, self._httpx.HTTPError, self._httpx.InvalidURL, self._httpx.StreamError) as e:
            reason = str(e).splitlines()[0][:120] if str(e) else type(e).__name__
            raise _Failed(f"cannot be reached ({reason})", True) from e

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            self._say(self._line())

    def _line(self) -> str:
        done, seconds = self._got + self._failed, max(time.monotonic() - self._begin, 1e-9)
        failed = f", {self._failed:,} failed" if self._failed else ""
        size, rate = f"{self._bytes / 1e6:,.1f} MB", f"{done / seconds:.1f} a second"
        return f"fetched    {self._got:,} of {self._total:,} images{failed}, {size}, {rate}"


async def _body(response, max_bytes: int, cut: bool) -> bytes:
    """Returns a body as it came over the wire."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):  # a few bytes can stand for gigabytes
        raise _Failed(f"is compressed as {encoding[:20]}, which was not asked for")
    length = response.headers.get("content-length", "")
    if not cut and length.isdigit() and int(length) > max_bytes:
        raise _Failed(f"{int(length):,} bytes, and at most {max_bytes:,} are read", next_run=True)
    data = bytearray()
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) > max_bytes:
            if cut:
                break
            raise _Failed(f"more than {max_bytes:,} bytes", next_run=True)
    if not cut and length.isdigit() and len(data) < int(length):
        raise _Failed(f"ended after {len(data):,} of {int(length):,} bytes", True)
    return bytes(data[:max_bytes])


def _target(url: str, status: int, headers: Any) -> str:
    """Returns the URL that a redirect leads to."""
    location = headers.get("location", "")
    if not location:
        raise _Failed(f"status {status} without a target")
    try:
        return urllib.parse.urljoin(url, location)
    except ValueError as e:  # half an IPv6 address
        raise _Failed(f"status {status} to what is no URL") from e


def _parsed(body: bytes) -> urllib.robotparser.RobotFileParser:
    """Returns the rules of a robots.txt."""
    parser = urllib.robotparser.RobotFileParser()
    try:
        parser.parse(body.decode("utf-8", "replace").splitlines())
    except ValueError as e:  # a path with half an IPv6 address, or a delay such as ²
        raise _Failed(f"cannot be parsed ({e})") from e
    return parser


def _extension(content: bytes) -> str:
    return _EXTENSIONS.get(image_bytes.kind(content), "img")


def _netloc(name: str, port: int, scheme: str) -> str:
    host = f"[{name}]" if ":" in name else name
    return host if port == (443 if scheme == "https" else 80) else f"{host}:{port}"


def _by_host(urls: list[str]) -> dict[str, list[str]]:
    """Returns URLs by their host, each list with the first URL at its end."""
    by_host: dict[str, list[str]] = {}
    for url in reversed(urls):
        try:
            _, name, port = host_of(url)
        except DataError:
            name, port = "", 0
        by_host.setdefault(f"{name}:{port}", []).append(url)
    return by_host
