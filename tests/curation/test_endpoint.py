"""The endpoint is not trusted: redirects, sizes, compressed and malformed replies; the key is found nowhere."""

import gzip
import json
import re
import traceback
import tracemalloc
import urllib.parse

import pytest
from askers import ITEMS, WANTED, asker, run
from language_model import Server, hung_up, send

from embed.curation.endpoint import Endpoint
from embed.curation.requests import Continuation, Malformed, Reply, Request, parse
from embed.curation.secret import Secret
from embed.curation.words import Words
from embed.errors import DataError, EndpointError, UsageError


@pytest.mark.parametrize("option", ["base_url", "model"])
def test_the_key_stands_in_no_other_option(server, option):
    given = {"base_url": server.url, "model": "tiny", "key": "sk-123456"}
    with pytest.raises(UsageError, match="leave it out there") as caught:
        Endpoint(**{**given, option: f"{given[option]}-sk-123456"})
    assert "sk-123456" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://user:sk-1@host/v1", "http://host/v1?key=sk-1", "http://host/v1#sk-1", "http://sk-1@host/v1"]
)
def test_an_address_that_may_hold_a_key_is_refused_and_not_shown(url):
    with pytest.raises(UsageError, match="set the key in the environment variable EMBED_API_KEY") as caught:
        Endpoint(url, "tiny")
    assert "sk-1" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["ftp://host", "http://", "http://host:0", "http://[::1", "http://a b/", "http://a/\x1b[2J"]
)
def test_what_is_no_address(url):
    with pytest.raises(UsageError, match="not a base URL such as") as caught:
        Endpoint(url, "tiny")
    assert str(caught.value).isprintable()


def test_a_key_that_is_too_short_to_be_kept_out_of_texts_is_refused(server):
    with pytest.raises(UsageError, match="a key of 4 characters is too short .* unset the variable"):
        Endpoint(server.url, "tiny", "abcd")
    assert "abcde" not in repr(Endpoint(server.url, "tiny", "abcde"))


@pytest.mark.parametrize("key", ["two words", "new\nline", "schlüssel"])
def test_a_key_with_characters_that_none_has(server, key):
    with pytest.raises(UsageError, match="holds characters that no key has; set it again"):
        Endpoint(server.url, "tiny", key)


def test_without_a_key_none_is_sent(tmp_path):
    plain = Server(key="")
    assert run(asker(plain, tmp_path, key=""), ITEMS[:1]) == WANTED[:1]
    plain.close()


ESCAPES = {
    "none": lambda key: key,
    "JSON in JSON": lambda key: json.dumps(json.dumps(key)),
    "code points": lambda key: "".join(f"\\u{ord(c):04X}" for c in key),
    "code points in JSON": lambda key: "".join(f"\\\\u{ord(c):04x}" for c in key),
    "bytes": lambda key: "".join(f"\\x{ord(c):02x}" for c in key),
    "URL": lambda key: urllib.parse.quote(key, safe=""),
    "slashes": lambda key: key.replace("/", "\\/"),
}


@pytest.mark.parametrize("key", ["secret-Key", 'a"b\\c/d+e%f'])
@pytest.mark.parametrize("escape", ESCAPES.values(), ids=ESCAPES)
def test_a_key_is_removed_however_it_is_escaped(key, escape):
    secret = Secret(key, "VARIABLE")
    text = f"before {escape(key)} after"
    assert secret.is_in(text)
    removed = secret.remove(text)
    assert removed.startswith("before ") and removed.endswith(" after") and secret.mark in removed
    assert not secret.is_in(removed) and len(removed) < len("before  after") + len(secret.mark) + 8


@pytest.mark.parametrize("place", ["answer", "escaped", "error"])
def test_a_key_that_is_echoed_is_written_nowhere(tmp_path, place):
    texts = {"answer": "secret", "escaped": ESCAPES["code points"]("secret")}
    echoing = Server(lambda body: f'{{"task": "t", "query": "it is {texts.get(place)}"}}')
    if place == "error":
        echoing.faults = [lambda handler, body: send(handler, 500, {"error": "bad secret"}) or True] * 50
        with pytest.raises(EndpointError, match=r"bad \[key removed\]"):
            run(asker(echoing, tmp_path), ITEMS[:1])
    else:
        job = asker(echoing, tmp_path)
        assert run(job, ITEMS[:1]) == []
        assert job.rejects == {"query: led astray by the text": 1}
    kept = (tmp_path / "replies.jsonl").read_text()
    assert "[key removed]" in kept
    for _ in range(3):
        assert "secret" not in kept
        kept = re.sub(r"\\+u00(..)", lambda m: chr(int(m[1], 16)), kept)
    echoing.close()


def test_no_error_is_chained_to_one_that_holds_the_key(server, tmp_path):
    wrong = "-".join(["not", "the", "key"])
    with pytest.raises(EndpointError) as caught:
        run(asker(server, tmp_path, key=wrong), ITEMS[:1])
    assert wrong not in "".join(traceback.format_exception(caught.value))
    server.faults = [hung_up] * 9
    with pytest.raises(EndpointError) as caught:
        run(asker(server, tmp_path), ITEMS[:1])
    lines = "".join(traceback.format_exception(caught.value))
    assert "httpcore" not in lines and '"secret"' not in lines


@pytest.mark.parametrize("body", [b" " * (9 << 20), b'{"choices": "' + b"x" * (9 << 20)], ids=["blank", "text"])
def test_a_reply_has_a_largest_size(server, tmp_path, body):
    server.faults = [lambda handler, _: send(handler, 200, body) or True] * 4
    with pytest.raises(EndpointError, match="a reply of more than 8,388,608 bytes"):
        run(asker(server, tmp_path), ITEMS[:1])


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "x-other"])
def test_a_compressed_reply_is_not_expanded(server, tmp_path, encoding):
    bomb = gzip.compress(b" " * (1 << 27), 1)
    server.faults = [lambda handler, _: send(handler, 200, bomb, [("content-encoding", encoding)]) or True] * 4
    tracemalloc.start()
    with pytest.raises(EndpointError, match="a compressed reply, which was not asked for"):
        run(asker(server, tmp_path), ITEMS[:1])
    assert tracemalloc.get_traced_memory()[1] < 1 << 26
    tracemalloc.stop()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("same_host", [False, True])
def test_a_redirect_is_not_followed_and_not_tried_again(server, tmp_path, status, same_host):
    other = Server()
    target = server if same_host else other
    to = f"{target.url}/elsewhere/completions?key=secret"
    server.faults = [lambda handler, body: send(handler, status, {}, [("location", to)]) or True]
    host = re.escape(target.url.removesuffix("/v1"))
    with pytest.raises(
        EndpointError, match=f"sends elsewhere to {host}, status {status}; a redirect is not followed"
    ) as e:
        run(asker(server, tmp_path, 1), ITEMS)
    assert server.received == 1 and other.received == 0 and "secret" not in str(e.value)
    other.close()


def test_what_a_server_says_cannot_command_the_terminal(server, tmp_path):
    server.faults = [lambda handler, body: send(handler, 400, b"\x1b[2Jgone\r\n\x07\xe2\x80\xae new") or True]
    with pytest.raises(EndpointError, match=r"status 400: \[2Jgone new") as caught:
        run(asker(server, tmp_path, 1), ITEMS)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALL_PROXY", "what://user:pw-1@host"),
        ("ALL_PROXY", "socks5://user:pw-1@host"),
        ("SSL_CERT_FILE", "/no/such/file"),
    ],
)
def test_an_environment_that_the_http_client_cannot_use(server, tmp_path, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match="check the environment variables HTTP_PROXY") as caught:
        run(asker(server, tmp_path), ITEMS[:1])
    assert "pw-1" not in "".join(traceback.format_exception(caught.value))


def test_a_kept_likelihood_that_is_no_number(server, tmp_path):
    words = Words("query_likelihood", "", "$passage")
    job = asker(server, tmp_path)
    key = Continuation(words.name, words.plain({"passage": "text"}), " query").key("tiny", True)
    job.ledger.answer(job.ledger.reserve(key, 1), key, Reply("x3.5", 1, 1))
    with pytest.raises(DataError, match="the reply kept for 'query_likelihood' is no number; restore"):
        job.run(lambda item: job.likelihood(words, {"passage": item}, "query"), ["text"], print)
    job.ledger.close()


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
