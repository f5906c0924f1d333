"""What goes over the wire and what is read of a reply: keys, bodies, texts, costs and log-probabilities."""

import dataclasses
import json

import pytest

from embed.curation.requests import Continuation, Malformed, Reply, Request, parse

REQUEST = Request("query", "system", "user", {"type": "object"})
CONTINUATION = Continuation("likelihood", "a b", " c d")


@pytest.mark.parametrize(
    "value",
    [
        None, 3, "text", [], {}, {"choices": None}, {"choices": {}}, {"choices": []}, {"choices": [None]},
        {"choices": ["text"]}, {"choices": [[]]}, {"choices": [{}]}, {"choices": [{"message": None}]},
        {"choices": [{"message": []}]}, {"choices": [{"message": {"content": []}}]},
        {"choices": [{"message": {"content": {"text": "x"}}}]}, {"choices": [{"message": {"content": 3}}]},
    ],
)  # fmt: skip
def test_a_reply_of_another_form_is_malformed(value):
    with pytest.raises(Malformed):
        parse(json.dumps(value).encode(), REQUEST, 100)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff\xfe\xff", b"[" * 100_000, b'{"choices":' * 100_000, b"9" * 5000, b"\x00" * 9]
)
def test_bytes_that_are_no_json_are_malformed(data):
    with pytest.raises(Malformed, match="JSON|choices"):
        parse(data, REQUEST, 100)


@pytest.mark.parametrize(
    "logprobs",
    [
        {"tokens": [1, 2], "token_logprobs": [0.0, 0.0]},
        {"tokens": ["c", "d"], "token_logprobs": [float("nan"), -1.0]},
        {"tokens": ["c", "d"], "token_logprobs": [10**400, -1.0]},
        {"tokens": ["c", "d"], "token_logprobs": [True, "x"]},
        {"tokens": ["c", "d"], "token_logprobs": [5.0, -1.0]},
        {"tokens": ["c", "d"], "token_logprobs": [-1.0]},
        {"tokens": "cd", "token_logprobs": "cd"},
    ],
)
def test_log_probabilities_that_are_none_are_malformed(logprobs):
    body = {"choices": [{"text": "a b c d", "logprobs": logprobs}]}
    with pytest.raises(Malformed, match="do not belong to tokens"):
        parse(json.dumps(body).encode(), CONTINUATION, 100)


def test_log_probabilities_of_the_continuation_are_added_up():
    logprobs = {"tokens": ["a", " b", " c", " d", " e"], "token_logprobs": [None, -9, -1, -2.5, -7]}
    body = {"choices": [{"text": "a b c d e", "logprobs": logprobs}]}
    assert parse(json.dumps(body).encode(), CONTINUATION, 100).text == "-3.5"


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        "text",
        {},
        {"tokens": [], "token_logprobs": []},
        {"tokens": ["d"], "token_logprobs": [-1.0]},  # not all of the continuation
        {"tokens": [" c", " d"], "token_logprobs": [None, None]},
    ],
)
def test_a_choice_that_tells_no_log_probabilities_says_nothing(logprobs):
    assert CONTINUATION.read({"text": "a b c d", "logprobs": logprobs}) == ""


@pytest.mark.parametrize(
    "tokens, values, wanted",
    [
        (["<bos>", "a b", " c d"], [None, -9, -1.5], "-1.5"),  # a token that the text does not hold
        (["a b c", " d"], [None, -2.0], "-2.0"),  # one over the border: it has no value
        (["a b c", " d"], [-4.0, -2.0], "-6.0"),  # and where it has one it counts
        (["a b", " c d"], [-1, 0.0005], "0.0005"),  # rounding above 0
    ],
)
def test_tokens_are_located_by_their_own_texts(tokens, values, wanted):
    found = CONTINUATION.read({"text": "a b c d", "logprobs": {"tokens": tokens, "token_logprobs": values}})
    assert found == wanted


# what is sent


def test_a_question_is_sent_with_its_schema_where_the_server_holds_to_one():
    request = Request("rate query", "sys ü", "use", {"type": "object"}, 0.5, 64, 7)
    plain = {
        "model": "tiny",
        "messages": [{"role": "system", "content": "sys ü"}, {"role": "user", "content": "use"}],
        "temperature": 0.5,
        "max_tokens": 64,
        "seed": 7,
    }
    assert json.loads(request.body("tiny", structured=False)) == plain
    schema = {"name": "rate_query", "schema": {"type": "object"}, "strict": True}
    held = {**plain, "response_format": {"type": "json_schema", "json_schema": schema}}
    assert json.loads(request.body("tiny", structured=True)) == held
    assert "ü".encode() in request.body("tiny", structured=False)
    assert (Request.path, Continuation.path) == ("chat/completions", "completions")


def test_a_continuation_is_sent_to_be_echoed_and_not_continued():
    body = {"model": "tiny", "prompt": "a b c d", "max_tokens": 1, "temperature": 0.0, "echo": True, "logprobs": 1}
    assert json.loads(CONTINUATION.body("tiny", structured=True)) == body
    assert CONTINUATION.body("tiny", structured=False) == CONTINUATION.body("tiny", structured=True)


# keys


CHANGES = {
    "prompt": "rate",
    "system": "other",
    "user": "other",
    "schema": {"type": "array"},
    "temperature": 0.0,
    "max_tokens": 9,
    "seed": 1,
}


def test_a_key_goes_by_all_that_decides_the_reply():
    assert CHANGES.keys() == {field.name for field in dataclasses.fields(Request)}
    others = [dataclasses.replace(REQUEST, **{name: value}).key("tiny", True) for name, value in CHANGES.items()]
    keys = {REQUEST.key("tiny", True), REQUEST.key("tiny", False), REQUEST.key("huge", True), *others}
    assert len(keys) == len(CHANGES) + 3
    assert REQUEST.key("tiny", True) == dataclasses.replace(REQUEST).key("tiny", True)


def test_a_key_of_a_continuation_is_no_key_of_a_question():
    others = [dataclasses.replace(CONTINUATION, **{name: "other"}) for name in ("prompt", "text", "continuation")]
    keys = {one.key("tiny", True) for one in (CONTINUATION, dataclasses.replace(CONTINUATION, max_tokens=2), *others)}
    assert len({*keys, CONTINUATION.key("huge", True), REQUEST.key("tiny", True)}) == 7
    assert CONTINUATION.key("tiny", True) == CONTINUATION.key("tiny", False), "no schema is asked for"


@pytest.mark.parametrize("request_", [Request("q", "", "\ud83d", {}), Continuation("q", "", "\ud83d")])
def test_half_a_character_has_no_key(request_):
    with pytest.raises(UnicodeEncodeError):
        request_.key("tiny", True)


# texts and costs


@pytest.mark.parametrize(
    "message, text", [({"content": "hello"}, "hello"), ({"content": None}, ""), ({}, ""), ({"content": ""}, "")]
)
def test_a_refusal_is_a_reply_of_nothing(message, text):
    assert REQUEST.read({"message": message}) == text


def cost(usage, text="hello") -> Reply:
    body = {"choices": [{"message": {"content": text}}], **({} if usage is ... else {"usage": usage})}
    return parse(json.dumps(body).encode(), REQUEST, max_tokens_in=100)


def test_a_reply_costs_what_the_server_tells():
    told = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    assert cost(told) == Reply("hello", 7, 3)
    assert cost({"prompt_tokens": 1, "completion_tokens": 0}, "") == Reply("", 1, 0), "nothing may cost nothing"
    assert cost({"prompt_tokens": 10_000_000, "completion_tokens": 1}) == Reply("hello", 10_000_000, 1)


@pytest.mark.parametrize(
    "usage",
    [
        ...,
        None,
        [],
        "x",
        {},
        {"prompt_tokens": 7},
        {"prompt_tokens": -9e9, "completion_tokens": -1},
        {"prompt_tokens": True, "completion_tokens": 1},
        {"prompt_tokens": 10**30, "completion_tokens": 1},
        {"prompt_tokens": 10_000_001, "completion_tokens": 1},
        {"prompt_tokens": "7", "completion_tokens": 7},
        {"prompt_tokens": 7.0, "completion_tokens": 7},
        {"prompt_tokens": 0, "completion_tokens": 1},
        {"prompt_tokens": 1, "completion_tokens": 0},
        {"prompt_tokens": float("nan"), "completion_tokens": float("inf")},
    ],
)
def test_a_cost_that_cannot_be_right_is_the_most_possible(usage):
    assert cost(usage) == Reply("hello", 100, 512, estimated=True)
