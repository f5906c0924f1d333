"""Requests encoded together: every client gets its own vectors, whoever comes beside it."""

import asyncio
import threading

import numpy as np
import pytest

from embed.serving.batcher import Batcher, Full


def formula(texts, prompt):
    return np.array([[len(prompt), float(text)] for text in texts], np.float32)


def started(batcher, *requests):
    """Returns the results of requests (texts, prompt) that are sent at once, exceptions among them."""

    async def run():
        return await asyncio.gather(*(batcher(*request) for request in requests), return_exceptions=True)

    return asyncio.run(run())


class Slow:
    """Encodes by formula, the first call only after `release`; remembers the calls."""

    def __init__(self):
        self.release, self.calls = threading.Event(), []

    def __call__(self, texts, prompt):
        self.calls.append((list(texts), prompt))
        self.release.wait(10)
        return formula(texts, prompt)


def test_everyone_gets_their_own():
    batcher = Batcher(formula, 8, 10_000)
    asked = [([str(100 * i + j) for j in range(i % 5 + 1)], "ab"[: i % 2 + 1]) for i in range(200)]
    for (texts, prompt), vectors in zip(asked, started(batcher, *asked)):
        np.testing.assert_array_equal(vectors, formula(texts, prompt))
    batcher.close()


def test_those_that_wait_are_encoded_together_up_to_a_number():
    encode, seen = Slow(), []
    batcher = Batcher(encode, 4, 100, lambda texts, requests, seconds: seen.append((texts, requests)))

    async def run():
        first = asyncio.create_task(batcher(["0"], "a"))
        while not encode.calls:
            await asyncio.sleep(0.001)
        others = [asyncio.create_task(batcher([str(i)], p)) for i, p in enumerate("aababaaa", 1)]
        await asyncio.sleep(0.05)
        assert batcher.waiting == 8
        encode.release.set()
        return await asyncio.gather(first, *others)

    vectors = asyncio.run(run())
    assert [v[0, 1] for v in vectors] == list(range(9))
    assert encode.calls == [(["0"], "a"), (["1", "2", "4", "6"], "a"), (["3", "5"], "b"), (["7", "8"], "a")]
    assert seen == [(1, 1), (4, 4), (2, 2), (2, 2)] and batcher.waiting == 0
    batcher.close()


def test_one_at_a_time_encodes_every_request_alone():
    calls = []
    batcher = Batcher(lambda texts, prompt: (calls.append(len(texts)), formula(texts, prompt))[1], 1, 1000)
    started(batcher, *[(["1", "2", "3"], "a")] * 20)
    assert calls == [3] * 20
    batcher.close()


def test_too_many_are_refused_and_one_that_is_large_is_not():
    encode = Slow()
    batcher = Batcher(encode, 64, 5)

    async def run():
        first = asyncio.create_task(batcher(["0"], "a"))
        while not encode.calls:
            await asyncio.sleep(0.001)
        large = asyncio.create_task(batcher([str(i) for i in range(9)], "a"))
        await asyncio.sleep(0)
        with pytest.raises(Full):
            await batcher(["1"], "a")
        encode.release.set()
        return await first, await large

    assert [len(v) for v in asyncio.run(run())] == [1, 9]
    batcher.close()


def test_an_error_reaches_those_it_is_of_and_the_next_are_served():
    def encode(texts, prompt):
        if prompt == "bad":
            raise ValueError("no")
        return formula(texts, prompt)

    batcher = Batcher(encode, 64, 100)
    first, second = started(batcher, (["1"], "bad"), (["2"], "good"))
    assert isinstance(first, ValueError) and second[0, 1] == 2
    batcher.close()


def test_a_client_that_left_is_not_encoded():
    encode = Slow()
    batcher = Batcher(encode, 1, 100)

    async def run():
        first = asyncio.create_task(batcher(["0"], "a"))
        while not encode.calls:
            await asyncio.sleep(0.001)
        gone = asyncio.create_task(batcher(["1"], "a"))
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.sleep(0.01)
        encode.release.set()
        await first
        return await batcher(["2"], "a")

    assert asyncio.run(run())[0, 1] == 2
    assert [texts for texts, _ in encode.calls] == [["0"], ["2"]] and batcher.waiting == 0
    batcher.close()


def test_closing_encodes_what_waits_and_refuses_the_rest():
    encode = Slow()
    batcher = Batcher(encode, 1, 100)

    async def run():
        tasks = [asyncio.create_task(batcher([str(i)], "a")) for i in range(3)]
        await asyncio.sleep(0.02)
        encode.release.set()
        await asyncio.to_thread(batcher.close)
        with pytest.raises(Full):
            await batcher(["9"], "a")
        return await asyncio.gather(*tasks)

    assert [v[0, 1] for v in asyncio.run(run())] == [0, 1, 2]
