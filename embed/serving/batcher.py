"""Requests of many clients encoded together: while the model works, those that come wait, and go into the next batch.

One thread owns the model. A request is never split. Requests with the same prompt are encoded in one call, up to a number of
texts; a request that waits for nobody is encoded at once and alone.
"""

import asyncio
import collections
import dataclasses
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

Encode = Callable[[Sequence[str], str], np.ndarray]


class Full(Exception):
    """More texts wait than may."""


@dataclasses.dataclass(frozen=True)
class _Job:
    texts: Sequence[str]
    prompt: str
    future: asyncio.Future
    loop: asyncio.AbstractEventLoop

    def finish(self, vectors: np.ndarray | None, error: Exception | None) -> None:
        """Hands the result to the event loop; nobody waits for it where the client has gone."""

        def hand_over() -> None:
            if self.future.done():
                return
            if error is None:
                self.future.set_result(vectors)
            else:
                self.future.set_exception(error)

        self.loop.call_soon_threadsafe(hand_over)


class Batcher:
    """Encodes what `encode(texts, prompt)` does, for many at once. `together` are the texts of one call, `waiting` the most that
    wait. `seen(texts, requests, seconds)` is called after each call."""

    def __init__(
        self,
        encode: Encode,
        together: int,
        waiting: int,
        seen: Callable[[int, int, float], None] = lambda texts, requests, seconds: None,
    ):
        self._encode, self._together, self._most, self._seen = encode, together, waiting, seen
        self._jobs: collections.deque[_Job] = collections.deque()
        self._texts = 0
        self._condition = threading.Condition()
        self._is_open = True
        self._thread = threading.Thread(target=self._work, name="encode", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many texts wait."""
        return self._texts

    async def __call__(self, texts: Sequence[str], prompt: str) -> np.ndarray:
        """Returns the vectors of the texts; Full where too many wait."""
        loop = asyncio.get_running_loop()
        job = _Job(texts, prompt, loop.create_future(), loop)
        with self._condition:
            if not self._is_open or (self._jobs and self._texts + len(texts) > self._most):
                raise Full
            self._jobs.append(job)
            self._texts += len(texts)
            self._condition.notify()
        return await job.future

    def close(self) -> None:
        """Encodes what waits, and ends."""
        with self._condition:
            self._is_open = False
            self._condition.notify()
        self._thread.join()

    def _next(self) -> list[_Job]:
        """Returns the oldest request and those with its prompt that fit beside it; [] at the end."""
        with self._condition:
            self._condition.wait_for(lambda: self._jobs or not self._is_open)
            taken: list[_Job] = []
            left: collections.deque[_Job] = collections.deque()
            count = 0
            for job in self._jobs:
                gone = job.future.cancelled()
                fits = not taken or (job.prompt == taken[0].prompt and count + len(job.texts) <= self._together)
                if gone:
                    self._texts -= len(job.texts)
                elif fits:
                    taken.append(job)
                    count += len(job.texts)
                else:
                    left.append(job)
            self._jobs = left
            self._texts -= count
            return taken

    def _work(self) -> None:
        while True:
            jobs = self._next()
            if not jobs:
                if not self._is_open and not self._jobs:
                    return
                continue
            started = time.perf_counter()
            texts = [text for job in jobs for text in job.texts]
            try:
                vectors = self._encode(texts, jobs[0].prompt)
            except Exception as e:  # the thread lives on; each client is told
                for job in jobs:
                    job.finish(None, e)
                continue
            self._seen(len(texts), len(jobs), time.perf_counter() - started)
            start = 0
            for job in jobs:
                job.finish(vectors[start : start + len(job.texts)], None)
                start += len(job.texts)
