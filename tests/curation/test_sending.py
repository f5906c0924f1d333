"""Budgets and tries: each HTTP request counts before it is sent, over retries, failures, kills and runs."""

import email.utils
import json
import time

import pytest
from askers import ITEMS, SCHEMA, WANTED, WORDS, asker, run
from language_model import broken, half_sent, hung_up, not_json, send, too_many

from embed.curation.sending import Budget, Spent
from embed.errors import EndpointError


@pytest.mark.parametrize("concurrency", [1, 4])
def test_the_budget_is_never_passed(server, tmp_path, concurrency):
    server.delay = 0.01
    job = asker(server, tmp_path, concurrency, Budget(requests=12))
    taken = []

    async def work(item):
        return await job.ask(WORDS, SCHEMA, {"passage": item})

    with pytest.raises(Spent, match="12 requests"):
        job.run(work, ITEMS, lambda item, result: taken.append(item))
    assert server.received == 12 == job.ledger.requests
    assert taken == ITEMS[: len(taken)] and len(taken) == 12
    job.ledger.close()
    assert run(asker(server, tmp_path, concurrency, Budget(requests=30)), ITEMS) == WANTED
    assert server.received == 30


def test_tokens_are_a_budget_too(server, tmp_path):
    job = asker(server, tmp_path, 1, Budget(tokens=3000))
    with pytest.raises(Spent, match=r"3,000 tokens is spent \(1,760 are counted, the next request can cost 1,\d\d\d\)"):
        run(job, ITEMS)
    assert job.ledger.tokens == 1760 == 110 * server.received


def test_tokens_of_requests_under_way_are_waited_for(server, tmp_path):
    """Eight at once could cost more than is left, but cost less: none is left out for that."""
    server.delay = 0.02
    job = asker(server, tmp_path, 8, Budget(tokens=30 * 110 + 1400))
    assert run(job, ITEMS) == WANTED
    assert 1 < server.most_at_once < 8


@pytest.mark.slow
@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("fault", [too_many, broken, not_json, hung_up, half_sent], ids=lambda f: f.__name__)
def test_retries_spend_the_budget(server, tmp_path, fault, concurrency):
    server.faults = [fault] * 1000
    for _ in range(2):  # the second run finds it spent
        job = asker(server, tmp_path, concurrency, Budget(requests=10), attempts=64, first_wait=1e-5)
        with pytest.raises(Spent, match="10 requests is spent"):
            run(job, ITEMS)
        assert server.received == 10 == job.ledger.requests == job.ledger.failures
        assert "failed 10 of 10 requests" in str(job.failure("10 requests is spent"))


@pytest.mark.parametrize(("fault", "costs"), [(too_many, False), (not_json, True), (half_sent, True), (broken, True)])
def test_a_failure_costs_tokens_unless_the_model_surely_did_not_work(server, tmp_path, fault, costs):
    server.faults = [fault]
    job = asker(server, tmp_path)
    run(job, ITEMS[:1])
    assert (job.ledger.requests, job.ledger.failures) == (2, 1)
    assert (job.ledger.tokens > 110 + 512) if costs else (job.ledger.tokens == 110)


def test_a_try_that_waits_ends_with_the_job(server, tmp_path):
    def much_later(handler, body):
        send(handler, 429, {}, [("retry-after", "50")])
        return True

    gone = lambda handler, body: send(handler, 404, {}) or True  # noqa: E731
    server.faults = [much_later, gone]
    start = time.monotonic()
    with pytest.raises(EndpointError, match="has no model"):
        run(asker(server, tmp_path, 2), ITEMS)
    assert time.monotonic() - start < 30 and server.received == 2


def test_a_server_that_says_when_to_come_back_is_obeyed(server, tmp_path):
    times = []

    def later(handler, body):
        times.append(time.monotonic())
        send(handler, 429, {"error": {"message": "slow down"}}, [("retry-after", "0.3")])
        return True

    server.faults = [later, later]
    assert run(asker(server, tmp_path, first_wait=1e-4), ITEMS[:1]) == WANTED[:1]
    assert times[1] - times[0] >= 0.3


def test_a_date_is_a_wait_too(server, tmp_path):
    times = []

    def at_a_date(handler, body):
        times.append(time.time())
        send(handler, 503, {}, [("retry-after", email.utils.formatdate(time.time() + 2, usegmt=True))])
        return True

    server.faults = [at_a_date]
    assert run(asker(server, tmp_path, first_wait=1e-4), ITEMS[:1]) == WANTED[:1]
    assert time.time() - times[0] >= 1


@pytest.mark.parametrize(
    "value",
    ["-5", "nan", "-inf", "1e400", "Thu, 01 Jan 1970 00:00:00 GMT", "words", "Thu, 99 Foo 99999 00:00:00 GMT", ""],
)
def test_odd_waits_that_a_server_asks_for(server, tmp_path, value):
    def odd(handler, body):
        send(handler, 429, {}, [("retry-after", value)])
        return True

    server.faults = [odd]
    assert run(asker(server, tmp_path, longest_wait=0.05), ITEMS[:1]) == WANTED[:1]


def test_a_cost_that_cannot_be_right_counts_with_the_most_possible(server, tmp_path):
    def odd(handler, body):
        text = json.dumps({"task": "t", "query": "q"})
        send(handler, 200, {"choices": [{"message": {"content": text}}], "usage": {"prompt_tokens": -9e9}})
        return True

    server.faults = [odd]
    job = asker(server, tmp_path)
    assert run(job, ITEMS[:1]) == [(ITEMS[0], "q")]
    assert job.ledger.estimated == 1 and job.ledger.tokens_out == 512 and 500 < job.ledger.tokens_in < 2000
