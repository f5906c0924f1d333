"""Asking a language model for many things: cached, held to a schema and a budget, several at once, results in order."""

import asyncio
import collections
import dataclasses
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from embed.curation.endpoint import Connection, Continuation, Endpoint, Refused, Reply, Request
from embed.curation.ledger import Ledger
from embed.curation.words import Words
from embed.errors import EndpointError, StorageError, UsageError

_TRIES = 3  # times that a model is asked for the same thing when its answer is not what was asked for
_PATIENCE = 20  # things in a row without any right answer, after which no other will come
Item = TypeVar("Item")


class Rejected(Exception):
    """One thing that is left out, and why; the reasons are counted."""


class Spent(Exception):
    """The budget is reached."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """The most that may be asked in all, runs before included. None is without limit."""

    requests: int | None = None
    tokens: int | None = None


class Asker:
    """Asks one model, through one ledger. `salt` is the job's own secret for the marks around texts."""

    def __init__(self, endpoint: Endpoint, ledger: Ledger, budget: Budget, salt: bytes, concurrency: int = 8):
        self.endpoint, self.ledger, self._budget, self._salt = endpoint, ledger, budget, salt
        self.concurrency = concurrency
        self.rejects: collections.Counter[str] = collections.Counter()
        self.asked = self.cached = 0
        self._answered, self._failed_in_a_row = False, 0
        self._flying: dict[str, tuple[asyncio.Future, int]] = {}
        self._stopped: Exception | None = None
        self._connection: Connection | None = None
        self._slots: asyncio.Semaphore | None = None

    async def ask(
        self,
        words: Words,
        schema: Mapping[str, Any],
        texts: dict[str, str],
        seed: int = 0,
        temperature: float = 0.7,
        max_tokens: int = 512,
        **values: str,
    ) -> dict[str, Any]:
        """Returns the answer to a prompt: an object of the schema. Raises Rejected when none of the tries gives one."""
        system, user, forbidden = words.fill(self._salt, texts, **values)
        reason = ""
        for attempt in range(_TRIES):
            request = Request(words.name, system, user, schema, temperature, max_tokens, seed + 1_000_003 * attempt)
            reply = await self._reply(request)
            answer, reason = _answer(reply.text, schema, forbidden)
            if answer is not None:
                self._answered, self._failed_in_a_row = True, 0
                return answer
        self._failed_in_a_row += 1
        if not self._answered and self._failed_in_a_row >= _PATIENCE:
            raise self._stop(
                EndpointError(
                    f"{self.endpoint.base_url}: none of {_PATIENCE * _TRIES} replies of {self.endpoint.model!r} was what "
                    f"prompt {words.name!r} asks for ({reason}; the last: {reply.text[:80]!r}); take another model or "
                    "reword the prompt"
                )
            )
        raise Rejected(f"{words.name}: {reason}")

    async def likelihood(self, words: Words, texts: dict[str, str], continuation: str) -> float:
        """Returns the log-probability that the model gives `continuation` after a prompt. Nothing is generated, so that the
        texts are put in as they are."""
        request = Continuation(words.name, words.plain(texts), f" {continuation}")
        reply = await self._reply(request)
        if not reply.text:
            raise self._stop(
                EndpointError(
                    f"{self.endpoint.base_url}: tells no log-probabilities of a text that it is given (completions with echo); "
                    "leave out --likelihood, or serve the model with vLLM"
                )
            )
        return float(reply.text)

    async def _reply(self, request: Request | Continuation) -> Reply:
        key = request.key(self.endpoint)
        found = self.ledger.get(key)
        if found is not None:
            self.cached += 1
            return found
        if key not in self._flying:
            needed = request.size + request.max_tokens
            future = asyncio.ensure_future(self._send(key, request, needed))
            self._flying[key] = future, needed
            future.add_done_callback(lambda _: self._flying.pop(key))
        return await asyncio.shield(self._flying[key][0])

    async def _send(self, key: str, request: Request | Continuation, needed: int) -> Reply:
        async with self._slots:
            if self._stopped is not None:
                raise self._stopped
            self._check_budget(needed)
            self._in_flight += 1
            self._expected += needed
            try:
                reply = await self._connection.send(request)
            except Refused as e:
                if self.ledger.requests:  # others were taken: it is this one that is too long, or not to be spoken of
                    raise Rejected(f"{request.prompt}: refused by the server, status {e.status}") from e
                raise self._stop(e) from e
            except (EndpointError, StorageError) as e:
                raise self._stop(e) from e
            finally:
                self._in_flight -= 1
                self._expected -= needed
            try:
                self.ledger.put(key, reply)
            except StorageError as e:
                raise self._stop(e) from e
            self.asked += 1
            return reply

    def _check_budget(self, needed: int) -> None:
        most = self._budget
        if most.requests is not None and self.ledger.requests + self._in_flight >= most.requests:
            raise self._stop(Spent(f"{most.requests:,} requests"))
        if most.tokens is not None and self.ledger.tokens + self._expected + needed > most.tokens:
            raise self._stop(Spent(f"{most.tokens:,} tokens"))

    def _stop(self, error: Exception) -> Exception:
        """Lets no further request out; those that fly come home and are written down."""
        self._stopped = self._stopped or error
        return self._stopped

    def run(
        self,
        work: Callable[[Item], Awaitable[Any]],
        items: Iterable[Item],
        take: Callable[[Item, Any], None],
    ) -> None:
        """Calls take(item, result) for the results of `work` in the order of the items; rejects are counted and left out.

        Raises Spent or EndpointError after what was under way came in: all before it was taken.
        """
        asyncio.run(self._run(work, items, take))

    async def _run(self, work, items, take) -> None:
        self._slots = asyncio.Semaphore(self.concurrency)
        self._connection = self.endpoint.open(lambda reply: self.ledger.put(None, reply))
        self._in_flight = self._expected = 0
        try:
            async for item, result in _in_order(work, items, self.concurrency):
                if isinstance(result, Rejected):
                    self.rejects[str(result)] += 1
                else:
                    take(item, result)
        finally:
            await self._connection.close()


async def _in_order(work, items: Iterable[Item], at_once: int) -> AsyncIterator[tuple[Item, Any]]:
    """Yields (item, result or Rejected) in order. `at_once` are under way, so that a stop leaves no more than these undone;
    some more may be done and wait for their turn."""
    window: collections.deque = collections.deque()
    places = asyncio.Semaphore(at_once)

    async def placed(item):
        async with places:
            return await work(item)

    try:
        for item in items:
            window.append((item, asyncio.ensure_future(placed(item))))
            if len(window) >= 4 * at_once:
                yield await _first(window)
        while window:
            yield await _first(window)
    finally:
        await asyncio.gather(*(task for _, task in window), return_exceptions=True)


async def _first(window: collections.deque):
    item, task = window.popleft()
    try:
        return item, await task
    except Rejected as e:
        return item, e


def _answer(text: str, schema: Mapping[str, Any], forbidden: tuple[str, ...]) -> tuple[dict | None, str]:
    """Returns (the object in a reply, "") or (None, what is wrong with it)."""
    try:
        import jsonschema
    except ImportError as e:
        raise UsageError("language models need packages; run: pip install 'embed[curation]'") from e
    if any(word in text for word in forbidden):
        return None, "led astray by the text"
    # Models without a schema wrap their JSON in words or fences: from the first brace to the last.
    braces = re.search(r"\{.*\}", text, re.DOTALL)
    try:
        value = json.loads(braces[0] if braces else text)
        jsonschema.validate(value, dict(schema))
        decoded = json.dumps(value, ensure_ascii=False)
        decoded.encode()
    except UnicodeEncodeError:
        return None, "not UTF-8"
    except (ValueError, RecursionError):
        return None, "not JSON"
    except jsonschema.ValidationError as e:
        place = "/".join(map(str, e.absolute_path)) or "the object"
        return None, f"not of the schema at {place}"
    if any(word in decoded for word in forbidden):
        return None, "led astray by the text"
    return value, ""
