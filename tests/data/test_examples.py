"""Which examples a global batch is made of: order, shares, any slice of any batch, what is refused."""

import collections
import dataclasses
import fractions
import itertools

import numpy as np
import pytest
from cached_examples import drawn, equal, examples

from embed.data import cache
from embed.data.examples import lengths_of
from embed.data.features import Vectors
from embed.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("caches")


# Order.


@pytest.mark.parametrize(("size", "batch_size"), [(24, 4), (23, 4), (3, 8), (1, 4)])
def test_every_epoch_holds_every_record_once(folder, size, batch_size):
    made = examples(folder, [size], batch_size)
    count = -(-5 * size // batch_size)
    order = [record for t in range(count) for _, record in drawn(made, t)]
    epochs = [order[e * size : (e + 1) * size] for e in range(5)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(size))
    if size > 20:
        assert len({tuple(epoch) for epoch in epochs}) == 5
        assert list(range(size)) not in epochs


@pytest.mark.parametrize("one_task", [True, False])
def test_every_epoch_of_every_task_holds_every_record_once(folder, one_task):
    sizes = [24, 10, 7]
    made = examples(folder, sizes, rates={"t0": 3, "t1": 2, "t2": 1}, one_task_per_batch=one_task)
    orders = collections.defaultdict(list)
    for t in range(45):
        for task, record in drawn(made, t):
            orders[task].append(record)
    for task, size in enumerate(sizes):
        epochs = [orders[task][e : e + size] for e in range(0, len(orders[task]) - size + 1, size)]
        assert len(epochs) >= 3
        assert all(sorted(epoch) == list(range(size)) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_tasks_of_one_size_have_orders_of_their_own(folder):
    made = examples(folder, [24, 24], one_task_per_batch=True)
    orders = collections.defaultdict(list)
    for t in range(12):
        for task, record in drawn(made, t):
            orders[task].append(record)
    assert orders[0] != orders[1]


def test_the_seed_decides_the_order(folder):
    first, again, other = (examples(folder, [24, 10], seed=s) for s in (5, 5, 6))
    for t in (0, 1, 17, 1_000_003):
        equal(first.read(first.drawn(t)), again.read(again.drawn(t)))
    assert [drawn(first, t) for t in range(10)] != [drawn(other, t) for t in range(10)]


def test_asking_in_another_order_gives_the_same_batches(folder):
    made = examples(folder, [24, 10], one_task_per_batch=False)
    wanted = {t: made.read(made.drawn(t)) for t in range(12)}
    fresh = examples(folder, [24, 10], one_task_per_batch=False)
    for t in (11, 3, 7, 0, 3, 10):
        equal(fresh.read(fresh.drawn(t)), wanted[t])


# Slices and iteration.


@pytest.mark.parametrize("one_task", [True, False])
def test_any_rows_of_a_batch_are_that_slice_of_it(folder, one_task):
    made = examples(folder, [24, 10], 6, 2, 2, one_task_per_batch=one_task)
    for t in (0, 5, 123):
        whole = made.read(made.drawn(t))
        for a, b in itertools.combinations(range(7), 2):
            equal(made.read(made.drawn(t, a, b)), whole[a:b])


@pytest.mark.parametrize("hosts", [1, 2, 3, 6])
def test_hosts_together_hold_the_batch_whatever_their_number(folder, hosts):
    made = examples(folder, [24, 10], 6)
    share = 6 // hosts
    parts = [made.read(made.drawn(3, h * share, (h + 1) * share)) for h in range(hosts)]
    equal(list(itertools.chain(*parts)), made.read(made.drawn(3)))


# Mixing.


@pytest.mark.slow
@pytest.mark.parametrize(
    "rates", [{"t0": 1, "t1": 9}, {"t0": 0.29, "t1": 0.71}, {"t0": 100.9, "t1": 100}]
)  # fmt: skip
@pytest.mark.parametrize("one_task", [True, False])
def test_shares_are_exact_over_many_draws(folder, rates, one_task):
    made = examples(folder, [600, 600], rates=rates, one_task_per_batch=one_task)  # shuffling small tasks is slow
    given = [fractions.Fraction(str(rate)) for rate in rates.values()]
    exact = [rate / sum(given) for rate in given]
    taken = [0, 0]
    for t in range(1000 if one_task else 250):
        for task in made.drawn(t, 0, 1 if one_task else 4).tasks.tolist():
            taken[task] += 1
        if sum(taken) % 100 == 0:
            assert all(abs(n - share * sum(taken)) <= 2 for n, share in zip(taken, exact)), (taken, sum(taken))


@pytest.mark.parametrize("rates", ["proportional", "temperature"])
def test_shares_follow_the_sizes(folder, rates):
    made = examples(folder, [36, 4, 9], rates=rates, temperature=2.0)
    wanted = [36 / 49, 4 / 49, 9 / 49] if rates == "proportional" else [6 / 11, 2 / 11, 3 / 11]
    np.testing.assert_allclose(made.shares, wanted, rtol=1e-12)
    taken = collections.Counter(made.task_name(t) for t in range(539))
    for k in range(3):
        assert abs(taken[f"t{k}"] - 539 * wanted[k]) <= 2


def test_proportional_rates_see_every_task_for_the_same_number_of_epochs(folder):
    made = examples(folder, [24, 8], rates="proportional", one_task_per_batch=False)
    counts = collections.Counter(pair for t in range(8) for pair in drawn(made, t))
    assert counts == {(0, i): 1 for i in range(24)} | {(1, i): 1 for i in range(8)}


def test_a_batch_is_of_one_task_or_mixed_as_asked(folder):
    rates = {"t0": 1, "t1": 1}
    single = examples(folder, [24, 10], rates=rates, one_task_per_batch=True)
    for t in range(20):
        tasks = {task for task, _ in drawn(single, t)}
        assert len(tasks) == 1
        assert single.task_name(t) == f"t{tasks.pop()}"
    assert {single.task_name(t) for t in range(20)} == {"t0", "t1"}
    mixed = examples(folder, [24, 10], rates=rates, one_task_per_batch=False)
    for t in range(20):
        assert collections.Counter(task for task, _ in drawn(mixed, t)) == {0: 2, 1: 2}
        assert mixed.task_name(t) == "mixed"


def test_a_batch_far_ahead_is_read_at_once(folder):
    made = examples(folder, [24, 10, 7], rates={"t0": 3, "t1": 2, "t2": 1.5})
    for t in (10**6, 10**9):
        assert len(drawn(made, t)) == 4


# Errors.


def test_asking_for_negatives_where_no_task_has_any_is_refused(folder):
    with pytest.raises(ConfigError) as caught:
        examples(folder, [24, 10], num_negatives=2)
    message = str(caught.value)
    assert "num_negatives = 2" in message and "set num_negatives = 0" in message and "\n" not in message


def test_a_wrong_mixture_or_an_empty_cache_is_refused_when_built(folder):
    with pytest.raises(ConfigError, match="no rate for 't1'"):
        examples(folder, [24, 10], rates={"t0": 1})
    made = examples(folder, [24])
    empty = cache.Cache(made.caches[0].folder, {**made.caches[0].manifest, "records": 0})
    with pytest.raises(DataError, match="the cache is empty; prepare the task again"):
        dataclasses.replace(made, caches=[empty])


# Features and chosen texts.


@pytest.mark.parametrize("one_task", [True, False])
def test_the_draws_of_a_run_are_counted_by_task(folder, one_task):
    made = examples(folder, [24, 10], 6, rates={"t0": 3, "t1": 2}, one_task_per_batch=one_task)
    for steps in (1, 7):
        counts = collections.Counter(task for t in range(steps) for task, _ in drawn(made, t))
        assert made.draws(steps) == [counts[0], counts[1]] and sum(counts.values()) == 6 * steps


def one_with_negatives_and_one_without(folder, **settings):
    made, bare = examples(folder, [24, 10], 12, 3, 2, **settings), examples(folder, [24, 10])
    return dataclasses.replace(made, caches=[made.caches[0], bare.caches[1]])


def test_a_batch_of_a_task_without_lists_has_no_feature_of_them(folder):
    made = one_with_negatives_and_one_without(folder, one_task_per_batch=True, rates={"t0": 1, "t1": 1})
    names = {task: [f.name for f in made.features_of(task)] for task in (0, 1, None)}
    assert names == {0: ["query", "target", "negatives"], 1: ["query", "target"], None: names[0]}
    for t in range(6):
        assert [f.name for f in made.features_at(t)] == names[int(made.task_name(t)[1:])]
    mixed = one_with_negatives_and_one_without(folder, one_task_per_batch=False)
    assert [f.name for f in mixed.features_at(0)] == names[0]


def test_a_batch_of_a_task_without_lists_has_no_vectors_of_them(folder):
    made = one_with_negatives_and_one_without(folder, one_task_per_batch=True)
    vectors = [Vectors("teacher_query", "query", "vectors"), Vectors("teacher_negatives", "negatives", "vectors")]
    made = dataclasses.replace(made, features=[*made.features, *vectors])
    names = [[f.name for f in made.features_of(task)] for task in (0, 1)]
    assert names[0] == ["query", "target", "negatives", "teacher_query", "teacher_negatives"]
    assert names[1] == ["query", "target", "teacher_query"]


def test_texts_are_chosen_by_their_lengths_alone(folder):
    made = one_with_negatives_and_one_without(folder, one_task_per_batch=False, rates={"t0": 1, "t1": 1})
    draws = made.drawn(0)
    query, target, negatives = made.choose(draws, made.features)
    records = made.read(draws)
    for chosen in (query, target):
        assert chosen.columns.tolist() == [0] * 12
        assert chosen.lengths.tolist() == [len(e[chosen.feature.name]) for e in records]
    sizes = [e["negatives_lengths"].tolist()[:2] for e in records]
    assert {len(own) for own in sizes} == {0, 1, 2}
    assert negatives.columns.tolist() == [[*range(len(own)), *[-1] * (2 - len(own))] for own in sizes]
    assert negatives.lengths.tolist() == [[*own, *[0] * (2 - len(own))] for own in sizes]
    assert lengths_of([query, negatives]).tolist() == [*query.lengths, *itertools.chain(*sizes)]
    assert lengths_of([negatives[1:3]]).tolist() == [*itertools.chain(*sizes[1:3])]
    assert lengths_of([]).tolist() == []
