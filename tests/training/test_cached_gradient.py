"""Cached gradients: those of one large batch, whatever the loss, the micro-batches, the chunks of the loss and the mesh."""

import dataclasses
import itertools
import math
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_batches import bag_of_words, examples, fast, only, rows

from embed import sharding
from embed.losses import contrastive
from embed.losses.contrastive import Contrastive
from embed.losses.distillation import EmbeddingDistillation
from embed.losses.matryoshka import Matryoshka
from embed.losses.total import Total
from embed.models import api
from embed.models.embedder import Embedder
from embed.models.gemma import Gemma
from embed.models.pooling import MeanPooling
from embed.objectives.pairs import Pairs
from embed.training.step import loss_and_gradient
from embed.trees import flatten
from embed.types import Outputs

TOLERANCE = 1e-6  # of the norm of the gradient, and of the loss
LOSSES = {
    "plain": Contrastive(0.2),
    "hardness": Contrastive(0.1, 5.0),
    "literal": Contrastive(0.2, 5.0, literal_mask=True),
    "same tower": Contrastive(0.2, same_tower=True),
    "Matryoshka": Matryoshka(Contrastive(0.2, 5.0), (6, 3, 2), (1.0, 0.5, 2.0)),
    "two losses": Total({"near": Contrastive(0.05), "far": Matryoshka(Contrastive(1.0), (5, 1))}, {"far": 0.3}),
}
# Three of every seven of all cases: each pair of settings is among them.
GRID = [
    case if number % 7 == 0 else pytest.param(case, marks=pytest.mark.slow)
    for number, case in enumerate(itertools.product(LOSSES, [0, 1, 3], [2, 4, 8], [1 << 24, 16]))
    if number % 7 in (0, 3, 5)
]


@pytest.fixture
def logits(monkeypatch):
    """logits(n) lets the loss hold no more than n logits at once."""
    return lambda most: monkeypatch.setattr(contrastive, "MAX_LOGITS", most)


def joined(objective, variables, batch, key) -> Outputs:
    """Returns the outputs of all micro-batches, each with the key that is its own."""
    numbers = range(batch["tokens"].shape[1])
    parts = [jax.tree.map(lambda x, n=n: x[:, n].reshape(-1, *x.shape[3:]), batch) for n in numbers]
    keys = [key if len(parts) == 1 else jax.random.fold_in(key, n) for n in numbers]
    found = [objective.forward(variables, part, k, 0) for part, k in zip(parts, keys)]
    rows = jax.tree.map(lambda *x: jnp.concatenate(x), *(o.rows for o in found))
    return Outputs(rows, jax.tree.map(lambda *x: sum(x), *(o.sums for o in found)))


def at_once(objective, variables, batch, key=None):
    """Returns (loss, metrics, gradient) of the whole batch, differentiated as one function."""
    key = jax.random.key(0) if key is None else key
    whole = jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), batch)

    def loss(params):
        outputs = joined(objective, dataclasses.replace(variables, params=params), batch, key)
        return objective.loss(params, outputs, whole, 0)

    (value, metrics), gradient = fast(jax.value_and_grad(loss, has_aux=True))(variables.params)
    return value, metrics, gradient


def cached(objective, key=None):
    """Returns the function of variables and batch that is tested, compiled."""
    return fast(lambda v, b: loss_and_gradient(objective, v, b, jax.random.key(0) if key is None else key, 0))


def assert_alike(found, expected, tolerance=TOLERANCE):
    assert float(found[0]) == pytest.approx(float(expected[0]), rel=tolerance)
    assert found[1].keys() == expected[1].keys()
    for name, value in expected[1].items():
        assert float(found[1][name]) == pytest.approx(float(value), rel=1e-5, abs=1e-6), name
    apart, norm = 0.0, 0.0
    for path, x in flatten(expected[2]).items():
        assert flatten(found[2])[path].dtype == x.dtype
        apart += float(np.sum((np.float64(flatten(found[2])[path]) - np.float64(x)) ** 2))
        norm += float(np.sum(np.float64(x) ** 2))
    assert norm > 0
    assert math.sqrt(apart / norm) <= tolerance


@pytest.mark.slow
@pytest.mark.parametrize("case", GRID, ids=lambda c: "-".join(map(str, c)))
def test_any_loss_has_the_gradient_of_the_whole_batch(case, logits):
    # In float64: some draws have prefixes of next to no length, whose gradients float32 tells to 1e-5 only.
    name, negatives, parts, most = case
    objective = Pairs(LOSSES[name], bag_of_words())
    with jax.enable_x64(True):
        drawn = objective.init(jax.random.key(zlib.crc32(repr(case).encode()) % 1000))
        variables, pairs = jax.tree.map(lambda x: x.astype(jnp.float64), drawn), examples(parts, 8, negatives)
        expected = at_once(objective, variables, rows(pairs, negatives))
        logits(most)
        found = cached(objective)(variables, rows(pairs, negatives, parts=parts))
    assert_alike(found, expected, 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("parts", [4])
def test_noise_is_drawn_by_the_same_keys_both_times(parts):
    objective, key = Pairs(LOSSES["Matryoshka"], bag_of_words(dropout=True)), jax.random.key(7)
    variables, b = objective.init(jax.random.key(0)), rows(examples(), parts=parts)
    found = cached(objective, key)(variables, b)
    assert_alike(found, at_once(objective, variables, b, key))
    without = cached(Pairs(LOSSES["Matryoshka"], bag_of_words()))(variables, b)
    assert abs(float(found[0] - without[0])) > 1e-3
    # Two micro-batches of the same pairs draw different noise.
    twice = rows(examples()[:4] * 2, parts=2)
    first, second = np.split(np.asarray(joined(objective, variables, twice, key).rows["query"]), 2)
    assert np.abs(first - second).max() > 1e-3


def gemma(dropout: float = 0.0):
    """Returns a model of two layers; its dropout is that of training."""
    encoder = Gemma(
        48, 16, 2, num_heads=4, num_kv_heads=2, head_dim=4, mlp_dim=24, window=4, global_every=2, dropout=dropout
    )
    return api.build(Embedder(encoder, MeanPooling(), (6,), (3,)))


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_transformer_with_packed_rows_and_dropout(dropout):
    objective = Pairs(Matryoshka(Contrastive(0.2, 5.0), (6, 3)), gemma(dropout))
    variables, b = objective.init(jax.random.key(3)), rows(examples(vocab=48), parts=4, max_segments=8)
    key = jax.random.key(1)
    found = cached(objective, key)(variables, b)
    assert_alike(found, at_once(objective, variables, b, key), 2e-6)
    if dropout:
        again = cached(objective, jax.random.key(2))(variables, b)
        assert abs(float(found[0] - again[0])) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("parts", [4])
def test_an_intermediate_embedding_that_is_taught_beside_the_final_one(parts):
    """Packed; the gradient of its distance reaches the first map and the encoder, of every micro-batch."""
    encoder = Gemma(48, 16, 1, num_heads=4, num_kv_heads=2, head_dim=4, mlp_dim=24, window=4, global_every=2)
    model = api.build(Embedder(encoder, MeanPooling(), (10, 6)))
    taught = EmbeddingDistillation(student="intermediate")
    objective = Pairs(Total({"contrastive": Contrastive(0.2), "taught": taught}), model)
    variables, random = objective.init(jax.random.key(3)), np.random.default_rng(4)
    teacher = {"query": (8, 10), "target": (8, 10), "negatives": (8, 2, 10)}
    teacher = {f"teacher_{name}": random.normal(size=shape).astype(np.float32) for name, shape in teacher.items()}

    def batch(parts):
        b = rows(examples(vocab=48), parts=parts, max_segments=8)
        cut = {name: x.reshape(1, parts, 8 // parts, *x.shape[1:]) for name, x in teacher.items()}
        return dataclasses.replace(b, arrays={**b.arrays, **cut})

    expected = at_once(objective, variables, batch(parts))
    assert_alike(cached(objective)(variables, batch(parts)), expected, 2e-6)
    assert_alike(cached(objective)(variables, batch(1)), expected, 2e-6)
    without = at_once(Pairs(Contrastive(0.2), model), variables, batch(1))
    assert (
        np.abs(expected[2]["model"]["projection_0"]["kernel"] - without[2]["model"]["projection_0"]["kernel"]).max()
        > 1e-3
    )


@pytest.mark.slow
@pytest.mark.compiled
@pytest.mark.parametrize(
    ("shape", "most"),
    [((2, 1, 1), 1 << 24), ((2, 2, 1), 8), ((2, 2, 2), 1 << 24), ((1, 4, 2), 8)],
    ids=str,
)
def test_every_mesh_gives_the_gradient_of_one_device(shape, most, logits):
    objective, pairs = Pairs(Matryoshka(Contrastive(0.2, 5.0), (6, 3)), gemma()), examples(2, 8, vocab=48)
    variables = objective.init(jax.random.key(3))
    expected = at_once(objective, variables, rows(pairs, max_segments=8))
    logits(most)
    mesh = sharding.make_mesh(sharding.MeshShape(*shape), jax.devices()[: math.prod(shape)])
    shards = sharding.batch_shards(mesh)
    with jax.set_mesh(mesh):
        b = sharding.to_global(rows(pairs, shards=shards, parts=2, max_segments=8), mesh, shards)
        placed = jax.device_put(variables, sharding.shardings(objective.axes(), variables, mesh))
        found = jax.block_until_ready(cached(objective)(placed, b))
    assert_alike(found, expected, 2e-6)


@pytest.mark.parametrize("parts", [1, 2, 8])
def test_parts_of_a_batch_join_again_and_keep_their_rows_at_home(parts):
    mesh = sharding.make_mesh(sharding.MeshShape(2, 2, 2))
    x = jnp.arange(64.0).reshape(32, 2)
    with jax.set_mesh(mesh):
        y = jax.device_put(x, sharding.batch_sharding(mesh))
        program = jax.jit(lambda y: sharding.split_batch(y, parts)).lower(y).compile()
        cut = jax.block_until_ready(program(y))
        assert "all-to-all" not in program.as_text() and "all-gather" not in program.as_text()
        assert "collective-permute" not in program.as_text()
        assert cut.shape == (parts, 32 // parts, 2)
        np.testing.assert_array_equal(jax.jit(sharding.join_batch)(cut), x)


@pytest.mark.slow
def test_memory_is_that_of_one_micro_batch_and_of_one_chunk(logits):
    """Neither the rows of all texts nor B x B values are held: temporaries fall with the number of micro-batches."""
    objective = Pairs(Contrastive(0.2), gemma())
    pairs = [
        {**p, "query_id": np.array([i]), "target_id": np.array([i])} for i, p in enumerate(examples(0, 8, 0, 48) * 64)
    ]
    variables = objective.init(jax.random.key(0))

    def temporary(parts, most):
        logits(most)
        b = rows(pairs, 0, parts=parts, max_segments=8)
        step = jax.jit(lambda v, b: loss_and_gradient(objective, v, b, jax.random.key(0), 0)[:3])
        return step.lower(variables, b).compile()

    def size(program):
        return program.memory_analysis().temp_size_in_bytes

    whole, cached = temporary(1, 1 << 24), temporary(16, 1 << 12)
    assert size(cached) < size(whole) / 5
    assert "f32[512,512]" in whole.as_text() and "f32[512,512]" not in cached.as_text()
    assert only(rows(pairs, 0, max_segments=8))["tokens"].shape[0] > 16
