"""The mesh, the one table of logical axes, and constraints. The only place that knows how arrays lie on devices.

Mesh axes: `data` replicates the model, `fsdp` shards its parameters over the width, `tensor` splits heads, MLP and vocabulary.
The batch is split over `data` and `fsdp`. What a training step changes lies over `data` too between steps (`spread_spec`).
`jax.set_mesh` must be active: under a bare `with mesh:` constraints silently do nothing.
"""

import dataclasses
import math
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from embed import hosts
from embed.errors import ConfigError

AXES = ("data", "fsdp", "tensor")
SPREAD_FROM = 1 << 16  # numbers: to exchange less takes longer than to keep and to update it everywhere
OF_HOST, OF_DEVICE = 0.7, 0.9  # shares of the memory that a program may need

# logical axis -> mesh axes. An axis whose size a mesh axis does not divide stays whole (see `spec`).
RULES = {
    "batch": ("data", "fsdp"),
    "vocab": ("tensor",),
    "width": ("fsdp",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "head_dim": (),
    "mlp": ("tensor",),
    "embedding": (),
    "hidden": ("tensor",),
    "layers": (),
    "length": (),
    "norm": (),
    "patch": (),
    "channels": (),
}


@dataclasses.dataclass(frozen=True)
class MeshShape:
    """Sizes of the mesh axes; one of them may be -1, which takes the devices that are left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


def legal_shapes(devices: int, max_count: int = 6) -> str:
    """Returns some (data, fsdp, tensor) that use exactly `devices`, for error messages."""
    shapes = [
        (d, f, devices // (d * f))
        for d in range(devices, 0, -1)
        if devices % d == 0
        for f in range(devices // d, 0, -1)
        if (devices // d) % f == 0
    ]
    return ", ".join(map(str, shapes[:max_count])) + (", ..." if len(shapes) > max_count else "")


def make_mesh(shape: MeshShape | None = None, devices=None) -> Mesh:
    """Returns the mesh of `shape` over all devices. A shape that does not use every device is a ConfigError."""
    shape = shape or MeshShape()
    devices = list(devices if devices is not None else jax.devices())
    sizes = [shape.data, shape.fsdp, shape.tensor]
    wrong = [s for s in sizes if s < 1 and s != -1]
    fixed = math.prod(s for s in sizes if s > 0)
    free = sizes.count(-1)
    if wrong or free > 1 or (free == 1 and len(devices) % fixed) or (free == 0 and fixed != len(devices)):
        raise ConfigError(
            f"mesh (data, fsdp, tensor) = {tuple(sizes)} does not fit {len(devices)} devices; "
            f"set MeshShape to one of {legal_shapes(len(devices))}"
        )
    sizes = [len(devices) // fixed if s == -1 else s for s in sizes]
    return Mesh(np.array(devices).reshape(sizes), AXES, axis_types=(AxisType.Auto,) * 3)


def serving_shape(shapes, devices: int, memory: float) -> MeshShape:
    """Returns the mesh on which a model is used whose parameters have these shapes: they lie over as few devices as leave free
    half of the `memory` of each, in bytes. The batch is split over all of them either way."""
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))
    enough = (n for n in range(1, devices) if devices % n == 0 and size / n <= memory / 2)
    return MeshShape(fsdp=next(enough, devices))


def spec(axes: tuple[str | None, ...], shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """Returns how an array with these logical axes lies on `mesh`; what does not divide evenly is replicated."""
    entries, used = [], set()
    for name, size in zip(axes, shape, strict=True):
        names = tuple(a for a in (RULES[name] if name else ()) if mesh.shape[a] > 1 and a not in used)
        if names and size % math.prod(mesh.shape[a] for a in names) == 0:
            entries.append(names if len(names) > 1 else names[0])
            used.update(names)
        else:
            entries.append(None)
    return PartitionSpec(*entries)


def spread_spec(axes: tuple[str | None, ...], shape: tuple[int, ...], mesh) -> PartitionSpec:
    """Returns how a variable lies between the steps of a training run: as `spec` says, and over `data` too.

    The first dimension that is whole and that `data` divides is split over it. Without one, and where the array is small, it
    lies as `spec` says.
    """
    entries = list(spec(axes, shape, mesh))
    over = mesh.shape["data"]
    if over > 1 and math.prod(shape) >= SPREAD_FROM:
        for dimension, (entry, size) in enumerate(zip(entries, shape)):
            if entry is None and size and size % over == 0:
                entries[dimension] = "data"
                break
    return PartitionSpec(*entries)


def shardings(axes, shapes, mesh: Mesh, *, spread=None):
    """Returns the tree of NamedShardings for trees of logical axes and of shaped values, by `spec`; where the tree `spread` is
    true, by `spread_spec`."""
    spread = jax.tree.map(lambda _: False, shapes) if spread is None else spread

    def of(names, x, is_spread):
        return NamedSharding(mesh, (spread_spec if is_spread else spec)(names, x.shape, mesh))

    return jax.tree.map(of, axes, shapes, spread, is_leaf=lambda x: isinstance(x, tuple))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of anything whose first dimension is the global batch."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a value that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_shards(mesh: Mesh) -> int:
    """Returns over how many shards the batch is split."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def check_batch_size(batch_size: int, mesh: Mesh, micro_batches: int = 1) -> None:
    """Raises ConfigError unless `batch_size` splits evenly into `micro_batches` over the mesh."""
    unit = batch_shards(mesh) * micro_batches
    if batch_size < 1 or batch_size % unit:
        low = max(unit, batch_size // unit * unit)
        raise ConfigError(
            f"batch_size = {batch_size} does not split over {batch_shards(mesh)} batch shards of the mesh"
            f"{f' times {micro_batches} micro-batches' if micro_batches > 1 else ''}; nearest legal sizes: {low} and {low + unit}"
        )


def process_rows(batch_size: int, mesh: Mesh) -> tuple[int, int]:
    """Returns the half-open range of global batch rows that this process must load."""
    index = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    starts = [s[0].start or 0 for s in index.values()]
    stops = [batch_size if s[0].stop is None else s[0].stop for s in index.values()]
    return min(starts), max(stops)


def to_global(batch, mesh: Mesh, batch_size: int):
    """Returns this process's rows (a tree of numpy arrays) as global arrays sharded over the batch."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, x, (batch_size, *x.shape[1:])), batch
    )


def constrain(x, *axes: str | None):
    """Returns `x` with its layout fixed to these logical axes; outside `jax.set_mesh` it is `x` itself."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or math.prod(mesh.shape.values()) == 1:
        return x
    return jax.lax.with_sharding_constraint(x, spec(axes, x.shape, mesh))


def laid_out(tree, axes, spread=None):
    """Returns a tree of variables, or of a gradient, with its layout fixed as `shardings` says."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape["data"] == 1:
        return tree
    return jax.tree.map(jax.lax.with_sharding_constraint, tree, shardings(axes, tree, mesh, spread=spread))


def split(axis: str, size: int) -> int:
    """Returns into how many parts a dimension of `size` with this logical axis is split on the mesh that is set."""
    mesh = jax.sharding.get_abstract_mesh()
    entry = () if mesh.empty else spec((axis,), (size,), mesh)[0] or ()
    return math.prod(mesh.shape[a] for a in ((entry,) if isinstance(entry, str) else entry))


def per_shard(function, inputs):
    """Returns `function` of arrays with these logical axes, run by every device on its own part of them.

    The result has the shape and the layout of the first array. Where arrays are not split it is `function` itself.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or math.prod(mesh.shape.values()) == 1:
        return function

    def run(*arrays):
        specs = tuple(spec(axes, x.shape, mesh) for axes, x in zip(inputs, arrays, strict=True))
        return jax.shard_map(function, in_specs=specs, out_specs=specs[0], check_vma=False)(*arrays)

    return run


def summed_by_shard(function, params, arrays):
    """Returns `function(params, *arrays)`, sums over the rows of `arrays`, of which every device takes its own.

    `params` are gathered at the start and their gradient is summed at the end. Each array's first dimension must be a multiple
    of the shards of the batch.
    """
    mesh = jax.sharding.get_abstract_mesh()
    axes = tuple(a for a in RULES["batch"] if not mesh.empty and mesh.shape[a] > 1)
    if not axes:
        return function(params, *arrays)
    rows, whole = PartitionSpec(axes), PartitionSpec()
    return jax.shard_map(
        lambda params, arrays: jax.lax.psum(function(params, *arrays), axes),
        in_specs=(whole, rows),
        out_specs=whole,
        axis_names=set(axes),
        check_vma=False,
    )(params, arrays)


def platform() -> str:
    """Returns what the program that is traced will run on, 'cpu', 'gpu' or 'tpu': by the mesh that is set, or as JAX begins."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    name = jax.default_backend() if device is None else device.platform
    return {"cuda": "gpu", "rocm": "gpu"}.get(name, name)


def split_batch(x, count: int):
    """Returns `x` [B, ...] as [count, B / count, ...]; every part has an even share of each device's rows, so none moves."""
    shards = shards_here()
    cut = x.reshape(shards, count, -1, *x.shape[1:])
    return constrain(_rows(jnp.moveaxis(cut, 1, 0), 1), None, "batch", *(None,) * (x.ndim - 1))


def join_batch(x):
    """Returns the parts of `split_batch` as they were, [B, ...]."""
    shards = shards_here()
    cut = x.reshape(x.shape[0], shards, -1, *x.shape[2:])
    return constrain(_rows(_rows(jnp.moveaxis(cut, 1, 0), 1), 0), "batch", *(None,) * (x.ndim - 2))


def _rows(x, axis: int):
    """Returns `x` with the dimensions `axis` and `axis` + 1 as one."""
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])


def shards_here() -> int:
    """Returns over how many shards the batch is split on the mesh that is set; 1 without one."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else batch_shards(mesh)


def device_memory(devices=None) -> float:
    """Returns the bytes that a program may take on a device of this host; all hosts that own some of the `devices` (default:
    all) agree on the least of theirs, and must all ask."""
    local = jax.local_devices()[0]
    stats = local.memory_stats() or {}
    if "bytes_limit" in stats:
        limit = OF_DEVICE * stats["bytes_limit"]
    else:
        limit = OF_HOST * _host_memory() / jax.local_device_count()
    several = any(d.process_index != jax.process_index() for d in devices or jax.devices())
    return hosts.least(limit) if several else limit


def _host_memory() -> float:
    """Returns the memory of this machine in bytes, or of the container that the process runs in."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = pathlib.Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    return min(total, int(text)) if text.isdigit() else total
