"""Sending a request until it is answered, within a budget that counts each HTTP request before it leaves."""

import asyncio
import contextlib
import dataclasses

from embed.curation.endpoint import Again, Connection, Endpoint, Refused
from embed.curation.ledger import Ledger
from embed.curation.requests import AnyRequest, Reply
from embed.errors import EndpointError, StorageError, UsageError


class Spent(Exception):
    """The budget is reached."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much may be sent and cost in all: retries, failures and runs before are included. None is without limit."""

    requests: int | None = None
    tokens: int | None = None


class Sender:
    """Sends requests to one endpoint through one ledger, for the time of an asyncio event loop.

    After the first error that ends a job nothing more is sent; what is under way comes home and is written down.
    """

    def __init__(self, endpoint: Endpoint, ledger: Ledger, budget: Budget):
        try:
            import tenacity
        except ImportError as e:
            raise UsageError("language models need packages; run: pip install 'embed[curation]'") from e
        self._tenacity, self._endpoint, self._ledger, self._budget = tenacity, endpoint, ledger, budget
        self._connection = Connection(endpoint)
        self._tokens_under_way = 0
        self._settled, self._ended = asyncio.Event(), asyncio.Event()
        self.stopped: Exception | None = None

    async def close(self) -> None:
        """Closes the connection."""
        await self._connection.close()

    def stop(self, error: Exception) -> Exception:
        """Lets no further request out. Returns the error that was the first to end the job."""
        self.stopped = self.stopped or error
        self._ended.set()
        self._settled.set()
        return self.stopped

    async def send(self, request: AnyRequest, key: str) -> Reply:
        """Returns the reply. Raises Refused where the server does not take this request, and what ends the job otherwise."""
        body = request.body(self._endpoint.model, self._endpoint.structured)
        tries = self._tenacity.AsyncRetrying(
            retry=self._tenacity.retry_if_exception_type(Again),
            stop=self._tenacity.stop_after_attempt(self._endpoint.attempts),
            wait=self._wait,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return await tries(self._try, request, body, key)
        except Again as e:
            error = EndpointError(
                f"{self._endpoint.base_url}: gave no reply in {self._endpoint.attempts} tries ({e}); what came before is "
                "kept: run the same command again when it answers"
            )
            raise self.stop(error) from None
        except Refused:
            raise
        except (EndpointError, StorageError) as e:
            raise self.stop(e) from None

    async def _try(self, request: AnyRequest, body: bytes, key: str) -> Reply:
        """Sends the request once. A failure counts with all that it can have cost, unless the model surely did not work."""
        # No tokenizer makes more tokens than there are bytes; the names in the body outweigh what a chat template adds.
        max_cost = request.max_tokens_in(body) + request.max_tokens
        number = await self._reserve(key, max_cost)
        try:
            reply = await self._connection.send(request, body, key)
        except Again as e:
            self._ledger.fail(number, str(e), 0 if e.free else max_cost)
            raise
        except EndpointError as e:
            self._ledger.fail(number, str(e), 0)
            raise
        else:
            self._ledger.answer(number, key, reply)
            return reply
        finally:
            self._tokens_under_way -= max_cost
            self._settled.set()

    async def _reserve(self, key: str, max_cost: int) -> int:
        """Counts a request that is about to be sent; waits where the tokens of those under way decide whether it may be."""
        max_requests, max_tokens = self._budget.requests, self._budget.tokens
        while self.stopped is None:
            tokens = self._ledger.tokens - self._tokens_under_way
            if max_requests is not None and self._ledger.requests >= max_requests:
                raise self.stop(Spent(f"{max_requests:,} requests is spent"))
            if max_tokens is not None and tokens + max_cost > max_tokens:
                raise self.stop(
                    Spent(
                        f"{max_tokens:,} tokens is spent ({tokens:,} are counted, the next request can cost {max_cost:,})"
                    )
                )
            if max_tokens is None or self._ledger.tokens + max_cost <= max_tokens:
                number = self._ledger.reserve(key, max_cost)
                self._tokens_under_way += max_cost
                return number
            self._settled.clear()
            await self._settled.wait()
        raise self.stopped

    def _wait(self, state) -> float:
        asked = getattr(state.outcome.exception(), "after", None)
        backoff = self._tenacity.wait_random_exponential(self._endpoint.first_wait, self._endpoint.longest_wait)
        return min(asked, self._endpoint.longest_wait) if asked is not None else backoff(state)

    async def _sleep(self, seconds: float) -> None:
        """Waits before another try, unless the job ends meanwhile."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), seconds)
