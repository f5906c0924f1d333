"""A served model in the place of a MODEL: what is said, sent, kept and refused. Faults are in tests/curation."""

import json

import numpy as np
import pytest
from embedding_faults import EmbeddingServer, expected, vector

from embed.data import vector_store
from embed.data.tasks import Mixture
from embed.errors import ConfigError, DataError, EndpointError, Preempted, UsageError
from embed.inference import bulk
from embed.text import content_id, target_id
from embed.workflows import encode, encode_records
from embed.workflows.encode_endpoint import LEDGER, Served

KEY = "sk-abcdefgh"
TEXTS = [f"text {i}" for i in range(10)]


@pytest.fixture(scope="module")
def server():
    server = EmbeddingServer()
    yield server
    server.close()


@pytest.fixture
def served(server, monkeypatch):
    """served(script, **options) -> the model of the server, which follows that script of faults."""
    monkeypatch.setenv("EMBED_API_KEY", KEY)

    def make(script=(), begin=True, **options):
        if begin:
            server.begin(script, KEY)
        return Served(server.url, "tiny", **{"batch_size": 4, "first_wait": 1e-4, "attempts": 2, **options})

    return make


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.jsonl"
    rows = [{"id": f"t{i}", "text": text, "head": "h" if i == 3 else ""} for i, text in enumerate(TEXTS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_is_encoded_without_a_prompt_and_nothing_of_the_replies_is_left(served, server, texts, tmp_path, capsys):
    encode.run(served(["429 now"]), texts, tmp_path / "out", format="npy", shard_size=6)
    ids, vectors = bulk.read(tmp_path / "out")
    assert ids == [f"t{i}" for i in range(10)]
    np.testing.assert_array_equal(vectors, expected(TEXTS))
    printed = capsys.readouterr().out
    assert (
        f"will ask {server.url} 'tiny' for the vectors of 10 texts, sent alone: at most 3 requests without failures; budget "
        "none (--max_requests, --max_tokens)" in printed
    )
    assert "10 texts in 2 shards; in all 4 requests, 1 of them failed, 30 tokens\n" in printed
    assert not (tmp_path / "out" / LEDGER).exists() and server.received == 4
    encode.run(served(), texts, tmp_path / "out", format="npy", shard_size=6)
    assert server.received == 0 and "was finished before" in capsys.readouterr().out


def test_a_prompt_and_a_title_are_put_around_the_text_and_a_size_is_asked_for(served, texts, tmp_path, capsys):
    encode.run(served(), texts, tmp_path / "out", format="npy", prompt="p: {content}", title_field="head", dims=3)
    vectors = bulk.read(tmp_path / "out")[1]
    sent = [f"p: {'h ' if i == 3 else ''}{text}" for i, text in enumerate(TEXTS)]
    assert vectors.shape == (10, 3) and "sent as 'p: {content}'" in capsys.readouterr().out
    rows = np.array([vector(text, 3) for text in sent], np.float64)
    np.testing.assert_allclose(vectors, rows / np.linalg.norm(rows, axis=1, keepdims=True), atol=1e-7)


def test_a_spent_budget_keeps_what_came_and_the_next_run_asks_for_the_rest(served, server, texts, tmp_path, capsys):
    run = lambda model: encode.run(model, texts, tmp_path / "out", format="npy", shard_size=6)  # noqa: E731
    with pytest.raises(
        Preempted, match=r"the budget of 2 requests is spent .1 requests failed, .*run the same command with a h"
    ):
        run(served(["ok", "500"], max_requests=2))
    with pytest.raises(DataError, match="was begun with another batch_size .4, now 5."):
        run(served(begin=False, batch_size=5))
    with pytest.raises(DataError, match="was begun with another prompt"):
        encode.run(served(begin=False), texts, tmp_path / "out", format="npy", shard_size=6, prompt="query")
    run(served(begin=False, max_requests=4))
    np.testing.assert_array_equal(bulk.read(tmp_path / "out")[1], expected(TEXTS))
    answered = [key for key, fault in server.log if fault == "ok"]
    assert server.received == 4 and len(set(answered)) == 3
    assert "1 replies are here already and are not asked for again" in capsys.readouterr().out


def test_a_budget_that_failures_spent_is_an_error_of_the_endpoint(served, texts, tmp_path):
    with pytest.raises(EndpointError, match="failed 2 of 2 requests.* and the budget of 2 requests is spent"):
        encode.run(served(["500"] * 9, max_requests=2, attempts=8), texts, tmp_path / "out", format="npy")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 513}, "--batch_size=513: give 1 to 512 texts a request"),
        ({"key_variable": "a b"}, "--key_variable: takes the name of an environment variable"),
    ],
)
def test_options_that_cannot_be_are_refused(served, options, message):
    with pytest.raises(UsageError, match=message):
        served(**options)


def test_what_an_endpoint_does_not_have_is_refused_before_anything_is_written(served, server, texts, tmp_path):
    with pytest.raises(UsageError, match="--model: holds control characters"):
        Served(server.url, "tiny\x1b")
    for options, error, message in (
        ({"dtype": "float32"}, UsageError, "--dtype has no effect with --endpoint, whose server decides it"),
        ({"max_length": 5}, UsageError, "--max_length has no effect with --endpoint"),
        ({"prompt": "qery"}, ConfigError, "no prompt is called 'qery'"),
        ({"dims": 0}, UsageError, "dims = 0: expected an integer >= 1"),
    ):
        with pytest.raises(error, match=message):
            encode.run(served(), texts, tmp_path / "out", **{"format": "npy", **options})
    assert not (tmp_path / "out").exists() and server.received == 0


ROWS = [{"query": f"{a} {b}", "target": b, "negatives": [c, a]} for a, b, c in zip("abcdef", "klmnop", "uvwxyz")]


@pytest.fixture
def recipe(recipe_of, task_of, without_seqio):
    task = task_of("taught", ROWS, ("query", "target", "negatives"), query_prompt="clustering")
    return recipe_of(mixture=Mixture("m", [task]), num_negatives=2)


def test_the_texts_of_a_recipe_are_encoded_and_joined_by_their_ids(served, server, recipe, tmp_path, capsys):
    """Stopped by its budget between the sides; no text is asked for twice."""
    output = tmp_path / "taught"
    with pytest.raises(Preempted, match="the budget of 3 requests is spent"):
        encode_records.run(served(max_requests=3), recipe, output)
    with pytest.raises(DataError, match="query: holds vectors of another model, prompt or length"):
        encode_records.run(served(begin=False), recipe, output, dims=3)
    encode_records.run(served(begin=False), recipe, output)
    queries, targets = [row["query"] for row in ROWS], sorted({x for r in ROWS for x in (r["target"], *r["negatives"])})
    for side, texts, id_of in (("query", queries, content_id), ("target", targets, target_id)):
        store = vector_store.read(output / side)
        np.testing.assert_array_equal(store.of(np.array([id_of(x) for x in texts]), side), expected(texts))
        assert store.identity["model"] == "tiny of an endpoint" and store.identity["prompts"] == ["{content}"]
        assert store.identity["tasks"] == {} and "source" not in store.identity
    assert server.received == 2 + 5 == len({key for key, _ in server.log})
    assert sorted(p.name for p in output.iterdir()) == ["query", "target"]
    assert "vectors of 6 texts, sent alone" in capsys.readouterr().out
    received = server.received
    encode_records.run(served(begin=False), recipe, output)
    assert server.received == received


def test_a_prompt_for_an_endpoint_is_given_for_a_side(served, recipe, tmp_path):
    encode_records.run(served(), recipe, tmp_path / "taught", query_prompt="clustering")
    store = vector_store.read(tmp_path / "taught" / "query")
    sent = [f"task: clustering | query: {row['query']}" for row in ROWS]
    stored = store.of(np.array([content_id(row["query"]) for row in ROWS]), "query")
    np.testing.assert_array_equal(stored, expected(sent))
