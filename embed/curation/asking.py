"""Asking a language model for many things: cached, held to a schema and a budget, several at once, results in order."""

import asyncio
import collections
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from embed.curation.endpoint import Endpoint, Refused
from embed.curation.ledger import Ledger
from embed.curation.prompt_templates import PromptTemplate
from embed.curation.requests import AnyRequest, Continuation, ImageRequest, Picture, Reply, Request
from embed.curation.secret import printable
from embed.curation.sending import Budget, Sender
from embed.errors import DataError, EndpointError, UsageError

_TRIES = 3  # times that a model is asked for the same thing when its answer is not what was asked for
_PATIENCE = 20  # things in a row without any right answer, after which no other will come
_MAX_FAILURES = 3  # in a row, after which a budget that is spent was spent on a failing endpoint
Item = TypeVar("Item")


class Rejected(Exception):
    """One thing that is left out, and why; the reasons are counted."""


class Asker:
    """Asks one model, through one ledger. `salt` is the job's own secret for the marks around texts.

    `last_refusal` is the last error of a request that the server does not take, None where there was none.
    """

    def __init__(self, endpoint: Endpoint, ledger: Ledger, budget: Budget, salt: bytes, concurrency: int = 8):
        self.endpoint, self.ledger, self._budget, self._salt = endpoint, ledger, budget, salt
        self.concurrency = concurrency
        self.rejects: collections.Counter[str] = collections.Counter()
        self.asked = self.cached = 0
        self._answered, self._unanswered_in_a_row = False, 0
        self._wrong_replies, self._last_wrong = 0, ""
        self._refusals, self.last_refusal = 0, None
        self._under_way: dict[str, asyncio.Future] = {}
        self._sender: Sender | None = None
        self._slots: asyncio.Semaphore | None = None

    async def ask(
        self,
        prompt_template: PromptTemplate,
        schema: Mapping[str, Any],
        texts: dict[str, str],
        seed: int = 0,
        temperature: float = 0.7,
        max_tokens: int = 512,
        picture: Picture | None = None,
        **values: str,
    ) -> dict[str, Any]:
        """Returns the answer to a prompt, with a picture if there is one: an object of the schema.

        Raises Rejected when none of the tries gives one.
        """
        system, user, forbidden = prompt_template.fill(self._salt, texts, **values)
        forbidden = (*forbidden, self.endpoint.secret.mark)
        reason = ""
        for attempt in range(_TRIES):
            given = (prompt_template.name, system, user, schema, temperature, max_tokens, seed + 1_000_003 * attempt)
            request = Request(*given) if picture is None else ImageRequest(*given, picture)
            reply = await self.reply(request)
            answer, reason = _answer(reply.text, schema, forbidden)
            if answer is not None:
                self._answered, self._unanswered_in_a_row = True, 0
                return answer
            self._wrong_replies += 1
            self._last_wrong = f"{prompt_template.name!r} asks for ({reason}; the last: {printable(reply.text, 80)!r})"
        self._unanswered_in_a_row += 1
        if not self._answered and self._unanswered_in_a_row >= _PATIENCE:
            raise self._sender.stop(self._no_right_reply())
        raise Rejected(f"{prompt_template.name}: {reason}")

    def stop(self, error: Exception) -> Exception:
        """Lets no further request out. Returns the error that was the first to end the job."""
        return self._sender.stop(error)

    def _no_right_reply(self) -> EndpointError:
        return EndpointError(
            f"{self.endpoint.base_url}: none of {self._wrong_replies} replies of {self.endpoint.model!r} was what prompt "
            f"{self._last_wrong}; take another model or reword the prompt"
        )

    def failure(self, spent: str) -> EndpointError | None:
        """Returns what is wrong with an endpoint that used up a budget without use; None where the budget was well spent.

        `spent` says which budget that is. One that fails now and then is not at fault.
        """
        ledger = self.ledger
        if ledger.failures and (not ledger.replies or ledger.failures_in_a_row >= _MAX_FAILURES):
            return EndpointError(
                f"{self.endpoint.base_url}: failed {ledger.failures:,} of {ledger.requests:,} requests, the last "
                f"{ledger.failures_in_a_row:,} in a row ({ledger.last_failure}), and the budget of {spent}; what came before "
                "is kept: run the same command with a higher budget when the endpoint answers"
            )
        return self._no_right_reply() if self._wrong_replies and not self._answered else None

    async def likelihood(self, prompt_template: PromptTemplate, texts: dict[str, str], continuation: str) -> float:
        """Returns the log-probability that the model gives `continuation` after a prompt. Nothing is generated, so that the
        texts are put in as they are."""
        request = Continuation(prompt_template.name, prompt_template.plain(texts), f" {continuation}")
        reply = await self.reply(request)
        if not reply.text:
            raise self._sender.stop(
                EndpointError(
                    f"{self.endpoint.base_url}: tells no log-probabilities of a text that it is given (completions with echo); "
                    "leave out --likelihood, or serve the model with vLLM"
                )
            )
        try:
            return float(reply.text)
        except ValueError as e:
            raise self._sender.stop(
                DataError(
                    f"the reply kept for {prompt_template.name!r} is no number; restore the file of replies, or give "
                    "another --output"
                )
            ) from e

    async def reply(self, request: AnyRequest) -> Reply:
        """Returns the reply to a request, the kept one where there is one. Raises Rejected where the server refuses it."""
        try:
            key = request.key(self.endpoint.model, self.endpoint.structured)
        except UnicodeEncodeError:  # half a surrogate pair, which no JSON in UTF-8 holds
            raise Rejected(f"{request.prompt}: the text is not UTF-8") from None
        kept = self.ledger.get(key)
        if kept is not None:
            self.cached += 1
            return kept
        if key not in self._under_way:
            self._under_way[key] = asyncio.ensure_future(self._send(key, request))
            self._under_way[key].add_done_callback(lambda _: self._under_way.pop(key))
        return await asyncio.shield(self._under_way[key])

    async def _send(self, key: str, request: AnyRequest) -> Reply:
        async with self._slots:
            if self._sender.stopped is not None:
                raise self._sender.stopped
            try:
                reply = await self._sender.send(request, key)
            except Refused as e:
                self._refusals += 1
                self.last_refusal = e
                # Where others were taken it is this one that is too long, or that the model does not speak of.
                if not self.ledger.replies and self._refusals >= self.concurrency:
                    raise self._sender.stop(e) from None
                raise Rejected(f"{request.prompt}: refused by the server, status {e.status}") from None
            self.asked += 1
            return reply

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
        self._sender = Sender(self.endpoint, self.ledger, self._budget)
        results = _in_order(work, items, self.concurrency, self._sender.stop)
        try:
            async with contextlib.aclosing(results):
                async for item, result in results:
                    if isinstance(result, Rejected):
                        self.rejects[str(result)] += 1
                    else:
                        take(item, result)
            if self._refusals and not self.ledger.replies:
                raise self.last_refusal
        finally:
            await self._sender.close()


class _Interrupted(Exception):
    """The run ends for a reason of its own, such as Ctrl-C or a full disk."""


async def _in_order(work, items: Iterable[Item], concurrency: int, stop) -> AsyncIterator[tuple[Item, Any]]:
    """Yields (item, result or Rejected) in order. `concurrency` are under way, so that a stop leaves no more than these undone;
    some more may be done and wait for their turn. Ended early, it calls `stop` and waits for those under way."""
    window: collections.deque = collections.deque()
    slots = asyncio.Semaphore(concurrency)

    async def limited(item):
        async with slots:
            return await work(item)

    try:
        for item in items:
            window.append((item, asyncio.ensure_future(limited(item))))
            if len(window) >= 4 * concurrency:
                yield await _first(window)
        while window:
            yield await _first(window)
    finally:
        if window:
            stop(_Interrupted())
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
    start, end = text.find("{"), text.rfind("}") + 1
    try:
        value = json.loads(text[start:end] if 0 <= start < end else text)
        # The schemas are ours: they are not checked anew for each reply, as jsonschema.validate does.
        error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(dict(schema)).iter_errors(value))
        decoded = json.dumps(value, ensure_ascii=False)
        decoded.encode()
    except UnicodeEncodeError:
        return None, "not UTF-8"
    except (ValueError, RecursionError):
        return None, "not JSON"
    if error is not None:
        location = "/".join(map(str, error.absolute_path)) or "the object"
        return None, f"not of the schema at {location}"
    if any(word in decoded for word in forbidden):
        return None, "led astray by the text"
    return value, ""
