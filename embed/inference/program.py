"""A model's method compiled for one mesh, and run batch by batch."""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterable, Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from embed import hosts, sharding
from embed.errors import NumericError
from embed.types import Params

_STUCK = 1800.0  # seconds that a batch may take, its compilation included, until hosts of one run call it stuck
_WAITING = 2  # batches that are queued on the device while it computes


Function = Callable[[Params, Mapping[str, jax.Array]], jax.Array]


@functools.lru_cache(maxsize=256)
def shared(make: Callable[..., Function], *given: Hashable) -> Function:
    """Returns `make(*given)`, for equal arguments the same object: JAX traces and compiles it once in a process."""
    return make(*given)


@dataclasses.dataclass(frozen=True)
class Program:
    """`function(params, arrays)` gives vectors [n, E] of a batch; `items` names what is embedded, for messages."""

    function: Function
    mesh: Mesh
    items: str

    @functools.cached_property
    def _apply(self):
        return jax.jit(self.function, out_shardings=sharding.replicated(self.mesh))

    @functools.cached_property
    def _spans_hosts(self) -> bool:
        return len({device.process_index for device in self.mesh.devices.flat}) > 1

    @functools.cached_property
    def _met(self) -> set[tuple]:
        """The shapes of batches that this host has run."""
        return set()

    def lowered(self, params: Params, shapes: Mapping[str, jax.ShapeDtypeStruct]):
        """Returns the program for such batches, lowered and not compiled; of the parameters shapes and layout are enough."""
        placed = sharding.batch_sharding(self.mesh)
        arrays = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placed) for name, x in shapes.items()}
        return self._apply.lower(params, arrays)

    def run(
        self,
        params: Params,
        batches: Iterable[Mapping[str, np.ndarray]],
        done: Callable[[int, np.ndarray], None],
        progress: Callable[[int], None] = lambda number: None,
    ) -> None:
        """Runs `batches`, whose arrays lead with a multiple of the mesh's batch shards.

        `done(number, vectors)` gets the vectors of every batch in order, and `progress(number)` is called when one was handed to
        the device.
        """
        waiting: list[tuple[int, jax.Array]] = []
        collect = lambda number, vectors: done(number, np.asarray(vectors))  # noqa: E731
        with jax.set_mesh(self.mesh):
            for number, batch in enumerate(batches):
                hosts.at(f"embedding {self.items}", _STUCK)
                waiting.append((number, self._run(params, batch)))
                if len(waiting) > _WAITING:  # keep the device busy without queueing everything
                    collect(*waiting.pop(0))
                progress(number)
            for item in waiting:
                collect(*item)
        hosts.at(f"{self.items} are embedded")

    def _run(self, params: Params, batch: Mapping[str, np.ndarray]) -> jax.Array:
        height = len(next(iter(batch.values())))
        start, stop = sharding.process_rows(height, self.mesh)
        placed = sharding.to_global({name: x[start:stop] for name, x in batch.items()}, self.mesh, height)
        shapes = tuple(x.shape for x in batch.values())
        if self._spans_hosts and shapes not in self._met:
            self._apply.lower(params, placed).compile()
            hosts.meet(self.mesh.devices.flat, "an encoding step is compiled")
            self._met.add(shapes)
        result = self._apply(params, placed)
        if jax.default_backend() == "cpu":
            result.block_until_ready()
        return result


def check_finite(vectors: np.ndarray, item: str) -> None:
    """Raises NumericError, with the position, for the first vector that is not finite."""
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        position = int(np.argmin(finite))
        raise NumericError(
            f"the vector of {item} {position} of {len(vectors)} is not finite; look at the model's weights"
        )
