"""One training step: the optimiser, steps that are not finite, the moving average, the same numbers on every mesh."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from training_batches import POISON, bag_of_words, batch, examples, fast, rows

from embed import sharding
from embed.losses.contrastive import Contrastive
from embed.losses.matryoshka import Matryoshka
from embed.losses.total import Total
from embed.models import api, transformer
from embed.models.embedder import Embedder
from embed.models.gemma import Gemma
from embed.models.pooling import MeanPooling
from embed.objectives.moving_average import MovingAverage
from embed.objectives.pairs import Pairs
from embed.training.optimizers import adamw
from embed.training.state import TrainState, create, layout
from embed.training.step import loss_and_gradient, make_step, make_validation
from embed.trees import flatten
from embed.types import Model, PairEmbeddings

LOSS = Matryoshka(Contrastive(0.2, 5.0), (6, 3))


def learned(model, loss=LOSS, ema: float | None = 0.9):
    """Returns the objective of pairs, with a moving average where it has a decay."""
    pairs = Pairs(loss, model)
    return pairs if ema is None else MovingAverage(pairs, ema)


def start(objective, optimizer) -> TrainState:
    return create(objective, optimizer, seed=3)


def kept(state: TrainState):
    """Returns all of a state that a step may change, but its counters."""
    return state.variables, state.opt_state


def bits(tree) -> dict[str, bytes]:
    return {path: np.asarray(x).tobytes() for path, x in flatten(tree).items()}


def test_a_step_follows_the_optimizer():
    objective, optimizer, b = learned(bag_of_words(), ema=None), optax.sgd(0.1), batch()
    state = start(objective, optimizer)
    found, metrics = fast(make_step(objective, optimizer, seed=0))(state, b)
    key = jax.random.key(0)
    value, _, gradient, _ = fast(lambda v: loss_and_gradient(objective, v, b, key, 0))(state.variables)
    for path, x in flatten(found.variables.params).items():
        expected = flatten(state.variables.params)[path] - 0.1 * flatten(gradient)[path]
        np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6)
    norm = np.sqrt(sum((np.asarray(g) ** 2).sum() for g in jax.tree.leaves(gradient)))
    assert float(metrics["gradient_norm"]) == pytest.approx(norm, rel=1e-5)
    assert float(metrics["loss"]) == pytest.approx(float(value), rel=1e-5)
    assert {"accuracy", "loss@3", "loss@6", "skipped"} <= metrics.keys()
    assert not found.variables.moving
    assert (int(found.step), int(found.skipped)) == (1, 0)


@dataclasses.dataclass(frozen=True)
class InfiniteSlope:
    """A finite loss; where a query holds nothing but zeros, its gradient is not a number."""

    def init(self):
        return {}

    def __call__(self, pairs: PairEmbeddings, params=None, step=0):
        return jnp.sum(pairs.query * pairs.target) + jnp.sum(jnp.sqrt(0.0 * jnp.square(pairs.query))), {}


def poisoned(b):
    """Returns the batch with one text spoilt in every micro-batch."""
    first_row = np.arange(b["tokens"].shape[2])[:, None] == 0
    tokens = np.where(first_row & (b["segment_ids"] > 0), POISON, b["tokens"]).astype(np.int32)
    return dataclasses.replace(b, arrays={**b, "tokens": tokens})


@pytest.mark.parametrize("parts", [1, 2])
def test_a_loss_that_is_not_finite_changes_nothing_and_is_counted(parts):
    objective, optimizer = learned(bag_of_words()), adamw(0.1, weight_decay=0.1)
    step = fast(make_step(objective, optimizer, seed=0))
    good, _ = step(start(objective, optimizer), batch(1, parts=parts))
    bad, metrics = step(good, poisoned(batch(2, parts=parts)))
    assert int(metrics["skipped"]) == int(bad.skipped) == 1
    assert not np.isfinite(metrics["gradient_norm"])
    assert int(bad.step) == 2
    assert bits(kept(bad)) == bits(kept(good))
    worse, metrics = step(bad, poisoned(batch(3, parts=parts)))
    assert (int(worse.skipped), int(worse.step), int(metrics["skipped"])) == (2, 3, 2)
    assert bits(kept(worse)) == bits(kept(good))
    healed, metrics = step(worse, batch(4, parts=parts))
    assert (int(healed.skipped), int(healed.step), int(metrics["skipped"])) == (0, 4, 0)
    assert all(bits(kept(healed))[path] != x for path, x in bits(kept(good)).items())
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(kept(healed)))


def test_a_gradient_that_is_not_finite_changes_nothing_either():
    objective, optimizer = learned(bag_of_words(), InfiniteSlope()), adamw(0.1)
    state = start(objective, optimizer)
    found, metrics = fast(make_step(objective, optimizer, seed=0))(state, batch())
    assert np.isfinite(metrics["loss"])
    assert not np.isfinite(metrics["gradient_norm"])
    assert (int(found.step), int(found.skipped)) == (1, 1)
    assert bits(kept(found)) == bits(kept(state))


@pytest.mark.slow
def test_randomness_is_a_function_of_seed_and_step():
    optimizer, b = optax.sgd(0.1), batch()
    state = start(learned(bag_of_words(), ema=None), optimizer)
    steps = {
        (seed, dropout): fast(make_step(learned(bag_of_words(dropout), ema=None), optimizer, seed=seed))
        for seed, dropout in ((0, True), (1, True), (0, False))
    }

    def loss_of(seed, at, dropout=True):
        moved = dataclasses.replace(state, step=jnp.asarray(at, jnp.int32))
        return float(steps[seed, dropout](moved, b)[1]["loss"])

    first = loss_of(0, 0)
    assert loss_of(0, 0) == first
    assert len({first, loss_of(0, 1), loss_of(1, 0), loss_of(0, 0, dropout=False)}) == 4
    assert loss_of(0, 0, dropout=False) == loss_of(0, 7, dropout=False)


def test_the_step_averages_the_new_parameters():
    objective, optimizer = learned(bag_of_words(), ema=0.99), optax.sgd(0.5)
    state = dataclasses.replace(start(objective, optimizer), step=jnp.asarray(8, jnp.int32))
    found, _ = fast(make_step(objective, optimizer, seed=0))(state, batch())
    before, after = flatten(state.variables.moving["ema"]), flatten(found.variables.params)
    for path, x in flatten(found.variables.moving["ema"]).items():
        expected = 0.5 * (np.asarray(before[path]) + np.asarray(after[path]))
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
        objective = learned(model, ema=0.5)
        placed = layout(objective, jax.eval_shape(lambda: start(objective, OPTIMIZER)), mesh)
        made = fast(lambda: start(objective, OPTIMIZER), out_shardings=placed) if values is None else None
        state = made() if values is None else jax.device_put(values, placed)
        return mesh, jax.block_until_ready(state), placed


def three_steps(shape, model, values):
    """Returns the losses of three steps, and the parameters and averages before and after each."""
    mesh, state, placed = on_mesh(shape, model, values)
    shards = sharding.batch_shards(mesh)
    with jax.set_mesh(mesh):
        step = fast(
            make_step(learned(model, ema=0.5), OPTIMIZER, seed=0),
            out_shardings=(placed, sharding.replicated(mesh)),
        )
        losses, states = [], [jax.device_get((state.variables.params, state.variables.moving))]
        for t in range(3):
            b = rows(examples(t, vocab=48), shards=shards, max_segments=8)
            state, metrics = step(state, sharding.to_global(b, mesh, shards))
            jax.block_until_ready(state)
            losses.append(float(metrics["loss"]))
            states.append(jax.device_get((state.variables.params, state.variables.moving)))
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


@pytest.mark.slow
@pytest.mark.parametrize("spread_from", [0, sharding.SPREAD_FROM], ids=["spread", "whole"])
@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_every_mesh_trains_alike(shape, spread_from, gemma, first, on_one, monkeypatch):
    monkeypatch.setattr(sharding, "SPREAD_FROM", spread_from)
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


@pytest.mark.slow
@pytest.mark.parametrize("spread_from", [0, sharding.SPREAD_FROM], ids=["spread", "whole"])
def test_parameters_moments_and_averages_are_really_sharded(gemma, first, spread_from, monkeypatch):
    monkeypatch.setattr(sharding, "SPREAD_FROM", spread_from)
    _, state, _ = on_mesh((2, 2, 2), gemma)
    # Parts of arrays that are drawn by themselves may differ in the last bit, where vectors of the processor end elsewhere.
    close = functools.partial(np.testing.assert_allclose, rtol=0 if spread_from else 1e-6)
    jax.tree.map(close, jax.device_get(state), first)
    path = "encoder/stack/layers/mlp/gate/kernel"
    found = {name: x for name, x in flatten(state).items() if name.endswith(path)}
    assert len(found) == 4  # parameters, average, two moments
    for name, x in found.items():
        layers = "data" if spread_from == 0 else None
        assert x.sharding.spec == PartitionSpec(layers, "fsdp", "tensor"), name
        assert {s.data.shape for s in x.addressable_shards} == {(1 if layers else 2, 8, 12)}
        assert len({str(s.index) for s in x.addressable_shards}) == (8 if layers else 4)


def test_layers_of_a_step_are_unrolled_on_a_tpu(monkeypatch):
    """A step is told from an evaluation by its key, whether or not dropout is drawn from it."""
    monkeypatch.setattr(transformer, "platform", lambda: "tpu")
    sizes = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 4, "mlp_dim": 24, "window": 4, "global_every": 2}
    model = api.build(Embedder(Gemma(48, 16, 2, unroll=2, **sizes), MeanPooling(), (6,)))
    objective = Pairs(Contrastive(0.2), model)
    state = jax.eval_shape(lambda: create(objective, adamw(0.1), 0))
    step = jax.make_jaxpr(make_step(objective, adamw(0.1), seed=0))(state, batch())
    assert "unroll=2" in str(step)
    one = (state.variables, state.step)
    validation = jax.make_jaxpr(make_validation(objective))(one, batch())
    assert "unroll=2" not in str(validation) and "scan" in str(validation)


def test_the_gradient_is_spread_before_the_optimiser_sees_it(monkeypatch):
    """So that replicas sum each other's shares of it, and not all of it."""
    monkeypatch.setattr(sharding, "SPREAD_FROM", 0)
    objective = Pairs(Contrastive(0.2), bag_of_words())
    mesh = sharding.make_mesh(sharding.MeshShape(2, 1, 1), jax.devices()[:2])
    with jax.set_mesh(mesh):
        state = jax.eval_shape(lambda: create(objective, adamw(0.1), 0))
        traced = jax.make_jaxpr(make_step(objective, adamw(0.1), seed=0))(state, batch())
    wanted = layout(objective, state, mesh).variables.params
    spread = {(x.shape, s.spec) for x, s in zip(jax.tree.leaves(state.variables.params), jax.tree.leaves(wanted))}
    assert all("data" in spec for _, spec in spread)
    fixed = {
        (e.outvars[0].aval.shape, e.params["sharding"].spec)
        for e in traced.jaxpr.eqns
        if e.primitive.name == "sharding_constraint"
    }
    assert spread <= fixed


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
        layout_of_model = placed.variables.params["model"]
        gradient = fast(
            jax.grad(lambda p, t, m: model.apply(p, {"tokens": t, "segment_ids": m})[:, 0].sum()),
            out_shardings=layout_of_model,
        )
        return gradient.lower(state.variables.params["model"], tokens, mask).compile().as_text()


@pytest.mark.slow
@pytest.mark.parametrize("placement", [sharding.replicated, sharding.batch_sharding])
def test_no_device_holds_vectors_of_the_whole_batch(placement, gemma, first):
    """A device has two of eight texts; wherever their tokens came from, it needs the vectors of no others."""
    text = encoder_program(gemma, first, placement)
    assert "f32[2,7,16]" in text
    assert not [line for line in text.splitlines() if "f32[8,7,16]" in line]


def test_held_out_examples_are_weighed_as_at_the_step_of_the_run():
    objective = Pairs(Total({"contrastive": Contrastive()}, {"contrastive": lambda step: 0.5 * step}), bag_of_words())
    variables, validate = objective.init(jax.random.key(0)), jax.jit(make_validation(objective))
    values = {step: validate((variables, jnp.int32(step)), batch()) for step in (2, 6)}
    for step, metrics in values.items():
        assert float(metrics["contrastive/weight"]) == 0.5 * step
        np.testing.assert_allclose(metrics["loss"], 0.5 * step * metrics["contrastive"], rtol=1e-6)
