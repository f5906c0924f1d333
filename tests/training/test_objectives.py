"""Any objective through one trainer: rows and sums by micro-batches, on any mesh, with what moves and what is frozen."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from image_text import ImageText, batch
from training_batches import fast

from embed import checkpoints, sharding
from embed.errors import ConfigError
from embed.training.optimizers import adamw
from embed.training.state import Items, create, layout, with_shardings
from embed.training.step import loss_and_gradient, make_step
from embed.trees import flatten
from embed.types import Outputs, Variables

OBJECTIVE = ImageText()
OPTIMIZER = adamw(0.02, eps=1e-2, weight_decay=0.1)


def at_once(variables: Variables, b, key):
    """Returns (loss, gradient, outputs) of a batch by one differentiation of all that the micro-batches give."""
    count = b["patches"].shape[1]
    whole = jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), b)

    def loss(params):
        parts = [jax.tree.map(lambda x, n=n: x[:, n].reshape(-1, *x.shape[3:]), b) for n in range(count)]
        keys = [key if count == 1 else jax.random.fold_in(key, n) for n in range(count)]
        found = [OBJECTIVE.forward(dataclasses.replace(variables, params=params), *x, 0) for x in zip(parts, keys)]
        rows = jax.tree.map(lambda *x: jnp.concatenate(x), *(o.rows for o in found))
        outputs = Outputs(rows, jax.tree.map(lambda *x: sum(x), *(o.sums for o in found)))
        return OBJECTIVE.loss(params, outputs, whole, 0)[0], outputs

    (value, outputs), gradient = jax.value_and_grad(loss, has_aux=True)(variables.params)
    return value, gradient, outputs


@pytest.mark.parametrize("micro_batches", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 4, 8))])
def test_the_gradient_by_micro_batches_is_that_of_the_whole_batch(micro_batches):
    with jax.enable_x64(True):
        to_double = lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x  # noqa: E731
        variables = jax.tree.map(to_double, OBJECTIVE.init(jax.random.key(0)))
        variables.moving["centre"] = variables.moving["centre"] + 0.3
        b, key = jax.tree.map(to_double, batch(micro_batches=micro_batches)), jax.random.key(1)
        value, metrics, gradient, outputs = jax.jit(lambda v, b: loss_and_gradient(OBJECTIVE, v, b, key, 0))(
            variables, b
        )
        expected_value, expected, expected_outputs = jax.jit(at_once)(variables, b, key)
        assert float(value) == pytest.approx(float(expected_value), rel=1e-12)
        for path, x in flatten(expected).items():
            np.testing.assert_allclose(flatten(gradient)[path], x, rtol=0, atol=1e-12)
            assert np.any(x)
        for path, x in flatten(expected_outputs).items():
            np.testing.assert_allclose(flatten(outputs)[path], x, rtol=1e-12)
        assert float(metrics["contrastive"]) > 0


def on_mesh(size: int, micro_batches: int):
    """Returns losses and states, moving variables included, of three steps on a mesh of `size` devices."""
    shape = {1: (1, 1, 1), 2: (2, 1, 1), 4: (2, 2, 1), 8: (2, 2, 2)}[size]
    mesh = sharding.make_mesh(sharding.MeshShape(*shape), jax.devices()[: math.prod(shape)])
    shards = sharding.batch_shards(mesh)
    with jax.set_mesh(mesh):
        placed = layout(OBJECTIVE, jax.eval_shape(lambda: create(OBJECTIVE, OPTIMIZER, 0)), mesh)
        state = jax.device_put(fast(lambda: create(OBJECTIVE, OPTIMIZER, 0))(), placed)
        step = fast(make_step(OBJECTIVE, OPTIMIZER, seed=0), out_shardings=(placed, sharding.replicated(mesh)))
        losses = []
        for t in range(3):
            b = sharding.to_global(batch(t, shards=shards, micro_batches=micro_batches), mesh, shards)
            state, metrics = jax.block_until_ready(step(state, b))
            losses.append(float(metrics["loss"]))
        return losses, jax.device_get(state.variables)


@pytest.fixture(scope="module")
def on_one():
    return {micro_batches: on_mesh(1, micro_batches) for micro_batches in (1, 2)}


@pytest.mark.parametrize(
    ("size", "micro_batches"),
    [(8, 2), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((2, 1), (2, 2), (4, 1), (4, 2), (8, 1)))],
)
@pytest.mark.parametrize("spread_from", [0, sharding.SPREAD_FROM], ids=["spread", "whole"])
def test_every_mesh_trains_alike(size, micro_batches, spread_from, on_one, monkeypatch):
    """What moves lies over the replicas too where it is large."""
    monkeypatch.setattr(sharding, "SPREAD_FROM", spread_from)
    losses, variables = on_mesh(size, micro_batches)
    expected_losses, expected = on_one[micro_batches]
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    first = flatten(fast(lambda: OBJECTIVE.init(jax.random.key(0)))())
    for path, x in flatten(expected).items():
        np.testing.assert_allclose(flatten(variables)[path], x, rtol=1e-4, atol=1e-5)
        assert np.array_equal(x, first[path]) == path.startswith("frozen"), path


def test_a_checkpoint_holds_each_variable_once_and_no_frozen_one(tmp_path):
    state = fast(lambda: create(OBJECTIVE, OPTIMIZER, 0))()
    items = Items(OBJECTIVE, jax.eval_shape(lambda: create(OBJECTIVE, OPTIMIZER, 0)))
    saver = checkpoints.Saver(tmp_path)
    saver.save(1, {"params": items.export(state.variables), **items.split(state)}, {})
    saver.close()
    assert set(items.split(state)) == {"opt_state", "moving"}
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    placed = layout(OBJECTIVE, items.abstract, mesh)
    targets = with_shardings(items.split(items.abstract), items.split(placed))
    targets["params"] = with_shardings(items.abstract.variables.params, placed.variables.params)
    restored = {name: checkpoints.restore(tmp_path / "1", name, target) for name, target in targets.items()}
    found = flatten(items.join(restored, state.variables))
    assert list(found) == list(flatten(state.variables))
    for path, x in flatten(state.variables).items():
        np.testing.assert_array_equal(found[path], x)


@dataclasses.dataclass(frozen=True)
class Counts(ImageText):
    """Returns what no loss can be differentiated by."""

    def forward(self, variables, batch, key, step):
        outputs = super().forward(variables, batch, key, step)
        return dataclasses.replace(outputs, sums={**outputs.sums, "images": jnp.sum(batch["caption"])})


@dataclasses.dataclass(frozen=True)
class Scalars(ImageText):
    """Returns a scalar among the rows."""

    def forward(self, variables, batch, key, step):
        outputs = super().forward(variables, batch, key, step)
        return dataclasses.replace(outputs, rows={**outputs.rows, "mean": jnp.float32(0)})


@pytest.mark.parametrize(
    ("objective", "message"), [(Counts(), "sums/images of type int32"), (Scalars(), "rows/mean as a scalar")]
)
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_outputs_that_cannot_be_joined_are_refused(objective, message, micro_batches):
    step = make_step(objective, OPTIMIZER, seed=0)
    state = jax.eval_shape(lambda: create(objective, OPTIMIZER, 0))
    with pytest.raises(ConfigError, match=message):
        jax.eval_shape(step, state, batch(micro_batches=micro_batches))
