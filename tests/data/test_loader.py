"""Global batches against an independent reference: order, shares, any slice of any batch, rows, negatives, ids."""

import collections
import dataclasses
import fractions
import itertools
import subprocess
import sys

import numpy as np
import pytest
from encoded_pairs import pair
from training_batches import unit_of

from embed.data import cache
from embed.data.examples import Examples
from embed.data.loader import Batches
from embed.data.tasks import Mixture, RegisteredTask
from embed.data.text_features import Lengths, pairs
from embed.errors import ConfigError, DataError

LENGTHS = Lengths(5, 7)
PAD = 9


@dataclasses.dataclass(frozen=True)
class NamedTokenizer:
    digest: str = "d"


def example(task, i, most_negatives):
    """The i-th record of a task: lengths, negatives and ids follow from (task, i)."""
    rng = np.random.default_rng([task, i])
    sizes = rng.integers(1, 8, rng.integers(0, most_negatives + 1)).astype(np.int32)
    ids = lambda n: rng.integers(-(2**63), 2**63 - 1, n, dtype=np.int64)  # noqa: E731
    query = np.concatenate([[1000 * task + i], rng.integers(10, 99, rng.integers(0, 5))])
    target = np.concatenate([[1000 * task + i], rng.integers(10, 99, rng.integers(0, 7))])
    negatives = [rng.integers(10, 99, size) for size in sizes]
    return pair(
        query,
        target,
        negatives,
        query_id=ids(1)[0],
        target_id=ids(1)[0],
        negatives_id=ids(len(sizes)),
        equal_ids=[task, i],
    )


def examples(folder, sizes, batch_size=4, most_negatives=0, num_negatives=0, seed=0, draw="first", **settings):
    tasks = [RegisteredTask(f"t{k}", "none") for k in range(len(sizes))]
    made, features = [], pairs(LENGTHS, num_negatives, draw)
    for k, (task, size) in enumerate(zip(tasks, sizes)):
        key = NamedTokenizer(f"{size}-{most_negatives}")
        found = cache.find(task, key, features, folder)
        rows = (example(k, i, most_negatives) for i in range(size))
        made.append(found or cache.write(task, key, features, folder, rows))
    return Examples(Mixture("mixed", tasks, **settings), made, features, batch_size, seed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("caches")


def drawn(made, t):
    """The (task, record) numbers of batch t, read off its first query token."""
    return [divmod(int(e["query"][0]), 1000) for e in made.read(made.drawn(t))]


def equal(one, other):
    """Asserts that two dicts of arrays, or two lists of such, are the same."""
    if isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other):
            equal(a, b)
        return
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype, name
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def join(ids):
    """The int64 of two uint32 words, low word first."""
    return [int.from_bytes(int(low).to_bytes(4, "little") + int(high).to_bytes(4, "little"), "little", signed=True)
            for low, high in ids]  # fmt: skip


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
    for t in range(60):
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


@pytest.mark.parametrize("first", [0, 1, 50])
@pytest.mark.parametrize("threads", [1, 4])
def test_iteration_begins_at_any_batch_and_keeps_the_order(folder, first, threads):
    made, fresh = (Batches(examples(folder, [24, 10], 6, 2, 2), shards=3) for _ in range(2))
    # readers of the fresh one are first opened by the threads
    found = list(itertools.islice(fresh.iterate(first, 1, 3, threads=threads), 20))
    assert len(found) == 20
    for t, arrays in enumerate(found, first):
        equal(arrays, made.at(t, 1, 3))


def test_iteration_without_threads_is_the_same(folder):
    made = Batches(examples(folder, [24, 10]))
    found = list(itertools.islice(made.iterate(7, threads=0, ahead=0), 5))
    assert len(found) == 5
    for t, arrays in enumerate(found, 7):
        equal(arrays, made.at(t))


# Mixing.


@pytest.mark.parametrize(
    "rates", [{"t0": 1, "t1": 1}, {"t0": 3, "t1": 1}, {"t0": 1, "t1": 9}, {"t0": 7, "t1": 3}, {"t0": 0.29, "t1": 0.71},
              {"t0": 100.9, "t1": 100}]
)  # fmt: skip
@pytest.mark.parametrize("one_task", [True, False])
def test_shares_are_exact_over_many_draws(folder, rates, one_task):
    made = examples(folder, [3000, 3000], rates=rates, one_task_per_batch=one_task)  # shuffling small tasks is slow
    given = [fractions.Fraction(str(rate)) for rate in rates.values()]
    exact = [rate / sum(given) for rate in given]
    taken = [0, 0]
    for t in range(5000 if one_task else 1250):
        for task in made.drawn(t, 0, 1 if one_task else 4).tasks.tolist():
            taken[task] += 1
        if t % 100 == 99:
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


# The arrays.


def texts_of(batch, max_segments, name, shard, part):
    """The tokens of a side's texts, read off the rows: each text's tokens stand together, in one row."""
    tokens, segment_ids = batch["tokens"][shard, part], batch["segment_ids"][shard, part]
    found = []
    for place in batch[f"{name}_index"][shard, part].reshape(-1):
        row, slot = divmod(int(place), max_segments)
        location = np.flatnonzero(segment_ids[row] == slot + 1)
        assert len(location) == 0 or np.array_equal(location, np.arange(location[0], location[-1] + 1))
        found.append(tokens[row][location].tolist())
    return found


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize(("shards", "parts"), [(1, 1), (2, 1), (1, 3), (2, 2)])
@pytest.mark.parametrize("one_task", [True, False])
def test_the_rows_hold_the_records_written(folder, shards, parts, packs, one_task):
    source = examples(folder, [24, 10], 12, 3, 2, one_task_per_batch=one_task)
    made = Batches(source, shards, parts, packs, PAD)
    max_segments = made.max_segments or 1
    for t in range(6):
        batch = made.at(t)
        assert np.all(batch["tokens"][batch["segment_ids"] == 0] == PAD)
        for s, k in itertools.product(range(shards), range(parts)):
            # micro-batch k is the k-th part of the global batch, each shard has its even share of it
            start = k * 12 // parts + s * 12 // (parts * shards)
            records = source.read(source.drawn(t, start, start + 12 // (parts * shards)))
            for side in ("query", "target"):
                assert texts_of(batch, max_segments, side, s, k) == [e[side].tolist() for e in records]
                assert join(batch[f"{side}_id"][s, k]) == [int(e[f"{side}_id"][0]) for e in records]
            negatives = iter(texts_of(batch, max_segments, "negatives", s, k))
            for mask, e in zip(batch["negatives_mask"][s, k], records):
                ends = np.cumsum(e["negatives_lengths"]).tolist()
                own = [e["negatives"][a:b].tolist() for a, b in zip([0, *ends], ends)][:2]
                assert mask.tolist() == [True] * len(own) + [False] * (2 - len(own))
                found = [next(negatives) for _ in range(2)]
                assert found[: len(own)] == own
                assert all(found)  # where there is no negative, another text stands in


def test_shapes_and_types(folder):
    made = Batches(examples(folder, [24], 8), shards=2)
    (layout,) = made.layouts.values()
    rows = (layout.bucket_sizes[0], layout.row_length)
    shapes = {
        "tokens": ((2, 1, *rows), np.int32), "segment_ids": ((2, 1, *rows), np.int32),
        "query_index": ((2, 1, 4), np.int32), "query_id": ((2, 1, 4, 2), np.uint32),
        "target_index": ((2, 1, 4), np.int32), "target_id": ((2, 1, 4, 2), np.uint32),
    }  # fmt: skip
    assert {k: (v.shape, v.dtype) for k, v in made.at(0).items()} == shapes
    assert {k: (v.shape, v.dtype) for k, v in made.at(0, 1, 2).items()} == {
        k: ((1, *shape[1:]), kind) for k, (shape, kind) in shapes.items()
    }
    hard = Batches(examples(folder, [24], 4, 2, 3)).at(0)
    assert hard["negatives_index"].shape == hard["negatives_mask"].shape == (1, 1, 4, 3)
    assert (hard["negatives_index"].dtype, hard["negatives_mask"].dtype) == (np.int32, np.bool_)


def test_the_largest_batch_has_the_types_and_shapes_of_the_others(folder):
    made = Batches(examples(folder, [24, 10], 6, 2, 2), shards=3)
    largest, batch = made.largest(), made.at(0, 0, 1)
    assert {k: (v.shape[2:], v.dtype) for k, v in largest.items() if k not in ("tokens", "segment_ids")} == {
        k: (v.shape[2:], v.dtype) for k, v in batch.items() if k not in ("tokens", "segment_ids")
    }
    assert largest["tokens"].shape[2] == max(size for x in made.layouts.values() for size in x.bucket_sizes)


def test_all_hosts_have_rows_of_the_same_shape(folder):
    made = Batches(examples(folder, [24, 10], 12, 3, 2), shards=6)
    for t in range(8):
        whole = made.at(t)
        for s in range(6):
            equal(made.at(t, s, s + 1), {name: x[s : s + 1] for name, x in whole.items()})


@pytest.fixture(scope="module")
def long_texts(folder):
    """Examples of three tasks of texts of every length, 64 a batch."""
    random = np.random.default_rng(0)
    sizes = np.clip(random.lognormal(3.2, 0.8, (3, 400, 2)), 2, 96).astype(int)
    sizes[1] = np.minimum(sizes[1], 12)
    caches, features = [], pairs(Lengths(96, 96))
    for k in range(3):
        rows = (pair(np.ones(a), np.ones(b)) for a, b in sizes[k])
        caches.append(cache.write(RegisteredTask(f"long{k}", "none"), NamedTokenizer(), features, folder, rows))
    mixture = Mixture("long", [RegisteredTask(c.name, "none") for c in caches])
    return Examples(mixture, caches, features, 64, 0)


def test_few_shapes_and_little_padding_on_texts_of_every_length(long_texts):
    made = Batches(long_texts)
    batches = [made.at(t) for t in range(60)]
    assert len({b["tokens"].shape for b in batches}) <= 6
    real, places = (sum(f(b["segment_ids"]) for b in batches) for f in (np.count_nonzero, np.size))
    assert real / places >= 0.88


def test_every_host_and_every_resumed_run_lays_batches_out_alike(long_texts):
    """Layouts come from random batches: of a generator whose seed all of them have."""
    layouts = [Batches(long_texts).layouts for _ in range(4)]
    assert all(found == layouts[0] for found in layouts[1:])


def test_negatives_are_left_out_when_none_are_asked_for(folder):
    assert not any(name.startswith("negatives") for name in Batches(examples(folder, [24], 4, 3, 0)).at(0))


def test_ids_at_the_ends_of_int64_come_back():
    values = [0, 1, -1, 2**63 - 1, -(2**63), 1 << 32, -(1 << 32), 0x0123456789ABCDEF]
    rows = [pair([1], [1], query_id=v, target_id=-(v + 1)) for v in values]
    unit = unit_of(rows, pairs(LENGTHS)[:2], (1, 64), 16)
    assert unit["query_id"].dtype == np.uint32
    assert join(unit["query_id"]) == values
    assert join(unit["target_id"]) == [-(v + 1) for v in values]
    assert unit["query_id"][-1].tolist() == [0x89ABCDEF, 0x01234567]


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


def test_batches_are_read_without_tensorflow_and_the_same_in_another_process(folder):
    made = Batches(examples(folder, [24]))
    program = (
        "import sys, pathlib\n"
        "for name in ('tensorflow', 'seqio', 'tensorflow_datasets', 'jax'): sys.modules[name] = None\n"
        "from embed import files\n"
        "from embed.data import cache, examples, loader, tasks, text_features\n"
        f"folder = pathlib.Path({str(made.examples.caches[0].folder)!r})\n"
        "found = cache.Cache(folder, files.verify_manifest(folder))\n"
        "mixture = tasks.Mixture('mixed', [tasks.RegisteredTask('t0', 'none')])\n"
        "features = text_features.pairs(text_features.Lengths(5, 7))\n"
        "made = loader.Batches(examples.Examples(mixture, [found], features, 4, 0))\n"
        "print([made.at(t)['tokens'].tolist() for t in range(3)])\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == str([made.at(t)["tokens"].tolist() for t in range(3)])
