"""BM25 against a plain loop over the formula, and the words it counts."""

import math
import random

import numpy as np
import pytest

from embed.evaluation import bm25, metrics, suites

pytest.importorskip("bm25s")


def plain_scores(query: list[str], corpus: list[list[str]], k1: float = 1.2, b: float = 0.75) -> list[float]:
    """Returns Lucene's BM25 of each document, by loops; constant factors do not matter."""
    average = sum(map(len, corpus)) / len(corpus)
    scores = []
    for document in corpus:
        total = 0.0
        for word in query:
            with_word = sum(word in other for other in corpus)
            idf = math.log(1 + (len(corpus) - with_word + 0.5) / (with_word + 0.5))
            count = document.count(word)
            total += idf * count / (count + k1 * (1 - b + b * len(document) / average))
        scores.append(total)
    return scores


def make_task(seed: int) -> suites.RetrievalTask:
    draw = random.Random(seed)
    words = [f"w{chr(97 + i)}{chr(97 + j)}" for i in range(8) for j in range(8)]
    text = lambda most: " ".join(draw.choices(words[: draw.randint(5, 64)], k=draw.randint(1, most)))  # noqa: E731
    count = draw.choice([5, 40, 150])
    queries = [text(6) for _ in range(12)] + ["unseen", "waa waa wab"]
    ids = [f"d{j:03d}" for j in range(count)]
    return suites.RetrievalTask(
        name="t",
        prompt="query",
        query_ids=[f"q{i}" for i in range(len(queries))],
        queries=queries,
        corpus_ids=ids,
        corpus=[text(30) for _ in range(count)],
        titles=[text(3) if draw.random() < 0.5 else "" for _ in range(count)],
        qrels={f"q{i}": {draw.choice(ids): 1.0, draw.choice(ids): 2.0} for i in range(len(queries))},
    )


@pytest.mark.parametrize("seed", range(6))
def test_scores_and_rankings_equal_the_formula(monkeypatch, seed):
    task, seen = make_task(seed), []
    ranked = metrics.ranked

    def watched(ids, scores):
        seen.append((list(ids), [float(s) for s in scores]))
        return ranked(ids, scores)

    monkeypatch.setattr(metrics, "ranked", watched)
    found = bm25.score_bm25(task)
    monkeypatch.undo()
    corpus = [bm25.words(f"{t} {d}") for t, d in zip(task.titles, task.corpus)]
    rankings = {}
    assert len(seen) == len(task.queries)
    for query_id, query, (ids, scores) in zip(task.query_ids, task.queries, seen):
        plain = dict(zip(task.corpus_ids, plain_scores(bm25.words(query), corpus)))
        wanted = np.array([plain[i] for i in ids])
        if wanted.max() > 0:
            factor = np.dot(scores, wanted) / np.dot(wanted, wanted)
            np.testing.assert_allclose(scores, factor * wanted, atol=1e-4 * max(scores))
        assert len(ids) == min(100, len(corpus))
        assert min(wanted) >= sorted(plain.values(), reverse=True)[len(ids) - 1] - 1e-5  # these are the best ones
        rankings[query_id] = ranked(ids, np.round(wanted, 4))
        assert [round(plain[i], 3) for i in ranked(ids, scores)] == sorted(
            (round(plain[i], 3) for i in ids), reverse=True
        )
    assert found == pytest.approx(metrics.retrieval_scores(rankings, task.qrels), abs=0.02)


def test_a_word_of_one_document_finds_it():
    task = make_task(1)
    task.corpus[3] += " zebra"
    task.queries[0] = "Which Zebra?"
    task.qrels.clear()
    task.qrels["q0"] = {task.corpus_ids[3]: 1.0}
    assert bm25.score_bm25(task)["recall_at_1"] == 1.0


def test_titles_are_searched_and_queries_without_judgements_are_not_asked():
    task = make_task(2)
    task.titles[4] = "zebra"
    task.queries[0] = "zebra"
    task.qrels.clear()
    task.qrels["q0"] = {task.corpus_ids[4]: 1.0}
    task.qrels["q1"] = {task.corpus_ids[0]: 0.0}
    found = bm25.score_bm25(task)
    assert found["mrr_at_10"] == 1.0 and set(found) == set(metrics.retrieval_scores({}, {}))


# words


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("snake_case_name", "snake case name"),
        ("camelCaseName", "camel case name"),
        ("PascalCase", "pascal case"),
        ("getHTTPResponse", "get http response"),
        ("XMLParser HTTP", "xml parser http"),
        ("MAX_VALUE", "max value"),
        ("__init__", "init"),
        ("utf8 v2.10", "utf 8 v 2 10"),
        ("Hello, world! it's", "hello world it s"),
        ("привет Мир", "привет мир"),
        ("日本語 テスト", "日本語 テスト"),
        ("مرحبا بالعالم", "مرحبا بالعالم"),
        ("слово_слово", "слово слово"),
        ("", ""),
        ("?! ...", ""),
    ],
)
def test_words(text, wanted):
    assert bm25.words(text) == wanted.split()


@pytest.mark.parametrize("text", ["größe", "café", "naïve", "señor", "école", "żółć", "şehir"])
def test_a_latin_word_with_marks_is_one_word(text):
    assert bm25.words(text) == [text]
    assert bm25.words(text.capitalize()) == [text]


@pytest.mark.parametrize("text", ["हिन्दी", "தமிழ்", "বাংলা", "ไทยที่"])
def test_a_word_keeps_its_combining_marks(text):
    assert bm25.words(f"{text} x") == [text, "x"]
