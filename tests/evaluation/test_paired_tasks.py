"""Tasks that compare pairs, through the runner with stand-in models: direct computations, and chance for a constant one."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from embed.evaluation.paired_tasks import Bitext, PairClassification, Sts, Summarization
from embed.evaluation.views import View

PROMPT = "sentence similarity"


def cosine(a, b, dim: int) -> float:
    a, b = a[:dim].astype(np.float64), b[:dim].astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def consistent(scores, sample, main: str) -> None:
    """The interval is of the score that stands for the task: the sample over all items gives that score."""
    assert sample.of(np.arange(len(sample))) == pytest.approx(scores[main], abs=1e-6)


# sts


def sts_task(main: str = "cosine_spearman") -> Sts:
    gold = np.random.default_rng(1).uniform(0, 5, 30)
    return Sts("s", PROMPT, main, ("en",), [f"a {i}" for i in range(30)], [f"b {i}" for i in range(30)], list(gold))


def test_sts_equals_a_direct_computation(make_model, score):
    task, model = sts_task(), make_model()
    for dim, (scores, sample) in zip((12, 4, 1), score(task, model, 12, 4, 1)):
        near = [cosine(model.vector(a, PROMPT), model.vector(b, PROMPT), dim) for a, b in zip(task.first, task.second)]
        if dim == 1:
            near = np.round(near)  # one value has two directions
        assert scores["cosine_spearman"] == pytest.approx(stats.spearmanr(near, task.gold).statistic, abs=1e-6)
        assert scores["cosine_pearson"] == pytest.approx(stats.pearsonr(near, task.gold).statistic, abs=1e-6)
        consistent(scores, sample, "cosine_spearman")
        assert len(sample) == 30


def test_sts_by_bits_equals_one_by_counted_bits(make_model, score):
    task, model = sts_task(), make_model(24)
    scores, _ = score(task, model, View(24, "binary"))
    agree = [
        sum((x > 0) == (y > 0) for x, y in zip(model.vector(a, PROMPT), model.vector(b, PROMPT)))
        for a, b in zip(task.first, task.second)
    ]
    assert scores["cosine_spearman"] == pytest.approx(stats.spearmanr(agree, task.gold).statistic, abs=1e-9)
    assert scores["cosine_pearson"] == pytest.approx(stats.pearsonr(agree, task.gold).statistic, abs=1e-6)


def test_both_sides_have_the_prompt_of_the_task(make_model, score):
    model = make_model()
    score(sts_task(), model, 12, 4)
    assert [(sorted(texts), prompt, titles) for texts, prompt, titles in model.calls] == [
        (sorted(sts_task().first + sts_task().second), PROMPT, None)
    ]


@pytest.mark.parametrize("precision", ["float32", "int8", "binary", "binary-rescored"])
def test_a_constant_model_has_no_correlation(make_model, score, precision):
    scores, sample = score(sts_task(), make_model(256, constant=True), View(256, precision))
    assert all(math.isnan(v) for v in scores.values()) and math.isnan(sample.of(np.arange(30)))


@pytest.mark.parametrize("main", ["cosine_pearson", "euclidean_spearman"])
def test_another_score_of_sts_has_an_interval_of_its_own(make_model, score, main):
    consistent(*score(sts_task(main), make_model()), main)


# summaries


def summarization_task(texts: int = 6) -> Summarization:
    draw = np.random.default_rng(0)
    return Summarization(
        "z",
        "summarization",
        "cosine_spearman",
        (),
        [[f"human {i} {k}" for k in range(1 + i % 3)] for i in range(texts)],
        [[f"machine {i} {k}" for k in range(4 + i % 2)] for i in range(texts)],
        [list(draw.permutation(4 + i % 2).astype(float)) for i in range(texts)],
    )


def test_summarization_equals_a_direct_computation(make_model, score):
    task, model = summarization_task(), make_model()
    task.gold[2][:] = [2.0] * len(task.gold[2])  # equal grades: left out
    for dim, (scores, sample) in zip((12, 5), score(task, model, 12, 5)):
        values = []
        for human, machine, gold in zip(task.human, task.machine, task.gold):
            people = [model.vector(h, "summarization") for h in human]
            best = [max(cosine(model.vector(m, "summarization"), p, dim) for p in people) for m in machine]
            if len(set(gold)) > 1:
                values.append(stats.spearmanr(best, gold).statistic)
        assert len(values) == 5 and scores["cosine_spearman"] == pytest.approx(np.mean(values), abs=1e-9)
        consistent(scores, sample, "cosine_spearman")


def test_a_constant_model_tells_no_summaries_apart(make_model, score):
    scores, sample = score(summarization_task(), make_model(256, constant=True))
    assert all(math.isnan(v) for v in scores.values())
    # An item for each text, as for any other model, so that two models can be compared.
    assert len(sample) == len(score(summarization_task(), make_model())[1])


# pair classification


def pairs_task(count: int = 40, main: str = "max_ap", seed: int = 0) -> PairClassification:
    labels = [int(x) for x in np.random.default_rng(seed).permutation([1] * (count // 4) + [0] * (count - count // 4))]
    return PairClassification(
        "p", PROMPT, main, (), [f"a {seed} {i}" for i in range(count)], [f"b {seed} {i}" for i in range(count)], labels
    )


def test_pair_classification_equals_a_direct_computation(make_model, score):
    task, model = pairs_task(), make_model()
    for dim, (scores, _) in zip((12, 4), score(task, model, 12, 4)):
        first, second = (
            [v[:dim] / np.linalg.norm(v[:dim]) for v in model.vectors(side, PROMPT).astype(np.float64)]
            for side in (task.first, task.second)
        )
        alike = {
            "cosine": [a @ b for a, b in zip(first, second)],
            "manhattan": [-np.abs(a - b).sum() for a, b in zip(first, second)],
            "euclidean": [-np.sqrt(((a - b) ** 2).sum()) for a, b in zip(first, second)],
            "dot": [a @ b for a, b in zip(first, second)],
        }
        aps = {name: metrics.average_precision_score(task.labels, own) for name, own in alike.items()}
        assert {name: scores[f"{name}_ap"] for name in aps} == pytest.approx(aps, abs=1e-6)
        assert scores["max_ap"] == pytest.approx(max(aps.values()), abs=1e-6)
        for name, own in alike.items():
            middles = [(x + y) / 2 for x, y in zip(sorted(own), sorted(own)[1:])]
            right = [np.mean([(s > m) == bool(y) for s, y in zip(own, task.labels)]) for m in middles]
            f1 = [metrics.f1_score(task.labels, [int(s > m) for s in own]) for m in middles]
            assert scores[f"{name}_accuracy"] == pytest.approx(max(right))
            assert scores[f"{name}_f1"] == pytest.approx(max(f1))


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_the_interval_of_pair_classification_is_of_the_best_average_precision(make_model, score, precision):
    for seed in range(6):
        consistent(*score(pairs_task(seed=seed), make_model(), View(12, precision)), "max_ap")


@pytest.mark.parametrize("main", ["cosine_ap", "dot_ap"])
def test_another_score_of_pair_classification_has_an_interval_of_its_own(make_model, score, main):
    for seed in range(3):
        consistent(*score(pairs_task(seed=seed, main=main), make_model()), main)


@pytest.mark.parametrize("precision", ["float32", "int8", "binary", "binary-rescored"])
def test_a_constant_model_finds_no_pairs(make_model, score, precision):
    task = pairs_task()
    # Sorted, so that a model that told pairs apart by their place would be right.
    for labels in (sorted(task.labels, reverse=True), sorted(task.labels)):
        task.labels[:] = labels
        scores, _ = score(task, make_model(256, constant=True), View(256, precision))
        assert scores["max_ap"] == pytest.approx(0.25)
        assert scores["max_accuracy"] == scores["max_f1"] == 0.0


# bitext


def bitext_task(count: int = 30) -> Bitext:
    return Bitext("b", "query", "f1", ("de", "en"), [f"a {i}" for i in range(count)], [f"b {i}" for i in range(count)])


def test_bitext_equals_a_direct_computation(make_model, score):
    task = bitext_task()
    # Every third sentence is its own translation, so that some are found.
    task.targets[::3] = task.sources[::3]
    model = make_model()
    for dim, (scores, sample) in zip((12, 3), score(task, model, 12, 3)):
        sources, targets = model.vectors(task.sources, "query"), model.vectors(task.targets, "query")
        found = [max(range(30), key=lambda j, s=s: cosine(s, targets[j], dim)) for s in sources]
        gold = list(range(30))
        assert scores["accuracy"] == pytest.approx(np.mean([i == j for i, j in enumerate(found)]))
        options = {"average": "weighted", "zero_division": 0}
        assert scores["f1"] == pytest.approx(metrics.f1_score(gold, found, **options))
        assert scores["precision"] == pytest.approx(metrics.precision_score(gold, found, **options))
        assert 0 < scores["f1"] < 1
        consistent(scores, sample, "f1")


def test_a_constant_model_finds_no_translations(make_model, score):
    scores, _ = score(bitext_task(), make_model(256, constant=True))
    assert scores["accuracy"] <= 1 / 30 + 1e-9 and scores["f1"] < 0.05
