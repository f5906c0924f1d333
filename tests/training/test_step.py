"""One training step: micro-batches, steps that are not finite, the moving average, the same numbers on every mesh."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from training_batches import POISON, bag_of_words, batch, examples, fast, only, rows

from embed import sharding
from embed.losses.contrastive import Contrastive
from embed.losses.matryoshka import Matryoshka
from embed.models import api
from embed.models.embedder import Embedder
from embed.models.gemma import Gemma
from embed.models.pooling import MeanPooling
from embed.training.optimizers import adamw
from embed.training.state import TrainState, create, layout
from embed.training.step import embed_batch, loss_and_gradient, make_step, moving_average
from embed.trees import flatten
from embed.types import Model, Outputs

LOSS = Matryoshka(Contrastive(0.2, 5.0), (6, 3))


def start(model, optimizer, use_ema: bool = True) -> TrainState:
    return create(model, optimizer, use_ema, seed=3)


def bits(tree) -> dict[str, bytes]:
    return {path: np.asarray(x).tobytes() for path, x in flatten(tree).items()}


def test_towers_are_embedded_from_their_own_tokens_and_lengths():
    model, pairs = bag_of_words(), examples()
    params = model.init(jax.random.key(0))
    b = only(rows(pairs))
    found = embed_batch(model, params, b)

    def by_hand(tokens):
        x = np.asarray(params["table"])[tokens].mean(0) @ np.asarray(params["kernel"])
        return x / np.linalg.norm(x)

    for i, pair in enumerate(pairs):
        np.testing.assert_allclose(found.query[i], by_hand(pair["query"]), atol=1e-5)
        np.testing.assert_allclose(found.target[i], by_hand(pair["target"]), atol=1e-5)
        own = np.split(pair["negatives"], np.cumsum(pair["negatives_lengths"]))[:-1]
        assert found.negatives_mask[i].tolist() == [True] * len(own) + [False] * (2 - len(own))
        for k, tokens in enumerate(own):
            np.testing.assert_allclose(found.negatives[i, k], by_hand(tokens), atol=1e-5)
    for name in ("query_id", "target_id"):
        np.testing.assert_array_equal(getattr(found, name), b[name][0])


def test_without_negatives_there_is_no_tower_for_them():
    model = bag_of_words()
    found = embed_batch(model, model.init(jax.random.key(0)), only(batch(negatives=0)))
    assert found.negatives is None
    assert found.negatives_mask is None


def test_texts_draw_different_noise():
    model, rng, pairs = bag_of_words(), jax.random.key(1), examples()
    params = model.init(jax.random.key(0))
    same_text = [{**p, "target": p["query"]} for p in pairs]
    found = embed_batch(model, params, only(rows(same_text)), rng)
    assert np.abs(found.query - found.target).max() > 1e-2


def test_packed_texts_are_embedded_as_if_each_were_alone(gemma):
    pairs = examples(vocab=48)
    params = gemma.init(jax.random.key(5))
    alone = embed_batch(gemma, params, only(rows(pairs)))
    together = rows(pairs, max_segments=8)
    assert together["segment_ids"].max() > 2
    found = fast(lambda p, b: embed_batch(gemma, p, b, max_segments=8))(params, only(together))
    for tower in ("query", "target"):
        np.testing.assert_allclose(getattr(found, tower), getattr(alone, tower), atol=1e-5)
    there = np.asarray(alone.negatives_mask)
    np.testing.assert_allclose(found.negatives[there], alone.negatives[there], atol=1e-5)


def test_a_step_follows_the_optimizer():
    model, optimizer, b = bag_of_words(), optax.sgd(0.1), batch()
    state = start(model, optimizer, use_ema=False)
    found, metrics = fast(make_step(model, LOSS, optimizer, seed=0))(state, b)
    value, _, gradient = fast(lambda p: loss_and_gradient(model, LOSS, p, b, None))(state.params)
    for path, x in flatten(found.params).items():
        expected = flatten(state.params)[path] - 0.1 * flatten(gradient)[path]
        np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6)
    norm = np.sqrt(sum((np.asarray(g) ** 2).sum() for g in jax.tree.leaves(gradient)))
    assert float(metrics["gradient_norm"]) == pytest.approx(norm, rel=1e-5)
    assert float(metrics["loss"]) == pytest.approx(float(value), rel=1e-5)
    assert {"accuracy", "loss@3", "loss@6", "skipped"} <= metrics.keys()
    assert found.ema is None
    assert (int(found.step), int(found.skipped)) == (1, 0)


@dataclasses.dataclass(frozen=True)
class InfiniteSlope:
    """A finite loss; where a query holds nothing but zeros, its gradient is not a number."""

    def __call__(self, outputs: Outputs):
        return jnp.sum(outputs.query * outputs.target) + jnp.sum(jnp.sqrt(0.0 * jnp.square(outputs.query))), {}


def poisoned(b):
    """Returns the batch with one text spoilt in every micro-batch."""
    first_row = np.arange(b["tokens"].shape[2])[:, None] == 0
    return {**b, "tokens": np.where(first_row & (b["segment_ids"] > 0), POISON, b["tokens"]).astype(np.int32)}


@pytest.mark.parametrize("parts", [1, 2])
def test_a_loss_that_is_not_finite_changes_nothing_and_is_counted(parts):
    model, optimizer = bag_of_words(), adamw(0.1, weight_decay=0.1)
    step = fast(make_step(model, LOSS, optimizer, seed=0, ema_decay=0.9))
    good, _ = step(start(model, optimizer), batch(1, parts=parts))
    bad, metrics = step(good, poisoned(batch(2, parts=parts)))
    assert int(metrics["skipped"]) == int(bad.skipped) == 1
    assert not np.isfinite(metrics["gradient_norm"])
    assert int(bad.step) == 2
    assert bits(bad.trees()) == bits(good.trees())
    worse, metrics = step(bad, poisoned(batch(3, parts=parts)))
    assert (int(worse.skipped), int(worse.step), int(metrics["skipped"])) == (2, 3, 2)
    assert bits(worse.trees()) == bits(good.trees())
    healed, metrics = step(worse, batch(4, parts=parts))
    assert (int(healed.skipped), int(healed.step), int(metrics["skipped"])) == (0, 4, 0)
    assert all(bits(healed.trees())[path] != x for path, x in bits(good.trees()).items())
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(healed.trees()))


def test_a_gradient_that_is_not_finite_changes_nothing_either():
    model, optimizer = bag_of_words(), adamw(0.1)
    state = start(model, optimizer)
    found, metrics = fast(make_step(model, InfiniteSlope(), optimizer, seed=0, ema_decay=0.9))(state, batch())
    assert np.isfinite(metrics["loss"])
    assert not np.isfinite(metrics["gradient_norm"])
    assert (int(found.step), int(found.skipped)) == (1, 1)
    assert bits(found.trees()) == bits(state.trees())


def test_randomness_is_a_function_of_seed_and_step():
    model, optimizer, b = bag_of_words(), optax.sgd(0.1), batch()
    state = start(model, optimizer, use_ema=False)

    steps = {
        (seed, dropout): fast(make_step(model, LOSS, optimizer, seed=seed, dropout=dropout))
        for seed, dropout in ((0, True), (1, True), (0, False))
    }

    def loss_of(seed, at, dropout=True):
        moved = dataclasses.replace(state, step=jnp.asarray(at, jnp.int32))
        return float(steps[seed, dropout](moved, b)[1]["loss"])

    first = loss_of(0, 0)
    assert loss_of(0, 0) == first
    assert len({first, loss_of(0, 1), loss_of(1, 0), loss_of(0, 0, dropout=False)}) == 4
    assert loss_of(0, 0, dropout=False) == loss_of(0, 7, dropout=False)


@pytest.mark.parametrize(("step", "rate"), [(0, 0.1), (1, 2 / 11), (8, 0.5), (80, 0.9), (1000, 0.9)])
def test_moving_average_forgets_faster_at_first(step, rate):
    ema, params = {"x": jnp.asarray([1.0, -2.0])}, {"x": jnp.asarray([3.0, 5.0])}
    found = moving_average(ema, params, 0.9, jnp.asarray(step, jnp.int32))["x"]
    np.testing.assert_allclose(found, rate * np.array([1.0, -2.0]) + (1 - rate) * np.array([3.0, 5.0]), rtol=1e-6)
    assert found.dtype == jnp.float32


def test_the_step_averages_the_new_parameters():
    model, optimizer = bag_of_words(), optax.sgd(0.5)
    state = dataclasses.replace(start(model, optimizer), step=jnp.asarray(8, jnp.int32))
    found, _ = fast(make_step(model, LOSS, optimizer, seed=0, ema_decay=0.99))(state, batch())
    for path, x in flatten(found.ema).items():
        expected = 0.5 * (np.asarray(flatten(state.ema)[path]) + np.asarray(flatten(found.params)[path]))
        np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6)


MESHES = [(2, 1, 1), (2, 2, 1), (2, 2, 2), (1, 4, 2), (8, 1, 1)]
# A large eps keeps Adam from blowing rounding in small gradients up to whole steps.
OPTIMIZER = adamw(0.02, eps=1e-2, weight_decay=0.1)


def small_gemma() -> Model:
    encoder = Gemma(48, 16, 2, num_heads=4, num_kv_heads=2, head_dim=4, mlp_dim=24, window=4, global_every=2)
    return api.build(Embedder(encoder, MeanPooling(), (6,), (3,)))


def on_mesh(shape, model, values=None):
    """Returns the mesh, the first state on it and its layout; the state is made in place or given as `values`."""
    mesh = sharding.make_mesh(sharding.MeshShape(*shape), jax.devices()[: math.prod(shape)])
    with jax.set_mesh(mesh):
        placed = layout(model, jax.eval_shape(lambda: start(model, OPTIMIZER)), mesh)
        made = fast(lambda: start(model, OPTIMIZER), out_shardings=placed) if values is None else None
        state = made() if values is None else jax.device_put(values, placed)
        return mesh, jax.block_until_ready(state), placed


def three_steps(shape, model, values):
    """Returns the losses of three steps, and the parameters and averages before and after each."""
    mesh, state, placed = on_mesh(shape, model, values)
    shards = sharding.batch_shards(mesh)
    with jax.set_mesh(mesh):
        step = fast(
            make_step(model, LOSS, OPTIMIZER, seed=0, ema_decay=0.5, max_segments=8),
            out_shardings=(placed, sharding.replicated(mesh)),
        )
        losses, states = [], [jax.device_get((state.params, state.ema))]
        for t in range(3):
            b = rows(examples(t, vocab=48), shards=shards, max_segments=8)
            state, metrics = step(state, sharding.to_global(b, mesh, shards))
            jax.block_until_ready(state)
            losses.append(float(metrics["loss"]))
            states.append(jax.device_get((state.params, state.ema)))
    return losses, states


@pytest.fixture(scope="module")
def gemma():
    return small_gemma()


@pytest.fixture(scope="module")
def first(gemma):
    """The first state, made on one device."""
    return jax.device_get(on_mesh((1, 1, 1), gemma)[1])


@pytest.fixture(scope="module")
def on_one(gemma, first):
    return three_steps((1, 1, 1), gemma, first)


@pytest.mark.parametrize(
    "shape", [m if m in ((2, 2, 2), (8, 1, 1)) else pytest.param(m, marks=pytest.mark.slow) for m in MESHES], ids=str
)
def test_every_mesh_trains_alike(shape, gemma, first, on_one):
    losses, states = three_steps(shape, gemma, first)
    np.testing.assert_allclose(losses, on_one[0], rtol=1e-5)
    assert len(set(losses)) == 3
    for before, after, expected_before, expected in zip(states, states[1:], on_one[1], on_one[1][1:]):
        moved, should = (
            np.concatenate(
                [np.ravel(np.float64(a) - np.float64(b)) for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y))]
            )
            for x, y in ((after, before), (expected, expected_before))
        )
        assert np.linalg.norm(should) > 0
        assert np.linalg.norm(moved - should) <= 1e-5 * np.linalg.norm(should)


def test_parameters_moments_and_averages_are_really_sharded(gemma, first):
    _, state, _ = on_mesh((2, 2, 2), gemma)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), first)
    path = "encoder/stack/layers/mlp/gate/kernel"
    trees = {"params": state.params, "ema": state.ema, "opt_state": state.opt_state}
    found = {name: x for name, x in flatten(trees).items() if name.endswith(path)}
    assert len(found) == 4  # parameters, average, two moments
    for x in found.values():
        assert x.sharding.spec == PartitionSpec(None, "fsdp", "tensor")
        assert {s.data.shape for s in x.addressable_shards} == {(2, 8, 12)}
        assert len({str(s.index) for s in x.addressable_shards}) == 4


def test_embeddings_are_split_over_the_batch(gemma, first):
    mesh, state, _ = on_mesh((2, 2, 2), gemma, first)
    with jax.set_mesh(mesh):
        b = only(sharding.to_global(rows(examples(vocab=48), shards=4, max_segments=8), mesh, 4))
        program = fast(lambda p, b: embed_batch(gemma, p, b, max_segments=8)).lower(state.params, b).compile()
        found = jax.block_until_ready(program(state.params, b))
    height = b["tokens"].shape[1]
    # A shard's vectors are [height, 8 slots, 6]: neither they nor their rows are gathered from the others.
    gathered = [line for line in program.as_text().splitlines() if "all-gather" in line or "all-reduce" in line]
    assert not [line for line in gathered if f"[{4 * height}" in line or f"[4,{height}" in line]
    for tower in (found.query, found.target, found.negatives):
        assert tower.sharding.is_equivalent_to(sharding.batch_sharding(mesh), tower.ndim)
        assert {s.data.shape[0] for s in tower.addressable_shards} == {2}


def test_constraints_split_what_came_in_whole():
    mesh = sharding.make_mesh(sharding.MeshShape(2, 2, 2))
    x = jnp.zeros((8, 5, 4))
    with jax.set_mesh(mesh):
        whole = jax.device_put(x, sharding.replicated(mesh))
        found = jax.block_until_ready(jax.jit(lambda x: sharding.constrain(x + 1, "batch", "length", None))(whole))
    expected = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    assert found.sharding.is_equivalent_to(expected, 3)
    assert {s.data.shape for s in found.addressable_shards} == {(2, 5, 4)}


def encoder_program(model, values, placement) -> str:
    """Returns what a device of mesh (2, 2, 2) runs for the gradient of 8 texts of 7 tokens, laid out by `placement`."""
    mesh, state, placed = on_mesh((2, 2, 2), model, values)
    with jax.set_mesh(mesh):
        tokens = jax.device_put(jnp.zeros((8, 7), jnp.int32), placement(mesh))
        mask = jax.device_put(jnp.ones((8, 7), bool), placement(mesh))
        gradient = fast(jax.grad(lambda p, t, m: model.apply(p, t, m)[:, 0].sum()), out_shardings=placed.params)
        return gradient.lower(state.params, tokens, mask).compile().as_text()


@pytest.mark.parametrize("placement", [sharding.replicated, sharding.batch_sharding])
def test_no_device_holds_vectors_of_the_whole_batch(placement, gemma, first):
    """A device has two of eight texts; wherever their tokens came from, it needs the vectors of no others."""
    text = encoder_program(gemma, first, placement)
    assert "f32[2,7,16]" in text
    assert not [line for line in text.splitlines() if "f32[8,7,16]" in line]
