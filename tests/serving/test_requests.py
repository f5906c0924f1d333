"""Bodies of requests: what is read, and the one line for everything else; answers by a reader that is not ours."""

import base64
import json
import random

import numpy as np
import pytest

from embed.serving import requests
from embed.serving.requests import BadRequest, Limits, Request

LIMITS = Limits("m", 16, frozenset({"query", "document"}), "document", texts=3)


def parsed(**body) -> Request:
    return requests.parse(json.dumps(body).encode(), LIMITS)


def test_what_openai_clients_send_is_read():
    assert parsed(input="a") == Request(["a"], "document", None, False)
    assert parsed(
        input=["a", "b"], model="m", encoding_format="base64", dimensions=8, user="u", prompt_name="query"
    ) == Request(["a", "b"], "query", 8, True)


@pytest.mark.parametrize(
    "body, message, status",
    [
        ({}, "missing required field `input`", 400),
        ({"input": "a", "foo": 1}, "unknown field `foo`", 400),
        ({"input": ""}, "input 0 is empty", 400),
        ({"input": ["a", " "]}, "input 1 is empty", 400),
        ({"input": []}, "at least one text", 400),
        ({"input": {"text": "a"}}, "at least one text", 400),
        ({"input": [1, 2]}, "token ids, which are another tokenizer's; send texts", 400),
        ({"input": [[1, 2]]}, "token ids", 400),
        ({"input": ["a", None]}, "input 1 is NoneType, expected a text", 400),
        ({"input": list("abcd")}, "input has 4 texts; at most 3 go into one request", 400),
        ({"input": "a", "model": "other"}, "no model 'other' here; the model is 'm'", 404),
        ({"input": "a", "dimensions": 17}, "this model gives 1 to 16", 400),
        ({"input": "a", "dimensions": 0}, "dimensions", 400),
        ({"input": "a", "prompt_name": "other"}, "no prompt 'other'; this model has document, query", 400),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", 400),
    ],
)
def test_what_would_not_be_done_as_asked_is_refused(body, message, status):
    with pytest.raises(BadRequest) as refused:
        parsed(**body)
    assert message in str(refused.value) and refused.value.status == status


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'"a"',
        b"[" * 100_000,
        b'{"input": ' + b"[" * 100_000,
        b'{"input": "\\ud800"}',
    ],
)
def test_what_is_no_json_of_the_form_is_refused(content):
    with pytest.raises(BadRequest):
        requests.parse(content, LIMITS)


def test_damaged_bodies_are_refused_or_read():
    """10,000 changes of a good body: each is a request or a BadRequest, never another error."""
    draw = random.Random(0)
    good = json.dumps({"input": ["a text", "é"], "model": "m", "dimensions": 4, "encoding_format": "float"}).encode()
    for _ in range(10_000):
        content = bytearray(good)
        for _ in range(draw.randint(1, 4)):
            position = draw.randrange(len(content))
            content[position : position + draw.randint(0, 3)] = draw.randbytes(draw.randint(0, 3))
            if not content:
                break
        try:
            requests.parse(bytes(content), LIMITS)
        except BadRequest as e:
            assert "\n" not in str(e)


@pytest.mark.parametrize("as_base64", [False, True])
def test_an_answer_holds_the_float32_to_the_bit(as_base64):
    vectors = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    answer = json.loads(requests.answer(vectors, 7, "m", as_base64))
    rows = [d["embedding"] for d in answer["data"]]
    read = [np.frombuffer(base64.b64decode(r), "<f4") for r in rows] if as_base64 else np.array(rows, np.float32)
    np.testing.assert_array_equal(np.stack(list(read)), vectors)
    assert [d["index"] for d in answer["data"]] == [0, 1, 2]
    assert answer["usage"] == {"prompt_tokens": 7, "total_tokens": 7}


def test_an_error_is_in_openais_form():
    assert json.loads(requests.error("what", "input", "invalid_request_error")) == {
        "error": {"message": "what", "type": "invalid_request_error", "param": "input", "code": None}
    }
