"""Sums in chunks: values and gradients on every mesh, and that what a chunk reads is gathered once and not once a chunk."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from embed import sharding
from embed.losses.chunks import chunked_sums

N, D, V = 24, 8, 12


def arrays():
    random = np.random.default_rng(0)
    return random.normal(size=(N, D)), random.normal(size=(V, D)), random.random(N) < 0.7


def loss(table, states, mask, size):
    """Returns a sum over rows that is nonlinear in both arrays."""

    def sums(table, states, mask):
        logits = jnp.einsum("ND,VD->NV", states, table)
        return {"loss": jnp.sum(jnp.where(mask, jax.nn.logsumexp(logits, -1), 0.0)), "count": jnp.sum(mask)}

    found = chunked_sums(sums, table, (states, mask), size)
    return found["loss"], found["count"]


def in_float64(table, states, mask):
    """Returns the sum and its gradient by the table, by numpy."""
    exponentials = np.exp(states @ table.T)
    p = exponentials / exponentials.sum(-1, keepdims=True)
    return np.sum(np.log(exponentials.sum(-1))[mask]), (p * mask[:, None]).T @ states


@pytest.mark.parametrize("size", [1, 5, 100])
def test_values_and_gradients_by_chunks_of_any_size(size):
    states, table, mask = arrays()
    with jax.enable_x64(True):
        (value, count), gradient = jax.value_and_grad(loss, has_aux=True)(table, states, mask, size)
    expected, expected_gradient = in_float64(table, states, mask)
    assert float(value) == pytest.approx(expected, rel=1e-12)
    assert int(count) == mask.sum()
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 1, 1), (1, 4, 1), (1, 1, 2), (2, 2, 2)])
def test_every_mesh_gives_the_same_and_gathers_once(shape):
    states, table, mask = arrays()
    mesh = sharding.make_mesh(sharding.MeshShape(*shape), jax.devices()[: math.prod(shape)])
    lies = NamedSharding(mesh, sharding.spec(("vocab", "width"), table.shape, mesh))
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    with jax.enable_x64(True), jax.set_mesh(mesh):
        step = jax.jit(
            jax.value_and_grad(lambda *x: loss(*x, 1), has_aux=True),
            in_shardings=(lies, rows, rows),
            out_shardings=(None, lies),
        )
        program = step.lower(table, states, mask).compile().as_text()
        (value, count), gradient = step(table, states, mask)
    expected, expected_gradient = in_float64(table, states, mask)
    assert float(value) == pytest.approx(expected, rel=1e-12)
    assert int(count) == mask.sum()
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-10, atol=1e-12)
    if shape[2] == 1:  # logits of a split vocabulary are exchanged in every chunk
        bodies = [c for c in re.split(r"\n(?=\S)", program) if re.match(r"%?\S*(body|region)", c)]
        assert bodies
        exchanges = re.compile(r" (all-gather|all-reduce|reduce-scatter)\S*\(")
        assert not [line for c in bodies for line in c.splitlines() if exchanges.search(line)]
