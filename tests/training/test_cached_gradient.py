"""Cached gradients: those of one large batch, whatever the loss, the micro-batches, the chunks of the loss and the mesh."""

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
from embed.losses.matryoshka import Matryoshka
from embed.losses.total import Total
from embed.models import api
from embed.models.embedder import Embedder
from embed.models.gemma import Gemma
from embed.models.pooling import MeanPooling
from embed.training.step import embed_batch, loss_and_gradient
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
GRID = [
    case if number % 7 == 0 else pytest.param(case, marks=pytest.mark.slow)
    for number, case in enumerate(itertools.product(LOSSES, [0, 1, 3], [2, 4, 8], [1 << 24, 16]))
]


@pytest.fixture
def logits(monkeypatch):
    """logits(n) lets the loss hold no more than n logits at once."""
    return lambda most: monkeypatch.setattr(contrastive, "MOST_LOGITS", most)


def joined(model, params, batch, rng=None, max_segments=None) -> Outputs:
    """Returns the outputs of all micro-batches, each embedded with the key that is its own."""
    parts = []
    for number in range(batch["tokens"].shape[1]):
        key = None if rng is None else jax.random.fold_in(rng, number)
        part = {name: x[:, number] for name, x in batch.items()}
        parts.append(embed_batch(model, params, part, key, max_segments))
    return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)


def at_once(model, loss, params, batch, rng=None, max_segments=None):
    """Returns (loss, metrics, gradient) of the whole batch, differentiated as one function."""
    whole = lambda p: loss(joined(model, p, batch, rng, max_segments))  # noqa: E731
    (value, metrics), gradient = fast(jax.value_and_grad(whole, has_aux=True))(params)
    return value, metrics, gradient


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


@pytest.mark.parametrize("case", GRID, ids=lambda c: "-".join(map(str, c)))
def test_any_loss_has_the_gradient_of_the_whole_batch(case, logits):
    # In float64: some draws have prefixes of next to no length, whose gradients float32 tells to 1e-5 only.
    name, negatives, parts, most = case
    model, loss = bag_of_words(), LOSSES[name]
    with jax.enable_x64(True):
        drawn = model.init(jax.random.key(zlib.crc32(repr(case).encode()) % 1000))
        params, pairs = jax.tree.map(lambda x: x.astype(jnp.float64), drawn), examples(parts, 8, negatives)
        expected = at_once(model, loss, params, rows(pairs, negatives))
        logits(most)
        found = fast(lambda p, b: loss_and_gradient(model, loss, p, b, None))(
            params, rows(pairs, negatives, parts=parts)
        )
    assert_alike(found, expected, 1e-10)


@pytest.mark.parametrize("parts", [2, 4])
def test_noise_is_drawn_by_the_same_keys_both_times(parts):
    model, loss, rng = bag_of_words(), LOSSES["Matryoshka"], jax.random.key(7)
    params, b = model.init(jax.random.key(0)), rows(examples(), parts=parts)
    found = fast(lambda p, b: loss_and_gradient(model, loss, p, b, rng))(params, b)
    assert_alike(found, at_once(model, loss, params, b, rng))
    without = fast(lambda p, b: loss_and_gradient(model, loss, p, b, None))(params, b)
    assert abs(float(found[0] - without[0])) > 1e-3
    # Two micro-batches of the same pairs draw different noise.
    twice = rows(examples()[:4] * 2, parts=2)
    first, second = np.split(np.asarray(joined(model, params, twice, rng).query), 2)
    assert np.abs(first - second).max() > 1e-3


def gemma(dropout: float = 0.0):
    """Returns a model of two layers; its dropout is that of training."""
    encoder = Gemma(
        48, 16, 2, num_heads=4, num_kv_heads=2, head_dim=4, mlp_dim=24, window=4, global_every=2, dropout=dropout
    )
    return api.build(Embedder(encoder, MeanPooling(), (6,), (3,)))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_transformer_with_packed_rows_and_dropout(dropout):
    model, loss = gemma(dropout), Matryoshka(Contrastive(0.2, 5.0), (6, 3))
    params, b = model.init(jax.random.key(3)), rows(examples(vocab=48), parts=4, max_segments=8)
    rng = jax.random.key(1) if dropout else None
    found = fast(lambda p, b: loss_and_gradient(model, loss, p, b, rng, 8))(params, b)
    assert_alike(found, at_once(model, loss, params, b, rng, 8), 2e-6)
    if dropout:
        again = fast(lambda p, b: loss_and_gradient(model, loss, p, b, jax.random.key(2), 8))(params, b)
        assert abs(float(found[0] - again[0])) > 1e-3


@pytest.mark.parametrize("shape", [(2, 1, 1), (2, 2, 1), (2, 2, 2), (1, 4, 2)], ids=str)
@pytest.mark.parametrize("most", [1 << 24, 8])
def test_every_mesh_gives_the_gradient_of_one_device(shape, most, logits):
    model, loss, pairs = gemma(), Matryoshka(Contrastive(0.2, 5.0), (6, 3)), examples(2, 8, vocab=48)
    params = model.init(jax.random.key(3))
    expected = at_once(model, loss, params, rows(pairs, max_segments=8), max_segments=8)
    logits(most)
    mesh = sharding.make_mesh(sharding.MeshShape(*shape), jax.devices()[: math.prod(shape)])
    shards = sharding.batch_shards(mesh)
    with jax.set_mesh(mesh):
        b = sharding.to_global(rows(pairs, shards=shards, parts=2, max_segments=8), mesh, shards)
        placed = jax.device_put(params, sharding.shardings(model.axes, params, mesh))
        step = fast(lambda p, b: loss_and_gradient(model, loss, p, b, None, 8))
        found = jax.block_until_ready(step(placed, b))
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


def test_memory_is_that_of_one_micro_batch_and_of_one_chunk(logits):
    """Neither the rows of all texts nor B x B values are held: temporaries fall with the number of micro-batches."""
    model, loss = gemma(), Contrastive(0.2)
    pairs = [{**p, "query_id": i, "target_id": i} for i, p in enumerate(examples(0, 8, 0, 48) * 64)]
    params = model.init(jax.random.key(0))

    def temporary(parts, most):
        logits(most)
        b = rows(pairs, 0, parts=parts, max_segments=8)
        return jax.jit(lambda p, b: loss_and_gradient(model, loss, p, b, None, 8)).lower(params, b).compile()

    def size(program):
        return program.memory_analysis().temp_size_in_bytes

    whole, cached = temporary(1, 1 << 24), temporary(16, 1 << 12)
    assert size(cached) < size(whole) / 5
    assert "f32[512,512]" in whole.as_text() and "f32[512,512]" not in cached.as_text()
    assert only(rows(pairs, 0, max_segments=8))["tokens"].shape[1] > 16
