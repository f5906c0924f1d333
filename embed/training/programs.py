"""The compiled steps of a run: one for each shape of batch, with the batch cut into as few micro-batches as memory takes."""

import dataclasses
import math
from collections.abc import Callable

import jax

from embed import console, hosts, sharding
from embed.data.loader import Batches
from embed.errors import DoesNotFit
from embed.training import reports
from embed.types import Batch


class Programs:
    """A function of a state and a batch, compiled once for every shape of batch; for the largest when it is made.

    `state` holds the shapes and the layout of the first argument. A `step` gives it back, laid out alike, with its metrics, and it
    is donated; what else the function returns is replicated.
    """

    def __init__(self, function: Callable, state, batches: Batches, mesh, *, step: bool = True):
        result, placed = sharding.replicated(mesh), jax.tree.map(lambda x: x.sharding, state)
        options = {"donate_argnums": 0, "out_shardings": (placed, result)} if step else {"out_shardings": result}
        self._jitted = jax.jit(function, **options)
        self._what = "a training step" if step else "a validation step"
        self._state, self._shards, self._compiled = state, batches.shards, {}
        self._devices = list(mesh.devices.flat)
        self._over_batch = sharding.batch_sharding(mesh)
        self.largest = self._program(Batch(batches.largest(), batches.max_segments))

    def __call__(self, state, batch):
        return self._program(batch)(state, batch)

    def _program(self, batch):
        key = tuple((name, x.shape[1:]) for name, x in sorted(batch.items()))
        if key not in self._compiled:
            shapes = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct((self._shards, *x.shape[1:]), x.dtype, sharding=self._over_batch), batch
            )
            self._compiled[key] = self._jitted.lower(self._state, shapes).compile()
            hosts.meet(self._devices, f"{self._what} is compiled")
        return self._compiled[key]


def fit(
    make: Callable[[Batches], Programs], batches: Batches, micro_batches: int | None, room: float
) -> tuple[Batches, Programs]:
    """Returns the batches cut into `micro_batches`, and their programs.

    None takes as few as leave the largest step within `room` bytes a device, by the compiler's own count. A batch that
    does not fit even pair by pair is a DoesNotFit.
    """
    if micro_batches is not None:
        batches = dataclasses.replace(batches, micro_batches=micro_batches)
        return batches, make(batches)
    pairs = batches.examples.batch_size // batches.shards
    count = 1
    while True:
        cut = dataclasses.replace(batches, micro_batches=count)
        try:
            programs = make(cut)
            fixed, temporary = reports.memory(programs.largest) or (0, 0)
        except jax.errors.JaxRuntimeError as e:  # some compilers refuse what their device cannot hold
            if "RESOURCE_EXHAUSTED" not in str(e):
                raise
            fixed, temporary = 0, 2 * room
        if fixed + temporary <= room:
            return cut, programs
        ratio = temporary / (room - fixed) if room > fixed else math.inf
        finer = [n for n in range(count + 1, pairs + 1) if pairs % n == 0]
        if not finer or ratio == math.inf:
            raise DoesNotFit(
                f"batch_size = {batches.examples.batch_size}: a step needs {console.size_text(fixed + temporary)} a device "
                f"in {count} micro-batches, and there are {console.size_text(room)}; take a smaller batch, shorter lengths, "
                "more devices for MeshShape.fsdp, or say Recipe.micro_batches yourself"
            )
        count = next((n for n in finer if n >= count * ratio), finer[-1])
