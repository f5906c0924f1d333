"""The endpoint is not trusted: redirects, sizes, compressed and malformed replies; the key is found nowhere."""

import gzip
import re
import traceback
import tracemalloc

import pytest
from askers import ITEMS, WANTED, asker, run
from language_model import Server, hung_up, send

from embed.curation.endpoint import Endpoint
from embed.errors import EndpointError, UsageError


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


def test_a_key_is_not_shown(server):
    assert "abcde" not in repr(Endpoint(server.url, "tiny", "abcde"))
    with pytest.raises(UsageError, match="^MY_KEY: a key of 4 characters is too short"):
        Endpoint(server.url, "tiny", "abcd", "MY_KEY")


def test_without_a_key_none_is_sent(tmp_path):
    plain = Server(key="")
    assert run(asker(plain, tmp_path, key=""), ITEMS[:1]) == WANTED[:1]
    plain.close()


@pytest.mark.parametrize("place", ["answer", "escaped", "error"])
def test_a_key_that_is_echoed_is_written_nowhere(tmp_path, place):
    texts = {"answer": "secret", "escaped": "".join(f"\\u{ord(c):04X}" for c in "secret")}
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


@pytest.fixture(scope="module")
def bomb():
    """A few bytes that stand for many."""
    return gzip.compress(b" " * (1 << 26), 1)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "x-other"])
def test_a_compressed_reply_is_not_expanded(server, tmp_path, bomb, encoding):
    server.faults = [lambda handler, _: send(handler, 200, bomb, [("content-encoding", encoding)]) or True] * 4
    tracemalloc.start()
    with pytest.raises(EndpointError, match="a compressed reply, which was not asked for"):
        run(asker(server, tmp_path), ITEMS[:1])
    assert tracemalloc.get_traced_memory()[1] < 1 << 25
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
