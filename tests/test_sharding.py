"""Meshes, layouts of arrays on them, and what happens to sizes that do not fit."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from embed import sharding
from embed.errors import ConfigError
from embed.sharding import MeshShape

LEGAL = [(d, f, 8 // (d * f)) for d in (1, 2, 4, 8) for f in (1, 2, 4, 8) if d * f <= 8]
WRONG = [
    (d, f, t) for d in (0, 1, 2, 3, 4, 8) for f in (-2, 1, 2, 3, 8) for t in (1, 2, 5, 8) if (d, f, t) not in LEGAL
]


def make(d, f, t):
    return sharding.make_mesh(MeshShape(d, f, t))


# make_mesh


@pytest.mark.parametrize("sizes", LEGAL)
def test_every_factorisation_of_the_devices_is_a_mesh(sizes):
    mesh = make(*sizes)
    assert tuple(mesh.shape.items()) == tuple(zip(("data", "fsdp", "tensor"), sizes))
    assert sorted(d.id for d in mesh.devices.flat) == [d.id for d in jax.devices()]


@pytest.mark.parametrize(
    "given, wanted",
    [
        ((-1, 1, 1), (8, 1, 1)),
        ((-1, 2, 2), (2, 2, 2)),
        ((2, -1, 1), (2, 4, 1)),
        ((1, 2, -1), (1, 2, 4)),
        ((8, -1, 1), (8, 1, 1)),
    ],
)
def test_minus_one_takes_the_devices_that_are_left(given, wanted):
    assert tuple(make(*given).shape.values()) == wanted


def test_the_default_mesh_is_all_data():
    assert tuple(sharding.make_mesh().shape.values()) == (8, 1, 1)


def test_a_mesh_of_some_devices():
    assert tuple(sharding.make_mesh(MeshShape(1, 1, 1), jax.devices()[:1]).shape.values()) == (1, 1, 1)
    assert tuple(sharding.make_mesh(devices=jax.devices()[:3]).shape.values()) == (3, 1, 1)


@pytest.mark.parametrize(
    "sizes", [*WRONG, (-1, -1, 1), (-1, -1, -1), (3, -1, 1), (-1, 5, 1), (-1, 0, 1), (16, -1, 1), (-8, 1, 1)]
)
def test_a_wrong_shape_is_refused_with_legal_ones(sizes):
    with pytest.raises(ConfigError) as caught:
        make(*sizes)
    message = str(caught.value)
    assert str(tuple(sizes)) in message and "8 devices" in message
    named = [tuple(map(int, m)) for m in re.findall(r"\((\d+), (\d+), (\d+)\)", message.partition("one of")[2])]
    assert named and set(named) <= set(LEGAL)


@pytest.mark.parametrize("devices", range(1, 17))
def test_legal_shapes_lists_each_factorisation_once(devices):
    named = re.findall(r"\((\d+), (\d+), (\d+)\)", sharding.legal_shapes(devices, max_count=1000))
    found = [tuple(map(int, m)) for m in named]
    wanted = {
        (d, f, t)
        for d in range(1, devices + 1)
        for f in range(1, devices + 1)
        for t in range(1, devices + 1)
        if d * f * t == devices
    }
    assert len(found) == len(set(found)) and set(found) == wanted


# check_batch_size


@pytest.mark.parametrize("sizes", LEGAL)
@pytest.mark.parametrize("parts", [1, 3])
def test_batch_sizes_that_split_pass_and_others_name_legal_ones(sizes, parts):
    mesh = make(*sizes)
    unit = sizes[0] * sizes[1] * parts
    assert sharding.batch_shards(mesh) == sizes[0] * sizes[1]
    for batch_size in range(-1, 70):
        if batch_size > 0 and batch_size % unit == 0:
            sharding.check_batch_size(batch_size, mesh, parts)
            continue
        with pytest.raises(ConfigError, match=f"batch_size = {batch_size} ") as caught:
            sharding.check_batch_size(batch_size, mesh, parts)
        low, high = map(int, re.search(r"legal sizes: (\d+) and (\d+)$", str(caught.value)).groups())
        assert low > 0 and low % unit == 0 and high % unit == 0
        assert low <= max(batch_size, unit) < high and high - low == unit
        assert ("micro-batches" in str(caught.value)) == (parts > 1)


# spec


@pytest.mark.parametrize(
    "axes, shape, wanted",
    [
        (("vocab", "width"), (64, 16), P("tensor", "fsdp")),
        (("vocab", "width"), (63, 16), P(None, "fsdp")),
        (("width", "heads", "head_dim"), (16, 4, 8), P("fsdp", "tensor", None)),
        (("width", "kv_heads", "head_dim"), (16, 1, 8), P("fsdp", None, None)),
        (("width", "kv_heads", "head_dim"), (15, 2, 8), P(None, "tensor", None)),
        (("layers", "width", "mlp"), (3, 16, 32), P(None, "fsdp", "tensor")),
        (("batch", "length", None), (8, 5, 16), P(("data", "fsdp"), None, None)),
        (("batch", "width"), (8, 16), P(("data", "fsdp"), None)),
        (("heads", "mlp"), (4, 4), P("tensor", None)),
        ((), (), P()),
    ],
)
def test_spec_shards_what_divides_and_replicates_the_rest(axes, shape, wanted):
    assert sharding.spec(axes, shape, make(2, 2, 2)) == wanted


def test_spec_leaves_axes_of_one_device_out():
    assert sharding.spec(("batch", "width"), (8, 16), make(8, 1, 1)) == P("data", None)
    assert sharding.spec(("vocab", "width"), (64, 16), make(1, 1, 8)) == P("tensor", None)


def test_spec_refuses_axes_that_are_not_as_many_as_dimensions():
    with pytest.raises(ValueError):
        sharding.spec(("batch",), (8, 16), make(2, 2, 2))


@pytest.mark.parametrize("sizes", LEGAL)
def test_any_array_can_be_laid_out_on_any_mesh(sizes):
    mesh = make(*sizes)
    draw = np.random.default_rng(sum(sizes))
    for _ in range(30):
        axes = tuple(draw.choice([*sharding.RULES, None], size=draw.integers(0, 4)))
        x = draw.standard_normal(tuple(draw.integers(1, 17, size=len(axes)))).astype(np.float32)
        placed = jax.device_put(x, jax.sharding.NamedSharding(mesh, sharding.spec(axes, x.shape, mesh)))
        np.testing.assert_array_equal(np.asarray(placed), x)


def test_shardings_follow_the_tree():
    mesh = make(2, 2, 2)
    axes = {"a": {"kernel": ("width", "mlp")}, "b": ("norm",)}
    shapes = {"a": {"kernel": jax.ShapeDtypeStruct((4, 6), jnp.float32)}, "b": jax.ShapeDtypeStruct((4,), jnp.float32)}
    found = sharding.shardings(axes, shapes, mesh)
    assert found["a"]["kernel"].spec == P("fsdp", "tensor") and found["b"].spec == P(None)


# constrain


def test_constrain_is_the_identity_outside_a_mesh():
    x = jnp.ones((8, 4))
    assert sharding.constrain(x, "batch", "width") is x
    text = str(jax.make_jaxpr(lambda y: sharding.constrain(y, "batch", "width"))(x))
    assert "sharding_constraint" not in text


def test_constrain_shards_inside_a_mesh():
    mesh = make(2, 2, 2)
    x = jnp.arange(8 * 6 * 4.0).reshape(8, 6, 4)
    with jax.set_mesh(mesh):
        y = jax.jit(lambda a: sharding.constrain(a + 0, "batch", "length", "heads"))(x)
        y.block_until_ready()
    assert y.sharding.spec == P(("data", "fsdp"), None, "tensor")
    assert {s.data.shape for s in y.addressable_shards} == {(2, 6, 2)}
    np.testing.assert_array_equal(np.asarray(y), np.asarray(x))


def test_constrain_replicates_what_does_not_divide():
    with jax.set_mesh(make(2, 2, 2)):
        y = jax.jit(lambda a: sharding.constrain(a + 0, "batch", "kv_heads"))(jnp.ones((8, 1)))
        y.block_until_ready()
    assert {s.data.shape for s in y.addressable_shards} == {(2, 1)}


# what a process loads


@pytest.mark.parametrize("sizes", LEGAL)
def test_a_single_process_loads_every_row(sizes):
    assert sharding.process_rows(16, make(*sizes)) == (0, 16)


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 2, 2), (1, 1, 8)])
def test_local_rows_become_global_arrays(sizes):
    mesh = make(*sizes)
    batch = {"query": np.arange(16 * 3, dtype=np.int32).reshape(16, 3), "query_length": np.arange(16, dtype=np.int32)}
    made = sharding.to_global(batch, mesh, 16)
    for name, value in batch.items():
        np.testing.assert_array_equal(np.asarray(made[name]), value)
        assert made[name].sharding.is_equivalent_to(sharding.batch_sharding(mesh), value.ndim)
        rows = {s.data.shape[0] for s in made[name].addressable_shards}
        assert rows == {16 // (sizes[0] * sizes[1])}


def test_replicated_lies_whole_on_every_device():
    x = jax.device_put(np.ones((3, 5)), sharding.replicated(make(2, 2, 2)))
    assert len(x.addressable_shards) == 8 and {s.data.shape for s in x.addressable_shards} == {(3, 5)}


def test_memory_is_that_of_this_machine_shared_by_its_devices():
    found = sharding.device_memory()
    assert 1e7 < found < 1e14
    assert found == pytest.approx(0.7 * sharding._host_memory() / 8)  # tests run on eight simulated devices


@pytest.mark.parametrize(
    ("size", "devices", "fsdp"),
    [
        (1, 8, 1),
        (50, 8, 1),
        (51, 8, 2),
        (101, 8, 4),
        (400, 8, 8),
        (9999, 8, 8),
        (60, 6, 2),
        (120, 6, 3),
        (9, 1, 1),
        (99, 1, 1),
    ],
)
def test_a_model_is_used_on_as_few_devices_as_hold_it_with_room(size, devices, fsdp):
    shape = sharding.serving_shape([jax.ShapeDtypeStruct((size,), np.int8)], devices, memory=100)
    assert (shape.data, shape.fsdp, shape.tensor) == (-1, fsdp, 1)
