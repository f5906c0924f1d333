"""The arrays of a batch against an independent reference: rows, negatives, ids, shapes, and batches read ahead."""

import itertools
import subprocess
import sys
import types

import numpy as np
import pytest
from cached_examples import LENGTHS, NamedTokenizer, equal, examples
from encoded_pairs import pair
from training_batches import unit_of

from embed.data import cache
from embed.data.examples import Examples
from embed.data.loader import Batches
from embed.data.tasks import Mixture, RegisteredTask
from embed.data.text_features import Lengths, pairs

PAD = 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("caches")


def join(ids):
    """The int64 of two uint32 words, low word first."""
    return [int.from_bytes(int(low).to_bytes(4, "little") + int(high).to_bytes(4, "little"), "little", signed=True)
            for low, high in ids]  # fmt: skip


# Iteration.


@pytest.mark.parametrize(("first", "threads"), [(0, 4), (1, 1), (50, 4)])
def test_iteration_begins_at_any_batch_and_keeps_the_order(folder, first, threads):
    made, fresh = (Batches(examples(folder, [24, 10], 6, 2, 2), shards=3) for _ in range(2))
    # readers of the fresh one are first opened by the threads
    found = list(itertools.islice(fresh.iterate(first, 1, 3, threads=threads), 8))
    assert len(found) == 8
    for t, arrays in enumerate(found, first):
        equal(arrays, made.at(t, 1, 3))


def test_iteration_without_threads_is_the_same(folder):
    made = Batches(examples(folder, [24, 10]))
    found = list(itertools.islice(made.iterate(7, threads=0, ahead=0), 5))
    assert len(found) == 5
    for t, arrays in enumerate(found, 7):
        equal(arrays, made.at(t))


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


@pytest.mark.parametrize(
    ("shards", "parts", "packs", "one_task"),
    [(1, 1, True, True), (2, 1, False, True), (1, 3, True, False), (2, 2, True, False), (2, 2, False, True)],
)
def test_the_rows_hold_the_records_written(folder, shards, parts, packs, one_task):
    source = examples(folder, [24, 10], 12, 3, 2, one_task_per_batch=one_task)
    made = Batches(source, shards, parts, packs, types.SimpleNamespace(pad_id=PAD))
    max_segments = made.max_segments or 1
    for t in range(4):
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
    made = Batches(examples(folder, [24, 10], 12, 3, 2), shards=3)
    for t in range(4):
        whole = made.at(t)
        for s in range(3):
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


@pytest.mark.slow
def test_few_shapes_and_little_padding_on_texts_of_every_length(long_texts):
    made = Batches(long_texts)
    batches = [made.at(t) for t in range(60)]
    assert len({b["tokens"].shape for b in batches}) <= 6
    real, places = (sum(f(b["segment_ids"]) for b in batches) for f in (np.count_nonzero, np.size))
    assert real / places >= 0.88


def test_every_host_and_every_resumed_run_lays_batches_out_alike(long_texts):
    """Layouts come from random batches: of a generator whose seed all of them have."""
    layouts = [Batches(long_texts).layouts for _ in range(2)]
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
