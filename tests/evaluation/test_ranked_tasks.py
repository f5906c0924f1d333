"""Tasks that rank documents, through the runner with stand-in models: direct computations, and chance for a constant one."""

import dataclasses
import hashlib
import math
import random

import numpy as np
import pytest

from embed.evaluation import ranked_tasks, ranking
from embed.evaluation.ranked_tasks import (
    InstructionReranking,
    MultilingualRetrieval,
    OpenRetrieval,
    Reranking,
    Retrieval,
)
from embed.evaluation.views import View
from embed.inference import search as inference_search

PRECISIONS = ("float32", "int8", "binary", "binary-rescored")


def cut(x: np.ndarray, dim: int) -> np.ndarray:
    x = x[..., :dim].astype(np.float64)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def compare(query: np.ndarray, document: np.ndarray, dim: int, precision: str) -> float:
    """Returns what an index of this precision says of two vectors, up to a factor, by plain arithmetic."""
    query, document = cut(query, dim), cut(document, dim)
    if precision == "binary":
        return int(sum((a > 0) == (b > 0) for a, b in zip(query, document)))  # bits that agree
    if precision == "int8":
        query, document = (
            np.round(v / (np.abs(v).max() / 127)) * np.float64(np.abs(v).max() / 127) for v in (query, document)
        )
    return float(query @ document)


def order(ids, values) -> list[str]:
    return sorted(ids, key=lambda i: (values[ids.index(i)], i), reverse=True)


def ndcg(found, judged, k=10) -> float:
    gain = sum(judged.get(i, 0) / math.log2(place + 2) for place, i in enumerate(found[:k]))
    best = sum(g / math.log2(place + 2) for place, g in enumerate(sorted(judged.values(), reverse=True)[:k]))
    return gain / best


def consistent(scores, sample, main: str) -> None:
    """The interval is of the score that stands for the task: the sample over all items gives that score."""
    assert sample.of(np.arange(len(sample))) == pytest.approx(scores[main], abs=1e-9)


# retrieval


def retrieval_task(count: int = 130, asked: int = 20, main: str = "ndcg_at_10") -> Retrieval:
    draw = np.random.default_rng(0)
    qrels = {
        f"q{i}": {f"d{j}": float(draw.integers(0, 3)) for j in draw.choice(count, 4, replace=False)}
        for i in range(asked)
    }
    qrels["q3"] = {}
    del qrels["q5"]
    return Retrieval(
        name="r",
        prompt="code retrieval",
        main=main,
        languages=("en",),
        query_ids=[f"q{i}" for i in range(asked)],
        queries=[f"query {i}" for i in range(asked)],
        corpus_ids=[f"d{j}" for j in range(count)],
        corpus=[f"text {j}" for j in range(count)],
        titles=[f"title {j}" if j % 2 else "" for j in range(count)],
        qrels=qrels,
    )


@pytest.mark.parametrize("exact", ["plain", "blockwise"])
@pytest.mark.parametrize("precision", ["float32", "int8", "binary"])
def test_retrieval_equals_a_direct_computation(make_model, score, search, exact, precision):
    task, model = retrieval_task(), make_model(12)
    used = search if exact == "plain" else inference_search.top_k
    dims = (12, 7, 4)
    found = score(task, model, *(View(d, precision) for d in dims), search=used)
    judged = {q: own for q, own in task.qrels.items() if any(g > 0 for g in own.values())}
    assert len(judged) == 18
    corpus = model.vectors(task.corpus, "document", task.titles)
    for dim, (scores, sample) in zip(dims, found):
        rankings = {}
        for q in judged:
            asked = model.vector(f"query {q[1:]}", "code retrieval")
            rankings[q] = order(task.corpus_ids, [compare(asked, d, dim, precision) for d in corpus])
        gains = [ndcg(rankings[q], own) for q, own in judged.items()]
        assert scores["ndcg_at_10"] == pytest.approx(np.mean(gains), abs=1e-9)
        wanted = {q: {d for d, g in own.items() if g > 0} for q, own in judged.items()}
        for k in (1, 20, 100):
            share = [len(wanted[q] & set(rankings[q][:k])) / len(wanted[q]) for q in judged]
            assert scores[f"recall_at_{k}"] == pytest.approx(np.mean(share), abs=1e-9)
        firsts = [min(rankings[q].index(d) + 1 for d in wanted[q]) for q in judged]
        assert scores["mrr_at_1000"] == pytest.approx(np.mean([1 / rank for rank in firsts]), abs=1e-9)
        consistent(scores, sample, "ndcg_at_10")
        assert sorted(sample.values) == pytest.approx(sorted(gains), abs=1e-9)


def test_any_of_the_scores_can_stand_for_the_task(make_model, score):
    for main in ("recall_at_100", "mrr_at_10", "map_at_5", "precision_at_3"):
        consistent(*score(retrieval_task(main=main), make_model()), main)


def test_queries_and_documents_have_their_prompts_and_titles(make_model, score):
    task, model = retrieval_task(), make_model()
    score(task, model, 12, 8, 4)
    calls = {prompt: (texts, titles) for texts, prompt, titles in model.calls}
    assert len(model.calls) == 2
    assert calls["document"] == (task.corpus, task.titles)
    queries, titles = calls["code retrieval"]
    assert titles is None and len(queries) == 18 and not {"query 3", "query 5"} & set(queries)


def test_rescoring_orders_forty_candidates_again_and_leaves_the_rest(make_model, score):
    task, model = retrieval_task(), make_model(24)
    seen = {}

    def watched(rankings):
        seen.update({query: list(scores) for query, scores in rankings.items()})
        for scores in rankings.values():  # those of float32 queries above those of bits
            assert list(scores.values()) == sorted(scores.values(), reverse=True)
        return Retrieval.of_rankings(task, rankings)

    object.__setattr__(task, "of_rankings", watched)
    score(task, model, View(24, "binary-rescored"))
    corpus = model.vectors(task.corpus, "document", task.titles)
    for q, found in seen.items():
        asked = model.vector(f"query {q[1:]}", "code retrieval")
        agree = {i: compare(asked, d, 24, "binary") for i, d in zip(task.corpus_ids, corpus)}
        assert sorted(found) == sorted(task.corpus_ids)
        # By bits the candidates are the best ones, and what follows them falls.
        assert min(agree[i] for i in found[:40]) >= max(agree[i] for i in found[40:])
        assert [agree[i] for i in found[40:]] == sorted((agree[i] for i in found[40:]), reverse=True)
        # The query in float32 says more about the bits of a document than its own bits do.
        signs = {i: float(cut(asked, 24) @ np.where(d[:24] > 0, 1, -1)) for i, d in zip(task.corpus_ids, corpus)}
        assert [round(signs[i], 6) for i in found[:40]] == sorted(
            (round(signs[i], 6) for i in found[:40]), reverse=True
        )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_order_of_the_corpus_does_not_matter(make_model, score, precision):
    task = retrieval_task()
    # Few bits, so that many documents are equally near.
    first, _ = score(task, make_model(6), View(6, precision))
    for seed in range(3):
        places = np.random.default_rng(seed).permutation(len(task.corpus))
        moved = dataclasses.replace(
            task, **{n: [getattr(task, n)[i] for i in places] for n in ("corpus_ids", "corpus", "titles")}
        )
        assert score(moved, make_model(6), View(6, precision))[0] == pytest.approx(first, abs=1e-9)


def test_equal_scores_are_ranked_by_falling_id(make_model, score):
    task = Retrieval("r", "query", "recall_at_1", (), ["q"], ["x"], ["a", "c", "b"], ["same"] * 3, [""] * 3, {})
    for wanted, rank in (("c", 1), ("b", 2), ("a", 3)):
        task.qrels["q"] = {wanted: 1.0}
        scores, _ = score(task, make_model(), 12, search=inference_search.top_k)
        assert scores["mrr_at_10"] == pytest.approx(1 / rank)


def test_a_corpus_smaller_than_the_depth_is_ranked_whole(make_model, score):
    task = Retrieval(
        "r", "query", "ndcg_at_10", (), ["q"], ["x"], ["a", "b"], ["t1", "t2"], ["", ""], {"q": {"a": 1.0, "b": 1.0}}
    )
    scores, _ = score(task, make_model(), 12, search=inference_search.top_k)
    assert scores["recall_at_10"] == scores["ndcg_at_10"] == 1.0


def answers_first(count: int = 400, asked: int = 40) -> Retrieval:
    """Returns a task whose answers stand first in the file, under ids that say nothing."""
    ids = [hashlib.sha256(str(j).encode()).hexdigest()[:12] for j in range(count)]
    return Retrieval(
        "r", "query", "ndcg_at_10", (), [f"q{i}" for i in range(asked)], [f"query {i}" for i in range(asked)],
        ids, [f"text {j}" for j in range(count)], [""] * count, {f"q{i}": {ids[i]: 1.0} for i in range(asked)},
    )  # fmt: skip


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_constant_model_finds_documents_by_chance(make_model, score, precision):
    scores, _ = score(
        answers_first(), make_model(64, constant=True), View(64, precision), search=inference_search.top_k
    )
    assert scores["ndcg_at_10"] < 0.06 and scores["recall_at_10"] < 0.1
    assert scores["recall_at_100"] == pytest.approx(0.25, abs=0.2)


# reranking


def reranking_task(asked: int = 25, main: str = "map_at_1000", negatives=None, seed: int = 0) -> Reranking:
    draw = random.Random(seed)
    candidates, relevant = [], []
    for i in range(asked):
        good, bad = (1, negatives) if negatives else (draw.randint(1, 3), draw.randint(1, 12))
        candidates.append([f"text {i} {k}" for k in range(good + bad)])
        relevant.append([k < good for k in range(good + bad)])
    return Reranking("k", "query", main, (), [f"query {i}" for i in range(asked)], candidates, relevant)


def mean_precision(relevant) -> float:
    """Returns the average precision of relevances in their order."""
    return sum(sum(relevant[: k + 1]) / (k + 1) for k, is_so in enumerate(relevant) if is_so) / sum(relevant)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_reranking_equals_a_direct_computation(make_model, score, precision):
    task, model = reranking_task(), make_model(12)
    for dim, (scores, sample) in zip((12, 5), score(task, model, View(12, precision), View(5, precision))):
        values = []
        for query, candidates, relevant in zip(task.queries, task.candidates, task.relevant):
            asked = model.vector(query, "query")
            near = [compare(asked, model.vector(c, "document"), dim, precision) for c in candidates]
            values.append(mean_precision([is_so for _, is_so in sorted(zip(near, relevant), reverse=True)]))
        assert scores["map_at_1000"] == pytest.approx(np.mean(values), abs=1e-9)
        assert list(sample.values) == pytest.approx(values, abs=1e-9)
        consistent(scores, sample, "map_at_1000")


def test_candidates_of_equal_score_go_by_a_hash_of_their_text():
    task = Reranking("k", "query", "mrr_at_10", (), ["q"], [["x", "y", "z"]], [[True, False, False]])
    hashes = {t: hashlib.sha256(t.encode()).hexdigest() for t in "xyz"}
    rank = sorted("xyz", key=hashes.get, reverse=True).index("x") + 1
    assert task.of_scores([[0.5, 0.5, 0.5]]).scores["mrr_at_10"] == pytest.approx(1 / rank)
    turned = Reranking("k", "query", "mrr_at_10", (), ["q"], [["z", "y", "x"]], [[False, False, True]])
    assert turned.of_scores([[0.5, 0.5, 0.5]]).scores["mrr_at_10"] == pytest.approx(1 / rank)


def test_the_same_candidate_may_stand_in_many_lists_and_twice_in_one():
    task = Reranking(
        "k",
        "query",
        "map_at_1000",
        (),
        ["q", "r"],
        [["x", "y", "x"], ["x", "y"]],
        [[True, False, False], [False, True]],
    )
    found = task.of_scores([[0.9, 0.5, 0.1], [0.9, 0.5]])
    assert list(found.sample.values) == pytest.approx([1.0, 0.5])


@pytest.mark.parametrize("dim, negatives", [(12, 2), (64, 4), (256, 9), (768, 4)])
def test_a_constant_model_reranks_by_chance(make_model, score, dim, negatives):
    task = reranking_task(120, negatives=negatives)
    scores, _ = score(task, make_model(dim, constant=True))
    # Nothing but the hashes may order candidates of equal vectors: not where they stand in the file.
    assert scores == task.of_scores([[0.0] * (negatives + 1)] * 120).scores
    chance = sum(1 / rank for rank in range(1, negatives + 2)) / (negatives + 1)
    assert scores["map_at_1000"] == pytest.approx(chance, abs=0.12)


# reranking by instruction


def instruction_task(main: str = "p-MRR", asked: int = 8) -> InstructionReranking:
    draw = random.Random(1)
    corpus = [f"d{j}" for j in range(30)]
    candidates, changed, qrels = {}, {}, {}
    for i in range(asked):
        own = draw.sample(corpus, 12)
        good = own[:4]
        changed[f"q{i}"] = good[: 1 + i % 3]
        for end in ("-og", "-changed"):
            # The lists have the same documents in another order.
            candidates[f"q{i}{end}"] = draw.sample(own, 12)
            qrels[f"q{i}{end}"] = {d: 1.0 for d in good if end == "-og" or d not in changed[f"q{i}"]}
    ids = [f"q{i}{end}" for i in range(asked) for end in ("-og", "-changed")]
    return InstructionReranking(
        "i", "code retrieval", main, (), ids, [f"query {q}" for q in ids], corpus, [f"text {d}" for d in corpus],
        [f"title {d}" for d in corpus], qrels, candidates, changed,
    )  # fmt: skip


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_instruction_reranking_equals_a_direct_computation(make_model, score, precision):
    task, model = instruction_task(), make_model()
    scores, sample = score(task, model, View(12, precision))
    rankings = {}
    for q in task.query_ids:
        asked, own = model.vector(f"query {q}", "code retrieval"), list(task.candidates[q])
        stored = [model.vector(f"text {d}", "document", f"title {d}") for d in own]
        rankings[q] = order(own, [compare(asked, d, 12, precision) for d in stored])
    moved = []
    for q, documents in task.changed.items():
        changes = []
        for d in documents:
            old, new = (rankings[q + end].index(d) + 1 for end in ("-og", "-changed"))
            changes.append(new / old - 1 if old >= new else 1 - old / new)
        moved.append(sum(changes) / len(changes))
    assert scores["p-MRR"] == pytest.approx(np.mean(moved)) and list(sample.values) == pytest.approx(moved)
    gains = [ndcg(rankings[q], task.qrels[q]) for q in task.query_ids]
    assert scores["ndcg_at_10"] == pytest.approx(np.mean(gains))
    consistent(scores, sample, "p-MRR")


@pytest.mark.parametrize("dim", [12, 64, 256, 768])
def test_a_constant_model_does_not_follow_instructions(make_model, score, dim):
    task = instruction_task()
    # An odd number of candidates, of which some products are rounded in another way than others.
    for q, own in task.candidates.items():
        task.candidates[q] = own[:11] if q.endswith("-og") else [d for d in own if d in task.candidates[f"{q[:-8]}-og"]]
    scores, sample = score(task, make_model(dim, constant=True))
    assert scores["p-MRR"] == 0.0 and not np.any(sample.values)


# answers in the first words


def open_task(main: str = "recall_at_5kt", passages: int = 60, length: int = 150) -> OpenRetrieval:
    corpus = [" ".join([f"w{j}x{k}" for k in range(length)]) for j in range(passages)]
    return OpenRetrieval(
        "x",
        "query",
        main,
        (),
        questions=[f"question {i}" for i in range(30)],
        question_languages=["ar", "bn", "bn"] * 10,
        answers=[["nowhere", f"w{2 * i}x7 w{2 * i}x8"] for i in range(30)],
        corpus=corpus,
        titles=[f"title {j}" for j in range(passages)],
    )


@pytest.mark.parametrize("main", ["recall_at_5kt", "recall_at_2kt"])
def test_open_retrieval_equals_a_direct_computation(make_model, score, main):
    pytest.importorskip("nltk")
    task, model = open_task(main), make_model()
    scores, sample = score(task, model)
    stored = model.vectors(task.corpus, "document", task.titles)
    for limit in (2000, 5000):
        hits = {"ar": [], "bn": []}
        for question, language, answers in zip(task.questions, task.question_languages, task.answers):
            near = [compare(model.vector(question, "query"), d, 12, "float32") for d in stored]
            words = " ".join(task.corpus[j] for j in sorted(range(60), key=lambda j, n=near: -n[j])).split()
            hits[language].append(float(any(a in " ".join(words[:limit]) for a in answers)))
        means = {language: sum(own) / len(own) for language, own in hits.items()}
        name = f"recall_at_{limit // 1000}kt"
        assert {language: scores[f"{name}/{language}"] for language in means} == pytest.approx(means)
        # Languages weigh alike, however many questions they have.
        assert scores[name] == pytest.approx(sum(means.values()) / 2)
    assert scores["recall_at_2kt"] < scores["recall_at_5kt"] < 1
    consistent(scores, sample, main)


def test_a_constant_model_answers_by_chance(make_model, score):
    pytest.importorskip("nltk")
    task = open_task(passages=300, length=100)
    scores, _ = score(task, make_model(64, constant=True), search=inference_search.top_k)
    assert scores["recall_at_2kt"] <= 0.2 and scores["recall_at_5kt"] <= 0.4


def test_each_passage_is_taken_apart_once(make_model, score, monkeypatch):
    pytest.importorskip("nltk")
    taken, apart = [], ranked_tasks.word_tokens
    monkeypatch.setattr(ranked_tasks, "word_tokens", lambda text: taken.append(text) or apart(text))
    score(open_task(), make_model())
    assert len(taken) == len(set(taken)) <= 60


def test_words_are_counted_as_tokens():
    pytest.importorskip("nltk")
    assert ranked_tasks.word_tokens("The fox ran.") == ["The", "fox", "ran", "."]
    assert ranked_tasks.word_tokens("It's 5 o'clock, isn't it?")[:2] == ["It", "'s"]
    # Sentence by sentence, so that the full stop of the first is a word of its own.
    assert ranked_tasks.word_tokens("It rains. It pours!") == ["It", "rains", ".", "It", "pours", "!"]
    assert ranked_tasks.word_tokens("") == []


# one passage for each question


def multilingual_task(count: int = 150, asked: int = 40, main: str = "mrr_at_10") -> MultilingualRetrieval:
    ids = [hashlib.sha256(str(j).encode()).hexdigest()[:8] for j in range(count)]
    return MultilingualRetrieval(
        "m",
        "query",
        main,
        (),
        questions=[f"question {i}" for i in range(asked)],
        question_languages=["as", "bho", "bho", "bho"] * (asked // 4),
        targets=ids[:asked],
        corpus_ids=ids,
        corpus=[f"text {j}" for j in range(count)],
        titles=[f"title {j}" for j in range(count)],
    )


def test_multilingual_retrieval_equals_a_direct_computation(make_model, score):
    task, model = multilingual_task(), make_model(3)
    scores, sample = score(task, model)
    stored = model.vectors(task.corpus, "document", task.titles)
    values = {"as": [], "bho": []}
    for question, language, target in zip(task.questions, task.question_languages, task.targets):
        near = [compare(model.vector(question, "query"), d, 3, "float32") for d in stored]
        rank = order(task.corpus_ids, near).index(target) + 1
        values[language].append(1 / rank if rank <= 10 else 0.0)
    means = {language: sum(own) / len(own) for language, own in values.items()}
    assert scores["mrr_at_10"] == pytest.approx(sum(means.values()) / 2) and scores["mrr_at_10"] > 0
    assert {f"mrr_at_10/{language}": m for language, m in means.items()}.items() <= scores.items()
    consistent(scores, sample, "mrr_at_10")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_constant_model_finds_passages_by_chance(make_model, score, precision):
    task = multilingual_task(400)
    scores, _ = score(task, make_model(64, constant=True), View(64, precision), search=inference_search.top_k)
    assert scores["mrr_at_10"] < 0.06


def test_ranking_is_as_deep_as_the_largest_cut(make_model, score):
    depths = []

    def watched(queries, corpus, k):
        depths.append(k)
        return inference_search.top_k(queries, corpus, k)

    score(retrieval_task(), make_model(), 12, search=watched)
    assert depths == [1000] and max(ranking.CUTS) == 1000


# rules and candidates


def test_a_query_does_not_find_its_own_document(make_model, score):
    task = retrieval_task()
    own = dataclasses.replace(
        task, query_ids=[task.corpus_ids[0], *task.query_ids[1:]],
        qrels={**task.qrels, task.corpus_ids[0]: {task.corpus_ids[0]: 1.0}}, rules=ranking.Rules(ignore_identical_ids=True),
    )  # fmt: skip
    plain = dataclasses.replace(own, rules=ranking.Rules())
    for one, found in ((own, 0.0), (plain, 1.0)):
        _, sample = score(dataclasses.replace(one, main="recall_at_1000"), make_model())
        assert sample.values[0] == found


def test_rankings_are_as_deep_as_the_rules_say(make_model, score):
    task, depths = dataclasses.replace(retrieval_task(main="recall_at_2"), rules=ranking.Rules((2, 7))), []

    def watched(queries, corpus, k):
        depths.append(k)
        return inference_search.top_k(queries, corpus, k)

    scores, _ = score(task, make_model(), 12, search=watched)
    assert depths == [7] and {"ndcg_at_2", "ndcg_at_7"} <= set(scores) and "ndcg_at_10" not in scores


@pytest.mark.parametrize("precision", PRECISIONS)
def test_only_candidates_are_ranked_and_a_query_without_any_scores_zero(make_model, score, precision):
    task, model = retrieval_task(main="recall_at_1000"), make_model(24)
    asked = [task.query_ids[i] for i in task.asked]
    lists = {q: list(task.qrels[q]) for q in asked[1:]}
    found = dataclasses.replace(task, candidates=lists)
    _, sample = score(found, model, View(24, precision))
    assert list(sample.values) == [0.0, *(float(any(g > 0 for g in task.qrels[q].values())) for q in asked[1:])]


def test_a_score_of_groups_stands_for_the_task(make_model, score):
    task = retrieval_task()
    names = {q: f"g{i // 2}_q{i % 2 + 1}" for i, q in enumerate(task.query_ids)}
    qrels = {names[q]: own for q, own in task.qrels.items()}
    grouped = dataclasses.replace(
        task, query_ids=[names[q] for q in task.query_ids], qrels=qrels, main="robustness_at_10"
    )
    scores, sample = score(grouped, make_model())
    consistent(scores, sample, "robustness_at_10")
    assert 0 < scores["robustness_at_10"] < scores["ndcg_at_10"] and len(sample) < len(task.asked)
