"""BM25 against a plain loop over the formula, and the words it counts."""

import dataclasses
import math
import random

import numpy as np
import pytest

from embed.evaluation import bm25, ranking
from embed.evaluation.paired_tasks import Sts
from embed.evaluation.ranked_tasks import Reranking, Retrieval

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


def drawn_text(draw: random.Random, most: int) -> str:
    words = [f"w{chr(97 + i)}{chr(97 + j)}" for i in range(8) for j in range(8)]
    return " ".join(draw.choices(words[: draw.randint(5, 64)], k=draw.randint(1, most)))


def make_task(seed: int) -> Retrieval:
    draw = random.Random(seed)
    count = draw.choice([5, 40, 150])
    queries = [drawn_text(draw, 6) for _ in range(12)] + ["unseen", "waa waa wab"]
    ids = [f"d{j:03d}" for j in range(count)]
    return Retrieval(
        name="t",
        prompt="query",
        main="ndcg_at_10",
        languages=(),
        query_ids=[f"q{i}" for i in range(len(queries))],
        queries=queries,
        corpus_ids=ids,
        corpus=[drawn_text(draw, 30) for _ in range(count)],
        titles=[drawn_text(draw, 3) if draw.random() < 0.5 else "" for _ in range(count)],
        qrels={f"q{i}": {draw.choice(ids): 1.0, draw.choice(ids): 2.0} for i in range(len(queries))},
    )


@pytest.mark.parametrize("seed", range(6))
def test_scores_and_rankings_equal_the_formula(monkeypatch, seed):
    task, seen = make_task(seed), []
    scored, ranked = ranking.scored, ranking.ranked

    def watched(ids, scores):
        seen.append((list(ids), [float(s) for s in scores]))
        return scored(ids, scores)

    monkeypatch.setattr(ranking, "scored", watched)
    found = bm25.score(task)
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
        assert len(ids) == len(corpus)
        rankings[query_id] = ranked(ids, np.round(wanted, 4))
        in_order = [round(plain[i], 3) for i in ranked(ids, scores)]
        assert in_order == sorted((round(plain[i], 3) for i in ids), reverse=True)
    gains = ranking.scores(rankings, task.qrels)["ndcg_at_10"]
    assert found.scores["ndcg_at_10"] == pytest.approx(gains.mean(), abs=0.02)
    assert found.sample.values == pytest.approx(gains, abs=0.2)
    assert found.sample.values.mean() == pytest.approx(found.scores["ndcg_at_10"])


def test_a_word_of_one_document_finds_it():
    task = make_task(1)
    task.corpus[3] += " zebra"
    task.queries[0] = "Which Zebra?"
    task.qrels.clear()
    task.qrels["q0"] = {task.corpus_ids[3]: 1.0}
    assert bm25.score(task).scores["recall_at_1"] == 1.0


def test_the_library_logs_nothing(caplog):
    with caplog.at_level("DEBUG"):
        bm25.score(make_task(1))
    assert [record.name for record in caplog.records] == []


def test_titles_are_searched_and_queries_without_judgements_are_not_asked():
    task = make_task(2)
    task.titles[4] = "zebra"
    task.queries[0] = "zebra"
    task.qrels.clear()
    task.qrels["q0"] = {task.corpus_ids[4]: 1.0}
    task.qrels["q1"] = {}
    found = bm25.score(task)
    assert found.scores["mrr_at_10"] == 1.0 and len(found.sample) == 1
    assert set(found.scores) == set(ranking.scores({}, {}))


def test_only_the_best_documents_are_ranked():
    task = dataclasses.replace(make_task(1), main="recall_at_2", rules=ranking.Rules((1, 2)))
    task.corpus[3] = "zebra zebra zebra"
    task.corpus[2] = f"{task.corpus[2]} zebra"
    task.queries[0] = "zebra"
    task.qrels.clear()
    task.qrels["q0"] = {task.corpus_ids[i]: 1.0 for i in (2, 3, 4)}
    assert bm25.score(task).scores["recall_at_2"] == pytest.approx(2 / 3)


def test_only_the_candidates_of_a_query_are_ranked():
    task = make_task(1)
    task = dataclasses.replace(task, candidates={"q0": task.corpus_ids[1:]})
    task.queries[0] = task.corpus[0]  # the words of a document that is no candidate
    task.qrels.clear()
    task.qrels["q0"] = {task.corpus_ids[0]: 1.0, task.corpus_ids[1]: 1.0}
    assert bm25.score(task).scores["recall_at_1000"] == 0.5


# reranking


def reranking_task(seed: int = 0) -> Reranking:
    draw = random.Random(seed)
    candidates = [[f"{drawn_text(draw, 12)} x{i}y{k}" for k in range(draw.randint(2, 9))] for i in range(15)]
    relevant = [[k == 0 for k in range(len(own))] for own in candidates]
    return Reranking("k", "query", "map_at_1000", (), [drawn_text(draw, 5) for _ in range(15)], candidates, relevant)


@pytest.mark.parametrize("seed", range(3))
def test_candidates_are_weighed_within_all_candidates(seed):
    task = reranking_task(seed)
    everything = [bm25.words(c) for own in task.candidates for c in own]
    start, values = 0, []
    for query, own in zip(task.queries, task.candidates):
        plain = plain_scores(bm25.words(query), everything)[start : start + len(own)]
        start += len(own)
        values.append([round(v, 5) for v in plain])
    wanted, found = task.of_scores(values), bm25.score(task)
    assert found.scores["map_at_1000"] == pytest.approx(wanted.scores["map_at_1000"], abs=1e-9)
    assert list(found.sample.values) == pytest.approx(list(wanted.sample.values))


def test_words_that_no_candidate_has_give_chance():
    task = reranking_task()
    task.queries[:] = ["unseen"] * 15
    assert bm25.score(task).scores == task.of_scores([[0.0] * len(own) for own in task.candidates]).scores


def test_it_applies_to_tasks_that_rank_documents():
    assert bm25.applies(make_task(0)) and bm25.applies(reranking_task())
    assert not bm25.applies(Sts("s", "query", "cosine_spearman", (), ["a"], ["b"], [1.0]))


def test_a_corpus_without_any_word_ranks_by_id():
    task = make_task(0)
    task.corpus[:], task.titles[:] = ["?!"] * len(task.corpus), [""] * len(task.corpus)
    task.qrels.clear()
    task.qrels["q0"] = {task.corpus_ids[-1]: 1.0}
    assert bm25.score(task).scores["mrr_at_10"] == 1.0


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
